// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"log/slog"

	"github.com/manormq/manor/infra/mqtt"
)

// A publisher whose tenant has it so (allow_publish_during_netsplit) does not wait for
// a partition that cannot be given its message: a flight of it that is held is kept in
// the outbox of its origin, which is what is acknowledged then, and flies when it can.
// It is handed off.
//
// What is handed off of a stream is a beginning of what is held there for those that
// have it so: one is never kept while an earlier one of its publisher is not, so a new
// owner of the origin, which has the outbox alone, sends them in their order. Hence
// nothing is handed off while anything of the stream is under way.

const (
	// handOffAfter is for how long a stream has had something held, in milliseconds,
	// before that is handed off: partitions that move are back before.
	handOffAfter = 1000
	// handOffTenant and handOffMost are how many bytes of messages may be handed off, of
	// one tenant and of all, at one broker. They are in its memory and in its log.
	handOffTenant = 64 << 20
	handOffMost   = 256 << 20
	// handOffCost is what one counts for besides its message.
	handOffCost = 256
	// handOffSaidEvery is how often the log says that no more can be, in milliseconds.
	handOffSaidEvery = 10_000
)

// handOffAll hands off what is held of a stream, if it is time.
func (s *Shard) handOffAll(st *stream) {
	if st.out > 0 || !st.fresh || s.now-st.heldAt < s.set.handOffs.after {
		return
	}
	st.fresh = false
	for _, f := range st.held {
		switch {
		case f.handed || !f.pending:
		case !s.mayHandOff(f):
			st.fresh = true // it may become so
		case !s.handOff(f):
			st.fresh = true
			return
		}
	}
}

// mayHandOff reports whether somebody waits for f who has it so.
func (s *Shard) mayHandOff(f *flight) bool {
	q := &s.pending[f.slot]
	return q.gen == f.gen && q.se != nil && !q.se.gone && q.se.limits != nil && q.se.limits.Settings.HandOff
}

// handOff writes f into the outbox of its origin, and has its publisher wait for that
// alone. It reports false if there is too much there.
func (s *Shard) handOff(f *flight) bool {
	size := f.handOffSize()
	if f.tenant.handedOff.Load()+size > s.set.handOffs.tenant || s.set.handedOff.Load()+size > s.set.handOffs.all {
		s.handOffFull(f)
		return false
	}
	p := s.spaces[f.origin]
	if p == nil {
		return false // it is about to move: the publisher sends it again at the next owner
	}
	s.countHandOff(f)
	s.stats.HandedOff.Add(1)
	if f.n == 0 {
		r := recordOf(f.dispatch, 0, []aim{f.aim})
		r.handed, r.plain = true, true
		f.record = s.writeOutbox(p, r)
	} else if r := s.pending[f.slot].record; !r.handed {
		r.handed, r.packet = true, 0 // which may be that of another publish from now on
		s.putOutboxRecord(p, f.n, r)
	}
	s.wait(p.ledger, waiter{after: func() { s.keptHere(f) }})
	return true
}

func (f *flight) handOffSize() int64 { return int64(f.msg.Size() + handOffCost) }

// countHandOff counts f as handed off.
func (s *Shard) countHandOff(f *flight) {
	f.handed = true
	size := f.handOffSize()
	f.tenant.handedOff.Add(size)
	s.set.handedOff.Add(size)
}

// uncountHandOff takes f, which has arrived or is not of this broker any more, out of
// what is handed off.
func (s *Shard) uncountHandOff(f *flight) {
	if !f.handed {
		return
	}
	f.handed = false
	size := f.handOffSize()
	f.tenant.handedOff.Add(-size)
	s.set.handedOff.Add(-size)
}

// handOffFull says that f is not handed off, so that its publisher waits.
func (s *Shard) handOffFull(f *flight) {
	if f.waits {
		return
	}
	f.waits = true
	s.stats.HandOffFull.Add(1)
	if s.now-s.handOffSaid < handOffSaidEvery {
		return
	}
	s.handOffSaid = s.now
	s.set.log.Warn("messages for partitions that cannot be reached are not acknowledged: as much is handed off as may be; further ones are counted only, for 10 seconds",
		slog.String("tenant", f.tenant.id), slog.Int("partition", int(f.aim.part)), slog.Int64("bytes", f.tenant.handedOff.Load()))
}

// keptHere goes on with the publisher of f, which is committed in the outbox.
func (s *Shard) keptHere(f *flight) {
	if !f.handed || !f.pending {
		return // it has arrived meanwhile
	}
	if f.n == 0 {
		f.told = true
		s.answered(f.slot, f.gen, mqtt.Success, true)
		return
	}
	// The record is of all flights of its publish, and goes with the last of them.
	f.kept = true
	if q := &s.pending[f.slot]; q.gen == f.gen {
		q.kept++
		q.hit = true
		s.settleKept(f.slot)
	}
}

// settleKept acknowledges a publish of which all that it waits for is kept here.
func (s *Shard) settleKept(slot uint32) {
	q := &s.pending[slot]
	if q.kept == 0 || q.kept < q.waits || q.se == nil {
		return
	}
	se, token, packet, reason := q.se, q.token, q.packet, q.reason
	q.se = nil // it is told once
	if !se.gone {
		s.settled(se, token, packet, reason, true)
	}
}

// arrivedHanded is what is to be done besides when f has arrived.
func (s *Shard) arrivedHanded(f *flight) {
	s.uncountHandOff(f)
	if f.record != 0 {
		p := s.spaces[f.origin]
		if p == nil {
			p = s.ceded[f.origin] // sealed: what it has not left yet may still be written
		}
		s.deleteOutbox(p, f.record)
		f.record = 0
	}
	if f.kept {
		f.kept = false
		if q := &s.pending[f.slot]; q.gen == f.gen {
			q.kept--
		}
	}
}

// endStream forgets a stream whose origin is not served here any more.
func (s *Shard) endStream(st *stream) {
	for _, f := range st.held {
		s.uncountHandOff(f)
	}
	st.ended, st.held = true, nil
	delete(s.streams, st.streamKey)
}
