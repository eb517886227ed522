// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"encoding/binary"
	"fmt"

	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
	"github.com/manormq/manor/services/sim/check"
)

// settled reports whether everything is as it should be.
func (w *World) settled() bool { return w.unsettled() == "" }

// unsettled says what is not as it should be, empty if nothing: each partition has
// one owner that serves it, as many replicas as it should, all in sync and where
// rendezvous has them, and nothing waits for a commit.
func (w *World) unsettled() string {
	var all []placement.Candidate
	for _, n := range w.members() {
		all = append(all, placement.Candidate{Name: n.name, Beat: placement.Beat{Zone: n.zone}})
	}
	for id := range partition.ID(w.partitions) {
		t := w.bus.table(id)
		wanted := placement.Wanted(id, w.replicas[id], "", all)
		if t.Owner != wanted[0] || len(t.InSync) != len(wanted) || len(t.Others) != 0 {
			return fmt.Sprintf("partition %d has %s, in sync %v, others %v, epoch %d; expected %v",
				id, t.Owner, t.InSync, t.Others, t.Epoch, wanted)
		}
		for _, n := range w.members() {
			r := n.replicas[id]
			last := w.node(t.Owner).replicas[id].Last()
			switch {
			case n.disk.busy:
				return string(n.name) + " writes what it has"
			case r.Table().Epoch != t.Epoch:
				return fmt.Sprintf("%s has epoch %d of partition %d, the table %d", n.name, r.Table().Epoch, id, t.Epoch)
			case (r.Role() == partition.Serving) != (n.name == t.Owner) || len(r.waiting) > 0:
				return fmt.Sprintf("partition %d: %s has role %d, %d appends wait; its owner is %s", id, n.name, r.Role(), len(r.waiting), t.Owner)
			case t.Holds(n.name) && (r.Last() != last || r.Copy() != partition.Whole):
				return fmt.Sprintf("partition %d: %s has %v, copy %d; the owner has %v", id, n.name, r.Last(), r.Copy(), last)
			}
		}
	}
	return ""
}

// content is what a node has of a partition, but for the log and the replica's
// state.
func (n *node) content(id partition.ID) string {
	var out []byte
	s := partition.NewSnapshot(n.store, id)
	defer s.Close()
	for {
		batch, last, done, err := s.Next(1 << 20)
		if err != nil {
			n.w.History.Break("content of %s: %v", n.name, err)
			return ""
		}
		if out = append(out, batch...); done {
			return string(last.Append(out))
		}
	}
}

// judge holds the end of the world to the promises.
func (w *World) judge() {
	for id := range partition.ID(w.partitions) {
		t := w.bus.table(id)
		var all []check.Replica
		for _, b := range t.InSync {
			n := w.node(b)
			all = append(all, check.Replica{Broker: b, Content: n.content(id), Last: n.replicas[id].Last()})
		}
		w.History.Equal(id, all)
		applied, newest := map[uint64]bool{}, map[int]uint64{}
		for _, a := range w.History.Appends {
			if a.Partition == id && w.has(t.Owner, a) {
				applied[a.Tag] = true
			}
		}
		for i := range w.clients {
			if v, err := w.node(t.Owner).store.Get(seqKey(id, i)); err == nil {
				newest[i] = binary.BigEndian.Uint64(v)
			}
		}
		w.History.End(id, applied, newest)
	}
}
