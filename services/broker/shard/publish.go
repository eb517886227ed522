// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route"
	"github.com/manormq/manor/services/broker/session"
)

// parcel is a publish on its way to another shard. It owns its memory.
type parcel struct {
	tenant *Tenant
	msg    *mqtt.Message
	// lists are the matching subscriptions of that shard's partitions, direct
	// the members chosen for shared ones.
	lists  []route.Part[*sess]
	direct []direct
	// retain is the partition whose retained message this becomes, if keep.
	retain   partition.ID
	keep     bool
	from     *sess // for No Local; compared, never read
	expireAt int64
	// origin and n number an exact publish; n is 0 for all others.
	origin partition.ID
	n      uint64

	home *Shard // nil if no answer is wanted
	slot uint32
	gen  uint32
	// waits counts what the answer waits for.
	waits int32
	// reason and hit are the answer.
	reason mqtt.ReasonCode
	hit    bool
}

// direct is a message for one member of a shared subscription.
type direct struct {
	se  *sess
	sub mqtt.Subscription
}

// publish routes a message, unless it is to be retained and the tenant has as
// much as it may: then it is refused as a whole, and nobody gets it.
func (s *Shard) publish(se *sess, m *mqtt.Message, p *session.Publication) {
	if !m.Retain || !nearRetainLimit(se.tenant, m, se.limits) {
		s.route(se, m, p)
		return
	}
	part := partition.Choose(se.tenant.cell, m.Topic)
	to := s.set.shardOf(part)
	if to == s {
		s.retained(se, m, p, s.mayRetain(se.tenant, part, m, se.limits))
		return
	}
	own, limits, again := m.Clone(), se.limits, *p
	if again.Will != nil {
		again.Will = &own
	}
	s.leave(to, item{kind: itemCall, size: own.Size(), call: func() {
		ok := to.mayRetain(se.tenant, part, &own, limits)
		to.leave(s, item{kind: itemCall, size: own.Size(), call: func() { s.retained(se, &own, &again, ok) }})
	}})
}

// retained goes on with a publish that had to ask whether it may be retained.
func (s *Shard) retained(se *sess, m *mqtt.Message, p *session.Publication, ok bool) {
	if ok {
		s.route(se, m, p)
		return
	}
	s.drop(se, dropRetainedFull)
	if p.Token != 0 && !se.gone {
		s.settled(se, p.Token, p.Packet, mqtt.QuotaExceeded, true)
	}
}

// route matches a message once, delivers it in this shard and sends it once to
// each other shard that has a receiver.
func (s *Shard) route(se *sess, m *mqtt.Message, p *session.Publication) {
	t := se.tenant
	s.serial++
	serial := s.serial
	var expireAt int64
	if m.HasExpiry {
		expireAt = s.now + int64(m.Expiry)*1000
	}
	wait := p.Token != 0
	v := view{msg: m, serial: serial, expireAt: expireAt, from: se, retain: m.Retain, awaited: wait && !p.Exact}
	begin := len(s.unwritten.list)
	own, others := &s.fans[s.index], uint64(0)
	if m.Retain {
		t.mayRetain.Store(true)
		part := partition.Choose(t.cell, m.Topic)
		if to := s.set.shardOf(part); to == s {
			s.retain(t, part, m, expireAt)
		} else {
			f := &s.fans[to.index]
			f.retain, f.keep = part, true
			others |= 1 << to.index
		}
	}
	s.entries = t.routes.AppendMatches(s.entries[:0], m.Topic)
	for _, e := range s.entries {
		for _, part := range e.Parts() {
			to := s.set.shardOf(part.ID)
			f := &s.fans[to.index]
			f.lists = append(f.lists, part)
			f.durable = f.durable || part.Durable
			if to != s {
				others |= 1 << to.index
			}
		}
		for _, g := range e.Groups() {
			member, _, ok := g.Pick(nil)
			if !ok {
				s.stats.dropped(dropNoMember)
				continue
			}
			to := member.Session.shard()
			f := &s.fans[to.index]
			f.direct = append(f.direct, direct{member.Session, member.Sub})
			// Whoever is chosen may have gone on arrival, and a member that is
			// stored get the message in its place.
			f.durable = f.durable || g.Durable()
			if to != s {
				others |= 1 << to.index
			}
		}
	}
	matched := len(s.entries) > 0 && (len(own.lists)+len(own.direct) > 0 || others != 0)
	stored := false
	if len(own.lists)+len(own.direct) > 0 {
		stored = s.fanOut(&v, own.lists, own.direct, 0, 0)
	}
	own.reset()
	if m.Retain {
		stored = true
	}
	deferred := s.unwritten.list[begin:]
	if others == 0 && (!wait || !stored && !p.Exact && len(deferred) == 0) {
		if wait {
			s.settled(se, p.Token, p.Packet, mqtt.Success, matched)
		}
		return
	}
	s.publishFar(se, m, p, &v, others, deferred, stored, matched)
}

// publishFar sends a publish to other shards, and notes what its
// acknowledgement waits for.
func (s *Shard) publishFar(se *sess, m *mqtt.Message, p *session.Publication, v *view, others uint64, deferred []*unwritten, stored, matched bool) {
	wait := p.Token != 0
	var slot, gen uint32
	var waits int32
	if wait {
		slot, gen = s.newPending()
		if stored || p.Exact {
			s.wait(waiter{slot: slot, gen: gen})
			waits++
		}
		for _, u := range deferred {
			u.slot, u.gen = slot, gen
			waits++
		}
	}
	var own *mqtt.Message
	var n uint64
	if others != 0 {
		c := m.Clone()
		own = &c
		if p.Exact {
			n = s.putOutbox(se, p, v, own, others)
		}
	}
	for _, to := range s.set.shards {
		if others&(1<<to.index) == 0 {
			continue
		}
		f := &s.fans[to.index]
		pc := &parcel{
			tenant: se.tenant, msg: own, from: se, expireAt: v.expireAt,
			lists: append([]route.Part[*sess](nil), f.lists...), direct: append([]direct(nil), f.direct...),
			retain: f.retain, keep: f.keep, origin: se.space.id, n: n,
		}
		if wait && (f.durable || f.keep || n != 0) {
			pc.home, pc.slot, pc.gen = s, slot, gen
			waits++
		}
		f.reset()
		s.leave(to, item{kind: itemParcel, parcel: pc, size: own.Size()})
	}
	if !wait {
		return
	}
	q := &s.pending[slot]
	q.waits, q.se, q.token, q.hit, q.exact, q.part = waits, se, p.Token, matched, n, se.space
	q.packet = p.Packet
	if waits == 0 {
		s.finishPending(slot)
	}
}

// fan collects what one publish has for one shard.
type fan struct {
	lists   []route.Part[*sess]
	direct  []direct
	durable bool
	keep    bool
	retain  partition.ID
}

func (f *fan) reset() {
	clear(f.lists)
	clear(f.direct)
	f.lists, f.direct, f.durable, f.keep = f.lists[:0], f.direct[:0], false, false
}

// accept does with a parcel what publish does in its own shard.
func (s *Shard) accept(p *parcel) {
	s.serial++
	v := view{msg: p.msg, owned: true, serial: s.serial, expireAt: p.expireAt, from: p.from, retain: p.msg.Retain, awaited: p.home != nil && p.n == 0}
	begin, stored := len(s.unwritten.list), false
	s.judged = s.judged[:0]
	if p.keep && (p.n == 0 || s.firstTime(p.retain, p.origin, p.n)) {
		s.retain(p.tenant, p.retain, p.msg, p.expireAt)
		stored = true
	}
	p.hit = len(p.lists)+len(p.direct) > 0
	if s.fanOut(&v, p.lists, p.direct, p.origin, p.n) {
		stored = true
	}
	if p.home == nil {
		return
	}
	for _, u := range s.unwritten.list[begin:] {
		u.parcel = p
		p.waits++
	}
	if stored || p.n != 0 {
		s.wait(waiter{parcel: p})
		p.waits++
	}
	if p.waits == 0 {
		s.reply(p)
	}
}

// arrived notes that one thing that the answer of a parcel waits for has come.
func (s *Shard) arrived(p *parcel) {
	if p.waits--; p.waits == 0 {
		s.reply(p)
	}
}

// reply answers a parcel.
func (s *Shard) reply(p *parcel) {
	it := item{kind: itemAnswer, slot: p.slot, gen: p.gen, reason: p.reason, hit: p.hit}
	if p.home == s {
		s.answered(p.slot, p.gen, p.reason, p.hit)
		return
	}
	s.leave(p.home, it)
}
