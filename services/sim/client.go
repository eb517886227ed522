// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/sim/check"
)

// client appends records with tags at owners, and reads there.
type client struct {
	id   int
	seqs []uint64
}

// appended is an append that waits for its commit: a client's, or that of sessions,
// which is record n and has somebody to tell.
type appended struct {
	*check.Append
	n    uint64
	done func(error)
}

// keys of what a client writes: one for each tag, and one with its newest seq.
func tagKey(id partition.ID, tag uint64) []byte {
	return partition.KeyU64U64(nil, id, partition.KindQueue, 1, tag)
}

func seqKey(id partition.ID, client int) []byte {
	return partition.KeyU64(nil, id, partition.KindSession, uint64(client))
}

// turn is one thing that the client does; it goes on until the world ends.
func (c *client) turn(w *World) func() {
	return func() {
		id := partition.ID(w.rand.IntN(w.partitions))
		// It asks around for somebody who says to be the owner.
		for i, start := 0, w.rand.IntN(len(w.nodes)); i < len(w.nodes); i++ {
			n := w.nodes[(start+i)%len(w.nodes)]
			if !n.up || n.replicas[id].Role() != partition.Serving {
				continue
			}
			if w.chance(15) {
				c.read(w, n, id)
				break
			}
			for range 1 + w.rand.IntN(3) {
				c.append(w, n, id)
			}
			break
		}
		next := w.between(5*ms, 500*ms)
		switch {
		case !w.faults:
			next = w.between(100*ms, second)
		case w.now < w.busy:
			next = w.between(ms, 20*ms)
		}
		w.after(next, c.turn(w))
	}
}

func (c *client) append(w *World, n *node, id partition.ID) {
	r := n.replicas[id]
	if r.Role() != partition.Serving {
		return
	}
	c.seqs[id]++
	a := &check.Append{Partition: id, Tag: uint64(len(w.History.Appends) + 1), Client: c.id, Seq: c.seqs[id]}
	var b kv.Batch
	b.Put(tagKey(id, a.Tag), make([]byte, w.rand.IntN(60)))
	b.Put(seqKey(id, c.id), binary.BigEndian.AppendUint64(nil, a.Seq))
	a.At = partition.Last{Epoch: r.Table().Epoch, N: r.Last().N + 1}
	w.History.Submit(a)
	r.waiting = append(r.waiting, &appended{Append: a, n: a.At.N})
	n.step(r, &partition.Event{Kind: partition.Append, Batch: b.Encoded()})
}

// read looks for one of the newest appends that were acknowledged.
func (c *client) read(w *World, n *node, id partition.ID) {
	all := w.History.Appends
	for i := len(all) - 1; i >= 0 && i > len(all)-50; i-- {
		a := all[i]
		// An owner that does not know yet that it is none may lack what its
		// follower acknowledged.
		if a.Partition == id && a.Acked && a.At.Epoch <= n.replicas[id].Table().Epoch {
			w.History.Read(n.name, a, w.has(n.name, a))
			return
		}
	}
}

// has reports whether the disk of a broker has an append.
func (w *World) has(b partition.Broker, a *check.Append) bool {
	_, err := w.node(b).store.Get(tagKey(a.Partition, a.Tag))
	return err == nil
}
