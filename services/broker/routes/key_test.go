// SPDX-License-Identifier: Apache-2.0

package routes_test

import (
	"testing"

	"github.com/manormq/manor/services/broker/routes"
)

// The bytes of names and values last in stores and cross between versions.
func TestKey(t *testing.T) {
	for _, c := range []struct {
		key   routes.Key
		bytes string
	}{
		{routes.Key{Tenant: "acme", Filter: "a/+/#", Partition: 0x0102}, "\x01\x01\x02\x04acmea/+/#"},
		{routes.Key{Tenant: "x", Filter: "$share/g/a", Partition: 65535}, "\x01\xff\xff\x01x$share/g/a"},
	} {
		if got := c.key.Name(); got != c.bytes {
			t.Errorf("%+v is %q, expected %q", c.key, got, c.bytes)
		}
		if k, err := routes.ParseKey(c.bytes); err != nil || k != c.key {
			t.Errorf("%q is %+v, %v", c.bytes, k, err)
		}
	}
	for _, bad := range []string{"", "\x01\x00\x00", "\x01\x00\x00\x00f", "\x02\x00\x00\x01xf", "\x01\x00\x00\x01x", "\x01\x00\x00\x09x"} {
		if k, err := routes.ParseKey(bad); err == nil {
			t.Errorf("%q is %+v", bad, k)
		}
	}
	if g, err := routes.ParseGroupState([]byte{0x90, 0x01, 3, 2}); err != nil || g != (routes.GroupState{Members: 144, Online: 3, Durable: 2}) {
		t.Error(g, err)
	}
	for _, bad := range []string{"", "\x01\x01", "\x01\x02\x00", "\x00\x00\x00", "\x01\x01\x01\x01", "\xff\xff\xff\xff\xff\x01\x00\x00"} {
		if g, err := routes.ParseGroupState([]byte(bad)); err == nil {
			t.Errorf("%q is %+v", bad, g)
		}
	}
}

// What is read is written the same way again.
func FuzzParse(f *testing.F) {
	f.Add(routes.Key{Tenant: "acme", Filter: "a/+/#", Partition: 7}.Name(), []byte{3, 2, 1})
	f.Add("\x01\x00\x00\x00", []byte{1, 2})
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		if k, err := routes.ParseKey(name); err == nil && k.Name() != name {
			t.Errorf("%q is %+v, which is %q", name, k, k.Name())
		}
		if g, err := routes.ParseGroupState(value); err == nil && (g.Members < 1 || g.Online > g.Members || g.Durable > g.Members) {
			t.Errorf("%x is %+v", value, g)
		}
	})
}
