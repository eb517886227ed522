// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"slices"

	"github.com/manormq/manor/infra/kv"
)

// firstSeq is what a new queue begins to count with: Append counts up from it,
// Push down, so that the store has the head's key first whichever way the
// entries came.
const firstSeq = 1 << 40

// lifo is what a queue keeps more once something was pushed to its front. What
// is in flight no longer lies before everything that waits; its seqs are in
// Queue.taken then, until their keys have gone from the store.
type lifo struct {
	// begun: taken has the seqs that were in flight before.
	begun bool
	// leaving are seqs whose deletion is not committed.
	leaving []leaving
}

type leaving struct {
	seq   uint64
	batch uint32
}

// Push adds e at the front, where it is the next to be taken, and gives it its
// seq; it may be called instead of Append at any time. body is as for Append.
// flying calls its argument with the seq of each entry in flight; it is called
// once. An entry of a queue without durability stays in memory.
func (q *Queue) Push(e *Entry, body uint64, b *kv.Batch, flying func(func(seq uint64))) {
	if q.lifo == nil {
		q.lifo = &lifo{}
	}
	if !q.lifo.begun {
		q.lifo.begun = true
		flying(q.miss)
	}
	if q.front <= 1 { // an old store began with 1, and 0 is no seq
		q.Append(e, body, b)
		return
	}
	if q.count == 0 {
		q.stored, q.end = q.next, q.next
	}
	q.front--
	e.Seq, e.batch = q.front, q.submits+1
	if q.durable {
		if body != 0 {
			e.body = body
			q.space.refer(b, body, 1)
		}
		q.space.buf = appendEntry(q.space.buf[:0], e)
		b.Put(q.key(e.Seq), q.space.buf)
	}
	size := e.Size()
	q.mem = slices.Insert(q.mem, 0, e)
	q.memBytes += size
	q.count++
	q.bytes += int64(size)
	q.evict()
}

// evict forgets, at the back of what is in memory, what can be read again.
func (q *Queue) evict() {
	for q.durable && q.memBytes > WindowLimit && len(q.mem) > 1 {
		last := q.mem[len(q.mem)-1]
		if last.batch > q.commits || last.batch == 0 && last.Seq >= q.committed {
			return
		}
		q.mem[len(q.mem)-1] = nil
		q.mem = q.mem[:len(q.mem)-1]
		q.memBytes -= last.Size()
		q.stored = last.Seq
		q.spilled = true
	}
}

// DropBack takes the last of the waiting entries for good: a full lifo drops the
// oldest one, a fifo that has too much the newest. It reports false if there is
// none, or none that can be read.
func (q *Queue) DropBack(b *kv.Batch) (*Entry, bool) {
	e := q.back()
	if e == nil {
		return nil, false
	}
	q.count--
	q.bytes -= int64(e.Size())
	if q.durable || q.spilled {
		b.Delete(q.key(e.Seq))
		q.miss(e.Seq)
		q.leave(e.Seq)
	}
	if e.body != 0 {
		q.space.refer(b, e.body, -1)
	}
	return e, true
}

// back takes the last entry out of where it is in memory, if it is there.
func (q *Queue) back() *Entry {
	if n := len(q.tail); n > 0 {
		e := q.tail[n-1]
		q.tail = q.tail[:n-1]
		q.end = e.Seq
		return e
	}
	for seq := min(q.end, q.committed); seq > q.stored; seq-- {
		if _, gone := q.taken[seq-1]; gone {
			continue
		}
		if e, err := q.space.get(q.sid, seq-1); err == nil {
			q.end = seq - 1
			return e
		}
	}
	q.end = min(q.end, max(q.stored, q.committed))
	n := len(q.mem)
	if n == 0 {
		return nil
	}
	e := q.mem[n-1]
	q.mem[n-1] = nil
	q.mem = q.mem[:n-1]
	q.memBytes -= e.Size()
	return e
}

// leave notes that the key of seq goes with the open batch.
func (q *Queue) leave(seq uint64) {
	if q.lifo != nil {
		q.lifo.leaving = append(q.lifo.leaving, leaving{seq, q.submits + 1})
	}
}

// Submitted says that the open batch is on its way to the store, and returns
// what Committed is to be called with when it is there. Those calls come in the
// same order.
func (q *Queue) Submitted() uint64 {
	q.submits++
	return q.next
}

// settle forgets the seqs whose keys have gone, and what can be read again.
func (q *Queue) settle() {
	l := q.lifo
	n := 0
	for n < len(l.leaving) && l.leaving[n].batch <= q.commits {
		delete(q.taken, l.leaving[n].seq)
		n++
	}
	l.leaving = slices.Delete(l.leaving, 0, n)
	q.evict()
}
