// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/session"
)

// pending is a publish whose acknowledgement waits: for commits of this shard
// and for answers of others.
type pending struct {
	gen    uint32
	waits  int32
	se     *sess
	token  session.Token
	packet uint16
	reason mqtt.ReasonCode
	hit    bool
	// exact is the number of the outbox record, or 0.
	exact uint64
	part  *space
	// tenant is that of a publish without a publisher's session.
	tenant *Tenant
	// kept counts those of waits that are handed off: where there are no others the
	// publisher is told, and the record stays.
	kept   int32
	record *outboxRecord // exact's
}

func (s *Shard) newPending() (slot, gen uint32) {
	if n := len(s.free); n > 0 {
		slot = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		s.pending = append(s.pending, pending{})
		slot = uint32(len(s.pending) - 1)
	}
	return slot, s.pending[slot].gen
}

// answered notes that one thing that a publish waited for has come.
func (s *Shard) answered(slot, gen uint32, reason mqtt.ReasonCode, hit bool) {
	q := &s.pending[slot]
	if q.gen != gen {
		return
	}
	if reason.Failed() {
		q.reason = reason
	}
	q.hit = q.hit || hit
	q.waits--
	if q.waits == 0 {
		s.finishPending(slot)
	} else {
		s.settleKept(slot)
	}
}

func (s *Shard) finishPending(slot uint32) {
	q := s.pending[slot]
	s.pending[slot] = pending{gen: q.gen + 1}
	s.free = append(s.free, slot)
	if q.exact != 0 {
		s.deleteOutbox(q.part, q.exact)
	}
	if q.se != nil && !q.se.gone {
		s.settled(q.se, q.token, q.packet, q.reason, q.hit)
	}
}

// settled tells the publisher's session that its publish is where it must be.
func (s *Shard) settled(se *sess, token session.Token, packet uint16, reason mqtt.ReasonCode, matched bool) {
	if !reason.Failed() && !matched {
		reason = mqtt.NoMatchingSubscribers
	}
	s.step(se, &session.Event{Kind: session.Routed, Token: token, Packet: packet, Reason: reason}, nil)
}
