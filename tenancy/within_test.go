// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"math/rand/v2"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
)

// What a grant within another allows is what both allow, of random grants.
func TestGrant_Within(t *testing.T) {
	tried := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		a, b := randomWorld(r), randomWorld(r)
		first, err1 := NewGrantSet(3, "a", a.entries)
		second, err2 := NewGrantSet(0, "b", b.entries)
		if err1 != nil || err2 != nil {
			continue // a filter that is none
		}
		tried++
		one, limit := first.Bind(&a.who), second.Bind(&b.who)
		both := one.Within(limit)
		if both.Revision != one.Revision || both.Default() {
			t.Fatal("a grant within another is not told from its first")
		}
		for _, name := range allNames() {
			topic := []byte(name)
			for q := mqtt.AtMostOnce; q <= mqtt.ExactlyOnce; q++ {
				for _, retain := range []bool{false, true} {
					want := one.MayPublish(topic, q, retain) && limit.MayPublish(topic, q, retain)
					if both.MayPublish(topic, q, retain) != want {
						t.Fatalf("seed %d: publish to %s at %v, retain %v: want %v", seed, name, q, retain, want)
					}
				}
			}
			if want := one.MayReceive(topic) && limit.MayReceive(topic); both.MayReceive(topic) != want {
				t.Fatalf("seed %d: receive %s: want %v", seed, name, want)
			}
			for _, filter := range []string{name, name + "/#", "$share/g/" + name, "+/x/#"} {
				q1, ok1 := one.MaySubscribe(filter)
				q2, ok2 := limit.MaySubscribe(filter)
				if q, ok := both.MaySubscribe(filter); ok != (ok1 && ok2) || ok && q != min(q1, q2) {
					t.Fatalf("seed %d: subscribe %s: %v at %v", seed, filter, ok, q)
				}
			}
		}
	}
	if tried < 200 {
		t.Errorf("only %d pairs of grants were tried", tried)
	}
	if g := DefaultGrant(); g.Within(nil) != g {
		t.Error("no limit makes another grant")
	}
	limit, err := NewGrant(0, []string{"a/#"}, []string{"b"})
	if err != nil {
		t.Fatal(err)
	}
	g := DefaultGrant().Within(limit)
	if g.MayPublish([]byte("b"), 0, false) || !g.MayPublish([]byte("a/x"), 1, true) || g.MayPublish([]byte("$SYS/a"), 0, false) {
		t.Error("the default grant is not limited")
	}
}
