// SPDX-License-Identifier: Apache-2.0

package session

import (
	"slices"

	"github.com/manormq/manor/infra/mqtt"
)

// subscribe adds or replaces subscriptions [MQTT-3.8.4-3]. The gateway has
// checked the filters and what the client may read.
func (s *Session) subscribe(e *Event, fx *Effects) {
	out := Out{Kind: OutSuback, Packet: e.Packet, AfterCommit: s.durable}
	for i := range e.Subs {
		sub := &e.Subs[i]
		at := s.find(sub.Filter)
		isNew := at < 0
		reason := mqtt.ReasonCode(sub.QoS)
		switch {
		case isNew && e.Limit >= 0 && int64(len(s.subs)) >= e.Limit:
			reason = mqtt.QuotaExceeded
		case isNew:
			s.subs = append(s.subs, *sub)
			s.save(fx, Record{Kind: PutSubscription, Sub: sub})
		default:
			s.subs[at] = *sub
			s.save(fx, Record{Kind: PutSubscription, Sub: sub})
		}
		out.Reasons = append(out.Reasons, reason)
		out.New = append(out.New, isNew)
	}
	fx.Send = append(fx.Send, out)
}

// unsubscribe removes subscriptions [MQTT-3.10.4-1].
func (s *Session) unsubscribe(e *Event, fx *Effects) {
	out := Out{Kind: OutUnsuback, Packet: e.Packet, AfterCommit: s.durable}
	for _, f := range e.Filter {
		at := s.find(f)
		if at < 0 {
			out.Reasons = append(out.Reasons, mqtt.NoSubscriptionExisted)
			continue
		}
		s.subs = slices.Delete(s.subs, at, at+1)
		s.save(fx, Record{Kind: DeleteSubscription, Filter: f})
		out.Reasons = append(out.Reasons, mqtt.Success)
	}
	fx.Send = append(fx.Send, out)
}

func (s *Session) find(filter string) int {
	return slices.IndexFunc(s.subs, func(x mqtt.Subscription) bool { return x.Filter == filter })
}
