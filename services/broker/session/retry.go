// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"slices"

	"github.com/manormq/manor/infra/mqtt"
)

// retryUnit is in what the time of a delivery is kept, in milliseconds: 32 bits
// of it, which wrap after eight years.
const retryUnit = 64

// Unacknowledged calls f for each QoS 1 delivery that the client has not
// acknowledged, with how long ago it was sent on this connection, in
// milliseconds; negative if it was not.
func (s *Session) Unacknowledged(now int64, f func(seq uint64, age int64)) {
	unit := uint32(now / retryUnit)
	s.out.flights.each(func(d *delivery) {
		switch {
		case d.state != SentQoS1:
		case d.epoch == s.epoch && s.attached:
			f(d.seq, int64(unit-d.at)*retryUnit)
		default:
			f(d.seq, -1)
		}
	})
}

// expectAck has a Tick look for what is not acknowledged. What was acknowledged
// until then is not noticed before.
func (s *Session) expectAck(now int64) {
	if s.retryAt == 0 {
		s.retryAt = now + int64(s.retry)*1000
	}
}

// retransmit sends again what the client was sent on this connection and has not
// acknowledged for as long as retry says: PUBLISH with DUP, or PUBREL. Only 3.x
// has that (§4.4 of 3.1.1), and no more than the gateway has credit for.
func (s *Session) retransmit(now int64, fx *Effects) {
	o := &s.out
	unit := uint32(now / retryUnit)
	after := int64(s.retry) * 1000
	due := uint32(after / retryUnit)
	var late []uint16
	next := int64(0)
	o.flights.each(func(d *delivery) {
		if d.epoch != s.epoch {
			return // waits for its turn in resend
		}
		at := now + after
		if age := unit - d.at; age >= due {
			late = append(late, d.id)
		} else {
			at -= int64(age) * retryUnit
		}
		if next == 0 || at < next {
			next = at
		}
	})
	s.retryAt = next
	slices.SortFunc(late, func(a, b uint16) int { return cmp.Compare(o.flights.get(a).order, o.flights.get(b).order) })
	for _, id := range late {
		d := o.flights.get(id)
		d.at = unit
		if d.state == Released {
			fx.Send = append(fx.Send, Out{Kind: OutAck, Ack: mqtt.Pubrel, Packet: id, AfterCommit: s.durable})
			continue
		}
		if o.sent >= o.granted {
			continue
		}
		o.sent += uint64(d.size)
		qos := mqtt.AtLeastOnce
		if d.state == SentQoS2 {
			qos = mqtt.ExactlyOnce
		}
		// [MQTT-3.3.1-1 of 3.1.1]
		fx.Send = append(fx.Send, Out{Kind: OutDeliver, Packet: id, QoS: qos, Seq: d.seq, Dup: true, Retry: true})
	}
}
