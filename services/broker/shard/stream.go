// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"cmp"
	"slices"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
)

// In a cluster, what a publish has for a partition other than those of the turn
// that routes it is a flight, and the flights between two partitions are a stream.
// All that is under way in a stream is under way to one broker; what was not taken
// there, or was lost with the link or the partition, is held and sent again in
// order, to whoever owns the partition by then. So a subscriber gets the messages
// of a publisher in their order also when its partition moves, and a publisher has
// its acknowledgement when every partition has the message.

// dispatch is what the flights of one publish share. msg is in memory of its own.
type dispatch struct {
	tenant   *Tenant
	from     mqtt.ClientID
	msg      *mqtt.Message
	expireAt int64
	// n numbers an exact publish; 0 is none.
	n uint64
	// slot is what waits for the flights, if pending is set.
	pending   bool
	slot, gen uint32
	// keeps: one of its flights is counted under keepOf, until it has arrived.
	keeps  bool
	keepOf keepOf
}

// flight is a dispatch on its way to one partition.
type flight struct {
	*dispatch
	aim    aim
	origin partition.ID
	stream *stream // once it is in one
	// seq orders the flights of a shard.
	seq uint64
	// after is the exact one that the partition must have before this one.
	after uint64

	// handed: it counts as handed off; record is the outbox record that is of it alone,
	// 0 without one; kept: it is counted in the pending's kept; told: nobody waits for it
	// any more. waits: it could not be handed off.
	handed, kept, told, waits bool
	record                    uint64
}

type streamKey struct{ origin, target partition.ID }

// stream are the flights from one partition to another, while there are any.
type stream struct {
	streamKey
	// owner is the broker to which all that is under way was sent, link that over which
	// it was: what is sent over the next one must not arrive before what was lost with it.
	owner string
	link  cluster.LinkID
	// out are under way, and exact of them exact; last is the newest of those.
	out, exact int
	last       uint64
	// held wait to be sent again, in their order.
	held []*flight
	// heldAt is since when some are held and none arrives, in Unix milliseconds; 0 is
	// not.
	heldAt int64
	// rounds is how often what is held was sent again since something arrived.
	rounds int
	// fresh: some of held may be handed off.
	fresh bool
	// ended says that the origin is not served here any more.
	ended bool
}

// sent is what was sent to one broker at once, and its answer.
type sent struct {
	flights []*flight
	// first says that nothing was under way in their streams; else over is the link that
	// what was under way had been sent over.
	first  bool
	over   cluster.LinkID
	answer cluster.Answer
}

// launch sends a dispatch of partition origin to all aims. None of the flights has
// landed before it returns.
func (s *Shard) launch(origin partition.ID, d *dispatch, aims []aim) {
	var to []departure
	for i := range aims {
		f := s.flight(origin, d, aims[i])
		st := s.streamOf(f)
		owner, _ := s.set.cluster.Owner(st.target)
		if len(st.held) > 0 || owner == "" || st.out > 0 && st.owner != owner {
			s.holdBack(f)
			s.handOffAll(st)
			continue
		}
		first := s.depart(f, owner)
		over := st.over(first)
		// One of those before it may have been refused: what has no number must not
		// come twice to the others because of that.
		alone := !first && d.n == 0 && d.msg.QoS == mqtt.ExactlyOnce
		k := slices.IndexFunc(to, func(x departure) bool {
			return !alone && x.name == owner && x.first == first && x.over == over
		})
		if k < 0 {
			k = len(to)
			to = append(to, departure{owner, &sent{first: first, over: over}})
		}
		to[k].flights = append(to[k].flights, f)
	}
	for i := range to {
		s.send(to[i].name, to[i].sent)
	}
}

// departure is what is sent to one broker.
type departure struct {
	name string
	*sent
}

func (s *Shard) flight(origin partition.ID, d *dispatch, a aim) *flight {
	s.flights++
	return &flight{dispatch: d, aim: a, origin: origin, seq: s.flights}
}

// streamOf is the stream of f.
func (s *Shard) streamOf(f *flight) *stream {
	if f.stream == nil {
		key := streamKey{f.origin, f.aim.part}
		if f.stream = s.streams[key]; f.stream == nil {
			f.stream = &stream{streamKey: key}
			s.streams[key] = f.stream
		}
	}
	return f.stream
}

// depart notes that f is about to be sent to owner, and reports whether nothing else
// of its stream is under way.
func (s *Shard) depart(f *flight, owner string) (first bool) {
	st := f.stream
	first, st.owner = st.out == 0, owner
	st.out++
	f.tenant.flying.Add(1)
	f.tenant.flown.Add(1)
	s.keepDeparts(f)
	if f.n != 0 {
		f.after = 0
		if st.exact > 0 {
			f.after = st.last
		}
		st.exact++
		st.last = f.n
	}
	return first
}

// over is the link that a flight must go over that departs: any, if it is the first.
func (st *stream) over(first bool) cluster.LinkID {
	if first {
		return cluster.AnyLink
	}
	return st.link
}

// went says over which link it was sent, which what follows must go over too.
func (x *sent) went(over cluster.LinkID) {
	if !x.first {
		return
	}
	for _, f := range x.flights {
		f.stream.link = over
	}
}

// send sends flights of one dispatch to a broker, which may be this one. It reports
// false if there is no link, or another than that over which it must go.
func (s *Shard) send(to string, x *sent) bool {
	d := x.flights[0].dispatch
	e := &s.enqueue1
	*e = cluster.Enqueue{
		Tenant: d.tenant.id, From: d.from, Origin: x.flights[0].origin, N: d.n, First: x.first,
		Parts: e.Parts[:0], Members: e.Members[:0], After: e.After[:0], Message: *d.msg,
	}
	for _, f := range x.flights {
		if f.aim.plain {
			e.Parts = append(e.Parts, f.aim.part)
		}
		e.Members = append(e.Members, f.aim.members...)
		if f.aim.keep {
			e.Keep, e.Retain = true, f.aim.part
		}
		if f.after != 0 {
			e.After = append(e.After, cluster.After{Partition: f.aim.part, N: f.after})
		}
	}
	if !s.expiry(&e.Message, d.expireAt) {
		// It has expired on the way: nobody gets it, and that is done.
		s.dropped(d.tenant, dropExpired)
		x.answer = cluster.Answer{Hit: true}
		s.leave(s, item{kind: itemSent, sent: x})
		x.went(cluster.NoLink)
		return true
	}
	done := func(a cluster.Answer) {
		x.answer = a
		s.post(item{kind: itemSent, sent: x}, nil)
	}
	if to == s.set.cluster.Self() {
		s.sorter.enqueue(s.set, to, e, done, s.run)
		x.went(cluster.AnyLink)
		return true
	}
	over, err := s.set.cluster.Send(to, e, x.over, done)
	if err != nil {
		x.answer = cluster.Answer{Err: err}
		s.leave(s, item{kind: itemSent, sent: x})
		over = cluster.NoLink
	}
	x.went(over)
	return err == nil
}

// expiry sets what is left of a message's life, and reports false if it is over.
func (s *Shard) expiry(m *mqtt.Message, expireAt int64) bool {
	m.HasExpiry = expireAt != 0
	if !m.HasExpiry {
		return true
	}
	m.Expiry = uint32(max(0, (expireAt-s.now+999)/1000))
	return expireAt > s.now
}

// landed takes the answer to what was sent.
func (s *Shard) landed(x *sent) {
	again := x.answer.Err != nil || x.answer.Again
	for _, f := range x.flights {
		st := f.stream
		st.out--
		f.tenant.flying.Add(-1)
		if f.n != 0 {
			st.exact--
		}
		s.keepLands(f)
		if st.ended {
			s.uncountHandOff(f)
			continue
		}
		if again {
			s.holdBack(f)
		} else {
			st.heldAt, st.rounds = 0, 0
			s.arrivedAt(f, x.answer.Reason, x.answer.Hit)
		}
		s.settle(st)
	}
}

func (s *Shard) arrivedAt(f *flight, reason mqtt.ReasonCode, hit bool) {
	s.arrivedHanded(f)
	s.keptThere(f)
	if f.pending && !f.told {
		s.answered(f.slot, f.gen, reason, hit)
	}
}

// settle forgets a stream with nothing in it.
func (s *Shard) settle(st *stream) {
	if st.out == 0 && len(st.held) == 0 && s.streams[st.streamKey] == st {
		delete(s.streams, st.streamKey)
	}
}

// holdBack keeps a flight that is to be sent again.
func (s *Shard) holdBack(f *flight) {
	st := s.streamOf(f)
	at, _ := slices.BinarySearchFunc(st.held, f, func(a, b *flight) int { return cmp.Compare(a.seq, b.seq) })
	st.held = slices.Insert(st.held, at, f)
	st.fresh = st.fresh || f.pending && !f.handed
	if st.heldAt == 0 {
		st.heldAt = s.now
	}
	s.stats.Held.Add(1)
	s.set.held.Store(true)
}

// resendRounds is how often all that is held is sent again in vain. After that only the
// first is, until it arrives: much may be held for a partition that is not served.
const resendRounds = 3

// resend sends what is held of streams of which nothing is under way any more.
func (s *Shard) resend() {
	left := false
	for _, st := range s.orderedStreams() {
		if len(st.held) == 0 {
			continue
		}
		s.handOffAll(st)
		owner, _ := s.set.cluster.Owner(st.target)
		if st.out > 0 || owner == "" {
			left = true
			continue
		}
		held, most := st.held, len(st.held)
		if st.rounds++; st.rounds > resendRounds {
			most = 1
		}
		st.held = held[most:]
		for i, f := range held[:most] {
			first := s.depart(f, owner)
			if !s.send(owner, &sent{flights: []*flight{f}, first: first, over: st.over(first)}) {
				st.held = held[i+1:] // it comes back in front of them
				break
			}
		}
		left = left || len(st.held) > 0
	}
	if left {
		s.set.held.Store(true)
	}
}

// shout sends a publish that nobody waits for, at QoS 0, to all aims.
func (s *Shard) shout(se *sess, m *mqtt.Message, expireAt int64, aims []aim) {
	for len(aims) > 0 {
		owner, _ := s.set.cluster.Owner(aims[0].part)
		e := &s.enqueue1
		*e = cluster.Enqueue{Tenant: se.tenant.id, From: se.ClientID, Parts: e.Parts[:0], Members: e.Members[:0], After: e.After[:0], Message: *m}
		left := aims[:0]
		for i, a := range aims {
			if to, _ := s.set.cluster.Owner(a.part); i > 0 && to != owner {
				left = append(left, a)
				continue
			}
			if a.plain {
				e.Parts = append(e.Parts, a.part)
			}
			e.Members = append(e.Members, a.members...)
			if a.keep {
				e.Keep, e.Retain = true, a.part
			}
		}
		aims = left
		switch {
		case owner == "" || !s.expiry(&e.Message, expireAt):
			s.dropped(se.tenant, dropUnserved)
		case owner == s.set.cluster.Self():
			s.sorter.enqueue(s.set, owner, e, nil, s.run)
		default:
			if _, err := s.set.cluster.Send(owner, e, cluster.AnyLink, nil); err != nil {
				s.dropped(se.tenant, dropUnserved)
			}
		}
	}
}
