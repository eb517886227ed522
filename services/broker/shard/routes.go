// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/route"
	"github.com/manormq/manor/services/broker/route/share"
	"github.com/manormq/manor/services/broker/session"
)

// subscribed brings the granted filters of a SUBSCRIBE into the routes, before
// SUBACK goes out.
func (s *Shard) subscribed(se *sess, ev *session.Event, fx *session.Effects) {
	o := &fx.Send[len(fx.Send)-1]
	if s.set.cluster != nil {
		s.holding = &hold{}
	}
	for i := range ev.Subs {
		if o.Reasons[i].Failed() {
			s.stats.SubscribeRefused.Add(1)
			if ev.Packet != 0 {
				s.noteRefused(se, ev, i)
			}
			continue
		}
		s.addRoute(se, &ev.Subs[i], o.New[i])
	}
	if most := se.tenant.quota().Subscriptions; most > 0 {
		s.everywhere(se.tenant, ofSubscriptions, most) // which may be near its limit now
	}
	s.watchGroups(se.tenant)
	o.Subs = append([]mqtt.Subscription(nil), ev.Subs...)
	o.Mark = s.set.retains.Load()
}

func (s *Shard) addRoute(se *sess, sub *mqtt.Subscription, isNew bool) {
	if !se.routed(sub.Filter) {
		return
	}
	if isNew {
		se.tenant.subscriptions.Add(1)
	}
	_, rest, shared := topic.CutShare(sub.Filter)
	if !shared {
		r := route.SubOf(se, sub, se.keeps())
		r.QoS = se.granted(r.QoS)
		first, known := se.tenant.routes.Subscribe(se.space.id, rest, r)
		// While it is restored what others know already need not be written.
		s.tellRoute(se, rest, first && (!known || s.holding != nil))
		return
	}
	if isNew {
		se.groups++
	}
	if se.member == nil {
		se.member = &member{}
	}
	se.tenant.routes.Join(sub.Filter, rest, share.Member[*sess]{
		Session: se, Sub: *sub, Durable: se.keeps(), Hash: share.Hash(se.ClientID), Busy: &se.member.busy,
		Part: uint16(se.space.id),
	}, se.ch != nil)
	s.tellGroup(se, sub.Filter)
}

func (s *Shard) unsubscribed(se *sess, ev *session.Event, fx *session.Effects) {
	o := &fx.Send[len(fx.Send)-1]
	for i, f := range ev.Filter {
		if o.Reasons[i] == mqtt.Success {
			s.removeRoute(se, f)
			s.stopReplay(se, f)
		}
	}
}

func (s *Shard) removeRoute(se *sess, filter string) {
	if !se.routed(filter) {
		return
	}
	se.tenant.subscriptions.Add(-1)
	_, rest, shared := topic.CutShare(filter)
	if !shared {
		if se.tenant.routes.Unsubscribe(se.space.id, se, filter) && s.set.cluster != nil {
			s.set.cluster.RemoveRoute(se.tenant.id, filter, se.space.id, se.space.epoch)
		}
		return
	}
	se.groups--
	se.tenant.routes.Leave(filter, rest, se.space.id, se)
	s.tellGroup(se, filter)
}

// forgetRoute is removeRoute for a session that lives on at another broker: what
// leads to its partition stays.
func (s *Shard) forgetRoute(se *sess, filter string) {
	if !se.routed(filter) {
		return
	}
	se.tenant.subscriptions.Add(-1)
	_, rest, shared := topic.CutShare(filter)
	if shared {
		se.groups--
		se.tenant.routes.Leave(filter, rest, se.space.id, se)
	} else {
		if se.tenant.routes.Cede(se.space.id, se, filter) {
			s.set.cluster.Recheck(se.tenant.id, filter, se.space.id)
		}
	}
}

// eachGroup calls f for each shared subscription of the session.
func (s *Shard) eachGroup(se *sess, f func(g *share.Group[*sess], key string)) {
	for _, sub := range se.Subscriptions() {
		if _, rest, shared := topic.CutShare(sub.Filter); shared {
			if g := se.tenant.routes.Group(sub.Filter, rest); g != nil {
				f(g, sub.Filter)
			}
		}
	}
}
