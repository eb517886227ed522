// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"

	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
)

// busTimeout is after what time a request without an answer is given up.
const busTimeout = 2 * second

// bucket is the control plane: the partition table and the heartbeats, with
// revisions and compare-and-set.
type bucket struct {
	w        *World
	revision uint64
	entries  []stored // by partition
	beats    []stored // by node
	down     bool
	// away is how many faults cut a node from the bucket.
	away []int
	// flaky is how many percent of the requests lose their answer, or are late.
	flaky int
}

type stored struct {
	revision uint64
	value    []byte
}

func (b *bucket) init(w *World) {
	b.w = w
	b.entries, b.beats, b.away = make([]stored, w.partitions), make([]stored, len(w.nodes)), make([]int, len(w.nodes))
}

func (b *bucket) reaches(n *node) bool { return !b.down && b.away[n.at] == 0 }

// request carries a request of a node: do happens at the bucket, unless the request
// is lost, answer at the node, with whether do has happened as far as it can know.
func (b *bucket) request(n *node, do func(), answer func(ok bool)) {
	w := b.w
	answered := false
	done := func(ok bool) func() {
		return n.during(func() {
			if !answered {
				answered = true
				answer(ok)
			}
		})
	}
	w.after(busTimeout, done(false))
	if !b.reaches(n) {
		w.happens("bus request cut off")
		return
	}
	delay := w.between(200, 3*ms)
	lost := w.chance(b.flaky)
	if lost && w.chance(30) {
		w.happens("bus request lost")
		return // it never arrives
	}
	if lost && w.chance(50) {
		delay += w.between(0, 4*second) // it arrives when nobody waits any more
	}
	w.after(delay, func() {
		if b.down {
			return
		}
		do()
		if lost {
			w.happens("bus answer lost")
		} else {
			w.after(w.between(200, 3*ms), func() {
				if b.reaches(n) {
					done(true)()
				}
			})
		}
	})
}

// put is the compare-and-set.
func (b *bucket) put(id partition.ID, at uint64, e *partition.Entry) (partition.Table, bool) {
	s := &b.entries[id]
	if s.revision != at {
		return partition.Table{}, false
	}
	if t := b.table(id); t.Revision > 0 && t.Owner != e.Owner {
		b.w.happens("owner changed")
	}
	b.revision++
	*s = stored{b.revision, e.Append(nil)}
	b.w.note(fmt.Sprint("table ", e.InSync, e.Others, e.Abandoned), e.Owner, uint64(id), b.revision, e.Epoch, uint64(len(e.InSync)), uint64(len(e.Others)))
	b.w.History.Changed(id, *e)
	b.w.trap(id)
	b.changed()
	return partition.Table{Entry: *e, Revision: b.revision}, true
}

func (b *bucket) changed() {
	for _, n := range b.w.nodes {
		b.w.after(b.w.between(300, 20*ms), func() { b.tell(n) })
	}
}

func (b *bucket) propose(n *node, r *replica, p partition.Proposal) {
	e := partition.Event{Kind: partition.Proposed, At: p.At, Outcome: partition.Unknown}
	if !b.reaches(n) && b.w.now%2 == 0 { // who sends it knows that, or does not
		e.Outcome = partition.Untaken
		b.w.after(ms, n.during(func() { n.step(r, &e) }))
		return
	}
	carriedOut := b.w.changes(r.id, p.Entry.InSync)
	b.w.joining(n, r, p.Entry.InSync)
	b.request(n, func() {
		var won bool
		if e.Table, won = b.put(r.id, p.At, &p.Entry); won {
			carriedOut()
			e.Outcome = partition.Won
		} else {
			e.Outcome = partition.Beaten
		}
	}, func(ok bool) {
		if !ok {
			e = partition.Event{Kind: partition.Proposed, At: p.At, Outcome: partition.Unknown}
		}
		n.step(r, &e)
	})
}

func (b *bucket) create(n *node, id partition.ID, e partition.Entry) {
	b.request(n, func() { b.put(id, 0, &e) }, func(bool) {})
}

func (b *bucket) read(n *node, r *replica) {
	e := partition.Event{Kind: partition.TableRead}
	b.request(n, func() { e.Table = b.table(r.id) }, func(ok bool) {
		e.Failed = !ok
		if !ok {
			e.Table = partition.Table{}
		}
		n.step(r, &e)
	})
}

func (b *bucket) table(id partition.ID) partition.Table {
	s := b.entries[id]
	if s.revision == 0 {
		return partition.Table{}
	}
	e, err := partition.ParseEntry(s.value)
	if err != nil {
		b.w.History.Break("entry of partition %d: %v", id, err)
	}
	return partition.Table{Entry: e, Revision: s.revision}
}

func (b *bucket) beat(n *node, beat placement.Beat) {
	b.request(n, func() {
		b.revision++
		b.beats[n.at] = stored{b.revision, beat.Append(nil)}
		b.changed()
	}, func(bool) {})
}

// tell has a node's watch tell what it has not seen, if it can.
func (b *bucket) tell(n *node) {
	if !n.up || !b.reaches(n) {
		return
	}
	n.watch.At(n.clock())
	n.watch.Bus(true)
	seen := n.tableSeen
	n.tableSeen = b.revision
	for i, s := range b.beats {
		if left := b.w.nodes[i].left; left > 0 {
			if left > seen {
				n.hearLeft(b.w.nodes[i])
			}
			continue
		}
		if s.revision > seen {
			beat, err := placement.ParseBeat(s.value)
			if err != nil {
				b.w.History.Break("heartbeat: %v", err)
			}
			n.watch.Beat(b.w.nodes[i].name, beat)
			if n.station != nil {
				n.station.meta.join(b.w.nodes[i])
			}
		}
	}
	if n.station != nil {
		n.station.meta.knowsMembers()
	}
	for i := range b.entries {
		if b.entries[i].revision > seen {
			n.step(n.replicas[i], &partition.Event{Kind: partition.TableSeen, Table: b.table(partition.ID(i))})
		}
	}
}

// noticed has the nodes notice, a little later, whether they reach the bus.
func (b *bucket) noticed() {
	for _, n := range b.w.nodes {
		b.w.after(b.w.between(0, second), func() {
			if n.up {
				n.watch.At(n.clock())
				n.watch.Bus(b.reaches(n))
				b.tell(n)
			}
		})
	}
}
