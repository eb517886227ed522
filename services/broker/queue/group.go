// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

// GroupOf is the shared subscription of an entry that was taken and not released;
// empty if it is of none.
func (q *Queue) GroupOf(seq uint64) string {
	if e := q.flying[seq]; e != nil {
		return e.Group
	}
	return ""
}

// TakeGroup takes up to limit waiting entries of a shared group out of the
// queue, those with a seq below before, for another member. more says that there
// may be others. Entries of
// other groups stay where they are, in memory or in the store.
func (q *Queue) TakeGroup(group string, before uint64, limit int, b *kv.Batch) (out []*Entry, more bool, err error) {
	take := func(e *Entry) bool {
		if e.Group != group || e.Seq >= before || len(out) == limit {
			return false
		}
		out = append(out, e)
		q.count--
		q.bytes -= int64(e.Size())
		if q.durable || q.spilled {
			b.Delete(q.key(e.Seq))
			q.leave(e.Seq)
		}
		if e.body != 0 {
			q.space.refer(b, e.body, -1)
		}
		return true
	}
	q.mem = slices.DeleteFunc(q.mem, func(e *Entry) bool {
		if take(e) {
			q.memBytes -= e.Size()
			if q.lifo != nil {
				q.miss(e.Seq)
			}
			return true
		}
		return false
	})
	start := partition.KeyU64U64(nil, q.space.part, partition.KindQueue, q.sid, q.stored)
	end := partition.KeyU64U64(nil, q.space.part, partition.KindQueue, q.sid, q.committed)
	if q.stored < q.committed && (q.durable || q.spilled) {
		it := q.space.store.Scan(start, end)
		defer it.Close()
		for len(out) < limit && it.Next() {
			seq := be64(it.Key()[11:])
			if _, gone := q.taken[seq]; gone || !bytes.Contains(it.Value(), []byte(group)) {
				continue
			}
			e, err := q.space.parse(seq, it.Value())
			if err != nil {
				continue // load counts it
			}
			if take(e) {
				q.miss(seq)
			}
		}
		if err := it.Err(); err != nil {
			return out, false, fmt.Errorf("queue of session %d: %w", q.sid, err)
		}
	}
	q.tail = slices.DeleteFunc(q.tail, func(e *Entry) bool {
		if take(e) {
			q.miss(e.Seq)
			return true
		}
		return false
	})
	return out, len(out) == limit, nil
}

// miss notes that the store may still show seq for a while, though it is gone.
func (q *Queue) miss(seq uint64) {
	if q.taken == nil {
		q.taken = make(map[uint64]struct{})
	}
	q.taken[seq] = struct{}{}
}
