// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"math/rand/v2"
	"testing"
)

// Everything is looked at when it is due, a tick late at most, and never before.
func TestWheel(t *testing.T) {
	const start = 1_000_000
	rng := rand.New(rand.NewPCG(1, 2))
	w := wheel{tick: start / wheelTick}
	due := map[*timed]int64{}
	for range 2_000 {
		x := &timed{}
		due[x] = start + rng.Int64N(200_000)
		w.add(x, due[x])
	}
	var buf []*timed
	for now := int64(start); now < start+400_000; now += 250 {
		for x := range due { // any
			switch rng.IntN(40) {
			case 0:
				due[x] = now + rng.Int64N(100_000)
				w.look(x, due[x])
			case 1:
				w.remove(x)
				delete(due, x)
			}
			break
		}
		buf = w.turn(now, buf, func(x *timed) int64 {
			at, ok := due[x]
			if !ok {
				t.Fatal("looked at after it was removed")
			}
			if now < at || now > at+2*wheelTick {
				t.Fatalf("looked at %d ms after it was due", now-at)
			}
			due[x] = now + rng.Int64N(100_000)
			return due[x]
		})
		for x, at := range due {
			if now > at+2*wheelTick {
				t.Fatalf("%d: not looked at, %d ms late (slot %d)", now, now-at, x.slot)
			}
			break
		}
	}
	if w.len() != len(due) || len(w.all(nil)) != len(due) {
		t.Errorf("%d in the wheel, %d in its lists, expected %d", w.len(), len(w.all(nil)), len(due))
	}
}

// A keep alive costs one look, however many packets come meanwhile, and what has
// none costs one for each turn of the wheel.
func TestWheel_LooksForEachKeepAlive(t *testing.T) {
	const (
		n         = 10_000
		keepAlive = 90_000
		hour      = 3_600_000
	)
	var w wheel
	for range n {
		w.add(&timed{}, keepAlive)
	}
	looks := 0
	var buf []*timed
	for now := int64(0); now < hour; now += wheelTick {
		buf = w.turn(now, buf, func(*timed) int64 {
			looks++
			return now + keepAlive
		})
	}
	if most := n * hour / keepAlive; looks > most || looks < most*9/10 {
		t.Errorf("%d looks, expected about %d", looks, most)
	}
}

// What is farther away than the wheel reaches is looked at on the way; after a
// long pause nothing is forgotten.
func TestWheel_FarAwayAndPaused(t *testing.T) {
	var w wheel
	x := &timed{}
	const far = 10 * wheelSlots * wheelTick
	w.add(x, far)
	looks := 0
	w.turn(far+wheelTick, nil, func(*timed) int64 { looks++; return far * 3 })
	if looks == 0 {
		t.Error("not looked at after a pause")
	}
	if !x.in || w.len() != 1 {
		t.Error("it has left the wheel")
	}
}
