// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"slices"

	"github.com/manormq/manor/infra/mqtt"
)

// State is how far a delivery has come.
type State uint8

// The states of a delivery that is not fully acknowledged.
const (
	// SentQoS1 waits for PUBACK, SentQoS2 for PUBREC.
	SentQoS1 State = iota + 1
	SentQoS2
	// Released waits for PUBCOMP; its message is no longer needed.
	Released
)

// outbound is what was sent to the client and not fully acknowledged.
type outbound struct {
	// window is the client's Receive Maximum, or what the tenant allows of it;
	// used is how much of it this connection has taken [MQTT-3.3.4-9].
	window, used uint16
	client       uint16 // its Receive Maximum
	nextID       uint16
	order        uint64
	granted      uint64
	sent         uint64
	flights      flights
	// resend are the identifiers still to be sent again on this connection, in
	// their first order [MQTT-4.4.0-1].
	resend []uint16
}

type delivery struct {
	state State
	id    uint16 // the packet identifier; 0 is none
	// epoch is the connection that it was last sent on: only then does it take
	// a place in that connection's window.
	epoch uint32
	size  uint32
	// at is when that was, in units of retryUnit. It counts on from 0 again.
	at    uint32
	seq   uint64
	order uint64
}

func (o *outbound) attach(client, window uint16) {
	o.client, o.used, o.granted, o.sent = client, 0, 0, 0
	o.limit(window)
	o.resend = o.resend[:0]
	o.flights.each(func(d *delivery) { o.resend = append(o.resend, d.id) })
	if len(o.resend) > 1 { // which few have: the others save a deep stack
		slices.SortFunc(o.resend, func(a, b uint16) int {
			return cmp.Compare(o.flights.get(a).order, o.flights.get(b).order)
		})
	}
}

// limit bounds the client's Receive Maximum; 0 does not.
func (o *outbound) limit(window uint16) {
	if o.window = o.client; window != 0 {
		o.window = min(o.client, window)
	}
}

func (o *outbound) detach() {
	o.granted, o.sent, o.used, o.resend = 0, 0, 0, nil
}

// Ready reports whether a QoS 1 or 2 message would be sent now: Enqueued is
// worth its while.
func (s *Session) Ready() bool {
	o := &s.out
	return s.attached && len(o.resend) == 0 && o.used < o.window && o.sent < o.granted && o.flights.n < 65535
}

// TakeCredit takes size bytes for a QoS 0 delivery. It reports false if the
// gateway has granted no more: the message is dropped and counted.
func (s *Session) TakeCredit(size int) bool {
	o := &s.out
	if !s.attached || o.sent >= o.granted {
		return false
	}
	o.sent += uint64(size)
	return true
}

// enqueued sends the head of the queue if windows allow. No Out means no.
func (s *Session) enqueued(now int64, e *Event, fx *Effects) {
	o := &s.out
	if !s.Ready() {
		return
	}
	id := o.flights.next(o.nextID)
	if id == 0 {
		return
	}
	o.nextID = id
	d := delivery{id: id, state: SentQoS1, epoch: s.epoch, size: uint32(e.Size), seq: e.Seq, order: o.order, at: uint32(now / retryUnit)}
	if s.retry != 0 {
		s.expectAck(now)
	}
	if e.QoS == mqtt.ExactlyOnce {
		d.state = SentQoS2
	}
	o.order++
	o.flights.put(d)
	o.used++
	o.sent += uint64(e.Size)
	s.saveDelivery(&d, fx)
	fx.Send = append(fx.Send, Out{
		Kind: OutDeliver, Packet: id, QoS: e.QoS, Seq: e.Seq,
		AfterCommit: e.QoS == mqtt.ExactlyOnce && s.durable,
	})
}

func (s *Session) saveDelivery(d *delivery, fx *Effects) {
	s.save(fx, Record{Kind: PutInflight, Packet: d.id, State: d.state, Size: d.size, Seq: d.seq, Order: d.order})
}

// credit takes a new grant and goes on with what waits for it.
func (s *Session) credit(now int64, granted uint64, fx *Effects) {
	if !s.attached || granted <= s.out.granted {
		return
	}
	s.out.granted = granted
	s.again(now, fx)
}

// again sends what a former connection left unacknowledged, with the same
// identifiers and in the same order [MQTT-4.4.0-1] [MQTT-4.6.0-1].
func (s *Session) again(now int64, fx *Effects) {
	o := &s.out
	if len(o.resend) == 0 {
		return
	}
	if s.retry != 0 {
		s.expectAck(now)
	}
	for len(o.resend) > 0 && o.used < o.window && o.sent < o.granted {
		id := o.resend[0]
		o.resend = o.resend[1:]
		d := o.flights.get(id)
		if d == nil {
			continue
		}
		o.used++
		d.epoch, d.at = s.epoch, uint32(now/retryUnit)
		switch d.state {
		case Released:
			fx.Send = append(fx.Send, Out{Kind: OutAck, Ack: mqtt.Pubrel, Packet: id})
		case SentQoS1, SentQoS2:
			o.sent += uint64(d.size)
			qos := mqtt.AtLeastOnce
			if d.state == SentQoS2 {
				qos = mqtt.ExactlyOnce
			}
			fx.Send = append(fx.Send, Out{Kind: OutDeliver, Packet: id, QoS: qos, Seq: d.seq, Dup: true})
		}
	}
}

// ack takes PUBACK, PUBREC, PUBREL or PUBCOMP of the client.
func (s *Session) ack(now int64, e *Event, fx *Effects) {
	if !s.attached {
		return
	}
	if e.Ack == mqtt.Pubrel {
		s.release(e.Packet, fx)
		return
	}
	d := s.out.flights.get(e.Packet)
	ok := d != nil
	switch {
	case e.Ack == mqtt.Puback && ok && d.state == SentQoS1,
		e.Ack == mqtt.Pubrec && ok && d.state == SentQoS2 && e.Reason.Failed(),
		e.Ack == mqtt.Pubcomp && ok && d.state == Released:
		s.complete(now, *d, fx)
	case e.Ack == mqtt.Pubrec && ok && d.state != SentQoS1:
		if d.state == SentQoS2 {
			fx.Save = append(fx.Save, Record{Kind: DeleteQueued, Seq: d.seq})
			d.state, d.at = Released, uint32(now/retryUnit)
			s.saveDelivery(d, fx)
		}
		fx.Send = append(fx.Send, Out{Kind: OutAck, Ack: mqtt.Pubrel, Packet: e.Packet, AfterCommit: s.durable})
	case e.Ack == mqtt.Pubrec:
		fx.Send = append(fx.Send, Out{Kind: OutAck, Ack: mqtt.Pubrel, Packet: e.Packet, Reason: mqtt.PacketIdentifierNotFound})
	}
}

// complete forgets a delivery and gives its place in the window back.
func (s *Session) complete(now int64, d delivery, fx *Effects) {
	s.out.flights.remove(d.id)
	if d.epoch == s.epoch && s.attached {
		s.out.used--
	}
	// The queue is told even for a session that is not stored: it may hold the
	// body of a message of a shared group.
	if d.state != Released {
		fx.Save = append(fx.Save, Record{Kind: DeleteQueued, Seq: d.seq})
	}
	s.save(fx, Record{Kind: DeleteInflight, Packet: d.id})
	s.again(now, fx)
}

// tooLarge completes a delivery that the client's Maximum Packet Size forbids,
// as if it had been sent [MQTT-3.1.2-25].
func (s *Session) tooLarge(now int64, id uint16, fx *Effects) {
	if d := s.out.flights.get(id); d != nil {
		s.complete(now, *d, fx)
	}
}
