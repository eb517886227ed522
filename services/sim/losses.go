// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"

	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/services/broker/partition"
)

// A disk that is lost takes nothing with it that was acknowledged, where another replica in sync
// is whole. Where there is none the partition is not served until an operator gives it up. What is
// lost then is what its devices had there: they begin anew, and what they were owed is not.
//
// A change of the table may arrive when the disk of all whom it leaves in sync is lost already. The
// partition has to be given up then too, but nothing is lost: whom it leaves out was needed for each
// commit until the owner knew of the change, and so has all.

func diskLoss(w *World) func() { return w.lose(w.pick()) }

// lose has a node lose its disk.
func (w *World) lose(n *node) func() {
	if w.sessions {
		last := w.lastCopies(n)
		// A tenant that moves has what it was handed there, too: of whom that is nobody knows.
		if w.lastOfMetadata(n) {
			return w.stop(n, "kill")
		}
		if len(last) > 0 && (w.places.record.Revision > 0 || w.chance(70)) {
			return w.stop(n, "kill")
		}
		for _, id := range last {
			w.happens("last copy lost")
			w.gone[id] = true
		}
	}
	end := w.stop(n, "disk loss")
	n.store, n.powerCut, n.fresh, n.lostAt = mem.New(), false, true, w.now
	w.History.Damaged(n.name)
	w.places.forget(n)
	return end
}

// lastOfMetadata reports whether all others have lost their disks and have not got back what a node knows
// of the metadata: with its disk they would be lost, which no broker can make up for.
func (w *World) lastOfMetadata(n *node) bool {
	return !n.fresh && !slices.ContainsFunc(w.nodes, func(o *node) bool { return o != n && !o.fresh && o.left == 0 })
}

// lastCopies are the partitions of which a node is in sync, and no other whole replica is; and those
// that have to be given up and of which it has a copy, which may be the one that has all.
func (w *World) lastCopies(n *node) (out []partition.ID) {
	for id := range partition.ID(w.partitions) {
		t := w.bus.table(id)
		others := slices.DeleteFunc(slices.Clone(t.InSync), func(b partition.Broker) bool { return b == n.name })
		if t.IsInSync(n.name) && !w.anyWhole(id, others) || w.left[id] && w.copyOf(id, n.name) >= partition.Suspect {
			out = append(out, id)
		}
	}
	return out
}

// anyWhole reports whether one of some replicas in sync is whole.
func (w *World) anyWhole(id partition.ID, some []partition.Broker) bool {
	return slices.ContainsFunc(some, func(b partition.Broker) bool { return w.whole(id, b) })
}

// whole reports whether a replica in sync has all that was committed: it may have lost its disk
// after it was proposed.
func (w *World) whole(id partition.ID, b partition.Broker) bool {
	if w.node(b).powerCut && !w.commit {
		return false // it has lost what was not synced, and does not know yet
	}
	return w.copyOf(id, b) == partition.Whole && w.History.Intact(id, b)
}

// copyOf is what the disk of a broker says that its copy is worth.
func (w *World) copyOf(id partition.ID, b partition.Broker) partition.Copy {
	stored, err := partition.Restore(w.node(b).store, id)
	if err != nil {
		return partition.Empty
	}
	return stored.State.Copy
}

// changes is called when a change of the table is sent, and what it returns when it was carried out.
// Who proposes what leaves nobody in sync who is whole is no excuse: only a disk that was lost since.
func (w *World) changes(id partition.ID, inSync []partition.Broker) (carriedOut func()) {
	if !w.sessions {
		return func() {}
	}
	sent := w.anyWhole(id, inSync)
	return func() { w.left[id] = (sent || w.left[id]) && !w.anyWhole(id, inSync) }
}

// answerLasts is for how long, in microseconds, an owner may go by what a replica has said: partition's
// peerOut/2, and for as long as the answer was on its way.
const answerLasts = 4 * second

// joining holds that an owner has only those join the replicas in sync who have a whole copy, or had
// one a moment ago.
func (w *World) joining(n *node, r *replica, inSync []partition.Broker) {
	for _, b := range inSync {
		if !w.sessions || r.Replica == nil || b == n.name || slices.Contains(r.Table().InSync, b) {
			continue
		}
		if lost := w.node(b).lostAt; lost > 0 && w.now-lost > answerLasts && w.copyOf(r.id, b) != partition.Whole {
			w.History.Break("%s has %s join the replicas of partition %d in sync, which lost its disk %d ms ago and has no whole copy", n.name, b, r.id, (w.now-lost)/ms)
		}
	}
}

// gaveUp has the devices of a partition that an operator has given up begin anew, unless nothing
// that they had there is lost.
func (w *World) gaveUp(id partition.ID) {
	if !w.sessions {
		return
	}
	w.serves[id]++ // connections that were being moved there are not known to who begins anew
	switch {
	case w.gone[id]:
	case w.left[id]:
		return
	default:
		w.History.Break("partition %d is given up, and a replica in sync was whole", id)
	}
	for _, d := range w.devices {
		if d.part == id {
			d.beginAnew()
		}
	}
}

// beginAnew has a device forget its session, as its owner does who was told that it is lost.
func (d *device) beginAnew() {
	if d.at != nil {
		d.gone()
	}
	d.asked++
	d.clean, d.kept, d.suback, d.parting, d.fewer = true, false, 0, false, false
	d.inflight, d.received = nil, map[uint16]bool{}
	d.house.Forgo(d.id)
	d.house.Wills.Forgo(d.id)
}

// retainedGone reports whether what was retained under a topic was lost.
func (w *World) retainedGone(of *house, topic string) bool {
	return w.gone[partition.Choose(w.cell(of), topic)]
}

// present holds that a session is there, or is not, as a device that comes expects it.
func (d *device) present(present bool) {
	switch {
	case !d.kept || present:
	case d.mayBeOver():
		d.over()
	default:
		d.w.History.Break("%s has lost its session", d.label)
	}
	if d.kept && present && d.mustBeOver() {
		d.w.History.Break("%s is told that its session is there, which has lasted since %d ms, expected %d", d.label, (d.w.now-d.life.alone)/ms, d.life.lasts/ms)
	}
	if d.clean && present {
		d.w.History.Break("%s begins anew, and is told that its session is there", d.label)
	}
	if present {
		d.w.happens("session there again")
	}
	d.clean = false
}
