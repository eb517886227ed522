// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTenantRecord(t *testing.T) {
	in := &TenantRecord{
		ID: "acme", Organization: "org_1", Region: "local", Plan: "dev", State: StateActive,
		Overrides: map[string]int64{"connections": 5, "quota_of_tomorrow": 7},
	}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := DecodeTenant(b, 9)
	if err != nil {
		t.Fatal(err)
	}
	in.Revision = 9
	if d := cmp.Diff(in, out); d != "" {
		t.Error(d)
	}
	tn, err := out.Tenant("eu.example")
	if err != nil {
		t.Fatal(err)
	}
	if tn.Hostname != "acme.eu.example" || tn.Limits.Connections != 5 || tn.Limits.Sinks != 100 || tn.Revision != 9 || !tn.Active() {
		t.Errorf("got %+v", tn)
	}
	c := out.Clone()
	c.Overrides["connections"] = 6
	if out.Overrides["connections"] != 5 {
		t.Error("the clone shares its overrides")
	}
}

func TestCredentialKey(t *testing.T) {
	for _, name := range []string{"a", "sensor-1", "a:b/c d", "é\u2028", "....", ">", "*"} {
		key := CredentialKey("acme", name)
		tenant, username, ok := ParseCredentialKey(key)
		if !ok || tenant != "acme" || username != name {
			t.Errorf("%q became %q, %q, %v", name, tenant, username, ok)
		}
	}
	for _, key := range []string{"acme", "acme.!", ""} {
		if _, _, ok := ParseCredentialKey(key); ok {
			t.Errorf("%q was read as a key", key)
		}
	}
}
