// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route/share"
	"github.com/manormq/manor/services/broker/session"
)

// aim is what a publish has for one partition.
type aim struct {
	part partition.ID
	// plain says that subscriptions of it match, keep that its retained message
	// becomes this one.
	plain, keep bool
	members     []cluster.Member
}

// flies reports whether a publish of se goes to a partition as a flight: to that of
// another broker, above QoS 0 to that of another shard too, and if it is exact to
// any but that of se, since each partition has a log of its own. Where earlier ones of
// se's partition are still under way it follows them.
func (s *Shard) flies(se *sess, part partition.ID, m *mqtt.Message, p *session.Publication) bool {
	switch {
	case s.set.cluster == nil:
		return false
	case s.spaces[part] == nil:
		return m.QoS > mqtt.AtMostOnce || !s.set.Serves(part)
	}
	if m.QoS == mqtt.AtMostOnce || part == se.space.id {
		return false
	}
	return p.Exact || s.streams[streamKey{se.space.id, part}] != nil
}

// leftover reports whether what a far part of s.entries says of a partition leads nowhere, since
// this broker serves it: what is here counts alone. The part may be from before it was taken up, or
// what its last owner, cut off from this one, has said since; either goes when that is written
// anew, which may take long. A flight would come back here, and bring a message twice to who has
// subscribed anew. Where the partition is another broker's by now, which its shard has not heard,
// the part may be a word of that one. In another shard the partition may have been taken up since
// the entries were read: then none of them has a part of it, and the flight is matched anew.
func (s *Shard) leftover(p partition.ID) bool {
	own := s.spaces[p]
	switch {
	case own != nil && !own.taken, own == nil && !s.set.Serves(p):
		return false
	}
	if owner, _ := s.set.cluster.Owner(p); owner != s.set.cluster.Self() {
		return false
	}
	if own != nil {
		return true
	}
	for _, e := range s.entries {
		for _, part := range e.Parts() {
			if part.ID == p && !part.Far() {
				return true
			}
		}
	}
	return false
}

// aimAt returns the aim of the publish that is being routed at a partition.
func (s *Shard) aimAt(p partition.ID) *aim {
	for i := range s.aims {
		if s.aims[i].part == p {
			return &s.aims[i]
		}
	}
	s.aims = append(s.aims, aim{part: p})
	return &s.aims[len(s.aims)-1]
}

// aimAtMember aims at the member of a group that was chosen, if the message goes
// there as a flight.
func (s *Shard) aimAtMember(se *sess, x *share.Member[*sess], key string, m *mqtt.Message, p *session.Publication) bool {
	if !x.Far && !s.flies(se, x.Session.space.id, m, p) {
		return false
	}
	to := named(x, key)
	a := s.aimAt(to.Partition)
	a.members = append(a.members, to)
	return true
}

// named is a member for the owner of its partition.
func named(x *share.Member[*sess], key string) cluster.Member {
	if x.Far {
		return cluster.Member{Partition: partition.ID(x.Part), Filter: key}
	}
	return cluster.Member{Partition: x.Session.space.id, Client: x.Session.ClientID, Filter: key}
}

// routeOn sends a publish to the partitions that it flies to, and notes what its
// acknowledgement waits for. s.fans has what this turn has written already.
func (s *Shard) routeOn(se *sess, m *mqtt.Message, p *session.Publication, v *view, deferred []*unwritten, matched bool) {
	if m.QoS == mqtt.AtMostOnce {
		s.shout(se, m, v.expireAt, s.aims)
		return
	}
	d := &dispatch{tenant: se.tenant, from: se.ClientID, expireAt: v.expireAt}
	s.keeping(d, se.space.id, s.aims)
	if p.Token == 0 {
		d.msg = v.keep()
		if p.Exact {
			s.launchKept(se.space, d, slices.Clone(s.aims), recordOf(d, 0, s.aims))
		} else {
			s.launch(se.space.id, d, s.aims)
		}
		return
	}
	if len(s.stored)+len(deferred)+len(s.aims) == 0 {
		s.settled(se, p.Token, p.Packet, mqtt.Success, matched)
		return
	}
	d.pending = true
	d.slot, d.gen = s.newPending()
	waits := len(s.stored) + len(deferred) + len(s.aims)
	var again []*flight // by the partition here that it is for
	to := func(p *space) *flight {
		if p == nil || p == se.space {
			return nil // nothing was written, or the publisher is lost with it
		}
		for _, f := range again {
			if f.aim.part == p.id {
				return f
			}
		}
		d.msg = v.keep()
		again = append(again, s.flight(se.space.id, d, s.written(se.tenant, p, m)))
		return again[len(again)-1]
	}
	for _, l := range s.stored {
		s.wait(l, waiter{slot: d.slot, gen: d.gen, flight: to(l.space)})
	}
	for _, u := range deferred {
		u.slot, u.gen, u.flight = d.slot, d.gen, to(u.se.space)
	}
	q := &s.pending[d.slot]
	q.waits, q.se, q.token, q.hit, q.part, q.packet = int32(waits), se, p.Token, matched, se.space, p.Packet
	if len(s.aims) == 0 {
		return
	}
	d.msg = v.keep()
	if !p.Exact {
		s.launch(se.space.id, d, s.aims)
		return
	}
	// Its number must not be given twice, so that it leaves when that is committed.
	aims := slices.Clone(s.aims)
	q.record = recordOf(d, p.Packet, aims)
	d.n = s.writeOutbox(se.space, q.record)
	q.exact = d.n
	s.wait(se.space.ledger, waiter{after: func() { s.launch(se.space.id, d, aims) }})
}

// written is the aim for what this turn has written into a partition.
func (s *Shard) written(t *Tenant, p *space, m *mqtt.Message) aim {
	a := aim{part: p.id}
	own := &s.fans[s.index]
	for i := range own.lists {
		a.plain = a.plain || own.lists[i].ID == p.id
	}
	for i := range own.direct {
		if d := &own.direct[i]; d.se.space == p {
			a.members = append(a.members, cluster.Member{Partition: p.id, Client: d.se.ClientID, Filter: d.sub.Filter})
		}
	}
	a.keep = m.Retain && partition.Choose(t.parts(), m.Topic) == p.id
	return a
}

// recordOf is the outbox record of a dispatch.
func recordOf(d *dispatch, packet uint16, aims []aim) *outboxRecord {
	r := &outboxRecord{tenant: d.tenant.id, client: d.from, packet: packet, expireAt: d.expireAt, msg: d.msg}
	for i := range aims {
		a := &aims[i]
		if a.plain {
			r.parts = append(r.parts, a.part)
		}
		if a.keep {
			r.keep, r.retain = true, a.part
		}
		for _, m := range a.members {
			r.direct = append(r.direct, directRecord{m.Partition, m.Client, m.Filter})
		}
	}
	return r
}

// aims are what recordOf was made of.
func (r *outboxRecord) aims() []aim {
	var s Shard // for aimAt alone
	for _, p := range r.parts {
		s.aimAt(p).plain = true
	}
	for _, d := range r.direct {
		a := s.aimAt(d.part)
		a.members = append(a.members, cluster.Member{Partition: d.part, Client: d.client, Filter: d.filter})
	}
	if r.keep {
		s.aimAt(r.retain).keep = true
	}
	return s.aims
}

// handOn is handOver to a member of another partition of a cluster.
func (s *Shard) handOn(se *sess, m share.Member[*sess], v *view, key string) {
	to := named(&m, key)
	aims := []aim{{part: to.Partition, members: []cluster.Member{to}}}
	msg := v.keep()
	if msg.QoS == mqtt.AtMostOnce {
		s.shout(se, msg, v.expireAt, aims)
		return
	}
	d := &dispatch{tenant: se.tenant, msg: msg, expireAt: v.expireAt}
	if !se.Durable() || !m.Far && !m.Durable {
		s.launch(se.space.id, d, aims)
		return
	}
	// The record stands in the batch that takes the message out of se's queue, so a
	// crash leaves it in exactly one place.
	r := recordOf(d, 0, aims)
	r.client = se.ClientID
	s.launchKept(se.space, d, aims, r)
	s.storedIn(se.space.ledger)
}

// launchKept launches a dispatch that nobody waits for when its record r is committed,
// under the number of that.
func (s *Shard) launchKept(origin *space, d *dispatch, aims []aim, r *outboxRecord) {
	d.n = s.writeOutbox(origin, r)
	d.pending = true
	d.slot, d.gen = s.newPending()
	q := &s.pending[d.slot]
	q.waits, q.exact, q.part, q.tenant = int32(len(aims)), d.n, origin, d.tenant
	s.wait(origin.ledger, waiter{after: func() { s.launch(origin.id, d, aims) }})
}

// restoreOutbox has what a partition had not sent, or had no answer to, sent to the
// others as soon as that is possible.
func (s *Shard) restoreOutbox(p *space, n uint64, r *outboxRecord) {
	d := &dispatch{tenant: s.set.Tenant(r.tenant), msg: r.msg, expireAt: r.expireAt, n: n, pending: true}
	if r.packet != 0 || r.handed {
		d.from = r.client
	}
	s.keeping(d, p.id, r.aims())
	if r.plain {
		d.n, d.pending = 0, false
		for _, a := range r.aims() {
			f := s.flight(p.id, d, a)
			f.record = n
			s.countHandOff(f)
			s.holdBack(f)
		}
		return
	}
	d.slot, d.gen = s.newPending()
	aims := r.aims()
	q := &s.pending[d.slot]
	q.waits, q.exact, q.part, q.packet, q.hit = int32(len(aims)), n, p, r.packet, true
	q.record = r
	if !r.handed {
		q.se, q.token = s.session(d.tenant, r.client), session.Restored
	}
	for _, a := range aims {
		f := s.flight(p.id, d, a)
		if r.handed {
			s.countHandOff(f)
		}
		s.holdBack(f)
	}
	if len(aims) == 0 {
		s.finishPending(d.slot)
	}
}
