// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"

	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/shard"
)

// The plots of this file are those of rough worlds. Each brings about what one rule is for.

// until has then happen as soon as over holds, which is looked at again and again, or after most.
func (w *World) until(most int64, over func() bool, then func()) {
	end := w.now + most
	var look func()
	look = func() {
		if w.now >= end || over() {
			then()
			return
		}
		w.after(50*ms, look)
	}
	look()
}

// away cuts a node from the bus; what it returns ends that.
func (w *World) away(n *node) func() {
	w.bus.away[n.at]++
	w.bus.noticed()
	return func() {
		if w.faults {
			w.bus.away[n.at]--
			w.bus.noticed()
		}
	}
}

// cutFrom cuts a node from some others, in both directions.
func (w *World) cutFrom(n *node, others []partition.Broker) func() {
	is := func(i int) bool { return i != n.at && slices.Contains(others, w.nodes[i].name) }
	return w.cuts(func(i, j int) bool { return i == n.at && is(j) || j == n.at && is(i) })
}

// crossfire is what happens when the tenant begins to move: everybody publishes, and what brokers
// send each other of that is late, but not so late that a link is given up; and somebody writes slowly.
func (w *World) crossfire() {
	if !w.chance(60) {
		return
	}
	w.begins("crossfire", "")
	w.busy = w.now + second
	for i := range w.nodes {
		if w.chance(40) {
			w.rough.late[i] = max(w.rough.late[i], w.now+w.between(300*ms, silence-500*ms))
		}
	}
	if w.chance(30) {
		n := w.pick()
		n.slow = true
		w.after(w.between(second, 4*second), func() { n.slow = false })
	}
}

// usurped has the tenant go to a partition of which a broker believes that it serves it, and another
// does by the table: the broker is cut from the bus and from those who have the partition, and hears
// of the tenant's record, and is asked about it, by one that has nothing to do with it.
func usurped(w *World) func() {
	p := &w.places
	if p.record.Revision == 0 {
		return func() {}
	}
	w.rough.stay = w.now + 10*second
	if w.chance(50) { // else the tenant has connections where nothing is committed
		w.rough.hush = w.now + 20*second
	}
	w.until(8*second, func() bool { return p.record.Stage == shard.Settled }, w.usurp)
	return func() {}
}

// usurp does what usurped says, when the tenant has settled.
func (w *World) usurp() {
	p := &w.places
	driver := w.bus.table(p.record.List[0]).Owner
	id, ok := w.anyPartition(func(id partition.ID, t partition.Table) bool {
		return len(t.InSync) > 1 && !t.Holds(driver)
	})
	if !w.faults || !ok || p.record.Stage != shard.Settled {
		return
	}
	t := w.bus.table(id)
	owner := w.node(t.Owner)
	w.begins("usurped", owner.name, uint64(id))
	w.rough.stay = w.now + 12*second
	near, back := w.away(owner), w.cutFrom(owner, slices.Concat(t.InSync, t.Others))
	w.until(8*second, func() bool { return w.bus.table(id).Owner != t.Owner }, func() {
		if w.faults {
			if w.bus.table(id).Owner != t.Owner {
				w.happens("usurped and does not know")
			}
			p.leave(w.goal(id))
		}
		w.until(10*second, func() bool { return p.record.Stage == shard.Settled }, func() {
			w.rough.hush = w.now
			w.after(w.between(second, 5*second), func() {
				near()
				back()
			})
		})
	})
}

// anyPartition is one for which good holds, if there is one.
func (w *World) anyPartition(good func(partition.ID, partition.Table) bool) (id partition.ID, ok bool) {
	for at, from := 0, w.rand.IntN(w.partitions); at < w.partitions; at++ {
		id = partition.ID((from + at) % w.partitions)
		if good(id, w.bus.table(id)) {
			return id, true
		}
	}
	return 0, false
}

// goal are some partitions, and one of these is id.
func (w *World) goal(id partition.ID) (to []partition.ID) {
	for p := range partition.ID(w.partitions) {
		if p == id || w.chance(30) {
			to = append(to, p)
		}
	}
	return to
}

// changeling has a member of the ISR be cut from its owner until it is none any more, and lose its
// disk meanwhile: what the owner knows of it is of the broker that it was. It hears it before it can
// ask it.
func changeling(w *World) func() {
	owner, member := w.victims()
	if member == nil {
		return func() {}
	}
	w.begins("changeling", member.name)
	long := w.between(4*second, 9*second)
	w.rough.hush = w.now + long + 2*second
	w.after(second, func() {
		if !w.faults {
			return
		}
		deaf := w.cuts(func(i, j int) bool { return i == owner.at && j == member.at })
		mute := w.cuts(func(i, j int) bool { return i == member.at && j == owner.at })
		w.after(w.between(0, long), func() {
			if w.faults {
				w.after(w.between(0, 300*ms), w.lose(member))
			}
		})
		w.after(long, mute)
		w.after(long+w.between(0, 3*second), deaf)
	})
	return func() {}
}

// cornered cuts an owner from those who are in sync, and from the bus, with much to write: what comes
// to it over its other links is not committed, and then it hears that the partition is another's.
func cornered(w *World) func() {
	id, ok := w.anyPartition(func(_ partition.ID, t partition.Table) bool {
		return len(t.InSync) > 1 && len(t.InSync) < len(w.nodes)
	})
	if !ok {
		return func() {}
	}
	t := w.bus.table(id)
	owner := w.node(t.Owner)
	w.begins("cornered", owner.name, uint64(id))
	w.busy = w.now + second
	near, back := w.away(owner), w.cutFrom(owner, t.InSync)
	w.until(9*second, func() bool { return w.bus.table(id).Owner != t.Owner }, func() {
		near()
		w.after(w.between(0, 3*second), back)
	})
	return func() {}
}

// heir has a broker die with publishes on their way to others, and begin anew at once: what it finds in
// its log it sends again, and that is late, while the tenant leaves.
func heir(w *World) func() {
	p := &w.places
	if p.record.Revision == 0 {
		return func() {}
	}
	w.rough.stay = w.now + 10*second
	w.until(8*second, func() bool { return p.record.Stage == shard.Settled }, func() {
		var theirs []*device // publishers of the tenant that leaves
		for _, d := range w.devices {
			if d.house == w.houses[0] && d.total > 0 {
				theirs = append(theirs, d)
			}
		}
		d := theirs[w.rand.IntN(len(theirs))]
		n := w.node(w.bus.table(d.part).Owner)
		if !w.faults || n == nil || !n.up {
			return
		}
		w.begins("heir", n.name)
		w.busy = w.now + second
		w.rough.late[n.at] = w.now + 3*second
		w.after(w.between(200*ms, 600*ms), func() {
			if !w.faults {
				return
			}
			start := w.stop(n, "kill")
			w.after(w.between(10*ms, 100*ms), func() {
				start()
				w.rough.late[n.at] = w.now + w.between(2*second, 4*second)
				w.after(w.between(0, second), func() {
					if w.faults && p.record.Stage == shard.Settled {
						p.begin()
					}
				})
			})
		})
	})
	return func() {}
}
