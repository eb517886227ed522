// SPDX-License-Identifier: Apache-2.0

package session

import (
	"math/rand/v2"
	"testing"
)

// flights behave as a map does, and give new identifiers in turn.
func TestFlights(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var f flights
	naive := map[uint16]delivery{}
	last := uint16(0)
	for step := range 200_000 {
		switch most := 1 + step/50; {
		case len(naive) < most && rng.IntN(3) > 0:
			id := f.next(last)
			if _, taken := naive[id]; taken || id == 0 {
				t.Fatalf("step %d: identifier %d is taken", step, id)
			}
			last = id
			d := delivery{id: id, seq: uint64(step), state: SentQoS1}
			f.put(d)
			naive[id] = d
		default:
			for id := range naive { // any
				f.remove(id)
				delete(naive, id)
				break
			}
		}
		if f.n != len(naive) {
			t.Fatalf("step %d: %d deliveries, expected %d", step, f.n, len(naive))
		}
		id := uint16(rng.IntN(1 << 16))
		if d, ok := naive[id]; ok != (f.get(id) != nil) || ok && *f.get(id) != d {
			t.Fatalf("step %d: identifier %d: %v, expected %v", step, id, f.get(id), d)
		}
	}
	seen := 0
	f.each(func(d *delivery) {
		seen++
		if naive[d.id] != *d {
			t.Errorf("%v, expected %v", *d, naive[d.id])
		}
	})
	if seen != len(naive) {
		t.Errorf("%d visited, expected %d", seen, len(naive))
	}
}

// What is restored may have any identifiers; all 65,535 can be in flight, and no
// more.
func TestFlights_Full(t *testing.T) {
	var f flights
	for _, id := range []uint16{1, 1 << 15, 1 << 14, 65535} {
		f.put(delivery{id: id})
	}
	for id := uint16(0); f.n < 65535; {
		id = f.next(id)
		f.put(delivery{id: id})
	}
	if id := f.next(7); id != 0 {
		t.Errorf("identifier %d, expected none", id)
	}
	f.remove(300)
	if id := f.next(7); id != 300 {
		t.Errorf("identifier %d, expected 300", id)
	}
}

// A message that is never acknowledged holds up no identifier but its own.
func TestFlights_StuckOne(t *testing.T) {
	var f flights
	id := f.next(0)
	f.put(delivery{id: id})
	for range 100_000 {
		if id = f.next(id); id == 1 {
			t.Fatal("the stuck identifier was given again")
		}
		f.put(delivery{id: id})
		f.remove(id)
	}
	if len(f.slots) > 8 {
		t.Errorf("%d places for two deliveries", len(f.slots))
	}
}

// A burst leaves no large table behind, though one message of it is stuck.
func TestFlights_ShrinkAfterABurst(t *testing.T) {
	var f flights
	id := uint16(0)
	for range 30_000 {
		id = f.next(id)
		f.put(delivery{id: id})
	}
	for id := uint16(2); id <= 30_000; id++ {
		f.remove(id)
	}
	if f.n != 1 || f.get(1) == nil {
		t.Fatalf("%d deliveries are left, expected the first", f.n)
	}
	if len(f.slots) > keepSlots {
		t.Errorf("%d places for one delivery", len(f.slots))
	}
}
