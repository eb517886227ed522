// SPDX-License-Identifier: Apache-2.0

package session

import "github.com/manormq/manor/infra/mqtt"

// attach opens the session for a connection. Nothing is delivered before the
// first Credit, so CONNACK is always the first packet [MQTT-3.2.0-1].
func (s *Session) attach(_ int64, o *Opening, fx *Effects) {
	s.attached = true
	s.epoch++
	s.expiry = o.Expiry
	s.will = o.Will
	// A client that is back cancels its delayed will and its session's end
	// [MQTT-3.1.3-9].
	s.willAt, s.expireAt = 0, 0
	s.durable = s.durable || o.Expiry > 0
	s.recorded = s.recorded || o.Will != nil
	s.out.attach(o.ReceiveMaximum, o.Window)
	s.retry, s.retryAt = o.Retry, 0
	s.forgetOwed()
	s.inMax = o.InboundMaximum
	s.saveSession(fx)
	fx.Send = append(fx.Send, Out{Kind: OutOpened, Present: o.Present, Credit: o.Credit, AfterCommit: o.Present || o.Asked})
}

// takeOver ends the present connection because another one brings the same
// ClientID [MQTT-3.1.4-3]. Attach or Discard follows.
func (s *Session) takeOver(now int64, quiet bool, fx *Effects) {
	if !s.attached {
		return
	}
	if quiet {
		s.will = nil
	}
	fx.Send = append(fx.Send, Out{Kind: OutClose, Reason: mqtt.SessionTakenOver})
	s.detached()
	// The will goes out at once when it has no delay; with one, the Attach
	// that follows cancels it, a Discard sends it.
	s.scheduleWill(now, fx)
}

// detach follows the end of the connection.
func (s *Session) detach(now int64, e *Event, fx *Effects) {
	if !s.attached {
		return
	}
	s.detached()
	if e.Expiry != nil && s.durable {
		s.expiry = *e.Expiry
	}
	if e.Cause == Normal {
		s.will = nil
	}
	if s.expiry == 0 {
		s.discard(fx)
		return
	}
	s.scheduleWill(now, fx)
	if s.expiry != mqtt.SessionNeverExpires {
		s.expireAt = now + int64(s.expiry)*1000
	}
	s.saveSession(fx)
}

// discard ends the session: a will that is still owed goes out
// [MQTT-3.1.3.2.2].
func (s *Session) discard(fx *Effects) {
	if s.attached {
		s.detached()
	}
	s.publishWill(fx)
	s.expireAt = 0
	fx.Ended = true
}

// detached forgets what belongs to a connection.
func (s *Session) detached() {
	s.attached, s.retryAt = false, 0
	s.out.detach()
	s.forgetOwed()
}

// adjust takes what the tenant has changed. A session that ends with its
// connection goes on to.
func (s *Session) adjust(now int64, e *Event, fx *Effects) {
	if !s.attached {
		return
	}
	s.out.limit(e.Window)
	if e.Expiry != nil && s.durable {
		s.expiry = *e.Expiry
	}
	if s.retry = e.Retry; s.retry == 0 {
		s.retryAt = 0
	} else {
		s.expectAck(now)
	}
	s.saveSession(fx)
	s.again(now, fx)
}

// tick does what is due.
func (s *Session) tick(now int64, fx *Effects) {
	if s.retryAt != 0 && now >= s.retryAt {
		s.retransmit(now, fx)
	}
	if s.willAt != 0 && now >= s.willAt {
		s.publishWill(fx)
		s.saveSession(fx)
	}
	if s.expireAt != 0 && now >= s.expireAt {
		s.discard(fx)
	}
}

// scheduleWill publishes the will now, or notes when: the delay, or the end of
// the session if that is sooner [MQTT-3.1.3-9].
func (s *Session) scheduleWill(now int64, fx *Effects) {
	if s.will == nil {
		return
	}
	if s.will.Delay == 0 {
		s.publishWill(fx)
		return
	}
	s.willAt = now + int64(s.will.Delay)*1000
}

func (s *Session) publishWill(fx *Effects) {
	if s.will == nil {
		return
	}
	fx.Route = append(fx.Route, Publication{Will: &s.will.Message})
	s.will, s.willAt = nil, 0
}
