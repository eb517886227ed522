// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"fmt"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// Refusal is why a CONNECT is not let in; the zero Refusal lets it in.
type Refusal struct {
	Reason mqtt.ReasonCode
	// Text is what the client is told.
	Text string
	// Why is for the log alone, where it says more than Text.
	Why string
}

// Connect takes the CONNECT packet, before anything is known about who it is.
func (c *Conn) Connect(p *packet.Connect) Refusal {
	c.phase = connecting
	c.version, c.bridge, c.noProblem = p.Version, p.Bridge, p.NoProblem
	c.keepAlive, c.limit = p.KeepAlive, p.MaximumPacketSize
	c.outMax = min(p.TopicAliasMaximum, aliasesOut)
	c.connack = &packet.Connack{}
	if p.HasAuthMethod {
		return Refusal{Reason: mqtt.BadAuthenticationMethod, Text: fmt.Sprintf("the authentication method %.40q is not known; use user name and password", p.AuthMethod)}
	}
	return Refusal{}
}

// ConnectFailed takes a CONNECT that could not be decoded, of which only the
// version may be known.
func (c *Conn) ConnectFailed(v packet.Version) {
	if v != 0 {
		c.phase, c.version = connecting, v
	}
}

// Admission is what Accept needs beyond the packet.
type Admission struct {
	Identity *tenancy.Identity
	// AssignedClientID is used if the client has none.
	AssignedClientID string
	Labels           link.Labels
}

// Accept applies the tenant's limits to an authenticated CONNECT. The result is
// what to ask the broker; its will is a view into the packet.
func (c *Conn) Accept(p *packet.Connect, a Admission) (*link.Open, Refusal) {
	l := &a.Identity.Tenant.Limits
	c.limits, c.grant, c.expiryCap = l, a.Identity.Grant, l.SessionExpiry
	c.packetMax = int(within(l.PacketSize, 0))
	c.receiveMax = uint16(within(l.ReceiveMaximum, 65535))
	c.aliasMax = uint16(within(l.TopicAliasMaximum, aliasesIn))
	c.creditWindow = CreditWindow
	if l.BytesOutRateClient >= 0 { // no more at once than in a second
		c.creditWindow = min(CreditWindow, max(smallestCredit, uint64(l.BytesOutRateClient)))
	}
	c.granted = c.creditWindow
	if p.Will != nil {
		if r := c.checkWill(p.Will); r.Reason.Failed() {
			return nil, r
		}
	}
	o := &link.Open{
		Tenant: a.Identity.Tenant.ID, ClientID: mqtt.ClientID(p.ClientID), CleanStart: p.CleanStart,
		Will: p.Will, ReceiveMaximum: p.ReceiveMaximum, Credit: c.creditWindow,
		Limits: link.Limits{
			QueueMessages: l.QueueMessages, QueueBytes: l.QueueBytes, Subscriptions: l.SubscriptionsClient,
			ReceiveMaximum: c.receiveMax, Retained: l.RetainedMessages, RetainedBytes: l.RetainedBytes, Sessions: l.PersistentSessions,
		},
		Labels: a.Labels,
	}
	if p.Version != packet.V5 {
		// Nobody told the client a Receive Maximum: MayRead holds it back
		// instead, and the session must not take it as a fault.
		o.Limits.ReceiveMaximum = 65535
	}
	o.Labels.Protocol = p.Version.String()
	if c.grant != nil {
		o.GrantRevision = c.grant.Revision
	}
	if o.ReceiveMaximum == 0 {
		o.ReceiveMaximum = 65535 // [MQTT-3.1.2.11.3]
	}
	k := c.connack
	if o.ClientID == "" { // [MQTT-3.1.3-6]
		o.ClientID = mqtt.ClientID(a.AssignedClientID)
		k.AssignedClientID = a.AssignedClientID // [MQTT-3.2.2-16]
	}
	switch {
	case p.Version == packet.V5:
		o.SessionExpiry = p.SessionExpiry
	case !p.CleanStart:
		o.SessionExpiry = mqtt.SessionNeverExpires
	}
	if capped := c.capExpiry(o.SessionExpiry); capped != o.SessionExpiry {
		o.SessionExpiry = capped
		k.SessionExpiry, k.HasSessionExpiry = capped, true // §3.2.2.3.2
	}
	c.expiry = o.SessionExpiry
	if p.Version == packet.V5 {
		c.serverKeepAlive(k)
		if c.receiveMax < 65535 {
			k.ReceiveMaximum = c.receiveMax
		}
		k.MaximumPacketSize, k.TopicAliasMaximum = uint32(c.packetMax), c.aliasMax
	}
	return o, Refusal{}
}

// serverKeepAlive changes the keep alive to one within the tenant's limits
// [MQTT-3.1.2-21]. 3.x cannot be told and keeps its own.
func (c *Conn) serverKeepAlive(k *packet.Connack) {
	want := int64(c.keepAlive)
	if hi := c.limits.KeepAliveMaximum; hi > 0 && (want == 0 || want > hi) {
		want = hi
	}
	if lo := c.limits.KeepAliveMinimum; lo > 0 && want != 0 && want < lo {
		want = lo
	}
	if want != int64(c.keepAlive) {
		c.keepAlive = uint16(want)
		k.ServerKeepAlive, k.HasServerKeepAlive = c.keepAlive, true
	}
}

func (c *Conn) checkWill(w *mqtt.Will) Refusal {
	if !c.grant.MayPublish(w.Message.Topic) {
		return Refusal{Reason: mqtt.NotAuthorized, Text: "the grant of this credential does not allow the will topic"}
	}
	if b := beyondLimits(w.Message.Topic, c.limits); b.quota != NotRefused {
		return Refusal{Reason: mqtt.TopicNameInvalid, Text: "the will topic has " + b.String()}
	}
	if hi := c.limits.WillSize; hi >= 0 && int64(len(w.Message.Payload)) > hi {
		return Refusal{Reason: mqtt.QuotaExceeded, Text: fmt.Sprintf("the will payload has %d bytes, the quota will_size allows %d", len(w.Message.Payload), hi)}
	}
	if hi := c.limits.WillDelay; hi >= 0 {
		w.Delay = uint32(min(int64(w.Delay), hi))
	}
	return Refusal{}
}

func (c *Conn) capExpiry(seconds uint32) uint32 {
	if c.expiryCap >= 0 && int64(seconds) > c.expiryCap {
		return uint32(c.expiryCap)
	}
	return seconds
}

// within returns a limit, or what stands for "no limit".
func within(limit, unlimited int64) int64 {
	if limit < 0 {
		return unlimited
	}
	return limit
}
