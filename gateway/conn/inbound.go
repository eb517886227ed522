// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"bytes"
	"fmt"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// Handle takes a packet of an accepted client. MayRead must be true for it. If fx.Asking
// has come, it was not handled: Answer, and Handle it again before anything else.
// After an effect that closes, nothing more is handled.
func (c *Conn) Handle(p *packet.Packet, fx *Effects) {
	switch p.Type {
	case packet.PUBLISH:
		c.publish(&p.Publish, fx)
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		f := fx.frame(link.UpAck)
		f.Ack = mqtt.AckKind(p.Type-packet.PUBACK) + mqtt.Puback
		f.PacketID, f.Reason = p.Ack.PacketID, p.Ack.Reason
		c.charge(f)
	case packet.SUBSCRIBE:
		c.subscribe(p.Subscribe, fx)
	case packet.UNSUBSCRIBE:
		f := fx.frame(link.UpUnsubscribe)
		f.PacketID, f.Unsubscribe = p.Unsubscribe.PacketID, p.Unsubscribe.Filters
		c.charge(f)
	case packet.PINGREQ:
		fx.out = packet.AppendPingresp(fx.out) // [MQTT-3.12.4-1]
	case packet.DISCONNECT:
		c.disconnect(p.Disconnect, fx)
	case packet.CONNECT:
		fx.close(mqtt.ProtocolError, "a second CONNECT [MQTT-3.1.0-2]")
	case packet.AUTH:
		c.auth(p.Auth, fx)
	default:
		fx.close(mqtt.ProtocolError, p.Type.String()+" is sent by servers only")
	}
	if !fx.Asking.Came() {
		c.checks.handled()
	}
}

// Malformed takes the error of a packet that could not be decoded. It reports
// whether the connection goes on: one PUBLISH whose payload is not what its
// format says is refused alone.
func (c *Conn) Malformed(p *packet.Packet, err *packet.Error, fx *Effects) (goesOn bool) {
	if err.Reason == mqtt.PayloadFormatInvalid && err.Type == packet.PUBLISH && p.Publish.Message.QoS > 0 {
		fx.Drops[DropPayload]++
		c.answer(&p.Publish, err.Reason, err.Text, fx)
		return true
	}
	fx.close(err.Reason, err.Type.String()+": "+err.Text)
	return false
}

func (c *Conn) publish(p *packet.Publish, fx *Effects) {
	m := &p.Message
	if len(p.SubscriptionIDs) > 0 { // [MQTT-3.3.4-6]
		fx.close(mqtt.ProtocolError, "PUBLISH with a subscription identifier [MQTT-3.3.4-6]")
		return
	}
	if p.HasTopicAlias && !c.resolve(p, fx) {
		return
	}
	grant, rules := c.grant.Load(), c.rules.Load()
	if !c.permitted(grant, rules, m) && !c.permit(grant, rules, p, fx) {
		return
	}
	if int64(m.QoS) > rules.Settings.MaximumQoS || m.Retain && !rules.Settings.RetainAvailable {
		c.beyondCapabilities(m, rules, fx)
		return
	}
	if grant.Asks() && !c.checkPublish(grant, p, rules, fx) {
		return
	}
	if m.QoS > 0 {
		if c.version == packet.V5 {
			if c.inflight.Load() >= int32(c.receiveMax) { // [MQTT-3.3.4-7]
				fx.close(mqtt.ReceiveMaximumExceeded, fmt.Sprintf("more than the receive maximum of %d messages are unacknowledged", c.receiveMax))
				return
			}
			c.inflight.Add(1)
		}
		c.forwarded[m.QoS-1]++
	}
	f := fx.frame(link.UpPublish)
	f.PacketID, f.Dup, f.Message = p.PacketID, p.Dup, *m
	c.charge(f)
}

// beyondCapabilities ends the connection of a client that has published what it
// was told not to, or what the tenant has not any more: DISCONNECT 0x9B and 0x9A
// (§3.2.2.3.4 and .5); 3.x has no word for it.
func (c *Conn) beyondCapabilities(m *mqtt.Message, rules *Rules, fx *Effects) {
	r := rules.beyondCapabilities(m.QoS, m.Retain)
	why := DropQoS
	if r.Reason == mqtt.RetainNotSupported {
		why = DropRetain
	}
	fx.Drops[why]++
	fx.closeBy(r.Reason, r.Text, r.Limit)
}

// charge counts a frame against the broker's window. As on every channel, what
// is begun within the window may end beyond it.
func (c *Conn) charge(f *link.UpFrame) { c.sent += uint64(f.Cost()) }

// resolve learns and replaces topic aliases [MQTT-3.3.2-8 to -12].
func (c *Conn) resolve(p *packet.Publish, fx *Effects) bool {
	a := int(p.TopicAlias)
	if a == 0 || a > int(c.aliasMax) {
		fx.close(mqtt.TopicAliasInvalid, fmt.Sprintf("the topic alias is %d, expected 1 to the topic alias maximum of %d [MQTT-3.3.2-9]", a, c.aliasMax))
		return false
	}
	if len(p.Message.Topic) == 0 {
		if a > len(c.aliases) || c.aliases[a-1] == nil {
			fx.close(mqtt.ProtocolError, fmt.Sprintf("the topic alias %d was not set before", a))
			return false
		}
		p.Message.Topic = c.aliases[a-1]
		return true
	}
	for len(c.aliases) < a {
		c.aliases = append(c.aliases, nil)
	}
	if bytes.Equal(c.aliases[a-1], p.Message.Topic) {
		return true
	}
	c.aliasBytes += len(p.Message.Topic) - len(c.aliases[a-1])
	if hi := max(aliasBytes, aliasShare*int(c.aliasMax)); c.aliasBytes > hi {
		fx.close(mqtt.QuotaExceeded, fmt.Sprintf("the topics of all topic aliases have more than %d bytes", hi))
		return false
	}
	c.aliases[a-1] = bytes.Clone(p.Message.Topic)
	return true
}

// Shed does not pass a PUBLISH on: for DropRate because its tenant has been over
// the quota publish_rate or bytes_in_rate for too long, at QoS 0 and of MQTT 5
// only, where the client is told; for DropOverload at QoS 0 only.
func (c *Conn) Shed(p *packet.Publish, why Drop, fx *Effects) {
	c.checks.handled()
	if p.HasTopicAlias && !c.resolve(p, fx) {
		return
	}
	fx.Drops[why]++
	if p.Message.QoS > 0 {
		c.answer(p, mqtt.QuotaExceeded, "the tenant sends more than its quotas publish_rate and bytes_in_rate allow", fx)
	}
}

// refuse does not pass a PUBLISH on. MQTT 5 says so in the acknowledgement; 3.x
// has no way but to close, since it must not acknowledge what was not kept
// [MQTT-3.3.5-2 of 3.1.1].
func (c *Conn) refuse(p *packet.Publish, why Drop, reason mqtt.ReasonCode, text string, fx *Effects) {
	fx.Drops[why]++
	switch {
	case why == DropDenied && c.version == packet.V31 && !c.rules.Load().Settings.DisconnectOnUnauthorizedPublish3:
		// 3.1 says that a server must acknowledge it all the same (§3.3 there).
		if p.Message.QoS > 0 {
			c.answer(p, mqtt.Success, "", fx)
		}
	case c.version != packet.V5:
		fx.close(reason, text)
	case p.Message.QoS > 0:
		c.answer(p, reason, text, fx)
	}
}

func (c *Conn) answer(p *packet.Publish, reason mqtt.ReasonCode, text string, fx *Effects) {
	a := answer{typ: packet.PUBACK, after: c.forwarded[0], id: p.PacketID, reason: reason, text: text}
	if p.Message.QoS == mqtt.ExactlyOnce {
		a.typ, a.after = packet.PUBREC, c.forwarded[1]
	}
	fx.answers = append(fx.answers, a)
	c.holding.Add(answerSize)
}

func (c *Conn) disconnect(p *packet.Disconnect, fx *Effects) {
	if p.HasSessionExpiry && p.SessionExpiry != 0 && c.asked == 0 { // section 3.14.2.2.2
		fx.close(mqtt.ProtocolError, "DISCONNECT sets a session expiry after CONNECT had 0 (section 3.14.2.2.2)")
		return
	}
	cl := ended(link.CloseWithWill, p.Reason, p.ReasonString)
	if p.Reason == mqtt.Success { // [MQTT-3.14.4-3]
		cl.Cause = link.CloseNormal
	}
	cl.ByClient = true
	cl.SessionExpiry, cl.HasSessionExpiry = c.capExpiry(p.SessionExpiry), p.HasSessionExpiry
	fx.Close = cl
}
