// SPDX-License-Identifier: Apache-2.0

package retain

import (
	"fmt"
	"slices"
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/mqtt"
)

func retained(topic, payload string, qos mqtt.QoS, expireAt int64) *Retained {
	return &Retained{
		Message:  mqtt.Message{Topic: []byte(topic), Payload: []byte(payload), Properties: []byte{3, 0, 1, 'x'}, QoS: qos, Retain: true},
		ExpireAt: expireAt, StoredAt: 77,
	}
}

func matches(s *Space, tenant, filter, after string) (out []string) {
	s.Match(tenant, filter, []byte(after), func(name []byte, r *Retained) bool {
		out = append(out, fmt.Sprintf("%s=%s qos %d expires %d stored %d props %d", name, r.Message.Payload, r.Message.QoS, r.ExpireAt, r.StoredAt, len(r.Message.Properties)))
		return true
	})
	return out
}

// What is put is matched, per tenant and in order, and is there again after a
// restart with its QoS, its deadline and its properties; what is deleted is not.
func TestRestore(t *testing.T) {
	store := mem.New()
	s := New(5)
	var b kv.Batch
	s.Put("one", retained("a/1", "old", 1, 0), &b)
	if old := s.Put("one", retained("a/1", "new", 2, 99), &b); old == nil || string(old.Message.Payload) != "old" {
		t.Fatalf("replaced %+v", old)
	}
	s.Put("one", retained("a/2", "gone", 0, 0), &b)
	s.Put("one", retained("b", "b", 0, 0), &b)
	s.Put("two", retained("a/1", "other tenant", 1, 0), &b)
	if old := s.Delete("one", []byte("a/2"), &b); old == nil {
		t.Fatal("nothing deleted")
	}
	if old := s.Delete("one", []byte("a/2"), &b); old != nil {
		t.Fatal("deleted twice")
	}
	if err := store.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	again := New(5)
	count := map[string]int{}
	if err := again.Restore(store, func(tenant string, _ *Retained) { count[tenant]++ }); err != nil {
		t.Fatal(err)
	}
	if count["one"] != 2 || count["two"] != 1 {
		t.Errorf("restored %v", count)
	}
	for _, x := range []*Space{s, again} {
		want := []string{"a/1=new qos 2 expires 99 stored 77 props 4", "b=b qos 0 expires 0 stored 77 props 4"}
		if got := matches(x, "one", "#", ""); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		if got := matches(x, "one", "#", "a/1"); !slices.Equal(got, want[1:]) {
			t.Errorf("after a/1: %q", got)
		}
		if got := matches(x, "three", "#", ""); got != nil {
			t.Errorf("a tenant without messages has %q", got)
		}
	}
	other := New(6)
	if err := other.Restore(store, func(string, *Retained) { t.Error("another partition's message") }); err != nil {
		t.Fatal(err)
	}
}

func TestUnreadableRecords(t *testing.T) {
	for _, b := range [][]byte{nil, {1}, make([]byte, 19), append([]byte{1, 1}, make([]byte, 16)...), append(append([]byte{1, 1}, make([]byte, 16)...), 200)} {
		if _, err := parseRetained("a", b); err == nil {
			t.Errorf("% x was read", b)
		}
	}
	if r := retained("t", "p", 1, 50); r.Expired(49) || !r.Expired(50) {
		t.Error("expiry is off")
	}
}
