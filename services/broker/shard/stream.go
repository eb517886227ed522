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
}

// flight is a dispatch on its way to one partition.
type flight struct {
	*dispatch
	aim    aim
	origin partition.ID
	stream *stream // once it is in one
	// seq orders the flights of a shard.
	seq uint64
	// over is how it was sent last.
	over way
	// after is the exact one that the partition must have before this one.
	after uint64
}

type streamKey struct{ origin, target partition.ID }

// stream are the flights from one partition to another, while there are any.
type stream struct {
	streamKey
	// over is how all that is under way was sent.
	over way
	// out are under way, and exact of them exact; last is the newest of those.
	out, exact int
	last       uint64
	// held wait to be sent again, in their order.
	held []*flight
	// ended says that the origin is not served here any more.
	ended bool
}

// way is how a partition is reached: its owner, under an epoch, while no link is
// lost. An owner that has taken something that way takes all that follows on it.
// Before that it may refuse one flight, because it does not serve the partition yet,
// and take the next: so until then there is one under way at a time.
type way struct {
	owner string
	epoch uint64
	links uint64
}

func (s *Shard) wayTo(p partition.ID) (w way) {
	w.links = s.set.lostLinks.Load()
	w.owner, w.epoch = s.set.cluster.Owner(p)
	return w
}

// LostLink says that what was sent to another broker and has no answer was lost, or
// will be, before anything else can be sent there.
func (st *Set) LostLink() { st.lostLinks.Add(1) }

// sent is what was sent to one broker at once, and its answer.
type sent struct {
	flights []*flight
	answer  cluster.Answer
	unsent  bool // there was no need to
}

// launch sends a dispatch of partition origin to all aims. None of the flights has
// landed before it returns.
func (s *Shard) launch(origin partition.ID, d *dispatch, aims []aim) {
	var to []departure
	for i := range aims {
		f := s.flight(origin, d, aims[i])
		st := s.streamOf(f)
		w := s.wayTo(st.target)
		if len(st.held) > 0 || w.owner == "" || st.out > 0 && (st.over != w || s.proven[st.target] != w) {
			s.holdBack(f)
			continue
		}
		s.depart(f, w)
		k := slices.IndexFunc(to, func(x departure) bool { return x.name == w.owner })
		if k < 0 {
			k = len(to)
			to = append(to, departure{w.owner, &sent{}})
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

// depart notes that f is about to be sent.
func (s *Shard) depart(f *flight, over way) {
	st := f.stream
	f.over, st.over = over, over
	st.out++
	if f.n != 0 {
		f.after = 0
		if st.exact > 0 {
			f.after = st.last
		}
		st.exact++
		st.last = f.n
	}
}

// send sends flights of one dispatch to a broker, which may be this one.
func (s *Shard) send(to string, x *sent) {
	d := x.flights[0].dispatch
	e := &s.enqueue1
	*e = cluster.Enqueue{
		Tenant: d.tenant.id, From: d.from, Origin: x.flights[0].origin, N: d.n,
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
		x.answer, x.unsent = cluster.Answer{Hit: true}, true
		s.leave(s, item{kind: itemSent, sent: x})
		return
	}
	done := func(a cluster.Answer) {
		x.answer = a
		s.post(item{kind: itemSent, sent: x}, nil)
	}
	if to == s.set.cluster.Self() {
		s.sorter.enqueue(s.set, e, done, s.run)
		return
	}
	if err := s.set.cluster.Send(to, e, done); err != nil {
		x.answer = cluster.Answer{Err: err}
		s.leave(s, item{kind: itemSent, sent: x})
	}
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
		switch {
		case again:
			s.proven[st.target] = way{}
		case !x.unsent:
			s.proven[st.target] = f.over
		}
		st.out--
		if f.n != 0 {
			st.exact--
		}
		if st.ended {
			continue
		}
		if again {
			s.holdBack(f)
		} else {
			s.arrivedAt(f, x.answer.Reason, x.answer.Hit)
			s.resendTo(st)
		}
		s.settle(st)
	}
}

func (s *Shard) arrivedAt(f *flight, reason mqtt.ReasonCode, hit bool) {
	if f.pending {
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
	s.stats.Held.Add(1)
	s.set.held.Store(true)
}

// resend sends what is held of streams of which nothing is under way any more.
func (s *Shard) resend() {
	for _, st := range s.streams {
		s.resendTo(st)
	}
}

// resendTo is resend for one stream.
func (s *Shard) resendTo(st *stream) {
	if len(st.held) == 0 {
		return
	}
	if w := s.wayTo(st.target); st.out == 0 && w.owner != "" {
		held := st.held
		if s.proven[st.target] != w {
			held = held[:1:1]
		}
		st.held = st.held[len(held):]
		for _, f := range held {
			s.depart(f, w)
			s.send(w.owner, &sent{flights: []*flight{f}})
		}
	}
	if len(st.held) > 0 {
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
			s.sorter.enqueue(s.set, e, nil, s.run)
		default:
			if err := s.set.cluster.Send(owner, e, nil); err != nil {
				s.dropped(se.tenant, dropUnserved)
			}
		}
	}
}
