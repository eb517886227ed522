// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"math/bits"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route"
	"github.com/manormq/manor/services/broker/session"
)

// publish routes a message, unless it is to be retained and the tenant has as
// much as it may: then it is refused as a whole, and nobody gets it.
func (s *Shard) publish(se *sess, m *mqtt.Message, p *session.Publication) {
	if m.Retain && p.Will == nil && len(m.Payload) > 0 && !s.mayRetainNow(se.tenant) {
		s.notRetained(se, p, dropRetainedRate)
		return
	}
	if !m.Retain || !s.nearRetainLimit(se.tenant, m, se.limits) {
		s.route(se, m, p)
		return
	}
	part := partition.Choose(se.tenant.parts(), m.Topic)
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
	if se.space != nil && se.space.ledger.lost {
		return // the publisher sends it again, to the next owner
	}
	if ok {
		s.route(se, m, p)
		return
	}
	s.notRetained(se, p, dropRetainedFull)
}

// notRetained refuses a publish because of what it would retain: nobody gets it.
func (s *Shard) notRetained(se *sess, p *session.Publication, why dropReason) {
	s.drop(se, why)
	if p.Token != 0 && !se.gone {
		if r := why.noted(); r != notNoted {
			s.refusedBy(se, p.Packet, r)
		}
		s.settled(se, p.Token, p.Packet, mqtt.QuotaExceeded, true)
	}
}

// route matches a message once, delivers it in this shard and sends it once to
// each other shard, or broker, that has a receiver.
func (s *Shard) route(se *sess, m *mqtt.Message, p *session.Publication) {
	t := se.tenant
	s.serial++
	serial := s.serial
	var expireAt int64
	if m.HasExpiry {
		expireAt = s.now + int64(m.Expiry)*1000
	}
	wait := p.Token != 0
	s.stored, s.aims = s.stored[:0], s.aims[:0]
	v := view{msg: m, serial: serial, expireAt: expireAt, from: se, retain: m.Retain, awaited: wait && m.QoS == mqtt.AtLeastOnce, most: s.fanOutOf(se)}
	begin := len(s.unwritten.list)
	own, others := &s.fans[s.index], uint64(0)
	var mark uint64
	if m.Retain {
		t.mayRetain.Store(true)
		mark = s.set.retains.Add(1)
		part := partition.Choose(t.parts(), m.Topic)
		if s.flies(se, part, m, p) {
			s.aimAt(part).keep = true
		} else if to := s.set.shardOf(part); to == s {
			s.retain(t, part, m, expireAt, mark)
		} else {
			f := &s.fans[to.index]
			f.retain, f.keep, f.mark = part, true, mark
			others |= 1 << to.index
		}
	}
	if se.last == nil {
		se.last = &route.Last[*sess]{}
	}
	s.entries = t.routes.AppendLast(s.entries[:0], m.Topic, se.last)
	for _, e := range s.entries {
		for _, part := range e.Parts() {
			switch {
			case part.Far() && s.leftover(part.ID):
				continue
			case part.Far(), s.flies(se, part.ID, m, p):
				s.aimAt(part.ID).plain = true
				continue
			}
			to := s.set.shardOf(part.ID)
			f := &s.fans[to.index]
			f.lists = append(f.lists, part)
			f.durable = f.durable || part.Durable
			if to != s {
				others |= 1 << to.index
			}
		}
		for _, g := range e.Groups() {
			member, stored, ok := s.pick(g, se, m)
			if !ok {
				s.dropped(t, dropNoMember)
				continue
			}
			if s.set.cluster != nil && s.aimAtMember(se, &member, g.Key, m, p) {
				continue
			}
			to := member.Session.shard()
			f := &s.fans[to.index]
			f.direct = append(f.direct, direct{member.Session, member.Sub})
			// Whoever is chosen may have gone on arrival, and a member that is
			// stored get the message in its place.
			f.durable = f.durable || stored
			if to != s {
				others |= 1 << to.index
			}
		}
	}
	matched := len(s.entries) > 0 && (len(own.lists)+len(own.direct) > 0 || others != 0 || len(s.aims) > 0)
	if !matched {
		count(&t.flows[s.index].unmatched)
	}
	if len(own.lists)+len(own.direct) > 0 {
		s.fanOut(&v, own.lists, own.direct, 0, 0)
	}
	if wait && p.Exact {
		s.storedIn(se.space.ledger)
	}
	deferred := s.unwritten.list[begin:]
	if s.set.cluster != nil && (wait || len(s.aims) > 0) {
		s.routeOn(se, m, p, &v, deferred, matched)
	}
	own.reset()
	if others == 0 && (!wait || s.set.cluster != nil || len(s.stored) == 0 && len(deferred) == 0) {
		if wait && s.set.cluster == nil {
			s.settled(se, p.Token, p.Packet, mqtt.Success, matched)
		}
		return
	}
	s.publishFar(se, m, p, &v, others, deferred, matched)
}

// publishFar sends a publish to other shards, and notes what its
// acknowledgement waits for.
func (s *Shard) publishFar(se *sess, m *mqtt.Message, p *session.Publication, v *view, others uint64, deferred []*unwritten, matched bool) {
	wait := p.Token != 0
	var slot, gen uint32
	var waits int32
	if wait {
		slot, gen = s.newPending()
		for _, l := range s.stored {
			s.wait(l, waiter{slot: slot, gen: gen})
			waits++
		}
		for _, u := range deferred {
			u.slot, u.gen = slot, gen
			waits++
		}
	}
	if others != 0 && !wait && !p.Exact && len(m.Payload) <= cratedPayload {
		for _, to := range s.set.shards {
			if others&(1<<to.index) != 0 {
				s.pack(to, se, m, v)
			}
		}
		return
	}
	var own *mqtt.Message
	var goods *freight
	var n uint64
	if others != 0 {
		if p.Exact {
			c := m.Clone()
			own, n = &c, s.putOutbox(se, p, v, &c, others)
		} else {
			goods = newFreight(m)
			goods.left.Store(int32(bits.OnesCount64(others)))
			own = &goods.msg
		}
	}
	for _, to := range s.set.shards {
		if others&(1<<to.index) == 0 {
			continue
		}
		f := &s.fans[to.index]
		pc := parcels.Get().(*parcel)
		pc.tenant, pc.msg, pc.freight, pc.from, pc.expireAt = se.tenant, own, goods, se, v.expireAt
		pc.lists, pc.direct = append(pc.lists, f.lists...), append(pc.direct, f.direct...)
		pc.retain, pc.keep, pc.mark, pc.origin, pc.n, pc.most = f.retain, f.keep, f.mark, se.space.id, n, v.most
		size := own.Size() * f.receivers()
		if wait && (f.durable || f.keep || n != 0) {
			pc.home, pc.slot, pc.gen = s, slot, gen
			waits++
		}
		f.reset()
		s.leave(to, item{kind: itemParcel, parcel: pc, size: size})
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
	mark    uint64
}

// receivers is about how many get the publish there, 1 at least: as often it counts in
// a mailbox. The lists are another shard's, which may change them meanwhile.
func (f *fan) receivers() int {
	n := len(f.direct)
	for i := range f.lists {
		n += f.lists[i].Count()
	}
	return max(1, n)
}

func (f *fan) reset() {
	clear(f.lists)
	clear(f.direct)
	f.lists, f.direct, f.durable, f.keep = f.lists[:0], f.direct[:0], false, false
}
