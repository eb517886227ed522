// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"fmt"
	"slices"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// Apply appends what the gateway itself answers to the packets of a read. It
// comes before fx.Up is sent, so that the machine knows what the broker's
// answers belong to.
func (c *Conn) Apply(dst []byte, fx *Effects) []byte {
	dst = append(dst, fx.out...)
	for _, a := range fx.answers {
		if len(c.held) == 0 && c.due(a) {
			dst = c.appendAnswer(dst, a)
		} else {
			c.held = append(c.held, a)
		}
	}
	for _, s := range fx.subacks {
		if !slices.Contains(s.reasons, brokerDecides) {
			dst = c.appendSuback(dst, packet.SUBACK, s.id, s.reasons, s.text, s.limit)
			continue
		}
		if c.subacks == nil {
			c.subacks = map[uint16]partSuback{}
		}
		if old, ok := c.subacks[s.id]; ok { // a client that uses an identifier twice
			c.holding.Add(-old.size())
		}
		c.subacks[s.id] = s
	}
	return dst
}

func (c *Conn) appendAnswer(dst []byte, a answer) []byte {
	c.holding.Add(-answerSize)
	return c.appendAck(dst, a.typ, a.id, a.reason, a.text, a.limit)
}

func (c *Conn) due(a answer) bool {
	return int32(c.answered[a.typ-packet.PUBACK].Load()-a.after) >= 0
}

// LargePayload is from how many bytes on the payload of a PUBLISH is not copied
// behind its head. A write of less carries several packets, which saves more.
const LargePayload = 32 << 10

// Result is what a frame of the broker leads to besides bytes.
type Result struct {
	Close Close
	// TooLarge is set when the client's Maximum Packet Size forbids the
	// message; at QoS above 0 the broker must hear of it with UpTooLarge
	// [MQTT-3.1.2-25].
	TooLarge bool
	// Denied is set when a message was not passed on because the grant does not
	// allow it any more. The broker must hear of it as of one too large.
	Denied bool
	// Opened is set when CONNACK was appended.
	Opened bool
	// Payload, if any, is the end of the packet that was appended, and has to be
	// sent next: it is the broker's memory, for this turn, and large enough to
	// be worth no copy.
	Payload []byte
	// Resume is set when an inbound half that waits may look again.
	Resume bool
}

// Receive appends what a frame of the broker means to the client.
func (c *Conn) Receive(dst []byte, b *link.Down, f *link.DownFrame) ([]byte, Result) {
	var r Result
	if c.phase == closed {
		return dst, r
	}
	switch f.Kind {
	case link.DownDeliver:
		m := &b.Messages[f.Slot]
		c.count(m, len(f.SubscriptionIDs))
		if c.guards && !c.grant.Load().MayReceive(m.Topic) {
			r.Denied = true
			break
		}
		dst, r.TooLarge = c.deliver(dst, m, f)
		switch {
		case r.TooLarge:
		case len(m.Payload) >= LargePayload:
			r.Payload = m.Payload
		default:
			dst = append(dst, m.Payload...)
		}
	case link.DownAck:
		return c.ack(dst, f)
	case link.DownSuback:
		if f.PacketID == 0 {
			break // of Reduce: the client has not asked
		}
		reasons, text, limit := f.Reasons, "", ""
		if mine, ok := c.subacks[f.PacketID]; ok {
			delete(c.subacks, f.PacketID)
			c.holding.Add(-mine.size())
			r.Resume = true
			reasons, text, limit = merge(mine.reasons, reasons), mine.text, mine.limit
		}
		n := c.noted
		c.noted = nil
		if text == "" && n != nil && slices.Contains(subscriptionQuotas, n.Reason) && slices.Contains(reasons, mqtt.QuotaExceeded) {
			text, limit = n.Text, n.Reason
		}
		if text == "" && slices.Contains(reasons, mqtt.QuotaExceeded) {
			limit = "subscriptions_client"
			text = fmt.Sprintf("the session has as many subscriptions as its quota %s allows: %d", limit, c.rules.Load().SubscriptionsClient)
		}
		if text == "" {
			text, limit = guestMayNot(reasons, "allow_subscribe_during_netsplit", limit)
		}
		dst = c.appendSuback(dst, packet.SUBACK, f.PacketID, reasons, text, limit)
	case link.DownUnsuback:
		if f.PacketID == 0 {
			break
		}
		if c.version != packet.V5 && slices.ContainsFunc(f.Reasons, mqtt.ReasonCode.Failed) {
			break // which its UNSUBACK cannot say
		}
		text, limit := guestMayNot(f.Reasons, "allow_unsubscribe_during_netsplit", "")
		dst = c.appendSuback(dst, packet.UNSUBACK, f.PacketID, f.Reasons, text, limit)
	case link.DownWindow:
		c.window.Store(f.Bytes)
		r.Resume = true
	case link.DownOpened:
		if c.connack == nil {
			break // it has been answered
		}
		c.window.Store(f.Bytes)
		c.phase = open
		k := c.connack
		c.connack = nil
		k.SessionPresent = f.SessionPresent
		c.guards = c.guards || f.SessionPresent && !c.grant.Load().Default()
		dst = packet.AppendConnack(dst, c.version, k, int(c.limit))
		r.Opened = true
	case link.DownNote:
		if f.Note.Count == 0 {
			c.noted = f.Note
		}
	case link.DownRefused, link.DownClose:
		r.Close = ended(0, f.Reason, f.Text)
	case link.DownAnswer, link.DownGoaway, link.DownLoad, link.DownTable, link.DownMoved, link.DownPause:
		// Those are about the link, or for who chooses the broker.
	}
	return dst, r
}

// subscriptionQuotas are the quotas of the whole tenant by which a broker refuses a
// subscription.
var subscriptionQuotas = []string{"subscriptions", "shared_groups", "shared_group_members"}

// deliver appends a PUBLISH up to its payload.
func (c *Conn) deliver(dst []byte, m *mqtt.Message, f *link.DownFrame) (out []byte, tooLarge bool) {
	d := packet.Delivery{QoS: f.QoS, Retain: f.Retain, Dup: f.Dup, PacketID: f.PacketID, SubscriptionIDs: f.SubscriptionIDs}
	learn := false
	if c.outMax > 0 && c.version == packet.V5 {
		if a, ok := c.out[string(m.Topic)]; ok {
			d.TopicAlias, d.HasTopicAlias, d.OmitTopic = a, true, true
		} else if len(c.out) < int(c.outMax) && c.outBytes+len(m.Topic) <= aliasBytes {
			d.TopicAlias, d.HasTopicAlias, learn = uint16(len(c.out)+1), true, true
		}
	}
	if c.limit > 0 && packet.PublishSize(c.version, m, d) > int(c.limit) {
		if !learn {
			return dst, true
		}
		// The alias itself may be what does not fit.
		d.TopicAlias, d.HasTopicAlias, learn = 0, false, false
		if packet.PublishSize(c.version, m, d) > int(c.limit) {
			return dst, true
		}
	}
	if learn {
		if c.out == nil {
			c.out = map[string]uint16{}
		}
		c.out[string(m.Topic)] = d.TopicAlias
		c.outBytes += len(m.Topic)
	}
	return packet.AppendPublishHead(dst, c.version, m, d), false
}

func (c *Conn) ack(dst []byte, f *link.DownFrame) ([]byte, Result) {
	var r Result
	noted := c.noted
	c.noted = nil
	switch f.Ack {
	case mqtt.Puback, mqtt.Pubrec:
		kind := f.Ack - mqtt.Puback
		if c.version != packet.V5 && f.Reason.Failed() {
			// An acknowledgement without a reason would say that it was kept.
			r.Close = ended(link.CloseLost, f.Reason, "a message could not be kept")
			return dst, r
		}
		if f.Ack == mqtt.Puback || f.Reason.Failed() {
			c.completed()
		}
		text, limit := "", ""
		if f.Reason == mqtt.QuotaExceeded {
			text, limit = "the tenant has as much retained as its quotas retained_messages and retained_bytes allow", "retained_messages"
			if noted != nil && noted.Reason == "retained_rate" {
				text, limit = noted.Text, noted.Reason
			}
		}
		dst = c.appendAck(dst, packet.PUBACK+packet.Type(kind), f.PacketID, f.Reason, text, limit)
		c.answered[kind].Add(1)
		r.Resume = c.version != packet.V5
		for len(c.held) > 0 && c.due(c.held[0]) {
			dst = c.appendAnswer(dst, c.held[0])
			c.held = c.held[1:]
			r.Resume = true
		}
		if len(c.held) == 0 {
			c.held = nil
		}
	case mqtt.Pubrel:
		dst = c.appendAck(dst, packet.PUBREL, f.PacketID, f.Reason, "", "")
	case mqtt.Pubcomp:
		c.completed()
		dst = c.appendAck(dst, packet.PUBCOMP, f.PacketID, f.Reason, "", "")
	}
	return dst, r
}

// completed gives back one of the Receive Maximum. A PUBREL that came from an
// earlier connection was not counted, so the count stops at 0.
func (c *Conn) completed() {
	for {
		n := c.inflight.Load()
		if n <= 0 || c.inflight.CompareAndSwap(n, n-1) {
			return
		}
	}
}

func (c *Conn) appendAck(dst []byte, t packet.Type, id uint16, reason mqtt.ReasonCode, text, limit string) []byte {
	a := packet.Ack{PacketID: id, Reason: reason}
	if c.version == packet.V5 {
		a.Reason = packet.LegalReason(t, reason)
		if text != "" && !c.noProblem { // [MQTT-3.1.2-29]
			a.ReasonString, a.UserProperties = []byte(text), limitProperty(limit)
		}
	}
	return packet.AppendAck(dst, c.version, t, &a, int(c.limit))
}

func (c *Conn) appendSuback(dst []byte, t packet.Type, id uint16, reasons []mqtt.ReasonCode, text, limit string) []byte {
	s := packet.Suback{PacketID: id, Reasons: reasons}
	if !c.noProblem { // [MQTT-3.1.2-29]
		s.ReasonString, s.UserProperties = text, limitProperty(limit)
	}
	if t == packet.SUBACK {
		return packet.AppendSuback(dst, c.version, &s, int(c.limit))
	}
	return packet.AppendUnsuback(dst, c.version, &s, int(c.limit))
}

// limitProperty is the User Property that names a quota or setting to programs,
// where the reason string tells people.
func limitProperty(name string) []byte {
	if name == "" {
		return nil
	}
	return packet.AppendUserProperty(nil, "limit", name)
}

// merge puts the broker's reasons in their places.
func merge(mine, brokers []mqtt.ReasonCode) []mqtt.ReasonCode {
	for i := range mine {
		if mine[i] != brokerDecides {
			continue
		}
		if len(brokers) == 0 {
			mine[i] = mqtt.UnspecifiedError
			continue
		}
		mine[i], brokers = brokers[0], brokers[1:]
	}
	return mine
}

// Goodbye appends what the client is told at the end of its connection: a
// CONNACK while one is owed, else a DISCONNECT where the version has one. After
// it the machine takes nothing more.
func (c *Conn) Goodbye(dst []byte, cl Close) []byte {
	was, more := c.phase, cl.details()
	c.phase = closed
	switch {
	case cl.ByClient || was == waiting || was == closed:
		return dst
	case was == connecting && c.version != packet.V5 && wordless(cl.Reason):
		return dst
	case was == connecting:
		k := &packet.Connack{
			Reason: refusing(cl.Reason), ReasonString: cl.Text, ServerReference: more.Reference, UserProperties: limitProperty(more.Limit),
		}
		out := packet.AppendConnack(dst, c.version, k, int(c.limit))
		if len(out) == len(dst) { // too large for the client with it
			k.ServerReference = ""
			out = packet.AppendConnack(dst, c.version, k, int(c.limit))
		}
		return out
	case c.version == packet.V5:
		d := &packet.Disconnect{
			Reason: packet.LegalReason(packet.DISCONNECT, cl.Reason), ReasonString: cl.Text, ServerReference: more.Reference,
			UserProperties: limitProperty(more.Limit),
		}
		out := packet.AppendDisconnect(dst, c.version, d, int(c.limit))
		if len(out) == len(dst) {
			d.ServerReference = ""
			out = packet.AppendDisconnect(dst, c.version, d, int(c.limit))
		}
		return out
	}
	return dst
}

// wordless reports whether a CONNECT of 3.x that is refused for r is refused
// without a CONNACK: it is malformed, and no return code says so
// [MQTT-3.1.4-1 of 3.1.1, MQTT-3.2.2-6 of 3.1.1].
func wordless(r mqtt.ReasonCode) bool {
	switch r {
	case mqtt.MalformedPacket, mqtt.ProtocolError, mqtt.TopicNameInvalid, mqtt.PacketTooLarge, mqtt.QoSNotSupported, mqtt.RetainNotSupported:
		return true
	}
	return false
}

// refusing is the reason of a CONNACK that refuses: some codes exist only in
// DISCONNECT (table 3-1 of MQTT 5).
func refusing(r mqtt.ReasonCode) mqtt.ReasonCode {
	switch r {
	case mqtt.ServerShuttingDown:
		return mqtt.ServerUnavailable
	case mqtt.SessionTakenOver, mqtt.KeepAliveTimeout, mqtt.AdministrativeAction:
		return mqtt.ServerBusy
	case mqtt.TopicFilterInvalid, mqtt.ReceiveMaximumExceeded, mqtt.TopicAliasInvalid:
		return mqtt.ProtocolError
	}
	if !r.Failed() {
		return mqtt.UnspecifiedError
	}
	return r
}

// Skip counts a Deliver of that message, with so many Subscription Identifiers, which the
// shell does not give to Receive.
func (c *Conn) Skip(m *mqtt.Message, ids int) { c.count(m, ids) }

// count counts a Deliver of that message, unless it came on a former channel (Reopen).
func (c *Conn) count(m *mqtt.Message, ids int) {
	cost := uint64(link.DeliverCost(m.Size(), ids))
	early := min(cost, c.early)
	c.early -= early
	c.delivered += cost - early
}

// Credit returns how many Deliver bytes the broker may have sent in all, while
// backlog bytes wait for the socket; ok is false if that is not worth a frame.
func (c *Conn) Credit(backlog int) (total uint64, ok bool) {
	if c.phase != open {
		return 0, false
	}
	total = c.delivered - min(c.delivered, uint64(backlog)) + c.creditWindow - min(c.creditWindow, c.early)
	if total <= c.granted || total-c.granted < c.creditWindow/4 {
		return 0, false
	}
	c.granted = total
	return total, true
}
