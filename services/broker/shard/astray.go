// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"github.com/manormq/manor/services/broker/cluster"
)

// A message for a group may come to a partition that has no member left: the publisher's
// broker did not know yet. It goes on to a member elsewhere, of the brokers' choice.
//
// One with a number is a publish of this partition from then on: that it was there, and
// that it is to go on, under a number of this partition's own, is in one batch, and
// what the origin waits for. So whoever sends it again, the origin or the next owner of
// this partition, the group gets it once. One without a number is passed on and its answer
// waited for; if that is lost it may come to the group twice, as it may come here.

// other is a member of another partition for a message that came for m, of a partition
// that has none. It drops the message if there is none anywhere.
func (s *Shard) other(p *parcel, m *cluster.Member) (to cluster.Member, ok bool) {
	// What others said of the partition before it came here would lead back to it.
	p.tenant.routes.FarGroup(m.Filter, shareRest(m.Filter), m.Partition, 0, 0)
	if g := p.tenant.routes.Group(m.Filter, shareRest(m.Filter)); g != nil {
		if x, _, ok := g.Pick(nil); ok {
			return named(&x, m.Filter), true
		}
	}
	s.dropped(p.tenant, dropNoMember)
	return to, false
}

// goOnward has a message with a number go on to another member, as a publish of the
// partition that it came to.
func (s *Shard) goOnward(p *parcel, m *cluster.Member) {
	to, ok := s.other(p, m)
	if !ok {
		return
	}
	msg := p.msg.Clone()
	d := &dispatch{tenant: p.tenant, msg: &msg, expireAt: p.expireAt}
	aims := []aim{{part: to.Partition, members: []cluster.Member{to}}}
	s.launchKept(s.spaces[m.Partition], d, aims, recordOf(d, 0, aims))
	p.hit = true
}

// toOther has a message without a number go to another member, whose answer is that of
// p.
func (s *Shard) toOther(p *parcel, m *cluster.Member) {
	to, ok := s.other(p, m)
	if !ok {
		return
	}
	e := &cluster.Enqueue{Tenant: p.tenant.id, From: p.fromID, Members: []cluster.Member{to}, Message: *p.msg}
	if !s.expiry(&e.Message, p.expireAt) {
		s.dropped(p.tenant, dropExpired)
		return
	}
	var done func(cluster.Answer)
	if p.gather != nil {
		p.gather.left.Add(1)
		g := p.gather
		done = func(a cluster.Answer) { g.add(a.Reason, a.Hit, a.Again || a.Err != nil) }
	}
	owner, _ := s.set.cluster.Owner(to.Partition)
	var err error
	switch owner {
	case "":
		err = cluster.ErrDown
	case s.set.cluster.Self():
		s.sorter.enqueue(s.set, owner, e, done, s.run)
	default:
		_, err = s.set.cluster.Send(owner, e, cluster.AnyLink, done)
	}
	if err == nil {
		return
	}
	if done != nil {
		done(cluster.Answer{Err: err})
	} else {
		s.dropped(p.tenant, dropUnserved)
	}
}
