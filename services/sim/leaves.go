// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"

	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
)

// members are the nodes that have not left for good.
func (w *World) members() []*node {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n.left > 0 })
}

// departure has a broker leave the cluster for good, as an operator does who wants fewer: it is drained
// and, once no partition is there any more, stopped and given up.
func (w *World) departure() {
	if len(w.members()) <= 3 {
		return
	}
	n := w.members()[w.rand.IntN(len(w.members()))]
	w.begins("departure", n.name)
	n.draining = true
	held := func() bool {
		return slices.ContainsFunc(w.ids(), func(id partition.ID) bool { t := w.bus.table(id); return t.Revision == 0 || t.Holds(n.name) })
	}
	w.until(25*second, func() bool { return !w.faults || n.up && !held() }, func() {
		if !w.faults || held() || !n.draining {
			n.draining = false
			return
		}
		w.begins("leaves", n.name)
		n.stop()
		w.bus.revision++
		n.left = w.bus.revision
		w.bus.changed()
	})
}

func (w *World) ids() (all []partition.ID) {
	for id := range partition.ID(w.partitions) {
		all = append(all, id)
	}
	return all
}

// hearLeft has a node hear that another one has left for good.
func (n *node) hearLeft(o *node) {
	n.watch.Tombstone(o.name, true)
	if n.station != nil {
		n.station.meta.post(metadata.Leave{Name: string(o.name)})
	}
}
