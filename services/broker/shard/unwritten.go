// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/session"
)

// unwritten is a QoS 1 delivery to a stored session that has been sent and is in
// memory alone, as is its message unless it was stored before. If the session acknowledges it soon it is never written, and the
// publisher is answered then; else it is written after the Set's write delay, or
// when the connection ends or something later for the session is written, and the
// publisher is answered after the commit. Until then the publisher has no PUBACK, so
// a crash loses nothing that it was promised.
type unwritten struct {
	se    *sess
	entry queue.Entry
	// inflight is what the store must hold of it beside the entry.
	inflight session.Record
	// stored says that the entry is in the store, and waits there as long as the
	// delivery is not written: after a crash it is sent again as one that was not sent.
	// Nobody waits for it.
	stored bool
	// The publish that waits for it: slot of this shard, or parcel of another.
	slot, gen uint32
	parcel    *parcel
	// flight, with slot, is that of a waiter.
	flight *flight
	// over says that nothing but its place in the list is left.
	over bool
}

// patience is how a session's acknowledgements come: one that is late has the
// next messages written at once, twice as many each time.
type patience struct {
	late uint8  // how often in a row, at most maxLate
	skip uint8  // messages still to be written at once
	at   uint32 // the timer at which it was last late
}

const maxLate = 7

// missed notes that a delivery is late. Several at one timer are one time.
func (p *patience) missed(timer uint32) {
	if p.at == timer {
		return
	}
	p.at, p.late = timer, min(p.late+1, maxLate)
	p.skip = 1<<p.late - 1
}

// unwrittens are those of a shard, oldest first.
type unwrittens struct {
	list  []*unwritten
	first int
	// acked were acknowledged in the step that is being carried out; answering
	// says that somebody goes through them.
	acked     []*unwritten
	answering bool
	fired     uint32 // how often the timer did
	// armed says that it runs; then those before due are written.
	armed bool
	due   int
}

// mayDefer reports whether a QoS 1 message of that publish may be sent to the
// session before it is written.
func (s *Shard) mayDefer(se *sess, v *view) bool {
	if !v.awaited || s.set.writeDelay <= 0 || !se.Durable() || se.waiting() > 0 || !se.Ready() {
		return false
	}
	if se.patience.skip > 0 {
		se.patience.skip--
		return false
	}
	return true
}

// sendUnwritten sends e, which mayDefer allows. The caller of fanOut sets what
// waits for it.
func (s *Shard) sendUnwritten(e *queue.Entry, se *sess) {
	u := &unwritten{se: se, entry: *e}
	se.queueOf().Pass(&u.entry)
	s.defers(u)
	ev := session.Event{
		Kind: session.Enqueued, QoS: mqtt.AtLeastOnce, Seq: u.entry.Seq,
		Size: link.DeliverCost(u.entry.Message.Size(), len(u.entry.IDs)),
	}
	s.stepEntry(se, &ev, nil, &u.entry)
}

// acknowledged notes that u need not be written any more.
func (s *Shard) acknowledged(u *unwritten) {
	delete(u.se.unwritten, u.entry.Seq)
	s.stats.Unwritten.Add(1)
	u.over = true
	if !u.stored {
		u.se.patience.late = 0
		s.unwritten.acked = append(s.unwritten.acked, u)
	}
}

// answerAcked answers the publishers of what was acknowledged. An answer is a step
// of the publisher's session, so that only the outermost call goes on.
func (s *Shard) answerAcked() {
	w := &s.unwritten
	if w.answering {
		return
	}
	w.answering = true
	for n := len(w.acked); n > 0; n = len(w.acked) {
		u := w.acked[n-1]
		w.acked[n-1] = nil
		w.acked = w.acked[:n-1]
		s.release(u)
	}
	w.answering = false
}

// release answers the publisher of u.
func (s *Shard) release(u *unwritten) {
	if u.parcel != nil {
		s.arrived(u.parcel)
	} else {
		s.answered(u.slot, u.gen, 0, false)
	}
	*u = unwritten{over: true}
}

// write puts u into the open batch, whose commit answers its publisher.
func (s *Shard) write(u *unwritten) {
	se := u.se
	delete(se.unwritten, u.entry.Seq)
	u.over = true
	if u.stored {
		s.putInflight(se, &u.inflight)
		return
	}
	e := u.entry // u is used for other things after the commit
	if s.set.inside.Load() {
		s.putInside(se, &u.inflight, &e)
	} else {
		se.queueOf().KeepApart(&e, s.batch(se.space))
		s.putInflight(se, &u.inflight)
	}
	s.wait(se.space.ledger, waiter{deferred: u})
}

// unwrittenFor has the delivery of a stored entry, which is about to be taken, wait for
// its acknowledgement unwritten, if that may come soon. Otherwise what the session has
// not acknowledged is written before it, so that all is sent again in its order.
func (s *Shard) unwrittenFor(se *sess, e *queue.Entry) {
	if e.QoS != mqtt.AtLeastOnce || e.Group != "" || s.set.writeDelay <= 0 || !se.Durable() || se.limits.Settings.LIFO {
		s.writeAll(se)
		return
	}
	s.defers(&unwritten{se: se, entry: queue.Entry{Seq: e.Seq}, stored: true})
}

// toldDelay is for how long the delivery of a stored message may be unwritten, at most
// twice that. Nobody waits for it, so it is long enough for a client that has a whole
// queue to acknowledge.
const toldDelay = time.Second

func (s *Shard) defers(u *unwritten) {
	if u.se.unwritten == nil {
		u.se.unwritten = make(map[uint64]*unwritten)
	}
	u.se.unwritten[u.entry.Seq] = u
	w := &s.unwritten
	if u.stored {
		w = &s.untold
	}
	w.list = append(w.list, u)
}

// byOrder are the unwritten deliveries of a session, as they were sent.
func (se *sess) byOrder() []*unwritten {
	if len(se.unwritten) == 0 {
		return nil
	}
	return slices.SortedFunc(maps.Values(se.unwritten), func(a, b *unwritten) int { return cmp.Compare(a.entry.Seq, b.entry.Seq) })
}

// writeAll writes what a session has not acknowledged, because its connection has
// gone or because something later is about to be written: after a crash the
// session must not have that alone.
func (s *Shard) writeAll(se *sess) {
	for _, u := range se.byOrder() {
		s.write(u)
	}
}

// writeUpTo writes u, and before it what its session was sent before it, so that a crash
// does not turn the order round.
func (s *Shard) writeUpTo(u *unwritten) {
	for _, x := range u.se.byOrder() {
		if x.entry.Seq > u.entry.Seq {
			return
		}
		s.write(x)
	}
}

// forgetUnwritten answers for a session that has ended.
func (s *Shard) forgetUnwritten(se *sess) {
	for _, u := range se.byOrder() {
		s.acknowledged(u)
	}
	se.unwritten = nil
}

// deferWrites drops what is over from the head of the list, and has the timer run
// while there is something in it. It is part of the end of a turn.
func (s *Shard) deferWrites() {
	s.deferWritesOf(&s.unwritten, s.set.writeDelay)
	s.deferWritesOf(&s.untold, toldDelay)
}

func (s *Shard) deferWritesOf(w *unwrittens, delay time.Duration) {
	for w.first < len(w.list) && w.list[w.first].over {
		w.list[w.first] = nil
		w.first++
	}
	if w.first == len(w.list) {
		w.list, w.first, w.due = w.list[:0], 0, 0
		return
	}
	if w.first > 1024 && w.first > len(w.list)/2 {
		n := copy(w.list, w.list[w.first:])
		clear(w.list[n:])
		w.list, w.due, w.first = w.list[:n], max(0, w.due-w.first), 0
	}
	if w.armed {
		return
	}
	w.armed, w.due = true, len(w.list)
	s.after(delay, func() { s.writeDue(w) })
}

// writeDue writes what was there already when the timer began to run.
func (s *Shard) writeDue(w *unwrittens) {
	w.armed = false
	w.fired++
	for i := w.first; i < w.due; i++ {
		if u := w.list[i]; !u.over {
			if !u.stored {
				u.se.patience.missed(w.fired)
			}
			s.writeUpTo(u)
		}
	}
	w.due = 0
}
