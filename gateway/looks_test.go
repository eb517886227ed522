// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"testing"
)

// Of thousands of tenants that are far from their limits each is looked at once in rareEvery
// intervals, about as many in each; who is near one, or waits, in each, from the next on.
func TestLooks(t *testing.T) {
	const n = 100
	var l looks
	found := map[string]finding{}
	var all []*look
	for i := range n {
		x := &look{state: &tenantState{tenant: fmt.Sprint(i)}}
		all = append(all, x)
		found[x.state.tenant] = foundCalm
	}
	seen := map[string]int{}
	interval := func(added ...*look) (looked int) {
		l.near = append(l.near, added...)
		once := map[string]bool{}
		l.each(func(x *look) finding {
			if once[x.state.tenant] {
				t.Fatalf("%s is looked at twice in an interval", x.state.tenant)
			}
			once[x.state.tenant] = true
			seen[x.state.tenant]++
			return found[x.state.tenant]
		})
		return len(once)
	}
	for i := range rareEvery {
		interval(all[i*n/rareEvery : (i+1)*n/rareEvery]...)
	}
	for range 2 * rareEvery {
		interval()
	}
	for range 3 * rareEvery {
		if looked := interval(); looked != n/rareEvery {
			t.Errorf("%d are looked at in an interval, expected %d", looked, n/rareEvery)
		}
	}

	hurry, waits := all[7], all[8]
	found[hurry.state.tenant] = foundUse // is seen in its turn
	for range rareEvery {
		interval()
	}
	if !waits.state.meters.pace.hasten() || waits.state.meters.pace.hasten() {
		t.Error("expected exactly the first to have to add it to what is near")
	}
	found[waits.state.tenant] = foundUse
	l.hasten(waits)
	l.hasten(waits)
	clear(seen)
	for range rareEvery {
		interval()
	}
	for _, x := range []*look{hurry, waits} {
		if seen[x.state.tenant] != rareEvery {
			t.Errorf("%s is looked at %d times in %d intervals, expected in each", x.state.tenant, seen[x.state.tenant], rareEvery)
		}
	}

	found[hurry.state.tenant], found[all[9].state.tenant], found[all[10].state.tenant] = foundCalm, foundIdle, foundIdle
	for range 3 * rareEvery {
		interval()
	}
	clear(seen)
	for range rareEvery {
		interval()
	}
	if seen[hurry.state.tenant] != 1 {
		t.Errorf("it is calm again, and looked at %d times in %d intervals, expected once", seen[hurry.state.tenant], rareEvery)
	}
	if seen[all[9].state.tenant]+seen[all[10].state.tenant] != 0 {
		t.Error("idle ones are looked at still")
	}
	// One that is hastened before its old entry's turn has come, and calms down at once.
	l.hasten(all[11])
	for range 4 * rareEvery {
		interval()
	}
	clear(seen)
	for range rareEvery {
		interval()
	}
	if seen[all[11].state.tenant] != 1 {
		t.Errorf("looked at %d times in %d intervals, expected once", seen[all[11].state.tenant], rareEvery)
	}
}

// A wait that begins while the tenant is looked at, and found calm, is not left to its next turn.
func TestLooks_WaitsMeanwhile(t *testing.T) {
	var l looks
	x := &look{state: &tenantState{tenant: "a"}}
	m := &x.state.meters
	l.near = append(l.near, x)
	looked := 0
	for range 2 * rareEvery {
		l.each(func(*look) finding {
			if looked++; looked == rareEvery {
				m.waited[0].Store(true)
				m.pace.hasten()
			}
			return foundCalm
		})
		if m.waited[0].Load() && len(l.near) == 0 {
			t.Fatalf("after %d looks somebody waits, and it is looked at rarely", looked)
		}
	}
}
