// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"fmt"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

const (
	// MemoryLimit is how many bytes a queue of a session without expiry holds
	// in memory before it spills.
	MemoryLimit = 1 << 20
	// WindowLimit is how many bytes of a stored queue's head are in memory too.
	WindowLimit = 64 << 10
	// pageEntries is how many entries one load reads at the most.
	pageEntries = 256
)

// Queue is what waits for one session.
type Queue struct {
	space   *Space
	sid     uint64
	durable bool

	// mem are the entries at the head, without gaps; what follows them is in
	// the store alone, from stored (a seq) up to next.
	mem      []*Entry
	memBytes int
	next     uint64
	stored   uint64
	// front is the lowest seq that was given, end the seq after the last entry
	// that may wait in the store alone.
	front, end uint64
	lifo       *lifo // nil before the first Push
	// submits and commits count the batches that the queue has something in.
	submits, commits uint32
	// committed is the first seq that may not be readable from the store yet.
	committed uint64
	// appended is the seq after that of the newest Append: from there on nothing
	// was stored, but for Keep.
	appended uint64
	// tail are the entries in the store alone whose batch is not committed yet.
	tail []*Entry
	// taken are seqs in the store alone that were taken out of the middle, for
	// another member of their group; load passes over them.
	taken map[uint64]struct{}
	// bad are seqs that the store could not give back; see TakeBad.
	bad []uint64
	// spilled are the entries of a queue without durability that have been
	// written: they are deleted when taken.
	spilled bool

	count, bytes int64

	// flying are entries that were taken and not released, where more than the
	// store's copy is needed to release or resend them.
	flying map[uint64]*Entry
	// kept is how many bytes of them Keep holds in memory.
	kept int
}

// New makes an empty queue.
func New(space *Space, sid uint64, durable bool) *Queue {
	return &Queue{space: space, sid: sid, durable: durable, next: firstSeq, stored: firstSeq, committed: firstSeq, appended: firstSeq, front: firstSeq, end: firstSeq}
}

// Len is how many entries wait.
func (q *Queue) Len() int64 { return q.count }

// Bytes is their size.
func (q *Queue) Bytes() int64 { return q.bytes }

// InMemory is how many bytes of the queue are in memory.
func (q *Queue) InMemory() int { return q.memBytes }

// Next is the seq that the next Append will give.
func (q *Queue) Next() uint64 { return q.next }

// Fits reports whether an entry of size may join. Negative limits mean none.
func (q *Queue) Fits(size int, maxMessages, maxBytes int64) bool {
	return (maxMessages < 0 || q.count < maxMessages) && (maxBytes < 0 || q.bytes+int64(size) <= maxBytes)
}

// Append adds e at the tail and gives it its seq. A body id other than 0 says
// that the message stands there (Space.PutBody, same batch).
func (q *Queue) Append(e *Entry, body uint64, b *kv.Batch) {
	e.Seq = q.next
	size := e.Size()
	limit := MemoryLimit
	if q.durable {
		limit = WindowLimit
	}
	inMemory := q.stored == q.next && q.memBytes+size <= limit || q.count == 0
	if q.durable || !inMemory {
		if q.durable && body != 0 {
			e.body = body
			q.space.refer(b, body, 1)
		}
		q.space.buf = appendEntry(q.space.buf[:0], e)
		b.Put(partition.KeyU64U64(make([]byte, 0, 19), q.space.part, partition.KindQueue, q.sid, e.Seq), q.space.buf)
	}
	q.next++
	q.appended, q.end = q.next, q.next
	if inMemory {
		q.mem = append(q.mem, e)
		q.memBytes += size
		q.stored = q.next
	} else {
		q.spilled = true
		q.tail = append(q.tail, e)
	}
	q.count++
	q.bytes += int64(size)
}

// Committed says that everything appended before seq is readable from the
// store. It reports whether the head was waiting for that.
func (q *Queue) Committed(seq uint64) bool {
	waiting := len(q.mem) == 0 && q.count > 0
	q.committed = max(q.committed, seq)
	if q.commits++; q.lifo != nil {
		q.settle()
	}
	n := 0
	for n < len(q.tail) && q.tail[n].Seq < q.committed {
		q.tail[n] = nil
		n++
	}
	if q.tail = q.tail[n:]; len(q.tail) == 0 {
		q.tail = nil
	}
	return waiting
}

// Waits reports whether the head is in the store alone and not yet committed:
// the batch has to be committed before it can be read.
func (q *Queue) Waits() bool {
	return q.count > 0 && len(q.mem) == 0 && q.stored >= q.committed
}

// Head returns the entry at the head without taking it; nil if the queue is
// empty or Waits.
func (q *Queue) Head() (*Entry, error) {
	for len(q.mem) == 0 && q.count > 0 && q.stored < q.committed {
		if err := q.load(); err != nil {
			return nil, err
		}
	}
	if len(q.mem) == 0 {
		return nil, nil
	}
	return q.mem[0], nil
}

// load reads the next page into memory.
func (q *Queue) load() error {
	start := partition.KeyU64U64(nil, q.space.part, partition.KindQueue, q.sid, q.stored)
	end := partition.KeyU64U64(nil, q.space.part, partition.KindQueue, q.sid, q.committed)
	it := q.space.store.Scan(start, end)
	defer it.Close()
	n := 0
	for n < pageEntries && q.memBytes < WindowLimit && it.Next() {
		_, rest, err := partition.SplitU64(it.Key())
		if err != nil || len(rest) != 8 {
			return fmt.Errorf("queue of session %d: %w", q.sid, partition.ErrBadKey)
		}
		seq := be64(rest)
		n++
		q.stored = seq + 1
		if _, gone := q.taken[seq]; gone {
			if q.lifo == nil {
				delete(q.taken, seq)
			}
			continue
		}
		e, err := q.space.parse(seq, it.Value())
		if err != nil {
			q.bad = append(q.bad, seq)
			q.count--
			continue
		}
		q.mem = append(q.mem, e)
		q.memBytes += e.Size()
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("queue of session %d: %w", q.sid, err)
	}
	if n == 0 {
		// Nothing lies between: what is left is not committed yet, or the
		// count was wrong, which a later Append must not build on.
		q.stored = q.committed
	}
	if len(q.mem) == 0 && q.stored >= q.next {
		q.count, q.bytes, q.memBytes = 0, 0, 0
		if q.lifo == nil {
			q.taken = nil
		}
	}
	return nil
}

// TakeBad returns how many entries the store could not give back since the last
// call, and deletes what is left of them. They are lost to this session.
func (q *Queue) TakeBad(b *kv.Batch) int {
	n := len(q.bad)
	for _, seq := range q.bad {
		b.Delete(q.key(seq))
	}
	q.bad = nil
	return n
}

func be64(b []byte) (v uint64) {
	for _, c := range b[:8] {
		v = v<<8 | uint64(c)
	}
	return v
}

// Pass gives e the next seq without keeping it: it was handed to the session at
// once, and is not stored. The queue must be empty.
func (q *Queue) Pass(e *Entry) {
	e.Seq = q.next
	q.next++
	q.stored, q.end = q.next, q.next
	if q.committed >= q.appended { // no batch is open
		q.committed = q.next
	}
}

// Take takes the head off: it was handed to the session. A stored entry stays
// in the store until Release. hold keeps the message in memory as well, so that
// another member of a shared group may have it at any time.
func (q *Queue) Take(hold bool, b *kv.Batch) *Entry {
	e := q.pop()
	if !q.durable && q.spilled {
		b.Delete(q.key(e.Seq))
	}
	if q.lifo != nil {
		q.miss(e.Seq)
		if !q.durable {
			q.leave(e.Seq)
		}
	}
	if e.body != 0 || hold {
		if q.flying == nil {
			q.flying = make(map[uint64]*Entry)
		}
		q.flying[e.Seq] = e
	}
	return e
}

// Drop takes the head off for good: it has expired.
func (q *Queue) Drop(b *kv.Batch) *Entry {
	e := q.pop()
	if q.durable || q.spilled {
		b.Delete(q.key(e.Seq))
	}
	if e.body != 0 {
		q.space.refer(b, e.body, -1)
	}
	if q.lifo != nil {
		q.miss(e.Seq)
		q.leave(e.Seq)
	}
	return e
}

func (q *Queue) pop() *Entry {
	e := q.mem[0]
	q.mem[0] = nil
	if len(q.mem) == 1 {
		q.mem = q.mem[:0]
	} else {
		q.mem = q.mem[1:]
	}
	size := e.Size()
	q.memBytes -= size
	q.count--
	q.bytes -= int64(size)
	return e
}

// Release forgets a taken entry: it was acknowledged.
func (q *Queue) Release(seq uint64, b *kv.Batch) {
	e, ok := q.flying[seq]
	if ok {
		delete(q.flying, seq)
		q.drop(e)
	}
	if !q.durable {
		return
	}
	if !ok || e.inside == 0 {
		b.Delete(q.key(seq))
	}
	q.leave(seq)
	if ok && e.body != 0 {
		q.space.refer(b, e.body, -1)
	}
}

// Reload returns a taken entry for sending it again. The batch of its Append
// must have been committed.
func (q *Queue) Reload(seq uint64) (*Entry, error) {
	e, ok := q.flying[seq]
	switch {
	case ok && e.Message != nil:
		return e, nil
	case ok && e.inside != 0:
		return q.space.getInside(q.sid, e)
	}
	if !q.durable {
		return nil, fmt.Errorf("queue entry %d of session %d is not held", seq, q.sid)
	}
	return q.space.get(q.sid, seq)
}

func (q *Queue) key(seq uint64) []byte {
	return partition.KeyU64U64(make([]byte, 0, 19), q.space.part, partition.KindQueue, q.sid, seq)
}
