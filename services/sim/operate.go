// SPDX-License-Identifier: Apache-2.0

package sim

import "github.com/manormq/manor/services/broker/partition"

// operate does what an operator does about partitions of which no replica in sync
// has a copy, once all brokers are there: it gives them up.
func (w *World) operate() {
	for id := range partition.ID(w.partitions) {
		t := w.bus.table(id)
		if t.Revision == 0 || t.Abandoned {
			continue
		}
		best, hope := w.node(t.Owner), false
		for _, n := range w.members() {
			r := n.replicas[id]
			hope = hope || t.IsInSync(n.name) && r.Copy() >= partition.Suspect
			if r.Copy() >= partition.Suspect && best.replicas[id].Copy() < partition.Suspect || r.Copy() >= partition.Suspect && best.replicas[id].Last().Before(r.Last()) {
				best = n
			}
		}
		if hope || t.Epoch == 1 {
			continue
		}
		w.begins("abandon", best.name, uint64(id))
		w.gaveUp(id)
		w.bus.put(id, t.Revision, &partition.Entry{
			Epoch: t.Epoch + 1, Owner: best.name, InSync: []partition.Broker{best.name}, Abandoned: true,
		})
	}
}

// rollBack has the table forget the newest changes of an entry, as when the bus was
// restored from a backup. Nobody may serve the partition then, until an operator
// says under a higher epoch who holds it.
func (w *World) rollBack() {
	// By then all have read the table, also those that were started without it.
	w.runUntil(w.now + 5*second)
	w.settle()
	id := partition.ID(w.rand.IntN(w.partitions))
	now, all := w.bus.table(id), w.History.Entries(id)
	if len(all) < 3 {
		return
	}
	old := all[len(all)-2-w.rand.IntN(min(len(all)-2, 5))]
	w.begins("roll back", old.Owner, uint64(id), old.Epoch)
	w.bus.revision++
	w.bus.entries[id] = stored{w.bus.revision, old.Append(nil)}
	w.bus.changed()
	w.runUntil(w.now + 5*second)
	for _, n := range w.nodes {
		if r := n.replicas[id]; r.Role() == partition.Serving || r.Role() == partition.Handing {
			w.History.Break("%s serves partition %d though its entry went from epoch %d to %d", n.name, id, now.Epoch, old.Epoch)
		}
	}
	if t := w.bus.table(id); t.Epoch != old.Epoch {
		w.History.Break("the entry of partition %d, which went back to epoch %d, was changed to epoch %d", id, old.Epoch, t.Epoch)
	}
	repaired := now.Entry
	repaired.Epoch++
	w.bus.put(id, w.bus.entries[id].revision, &repaired)
	w.settle()
}
