// SPDX-License-Identifier: Apache-2.0

package sim

import "github.com/manormq/manor/services/broker/partition"

// The faults of this file are plots: several small ones, in the order in which a
// wrong rule would lose something.

// victims are the owner of a partition and another member of its ISR, nil if there
// are none.
func (w *World) victims() (owner, member *node) {
	id := w.prey
	if w.chance(40) {
		id = partition.ID(w.rand.IntN(w.partitions))
	}
	t := w.bus.table(id)
	if len(t.InSync) < 2 {
		return nil, nil
	}
	owner = w.node(t.Owner)
	for member == nil || member == owner {
		member = w.node(t.InSync[w.rand.IntN(len(t.InSync))])
	}
	return owner, member
}

// crash stops a node in one of three ways and starts it again.
func (w *World) crash(n *node, after, down int64) {
	w.after(after, func() {
		if !w.faults {
			return
		}
		var end func()
		switch {
		case w.chance(50):
			end = w.stop(n, "kill")
		case w.chance(90):
			end = n.cutPower()
		default:
			end = w.lose(n)
		}
		w.after(down, end)
	})
}

// pair crashes a member of the ISR, which comes back soon, and its owner, which
// does not.
func pair(w *World) func() {
	owner, member := w.victims()
	if owner == nil {
		return func() {}
	}
	w.begins("pair", owner.name)
	w.busy = w.now + 400*ms
	at := w.between(20*ms, 300*ms)
	w.crash(member, at, w.between(5*ms, 1500*ms))
	w.crash(owner, max(at+w.between(-30*ms, 1200*ms), 0), w.between(6*second, 14*second))
	return func() {}
}

// exile cuts an owner from everything, and lets it back to its peers before the
// bus can tell it that it is not the owner any more.
func exile(w *World) func() {
	owner, _ := w.victims()
	if owner == nil {
		return func() {}
	}
	w.begins("exile", owner.name)
	w.bus.away[owner.at]++
	back := w.cuts(func(i, j int) bool { return i == owner.at || j == owner.at })
	w.after(w.between(4*second, 7*second), func() {
		back()
		w.busy = w.now + 500*ms
	})
	w.after(w.between(7*second, 12*second), func() {
		if w.faults {
			w.bus.away[owner.at]--
			w.bus.noticed()
		}
	})
	return func() {}
}

// siege cuts an owner from a member of the ISR while the bus loses its requests or
// their answers, until it dies.
func siege(w *World) func() {
	owner, member := w.victims()
	if owner == nil {
		return func() {}
	}
	w.begins("siege", owner.name)
	w.bus.flaky = 80 + w.rand.IntN(20)
	back := w.cuts(func(i, j int) bool {
		return i == owner.at && j == member.at || j == owner.at && i == member.at
	})
	long := w.between(3*second, 6*second)
	w.after(long-300*ms, func() { w.busy = w.now + 300*ms })
	w.crash(owner, long, w.between(8*second, 14*second))
	return func() {
		w.after(long, func() {
			back()
			w.bus.flaky = 0
		})
	}
}

// ambush has an owner not hear what became of the proposal that has just changed
// the table, cuts it from a peer, and kills it a little later.
func ambush(w *World) func() {
	owner, member := w.victims()
	if owner == nil {
		return func() {}
	}
	w.begins("ambush", owner.name)
	if t := w.bus.table(w.prey); w.chance(50) && t.Owner == owner.name && t.InSync[len(t.InSync)-1] != t.Owner {
		member = w.node(t.InSync[len(t.InSync)-1]) // who joined last
	}
	w.bus.away[owner.at]++
	back := w.cuts(func(i, j int) bool { return i == owner.at && j == member.at })
	// Soon, or after it has given up waiting for the bus.
	at := w.between(20*ms, 500*ms)
	if w.chance(50) {
		at += busTimeout
	}
	w.after(max(at-400*ms, 0), func() { w.busy = w.now + 500*ms })
	w.crash(owner, at, w.between(ms, 12*second))
	w.after(at+w.between(100*ms, second), func() {
		back()
		if w.faults {
			w.bus.away[owner.at]--
			w.bus.noticed()
		}
	})
	return func() {}
}

// anew has an owner lose its disk and come back soon: it is to have its partitions again before long, with
// whatever it knows by then of what others want. Perhaps the owner meanwhile dies as soon as it may.
func anew(w *World) func() {
	owner, member := w.victims()
	if owner == nil {
		return func() {}
	}
	w.begins("anew", owner.name)
	end := w.lose(owner)
	w.after(w.between(20*ms, second), end)
	at := w.between(second, 5*second)
	if w.chance(50) {
		w.crash(member, at, w.between(4*second, 8*second))
	}
	w.after(at, func() { w.busy = w.now + 2*second })
	return func() {}
}
