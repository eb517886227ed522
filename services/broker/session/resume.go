// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"slices"
)

// Carried is what a connection has that goes on at another broker and that the
// records of its session do not tell.
type Carried struct {
	// ReceiveMaximum, InboundMaximum, Window and Retry are as in Opening, Credit is
	// what the gateway grants at first of the new channel.
	ReceiveMaximum, InboundMaximum uint16
	Window, Retry                  uint16
	Credit                         uint64
	// Resend are the identifiers that were to be sent again on this connection and
	// were not yet, in their order. All others in flight have been sent on it.
	Resend []uint16
}

// Settled reports whether the client has all that it was owed for what it sent: only
// then can its connection go on elsewhere. What it was sent and has not acknowledged
// does not matter.
func (s *Session) Settled() bool {
	if s.in == nil {
		return true
	}
	for _, committed := range s.in.ids {
		if !committed {
			return false
		}
	}
	return s.in.puback.len()+s.in.pubrec.len() == 0
}

// Carry returns what the connection has beside the records and the limits of its
// tenant: ReceiveMaximum and Resend.
func (s *Session) Carry() Carried {
	return Carried{ReceiveMaximum: s.out.client, Resend: slices.Clone(s.out.resend)}
}

// Flying are the deliveries that are not fully acknowledged, in the order in which they
// were sent first, as PutInflight records.
func (s *Session) Flying() []Record {
	out := make([]Record, 0, s.out.flights.n)
	s.out.flights.each(func(d *delivery) {
		out = append(out, Record{Kind: PutInflight, Packet: d.id, State: d.state, Size: d.size, Seq: d.seq, Order: d.order})
	})
	slices.SortFunc(out, func(a, b Record) int { return cmp.Compare(a.Order, b.Order) })
	return out
}

// Connect says that a session that was made of what another broker has told has a
// connection, which Resume or Detach follows. nextID is Stored.NextID.
func (s *Session) Connect(nextID uint16) {
	s.attached = true
	s.out.nextID = nextID
}

// Suspend has nothing more be sent on the connection, which Resume or Detach follows.
func (s *Session) Suspend() { s.out.granted, s.out.sent, s.retryAt = 0, 0, 0 }

// resume goes on with the connection of a restored session: what was sent stays sent
// [MQTT-4.4.0-1], and takes its places in the client's window.
func (s *Session) resume(now int64, c *Carried, fx *Effects) {
	if !s.attached {
		return
	}
	s.epoch++
	o := &s.out
	o.client, o.used, o.granted, o.sent = c.ReceiveMaximum, 0, 0, 0
	o.limit(c.Window)
	o.resend = o.resend[:0]
	for _, id := range c.Resend {
		if o.flights.get(id) != nil {
			o.resend = append(o.resend, id)
		}
	}
	o.flights.each(func(d *delivery) {
		if !slices.Contains(o.resend, d.id) {
			d.epoch, d.at = s.epoch, uint32(now/retryUnit)
			o.used++
		}
	})
	s.inMax = c.InboundMaximum
	if s.retry, s.retryAt = c.Retry, 0; s.retry != 0 && o.flights.n > 0 {
		s.expectAck(now)
	}
	fx.Send = append(fx.Send, Out{Kind: OutOpened, Present: true, Credit: c.Credit})
}
