// SPDX-License-Identifier: Apache-2.0

package session

import (
	"slices"

	"github.com/manormq/manor/infra/mqtt"
)

// subscribe adds or replaces subscriptions [MQTT-3.8.4-3]. The gateway has
// checked the filters and what the client may read.
func (s *Session) subscribe(e *Event, fx *Effects) {
	out := Out{
		Kind: OutSuback, Packet: e.Packet, AfterCommit: s.durable,
		Reasons: make([]mqtt.ReasonCode, 0, len(e.Subs)), New: make([]bool, 0, len(e.Subs)),
	}
	for i := range e.Subs {
		sub := &e.Subs[i]
		at := s.find(sub.Filter)
		isNew := at < 0
		reason := mqtt.ReasonCode(sub.QoS)
		switch {
		case isNew && e.Limit >= 0 && int64(len(s.subs)) >= e.Limit:
			reason = mqtt.QuotaExceeded
		case isNew && e.Refused != nil && e.Refused[i] != 0:
			reason = e.Refused[i]
		case isNew:
			s.add(*sub)
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
	out := Out{
		Kind: OutUnsuback, Packet: e.Packet, AfterCommit: s.durable, Reasons: make([]mqtt.ReasonCode, 0, len(e.Filter)),
	}
	for _, f := range e.Filter {
		at := s.find(f)
		if at < 0 {
			out.Reasons = append(out.Reasons, mqtt.NoSubscriptionExisted)
			continue
		}
		s.drop(at)
		s.save(fx, Record{Kind: DeleteSubscription, Filter: f})
		out.Reasons = append(out.Reasons, mqtt.Success)
	}
	fx.Send = append(fx.Send, out)
}

// Has reports whether the session is subscribed to filter. It takes constant time.
func (s *Session) Has(filter string) bool { return s.find(filter) >= 0 }

// indexFrom is how many subscriptions are found by looking at each.
const indexFrom = 16

// find returns where filter stands in subs, or -1.
func (s *Session) find(filter string) int {
	if s.index != nil {
		_, at := s.index.find(s.subs, filter)
		return at
	}
	return slices.IndexFunc(s.subs, func(x mqtt.Subscription) bool { return x.Filter == filter })
}

// add appends a subscription whose filter is not there.
func (s *Session) add(sub mqtt.Subscription) {
	s.subs = append(s.subs, sub)
	switch n := len(s.subs); {
	case s.index == nil && n <= indexFrom:
	case s.index == nil || n*4 > len(s.index)*3:
		s.index = newFilters(s.subs)
	default:
		s.index.put(s.subs, n-1)
	}
}

// drop takes the subscription at a place out; the last one takes its place.
func (s *Session) drop(at int) {
	last := len(s.subs) - 1
	if s.index != nil {
		i, _ := s.index.find(s.subs, s.subs[at].Filter)
		s.index.remove(s.subs, i)
	}
	if at != last {
		if s.index != nil {
			i, _ := s.index.find(s.subs, s.subs[last].Filter)
			s.index[i] = uint32(at + 1)
		}
		s.subs[at] = s.subs[last]
	}
	s.subs[last] = mqtt.Subscription{}
	s.subs = s.subs[:last]
}
