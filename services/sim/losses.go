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

func diskLoss(w *World) func() { return w.lose(w.pick()) }

// lose has a node lose its disk.
func (w *World) lose(n *node) func() {
	if w.sessions {
		last := w.lastCopies(n)
		// A tenant that moves has what it was handed there, too: of whom that is nobody knows.
		if len(last) > 0 && (w.places.record.Revision > 0 || w.chance(70)) {
			return w.stop(n, "kill")
		}
		for _, id := range last {
			w.gone[id] = true
		}
	}
	end := w.stop(n, "disk loss")
	n.store, n.powerCut = mem.New(), false
	w.History.Damaged(n.name)
	w.losses++
	w.places.forget(n)
	return end
}

// lastCopies are the partitions of which a node is in sync, and no other whole replica is.
func (w *World) lastCopies(n *node) (out []partition.ID) {
	for id := range partition.ID(w.partitions) {
		t := w.bus.table(id)
		if t.IsInSync(n.name) && !slices.ContainsFunc(t.InSync, func(b partition.Broker) bool { return b != n.name && w.whole(id, b) }) {
			out = append(out, id)
		}
	}
	return out
}

// whole reports whether a replica in sync has all that was committed: it may have lost its disk
// after it was proposed.
func (w *World) whole(id partition.ID, b partition.Broker) bool {
	stored, err := partition.Restore(w.node(b).store, id)
	return err == nil && stored.State.Copy == partition.Whole && w.History.Intact(id, b)
}

// gaveUp has the devices of a partition that an operator has given up begin anew.
func (w *World) gaveUp(id partition.ID) {
	if !w.sessions {
		return
	}
	if !w.gone[id] {
		w.History.Break("partition %d is given up, and a replica in sync was whole", id)
	}
	w.given++
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
	d.clean, d.kept, d.suback = true, false, 0
	d.inflight, d.received = nil, map[uint16]bool{}
	d.w.Messages.Forgo(d.id)
	d.w.Messages.Wills.Forgo(d.id)
}

// retainedGone reports whether what was retained under a topic was lost.
func (w *World) retainedGone(topic string) bool {
	return w.gone[partition.Choose(w.cell(), topic)]
}

// present holds that a session is there, or is not, as a device that comes expects it.
func (d *device) present(present bool) {
	if d.kept && !present {
		d.w.History.Break("%s has lost its session", d.id)
	}
	if d.clean && present {
		d.w.History.Break("%s begins anew, and is told that its session is there", d.id)
	}
	d.clean = false
}
