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
		for _, n := range w.nodes {
			r := n.replicas[id]
			hope = hope || t.IsInSync(n.name) && r.Copy() >= partition.Suspect
			if r.Copy() >= partition.Suspect && best.replicas[id].Copy() < partition.Suspect || r.Copy() >= partition.Suspect && best.replicas[id].Last().Before(r.Last()) {
				best = n
			}
		}
		if hope || t.Epoch == 1 {
			continue
		}
		w.note("abandon", best.name, uint64(id))
		w.bus.put(id, t.Revision, &partition.Entry{
			Epoch: t.Epoch + 1, Owner: best.name, InSync: []partition.Broker{best.name}, Abandoned: true,
		})
	}
}
