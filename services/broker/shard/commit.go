// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/session"
)

// waiter is something that goes on when a ticket is committed.
type waiter struct {
	ticket uint64
	// se is set for an Out of a session; epoch tells whether the connection is
	// still the one that it was for.
	se    *sess
	epoch uint32
	out   session.Out
	entry *queue.Entry
	// after is run; parcel is a publish of another shard that waits for its
	// answer; slot (with se, after and parcel nil) is one of this shard.
	after  func()
	slot   uint32
	gen    uint32
	parcel *parcel
	// deferred is a delivery that had to be written after all.
	deferred *unwritten
}

// commit remembers, for a ticket, up to where a queue becomes readable.
type commit struct {
	ticket uint64
	se     *sess
	seq    uint64
}

var batches = sync.Pool{New: func() any { return new(kv.Batch) }}

// maxPooledBatch is the largest batch whose memory is kept, in bytes.
const maxPooledBatch = 1 << 20

// wait defers w until everything in the open batch is committed.
func (s *Shard) wait(w waiter) {
	w.ticket = s.ticket
	s.waiters = append(s.waiters, w)
}

// touch notes that the queue of se got an entry in the open batch.
func (s *Shard) touch(se *sess) {
	if se.touched != s.ticket {
		se.touched = s.ticket
		s.touched = append(s.touched, se)
	}
}

// submit hands the open batch to the committer and opens the next. Waiters of
// an empty batch wait for the one before it.
func (s *Shard) submit() {
	for i, p := range s.dirty {
		p.dirty = false
		s.keyBuf = partition.Key(s.keyBuf[:0], p.id, partition.KindLast)
		s.valueBuf = p.last.Append(s.valueBuf[:0])
		s.batch.Put(s.keyBuf, s.valueBuf)
		s.dirty[i] = nil
	}
	s.dirty = s.dirty[:0]
	if s.batch.Len() == 0 && len(s.waiters) == s.first {
		return
	}
	if s.batch.Len() == 0 && s.waiters[len(s.waiters)-1].ticket != s.ticket {
		return
	}
	for _, se := range s.touched {
		if se.queue != nil {
			s.commits = append(s.commits, commit{s.ticket, se, se.queue.Submitted()})
		}
	}
	clear(s.touched)
	s.touched = s.touched[:0]
	s.unsaved.Add(int64(s.batch.Size()))
	s.set.committer.Submit(s, s.ticket, s.batch)
	s.batch = batches.Get().(*kv.Batch)
	s.ticket++
}

// Committed implements partition.Owner: it only posts.
func (s *Shard) Committed(ticket uint64, b *kv.Batch) {
	s.unsaved.Add(-int64(b.Size()))
	s.post(item{kind: itemCommitted, ticket: ticket, batch: b}, nil)
}

// committed goes on with everything that waited for ticket.
func (s *Shard) committed(ticket uint64, b *kv.Batch) {
	if b.Size() <= maxPooledBatch {
		b.Reset()
		batches.Put(b)
	}
	n := 0
	for n < len(s.commits) && s.commits[n].ticket <= ticket {
		c := s.commits[n]
		n++
		if !c.se.gone && c.se.queue != nil && c.se.queue.Committed(c.seq) {
			s.pump(c.se)
		}
	}
	if n > 0 {
		s.commits = append(s.commits[:0], s.commits[n:]...)
	}
	for s.first < len(s.waiters) && s.waiters[s.first].ticket <= ticket {
		w := s.waiters[s.first]
		s.waiters[s.first] = waiter{}
		s.first++
		s.resume(&w)
	}
	if s.first == len(s.waiters) {
		s.waiters, s.first = s.waiters[:0], 0
	} else if s.first > 1024 && s.first > len(s.waiters)/2 {
		k := copy(s.waiters, s.waiters[s.first:])
		clear(s.waiters[k:])
		s.waiters, s.first = s.waiters[:k], 0
	}
}

func (s *Shard) resume(w *waiter) {
	switch {
	case w.se != nil:
		if w.se.ch != nil && w.se.Epoch() == w.epoch {
			s.emit(w.se, &w.out, w.entry)
		}
	case w.after != nil:
		w.after()
	case w.parcel != nil:
		s.arrived(w.parcel)
	case w.deferred != nil:
		s.release(w.deferred)
	default:
		s.answered(w.slot, w.gen, 0, false)
	}
}
