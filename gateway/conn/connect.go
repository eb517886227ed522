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
	// Reference is the Server Reference of MQTT 5.
	Reference string
	// Limit names the quota or setting that refuses, if one does.
	Limit string
}

// Close is how the connection of a client that is refused ends.
func (r *Refusal) Close() Close {
	cl := ended(0, r.Reason, r.Text)
	if r.Reference != "" || r.Limit != "" {
		cl.Details = &Details{r.Reference, r.Limit}
	}
	return cl
}

// Connect takes the CONNECT packet, before anything is known about who it is.
func (c *Conn) Connect(p *packet.Connect) Refusal {
	c.phase = connecting
	c.version, c.bridge, c.noProblem = p.Version, p.Bridge, p.NoProblem
	c.keepAlive, c.limit = p.KeepAlive, p.MaximumPacketSize
	c.outMax = min(p.TopicAliasMaximum, aliasesOut)
	c.connack = &packet.Connack{}
	if p.HasAuthMethod {
		if p.AuthMethod == "" {
			return UnknownMethod(p.AuthMethod)
		}
		method := p.AuthMethod // p is used again
		c.method = &method
	}
	return Refusal{}
}

// UnknownMethod refuses an Authentication Method [MQTT-4.12.0-1].
func UnknownMethod(method string) Refusal {
	return Refusal{Reason: mqtt.BadAuthenticationMethod, Text: fmt.Sprintf("the authentication method %.40q is not known; use %s, or user name and password", method, tenancy.MethodSCRAM)}
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
	// Rules are those of the identity; nil has them made.
	Rules *Rules
}

// Accept applies the tenant's limits to an authenticated CONNECT. The result is
// what to ask the broker; its will is a view into the packet.
func (c *Conn) Accept(p *packet.Connect, a Admission) (*link.Open, Refusal) {
	l := a.Rules
	if l == nil {
		l = NewRules(a.Identity.Tenant, a.Identity.Session)
	}
	c.rules.Store(l)
	c.told = l.unavailable()
	c.grant.Store(a.Identity.Grant)
	c.receiveMax = uint16(within(l.ReceiveMaximum, 65535))
	c.aliasMax = uint16(within(l.TopicAliasMaximum, aliasesIn))
	c.creditWindow = l.window()
	c.granted = c.creditWindow
	if r := c.keepsOut(l); r.Reason.Failed() {
		return nil, r
	}
	if hi := l.Settings.MaxClientIDSize; int64(len(p.ClientID)) > hi { // [MQTT-3.1.3-5] lets a server take more than 23
		return nil, Refusal{
			Reason: mqtt.ClientIdentifierNotValid, Limit: "max_client_id_size",
			Text: fmt.Sprintf("the client identifier has %d bytes, the setting max_client_id_size allows %d", len(p.ClientID), hi),
		}
	}
	if p.Will != nil {
		if r := c.checkWill(p.Will, l); r.Reason.Failed() {
			return nil, r
		}
	}
	o := &link.Open{
		Tenant: a.Identity.Tenant.ID, ClientID: mqtt.ClientID(p.ClientID), CleanStart: p.CleanStart,
		Will: p.Will, ReceiveMaximum: p.ReceiveMaximum, Credit: c.creditWindow, Limits: c.link(l), Labels: a.Labels,
		Partitions: l.Partitions(),
	}
	o.Labels.Protocol = p.Version.String()
	if a.Identity.Grant != nil {
		o.GrantRevision = a.Identity.Grant.Revision
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
	c.asked = o.SessionExpiry
	if capped := c.capExpiry(o.SessionExpiry); capped != o.SessionExpiry {
		o.SessionExpiry = capped
		k.SessionExpiry, k.HasSessionExpiry = capped, true // §3.2.2.3.2
	}
	c.expiry.Store(o.SessionExpiry)
	if p.Version == packet.V5 {
		c.serverKeepAlive(k, l)
		if c.receiveMax < 65535 {
			k.ReceiveMaximum = c.receiveMax
		}
		k.MaximumPacketSize, k.TopicAliasMaximum = uint32(l.packetMax), c.aliasMax
		l.capabilities(k)
		if p.RequestResponse { // [MQTT-3.1.2-28]
			k.ResponseInformation = l.responseInformation(string(o.ClientID), a.Identity.Username)
		}
	}
	return o, Refusal{}
}

// serverKeepAlive changes the keep alive to one within the tenant's limits
// [MQTT-3.1.2-21]. 3.x cannot be told and keeps its own.
func (c *Conn) serverKeepAlive(k *packet.Connack, l *Rules) {
	want := int64(c.keepAlive)
	if hi := l.KeepAliveMaximum; hi > 0 && (want == 0 || want > hi) {
		want = hi
	}
	if lo := l.KeepAliveMinimum; lo > 0 && want != 0 && want < lo {
		want = lo
	}
	if want != int64(c.keepAlive) {
		c.keepAlive = uint16(want)
		k.ServerKeepAlive, k.HasServerKeepAlive = c.keepAlive, true
	}
}

func (c *Conn) checkWill(w *mqtt.Will, l *Rules) Refusal {
	// [MQTT-3.2.2-12] [MQTT-3.2.2-13]
	if r := l.beyondCapabilities(w.Message.QoS, w.Message.Retain); r.Reason.Failed() {
		r.Text = "the will: " + r.Text
		return r
	}
	if !c.grant.Load().MayPublish(w.Message.Topic, w.Message.QoS, w.Message.Retain) {
		return Refusal{Reason: mqtt.NotAuthorized, Text: "the grant of this credential does not allow the will"}
	}
	if b := beyondLimits(w.Message.Topic, l); b.quota != NotRefused {
		return Refusal{Reason: mqtt.TopicNameInvalid, Text: "the will topic has " + b.String(), Limit: b.quota.String()}
	}
	if hi := l.WillSize; hi >= 0 && int64(len(w.Message.Payload)) > hi {
		return Refusal{Reason: mqtt.QuotaExceeded, Text: fmt.Sprintf("the will payload has %d bytes, the quota will_size allows %d", len(w.Message.Payload), hi), Limit: "will_size"}
	}
	if hi := l.WillDelay; hi >= 0 {
		w.Delay = uint32(min(int64(w.Delay), hi))
	}
	return Refusal{}
}

func (c *Conn) capExpiry(seconds uint32) uint32 {
	if hi := c.rules.Load().SessionExpiry; hi >= 0 && int64(seconds) > hi {
		return uint32(hi)
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
