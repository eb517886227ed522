// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"
	"sync/atomic"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/partition"
)

// decidedPart is the partition that decides in these tests.
const decidedPart = partition.ID(5)

// leavingFrom has a tenant leave for another partition.
func (w *wide) leavingFrom(revision uint64) (owner, other *wideNode) {
	w.t.Helper()
	w.say("acme", Cell{List: []partition.ID{decidedPart}, To: []partition.ID{1}, Stage: Leaving, Revision: revision})
	owner = w.ownerOf(decidedPart)
	return owner, w.nodes[slices.IndexFunc(w.nodes, func(n *wideNode) bool { return n != owner })]
}

// stored are the courses that a partition has in the store.
func (w *wide) stored() (n int) {
	start, end := partition.Range(decidedPart, partition.KindCourse)
	it := w.store.Scan(start, end)
	defer it.Close()
	for it.Next() {
		n++
	}
	return n
}

// What is decided first stands, says so when it is committed, and is the next owner's too; when the
// tenant has arrived, or stayed, it is forgotten.
func TestDecide(t *testing.T) {
	for name, first := range map[string]Course{"onward": Onward, "back": Back} {
		t.Run(name, func(t *testing.T) {
			w := servedWide(t)
			a, b := w.leavingFrom(2)
			w.still(decidedPart, true)
			for _, n := range w.nodes { // others than the owner decide nothing
				if n != a {
					n.set.Decide("acme", 2, Onward+Back-first)
				}
			}
			a.set.Decide("acme", 1, Onward+Back-first) // of another move
			var decided, overruled atomic.Int32
			a.set.DecideThen("acme", 2, first, func() { decided.Add(1) })
			a.set.DecideThen("acme", 2, first, func() { overruled.Add(1) }) // as each look orders it
			a.set.DecideThen("acme", 2, Onward+Back-first, func() { overruled.Add(1) })
			a.eventually(t, "appended", func() bool { return w.appended(decidedPart) > 0 })
			if c := a.relocation().Course; c != Undecided || decided.Load() != 0 {
				t.Errorf("course %d is said before it is committed", c)
			}
			w.still(decidedPart, false)
			a.eventually(t, "decided", func() bool { return a.relocation().Course == first && decided.Load() == 1 })
			w.give(decidedPart, b, false)
			b.set.Decide("acme", 2, Onward+Back-first)
			b.eventually(t, "decided at the next owner", func() bool { return b.relocation().Course == first })
			if decided.Load() != 1 || overruled.Load() != 0 {
				t.Errorf("%d calls say that they have decided, and %d of those that have not", decided.Load(), overruled.Load())
			}
			if n := w.stored(); n != 1 {
				t.Errorf("%d courses are stored", n)
			}
			if first == Onward {
				w.say("acme", Cell{List: []partition.ID{1}, Stage: Arriving, Revision: 3})
				w.say("acme", Cell{List: []partition.ID{1}, Revision: 4})
			} else {
				w.say("acme", Cell{List: []partition.ID{decidedPart}, Revision: 3})
			}
			b.eventually(t, "forgotten", func() bool { return w.stored() == 0 })
		})
	}
}

// What a partition was handed says that its tenant goes onward, whatever becomes of the partition that
// decided it, and its next owner says so too; with the hand-over it is forgotten.
func TestDecide_FirstPartitionIsLost(t *testing.T) {
	w := servedWide(t)
	a := w.handedOver(2)
	a.eventually(t, "said by who took the hand", func() bool { return a.relocation().Course == Onward })
	b := w.nodes[slices.IndexFunc(w.nodes, func(n *wideNode) bool { return n != a })]
	w.give(handedPart, b, false)
	b.eventually(t, "said by its next owner", func() bool { return b.relocation().Course == Onward })
	l := &Look{Members: []string{"x", "y"}, Alive: []string{"y"}, Said: map[string]Relocation{"y": b.relocation()}, MayTurn: true}
	var m Mover
	if o := m.Next(Cell{List: []partition.ID{1}, To: []partition.ID{handedPart}, Stage: Leaving, Revision: 2}, l); o.Decide != Undecided || o.Return {
		t.Errorf("a tenant that was handed over in part is to stay: %+v", o)
	}
	w.say("acme", Cell{List: []partition.ID{handedPart}, Stage: Arriving, Revision: 3})
	b.takenUp(t, 2)
	w.say("acme", Cell{List: []partition.ID{handedPart}, Revision: 4})
	b.eventually(t, "forgotten", func() bool { return w.stored() == 0 })
}

// A course that was lost with its owner before it was committed is none: the next owner decides.
func TestDecide_LostBeforeTheCommit(t *testing.T) {
	w := servedWide(t)
	a, b := w.leavingFrom(2)
	w.still(decidedPart, true)
	a.set.Decide("acme", 2, Onward)
	a.eventually(t, "appended", func() bool { return w.appended(decidedPart) > 0 })
	w.mu.Lock()
	w.dropLocked(decidedPart, true)
	w.mu.Unlock()
	w.still(decidedPart, false)
	w.give(decidedPart, b, false)
	b.eventually(t, "served", func() bool { return b.set.Serves(decidedPart) })
	b.set.Decide("acme", 2, Back)
	b.eventually(t, "decided", func() bool { return b.relocation().Course == Back })
	if c := a.relocation().Course; c != Undecided {
		t.Errorf("the former owner says that course %d was decided", c)
	}
}

// A client that was paused, and had not said so when it was decided that its tenant stays, goes on as
// soon as it has.
func TestDecide_PausedWhenItStays(t *testing.T) {
	w := servedWide(t)
	n := w.ownerOf(decidedPart)
	w.say("acme", Cell{List: []partition.ID{decidedPart}, Revision: 4})
	v, f := n.celled(t, "acme", "a", 0, 0)
	if f.Kind != link.DownOpened {
		t.Fatalf("%+v", f.DownFrame)
	}
	w.leavingFrom(5)
	n.relocation()
	paused := v.wants(t, link.DownPause)
	w.say("acme", Cell{List: []partition.ID{decidedPart}, Revision: 6})
	v.send(link.UpFrame{Kind: link.UpPaused})
	v.wants(t, link.DownMoved)
	again := n.visit(t, "a", func(o *link.Open) { o.Guest, o.Resume = false, paused.Bytes })
	again.wants(t, link.DownOpened)
}

// A partition that has not taken part in its tenant's arrival may be another broker's by now: it lets
// nobody in before it has committed the record.
func TestCell_UnsureOfItsPartition(t *testing.T) {
	w := servedWide(t)
	n := w.ownerOf(decidedPart)
	w.say("acme", Cell{List: []partition.ID{decidedPart}, Revision: 4})
	if _, f := n.celled(t, "acme", "a", 0, 0); f.Kind != link.DownOpened {
		t.Fatalf("%+v", f.DownFrame)
	}
	letIn := func() bool {
		_, f := n.celled(t, "acme", "b", 0, 0)
		return f.Kind == link.DownOpened
	}
	for i, hear := range []func(c Cell){
		func(c Cell) { w.say("acme", c) },
		func(c Cell) { n.set.Tenant("acme").settle(c) }, // the shard has not come to it yet
	} {
		revision := uint64(7 + 3*i)
		n.eventually(t, "all committed", func() bool { return w.appended(decidedPart) == 0 })
		w.still(decidedPart, true)
		hear(Cell{List: []partition.ID{decidedPart}, Revision: revision})
		if letIn() {
			t.Errorf("revision %d: it is let in by a broker that may have lost the partition", revision)
		}
		n.eventually(t, "appended", func() bool { return w.appended(decidedPart) > 0 })
		w.still(decidedPart, false)
		n.eventually(t, "let in", letIn)
	}
}
