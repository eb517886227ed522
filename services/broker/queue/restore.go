// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"fmt"

	"github.com/manormq/manor/services/broker/partition"
)

// RestoreEntry counts a stored entry when a broker starts: seqs come in
// rising order; flying says that it is in flight and does not wait.
func (q *Queue) RestoreEntry(seq uint64, value []byte, flying bool) error {
	e, err := parseEntry(value)
	if err != nil {
		return fmt.Errorf("queue entry %d of session %d: %w", seq, q.sid, err)
	}
	if q.count == 0 {
		q.stored = seq
	}
	q.next, q.committed, q.end = seq+1, seq+1, seq+1
	q.front = min(q.front, seq)
	if flying {
		if q.count == 0 {
			q.stored = seq + 1
		} else { // what waits before it was pushed
			if q.lifo == nil {
				q.lifo = &lifo{}
			}
			q.miss(seq)
		}
		if e.body != 0 || e.Group != "" {
			if q.flying == nil {
				q.flying = make(map[uint64]*Entry)
			}
			e.Seq, e.Message = seq, nil // Reload reads it
			q.flying[seq] = &e
		}
		return nil
	}
	size := entryOverhead
	if e.Message != nil {
		size += e.Message.Size()
	} else if bv, err := q.space.store.Get(partition.KeyU64(nil, q.space.part, partition.KindBody, e.body)); err == nil {
		m, err := ParseMessage(bv)
		if err != nil {
			return err
		}
		size += m.Size()
	} else {
		q.bad = append(q.bad, seq)
		q.miss(seq)
		if q.count == 0 {
			q.stored = seq + 1
		}
		return nil
	}
	size += len(e.Group) + idCost*len(e.IDs)
	q.count++
	q.bytes += int64(size)
	return nil
}

// Restored ends the restoring: the next Append gives a seq above next.
func (q *Queue) Restored(next uint64) {
	q.next = max(q.next, next)
	q.committed = q.next
	q.end = q.next
	if q.count == 0 {
		q.stored = q.next
	}
}
