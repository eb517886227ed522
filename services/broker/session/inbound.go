// SPDX-License-Identifier: Apache-2.0

package session

import "github.com/manormq/manor/infra/mqtt"

// Token names a publish that is being routed, until its Routed event. Zero is
// no token.
type Token uint64

const (
	tokenSet    Token = 1 << 63
	tokenPubrec Token = 1 << 62
)

// token packs the epoch (30 bits), the kind of ack and the place in its ring.
func token(epoch uint32, rec bool, place uint32) Token {
	t := tokenSet | Token(epoch&(1<<30-1))<<32 | Token(place)
	if rec {
		t |= tokenPubrec
	}
	return t
}

// Restored is the token of a publish that an earlier run of the broker began:
// its QoS 2 identifier is known, its connection is not.
const Restored = tokenSet | tokenPubrec

func (t Token) epoch() uint32 { return uint32(t>>32) & (1<<30 - 1) }

// inbound is what the client has published and not completed.
type inbound struct {
	// ids are the QoS 2 messages received and not released; true once the
	// message is committed everywhere [MQTT-4.3.3-10].
	ids map[uint16]bool
	// Acknowledgements leave in the order of their publishes [MQTT-4.6.0-2,
	// -3], so each kind has a ring that is filled anywhere and emptied from
	// its head.
	puback, pubrec ring
}

// inbound returns what the client has published, made when first needed.
func (s *Session) inbound() *inbound {
	if s.in == nil {
		s.in = &inbound{}
	}
	return s.in
}

// forgetOwed forgets the acknowledgements that the connection was owed.
func (s *Session) forgetOwed() {
	if s.in != nil {
		s.in.puback.reset()
		s.in.pubrec.reset()
	}
}

// publish takes a PUBLISH of the client.
func (s *Session) publish(e *Event, fx *Effects) {
	if !s.attached {
		return
	}
	switch e.QoS {
	case mqtt.AtMostOnce:
		fx.Route = append(fx.Route, Publication{})
	case mqtt.AtLeastOnce:
		if s.refuseOverflow(fx) {
			return
		}
		place := s.inbound().puback.push(e.Packet)
		fx.Route = append(fx.Route, Publication{Token: token(s.epoch, false, place), Packet: e.Packet})
	case mqtt.ExactlyOnce:
		if s.refuseOverflow(fx) {
			return
		}
		in := s.inbound()
		committed, known := in.ids[e.Packet]
		if known {
			// A duplicate is acknowledged again and not routed
			// [MQTT-4.3.3-10].
			place := in.pubrec.push(e.Packet)
			if committed {
				in.pubrec.fill(place, mqtt.Success)
				s.drainAcks(fx)
			}
			return
		}
		if in.ids == nil {
			in.ids = make(map[uint16]bool)
		}
		in.ids[e.Packet] = false
		s.save(fx, Record{Kind: PutInbound, Packet: e.Packet})
		place := in.pubrec.push(e.Packet)
		fx.Route = append(fx.Route, Publication{Token: token(s.epoch, true, place), Packet: e.Packet, Exact: s.durable})
	}
}

// refuseOverflow closes a connection that has more unacknowledged publishes
// under way than it was allowed [MQTT-3.3.4-7].
func (s *Session) refuseOverflow(fx *Effects) bool {
	in := s.inbound()
	if in.puback.len()+in.pubrec.len() < int(s.inMax) {
		return false
	}
	fx.Send = append(fx.Send, Out{Kind: OutClose, Reason: mqtt.ReceiveMaximumExceeded})
	return true
}

// routed fills the acknowledgement that a publish is owed. One that failed is
// forgotten, so that the client may send it again.
func (s *Session) routed(e *Event, fx *Effects) {
	rec := e.Token&tokenPubrec != 0
	in := s.inbound()
	r, id := &in.puback, uint16(0)
	if rec {
		r = &in.pubrec
	}
	if e.Token.epoch() == s.epoch&(1<<30-1) && s.attached {
		id = r.fill(uint32(e.Token), e.Reason)
	}
	if rec {
		s.settle(id, e, fx)
	}
	s.drainAcks(fx)
}

// settle notes that the QoS 2 publish behind a Routed is committed. After a
// reconnect the token's place says nothing, but the identifier of the event
// still does.
func (s *Session) settle(id uint16, e *Event, fx *Effects) {
	if id == 0 {
		id = e.Packet
	}
	in := s.in
	if _, ok := in.ids[id]; !ok {
		return
	}
	if e.Reason.Failed() {
		delete(in.ids, id)
		s.save(fx, Record{Kind: DeleteInbound, Packet: id})
	} else {
		in.ids[id] = true
	}
	in.pubrec.fillID(id, e.Reason)
}

func (s *Session) drainAcks(fx *Effects) {
	for id, reason := s.in.puback.pop(); id != 0; id, reason = s.in.puback.pop() {
		fx.Send = append(fx.Send, Out{Kind: OutAck, Ack: mqtt.Puback, Packet: id, Reason: reason})
	}
	for id, reason := s.in.pubrec.pop(); id != 0; id, reason = s.in.pubrec.pop() {
		fx.Send = append(fx.Send, Out{Kind: OutAck, Ack: mqtt.Pubrec, Packet: id, Reason: reason})
	}
}

// release takes a PUBREL: the identifier is free again once that is durable,
// since a crash that forgot it would let a late duplicate through.
func (s *Session) release(id uint16, fx *Effects) {
	in := s.inbound()
	if _, ok := in.ids[id]; !ok {
		fx.Send = append(fx.Send, Out{Kind: OutAck, Ack: mqtt.Pubcomp, Packet: id, Reason: mqtt.PacketIdentifierNotFound})
		return
	}
	delete(in.ids, id)
	s.save(fx, Record{Kind: DeleteInbound, Packet: id})
	fx.Send = append(fx.Send, Out{Kind: OutAck, Ack: mqtt.Pubcomp, Packet: id, AfterCommit: s.durable})
}
