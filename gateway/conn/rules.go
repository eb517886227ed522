// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"slices"
	"strings"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// Rules are what the tenant, and the credential, say about a connection. They
// are immutable and shared by the connections for which they are the same; a
// connection gets others when they change.
type Rules struct {
	tenancy.Limits
	Settings tenancy.Settings

	packetMax  int
	broker     link.Settings
	tenant     link.TenantLimits
	partitions uint16
}

// Tenant are the limits of the whole tenant that brokers hold.
func (r *Rules) Tenant() link.TenantLimits { return r.tenant }

// Partitions is link.Open.Partitions of the tenant.
func (r *Rules) Partitions() uint16 { return r.partitions }

// NewRules makes the rules of a tenant's connections, of which authentication
// said o.
func NewRules(t *tenancy.Tenant, o *tenancy.SessionOverride) *Rules {
	r := &Rules{partitions: uint16(min(max(t.Partitions, 0), link.MaxPartitions))}
	r.Limits, r.Settings = t.Rules(o)
	r.packetMax = int(within(r.PacketSize, 0))
	r.tenant = link.TenantLimits{
		Told: true, Subscriptions: r.Subscriptions, SharedGroups: r.SharedGroups, SharedGroupMembers: r.SharedGroupMembers, FanOut: r.FanOut,
		StorageBytes: r.StorageBytes, RetainedRate: r.RetainedRate, RetainedSubscribe: r.RetainedSubscribe,
	}
	s := &r.Settings
	r.broker = link.Settings{
		OnlineMessages: s.MaxOnlineMessages, KeepOffline: s.OverrideMaxOnlineMessages, Inflight: uint16(s.MaxInflightMessages),
		Retry: uint16(s.RetryInterval), Member: uint16(s.SharedMemberTimeout), LIFO: s.QueueType == "lifo", UpgradeQoS: s.UpgradeOutgoingQoS,
		QuietTakeover: s.SuppressLWTOnSessionTakeover, Multiple: s.AllowMultipleSessions, Balance: s.QueueDeliverMode == "balance",
		HandOff: s.AllowPublishDuringNetsplit, Subscribe: s.AllowSubscribeDuringNetsplit, Unsubscribe: s.AllowUnsubscribeDuringNetsplit,
		Share: link.ParseSharePolicy(s.SharedSubscriptionPolicy),
	}
	return r
}

// link is what the broker enforces of the rules.
func (c *Conn) link(r *Rules) link.Limits {
	l := link.Limits{
		QueueMessages: r.QueueMessages, QueueBytes: r.QueueBytes, Subscriptions: r.SubscriptionsClient,
		ReceiveMaximum: c.receiveMax, Retained: r.RetainedMessages, RetainedBytes: r.RetainedBytes, Sessions: r.PersistentSessions,
		Tenant: r.tenant, Settings: r.broker,
	}
	if c.version == packet.V5 {
		l.Settings.Retry = 0 // [MQTT-4.4.0-1]
	} else {
		// Nobody told the client a Receive Maximum: MayRead holds it back
		// instead, and the session must not take it as a fault.
		l.ReceiveMaximum = 65535
	}
	return l
}

// keepsOut is why the rules keep a client of this version away, told at CONNECT
// or to one that is connected.
func (c *Conn) keepsOut(r *Rules) Refusal {
	s := &r.Settings
	if !slices.Contains(s.AllowedProtocolVersions, c.version.String()) {
		return Refusal{
			Reason: mqtt.UnsupportedProtocolVersion, Limit: "allowed_protocol_versions",
			Text: "the tenant allows MQTT " + strings.Join(s.AllowedProtocolVersions, ", "),
		}
	}
	if s.ServerReference == "" {
		return Refusal{}
	}
	out := Refusal{Reason: mqtt.UseAnotherServer, Text: "the tenant is to be reached elsewhere", Reference: s.ServerReference, Limit: "server_reference"} // §4.11
	if s.ServerReferencePermanent {
		out.Reason, out.Text = mqtt.ServerMoved, "the tenant has moved"
	}
	return out
}

// Change gives a connection that was accepted other rules. The result is what
// the broker must hear of them, or how the connection ends because of them.
func (c *Conn) Change(r *Rules) (*link.NewLimits, Close) {
	c.rules.Store(r)
	if out := c.keepsOut(r); out.Reason.Failed() {
		if out.Reason == mqtt.UnsupportedProtocolVersion {
			out.Reason = mqtt.AdministrativeAction // DISCONNECT has no 0x84
		}
		cl := out.Close()
		cl.Cause = link.CloseRevoked
		return nil, cl
	}
	c.expiry.Store(c.capExpiry(c.asked))
	c.creditWindow = r.window() // what was granted is not taken back
	return &link.NewLimits{SessionExpiry: c.expiry.Load(), Limits: c.link(r)}, Close{}
}

// Rules are those in force; nil before Accept.
func (c *Conn) Rules() *Rules { return c.rules.Load() }

// capabilities tells an MQTT 5 client what the settings take away
// [MQTT-3.2.2-9] (§3.2.2.3.4, .5, .11 to .13).
func (r *Rules) capabilities(k *packet.Connack) {
	s := &r.Settings
	if s.MaximumQoS < int64(mqtt.ExactlyOnce) {
		k.MaximumQoS, k.HasMaximumQoS = mqtt.QoS(s.MaximumQoS), true
	}
	k.RetainUnavailable = !s.RetainAvailable
	k.WildcardUnavailable = !s.WildcardAvailable
	k.SubscriptionIDsUnavailable = !s.SubscriptionIDsAvailable
	k.SharedUnavailable = !s.SharedAvailable
}

// unavailable is what of a SUBSCRIBE a client was told that there is not.
type unavailable uint8

const (
	noWildcards unavailable = 1 << iota
	noShared
	noIDs
)

func (r *Rules) unavailable() (u unavailable) {
	s := &r.Settings
	if !s.WildcardAvailable {
		u |= noWildcards
	}
	if !s.SharedAvailable {
		u |= noShared
	}
	if !s.SubscriptionIDsAvailable {
		u |= noIDs
	}
	return u
}

// responseInformation is what a client is given as the basis of its response
// topics. A client id or user name that no topic may have gives nothing.
func (r *Rules) responseInformation(clientID, username string) string {
	text := r.Settings.ResponseInformation
	for placeholder, v := range map[string]string{"%c": clientID, "%u": username} {
		if !strings.Contains(text, placeholder) {
			continue
		}
		if strings.ContainsAny(v, "+#") {
			return ""
		}
		text = strings.ReplaceAll(text, placeholder, v)
	}
	if len(text) > 65535 {
		return ""
	}
	return text
}

// beyondCapabilities is what of a message the settings do not allow.
func (r *Rules) beyondCapabilities(qos mqtt.QoS, retain bool) Refusal {
	switch s := &r.Settings; {
	case int64(qos) > s.MaximumQoS:
		return Refusal{Reason: mqtt.QoSNotSupported, Text: "the QoS is above the maximum QoS", Limit: "maximum_qos"}
	case retain && !s.RetainAvailable:
		return Refusal{Reason: mqtt.RetainNotSupported, Text: "retained messages are not available", Limit: "retain_available"}
	}
	return Refusal{}
}
