// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"slices"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

// Wipe deletes everything that the queue has in the store.
func (q *Queue) Wipe(b *kv.Batch) error {
	if !q.durable && !q.spilled {
		return nil
	}
	for seq, e := range q.flying {
		if e.inside == 0 {
			b.Delete(q.key(seq)) // of KeepApart: its batch may be open still
		}
		if e.body != 0 {
			q.space.refer(b, e.body, -1)
		}
	}
	for _, e := range slices.Concat(q.mem, q.tail) {
		if e.batch != 0 && q.durable {
			b.Delete(q.key(e.Seq)) // of Push: its batch may be open still
		}
		if e.body != 0 {
			q.space.refer(b, e.body, -1)
		}
	}
	// What waits in the store alone still holds its bodies; an older key there
	// is a leftover of the open batch, which has given its body back already.
	waiting := q.stored
	for seq := q.committed; seq < q.appended; seq++ {
		b.Delete(q.key(seq))
	}
	q.flying, q.mem, q.tail, q.count, q.bytes = nil, nil, nil, 0, 0
	return wipeStored(q.space, q.sid, waiting, q.committed, q.taken, b)
}

// WipeStored deletes the stored entries of a session that no longer exists,
// when a broker starts.
func WipeStored(space *Space, sid uint64, b *kv.Batch) error {
	return wipeStored(space, sid, 0, ^uint64(0), nil, b)
}

// wipeStored deletes the keys below end and releases the bodies from seq
// waiting on.
func wipeStored(space *Space, sid, waiting, end uint64, taken map[uint64]struct{}, b *kv.Batch) error {
	start := partition.KeyU64U64(nil, space.part, partition.KindQueue, sid, 0)
	it := space.store.Scan(start, partition.KeyU64U64(nil, space.part, partition.KindQueue, sid, end))
	defer it.Close()
	for it.Next() {
		e, err := parseEntry(it.Value())
		seq := be64(it.Key()[11:])
		if _, gone := taken[seq]; err == nil && e.body != 0 && seq >= waiting && !gone {
			space.refer(b, e.body, -1)
		}
		b.Delete(it.Key())
	}
	return it.Err()
}
