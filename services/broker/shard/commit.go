// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/session"
)

// waiter is something that goes on when a ticket of a ledger is committed.
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
	after func()
	// lost, with after, is run instead if the partition is lost first.
	lost   func()
	slot   uint32
	gen    uint32
	parcel *parcel
	// flight, with slot, is what a partition gets again if it is lost before it has
	// written it. All that one publish has there is one flight.
	flight *flight
	// hold has a SUBACK wait for the routes.
	hold *hold
	// deferred is a delivery that had to be written after all.
	deferred *unwritten
}

// commit remembers, for a ticket, up to where a queue becomes readable.
type commit struct {
	ticket uint64
	se     *sess
	seq    uint64
}

// ledger is the order in which batches become durable, and what waits for them. A
// broker that is alone has one for each shard, so that a turn is one batch; in a
// cluster each partition has its own, as each has other followers. It belongs to
// the turn of its shard, but for Committed.
type ledger struct {
	shard *Shard
	// space is the partition, nil of a shard's ledger.
	space *space

	batch *kv.Batch // the open one
	// ticket is that of the open batch, durable that up to which all are committed.
	ticket, durable uint64
	// used says that the ledger stands in Shard.used.
	used bool
	// outside is a ledger of nothing that is written: what waits in it does so for
	// something else.
	outside bool
	// lost says that the partition is not served here any more.
	lost bool
	// numbered are the partitions that have given numbers in the open batch.
	numbered []*space
	touched  []*sess
	commits  []commit
	waiters  []waiter
	first    int // of waiters
}

func newLedger(s *Shard, p *space) *ledger {
	return &ledger{shard: s, space: p, batch: new(kv.Batch), ticket: 1}
}

var batches = sync.Pool{New: func() any { return new(kv.Batch) }}

// maxPooledBatch is the largest batch whose memory is kept, in bytes.
const maxPooledBatch = 1 << 20

// use has the ledger submitted when the turn ends.
func (s *Shard) use(l *ledger) *ledger {
	if !l.used {
		l.used = true
		s.used = append(s.used, l)
	}
	return l
}

// batch is the open batch of a partition.
func (s *Shard) batch(p *space) *kv.Batch { return s.use(p.ledger).batch }

// wait defers w until everything in the open batch of l is committed.
func (s *Shard) wait(l *ledger, w waiter) {
	w.ticket = l.ticket
	s.use(l)
	l.waiters = append(l.waiters, w)
}

// storedIn notes that the publish that is being routed has something in the open
// batch of l, or waits for what stands before it.
func (s *Shard) storedIn(l *ledger) {
	if !slices.Contains(s.stored, l) {
		s.stored = append(s.stored, l)
	}
}

// touch notes that the queue of se got an entry in the open batch.
func (s *Shard) touch(se *sess) {
	l := s.use(se.space.ledger)
	if se.touched != l.ticket {
		se.touched = l.ticket
		l.touched = append(l.touched, se)
	}
}

// submit hands the open batches over and opens the next.
func (s *Shard) submit() {
	for i, l := range s.used {
		l.used = false
		s.used[i] = nil
		if !l.lost && !l.outside {
			l.submit()
		}
	}
	s.used = s.used[:0]
}

// submit hands the open batch over. Waiters of an empty batch wait for the one
// before it.
func (l *ledger) submit() {
	s := l.shard
	for i, p := range l.numbered {
		p.numbered = false
		s.keyBuf = partition.Key(s.keyBuf[:0], p.id, partition.KindNumber)
		s.valueBuf = binary.BigEndian.AppendUint64(s.valueBuf[:0], p.number)
		l.batch.Put(s.keyBuf, s.valueBuf)
		l.numbered[i] = nil
	}
	l.numbered = l.numbered[:0]
	if l.batch.Len() == 0 && (len(l.waiters) == l.first || l.waiters[len(l.waiters)-1].ticket != l.ticket) {
		return
	}
	for _, se := range l.touched {
		if se.queue != nil {
			l.commits = append(l.commits, commit{l.ticket, se, se.queue.Submitted()})
		}
	}
	clear(l.touched)
	l.touched = l.touched[:0]
	size := int64(l.batch.Size())
	s.unsaved.Add(size)
	if l.space == nil {
		s.set.committer.Submit(l, l.ticket, l.batch)
		l.batch = batches.Get().(*kv.Batch)
	} else {
		l.append(size)
	}
	l.ticket++
}

// Committed implements partition.Owner: it only posts.
func (l *ledger) Committed(ticket uint64, b *kv.Batch) {
	l.shard.unsaved.Add(-int64(b.Size()))
	l.shard.post(item{kind: itemCommitted, ledger: l, ticket: ticket, batch: b}, nil)
}

// committed goes on with everything that waited for ticket. b, if any, is free.
func (s *Shard) committed(l *ledger, ticket uint64, b *kv.Batch) {
	if b != nil && b.Size() <= maxPooledBatch {
		b.Reset()
		batches.Put(b)
	}
	if l.lost {
		return
	}
	l.durable = ticket
	n := 0
	for n < len(l.commits) && l.commits[n].ticket <= ticket {
		c := l.commits[n]
		n++
		if !c.se.gone && c.se.queue != nil && c.se.queue.Committed(c.seq) {
			s.pump(c.se)
		}
	}
	if n > 0 {
		l.commits = append(l.commits[:0], l.commits[n:]...)
	}
	for l.first < len(l.waiters) && l.waiters[l.first].ticket <= ticket {
		w := l.waiters[l.first]
		l.waiters[l.first] = waiter{}
		l.first++
		s.resume(&w)
	}
	if l.first == len(l.waiters) {
		l.waiters, l.first = l.waiters[:0], 0
	} else if l.first > 1024 && l.first > len(l.waiters)/2 {
		k := copy(l.waiters, l.waiters[l.first:])
		clear(l.waiters[k:])
		l.waiters, l.first = l.waiters[:k], 0
	}
}

func (s *Shard) resume(w *waiter) {
	switch {
	case w.se != nil:
		if w.hold != nil && w.hold.left > 0 {
			late := *w
			w.hold.w = &late
		} else if w.se.ch != nil && w.se.Epoch() == w.epoch {
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
