// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"encoding/binary"
	"fmt"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

// An entry that is sent in the turn in which it comes needs no record of its own: that of
// its delivery holds it, so that a message costs the store one key instead of two.

// DeliveryHead is how many bytes of a delivery's record stand before the entry that it
// may hold.
const DeliveryHead = 22

// DeliveryKey appends the key of the record of a delivery. It has the attachment between
// session and Packet Identifier, which is 0 while a session has one connection.
func DeliveryKey(dst []byte, p partition.ID, sid uint64, packet uint16) []byte {
	return binary.BigEndian.AppendUint16(append(partition.KeyU64(dst, p, partition.KindInflight, sid), 0), packet)
}

// Keep appends an entry of Pass to the record of the delivery that it was handed to the
// session for, and holds it in memory for sending it again until Rest or Release.
func (q *Queue) Keep(e *Entry, packet uint16, record []byte) []byte {
	if q.flying == nil {
		q.flying = make(map[uint64]*Entry)
	}
	e.inside = packet
	q.flying[e.Seq] = e
	q.kept += e.Size()
	return appendEntry(record, e)
}

// MayKeep reports whether Keep may hold one more message: what a session has not
// acknowledged is bounded in memory as what waits for it is. Beyond that it is appended.
func (q *Queue) MayKeep() bool { return q.kept < WindowLimit }

// drop takes a flying entry out of what is counted in memory.
func (q *Queue) drop(e *Entry) {
	if e.inside != 0 && e.Message != nil {
		q.kept -= e.Size()
	}
}

// KeepApart stores an entry of Pass in a record of its own until Release, and holds it in
// memory for sending it again.
func (q *Queue) KeepApart(e *Entry, b *kv.Batch) {
	if q.flying == nil {
		q.flying = make(map[uint64]*Entry)
	}
	q.flying[e.Seq] = e
	if q.lifo != nil {
		q.miss(e.Seq)
	}
	q.space.buf = appendEntry(q.space.buf[:0], e)
	b.Put(q.key(e.Seq), q.space.buf)
}

// Inside reports whether the record of its delivery holds a taken entry.
func (q *Queue) Inside(seq uint64) bool {
	e := q.flying[seq]
	return e != nil && e.inside != 0
}

// Rest frees the memory of the messages that Keep holds, and what a queue that was long
// leaves of itself: their session has no connection any more. Their batches must be committed before Reload is called.
func (q *Queue) Rest() {
	if len(q.mem) == 0 {
		q.mem = nil
	}
	for seq, e := range q.flying {
		if e.inside != 0 && e.Message != nil {
			q.drop(e)
			q.flying[seq] = &Entry{Seq: seq, inside: e.inside}
		}
	}
}

// RestoreInside counts an entry that the record of a delivery holds, when a broker
// starts. Restored must be called with a seq above it.
func (q *Queue) RestoreInside(seq uint64, packet uint16) {
	if q.flying == nil {
		q.flying = make(map[uint64]*Entry)
	}
	q.flying[seq] = &Entry{Seq: seq, inside: packet}
}

// getInside reads an entry that the record of its delivery holds.
func (s *Space) getInside(sid uint64, e *Entry) (*Entry, error) {
	v, err := s.store.Get(DeliveryKey(make([]byte, 0, 14), s.part, sid, e.inside))
	if err == nil && len(v) <= DeliveryHead {
		err = errEntry
	}
	var out *Entry
	if err == nil {
		out, err = s.parse(e.Seq, v[DeliveryHead:])
	}
	if err != nil {
		return nil, fmt.Errorf("queue entry %d of session %d in the record of its delivery: %w", e.Seq, sid, err)
	}
	out.inside = e.inside
	return out, nil
}
