// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"fmt"

	"github.com/manormq/manor/infra/errs"
)

// Unlimited is the value of a limit that is not there.
const Unlimited int64 = -1

// Limits are what a tenant may use, one field per quota. A negative value means
// that there is no limit beyond the protocol's own. It is a plain value.
//
// Rates are per second and bytes are bytes.
type Limits struct {
	Connections        int64 // live connections
	ConnectRate        int64 // CONNECTs per second
	ConnectRateClient  int64 // CONNECTs per second of one client id
	PublishRate        int64 // PUBLISHes per second from all clients
	PublishRateClient  int64 // PUBLISHes per second from one client
	DeliveryRate       int64 // PUBLISHes per second to all clients
	BytesInRate        int64 // bytes per second from all clients
	BytesOutRate       int64 // bytes per second to all clients
	BytesInRateClient  int64 // bytes per second from one client
	BytesOutRateClient int64 // bytes per second to one client
	PacketSize         int64 // bytes of one packet from a client
	TopicLength        int64 // bytes of a topic name or filter
	TopicLevels        int64 // levels of a topic name or filter
	TopicLevelLength   int64 // bytes of one level
	TopicAliasMaximum  int64 // 0 to 65,535, what CONNACK tells
	ReceiveMaximum     int64 // 1 to 65,535, what CONNACK tells

	SubscriptionsClient  int64 // subscriptions of one session
	SubscriptionsRequest int64 // filters of one SUBSCRIBE
	Subscriptions        int64 // subscriptions of the tenant
	SharedGroups         int64 // shared groups of the tenant
	SharedGroupMembers   int64 // members of one shared group
	WildcardRoot         int64 // 0 refuses filters that begin with a wildcard
	FanOut               int64 // receivers of one message
	PersistentSessions   int64 // sessions with an expiry
	SessionExpiry        int64 // seconds, the longest Session Expiry Interval
	QueueMessages        int64 // messages waiting for one session
	QueueBytes           int64 // bytes waiting for one session
	StorageBytes         int64 // bytes that the tenant keeps at brokers
	RetainedMessages     int64 // retained messages
	RetainedBytes        int64 // bytes of retained messages
	RetainedRate         int64 // retained messages set per second
	RetainedSubscribe    int64 // retained messages sent for one SUBSCRIBE
	KeepAliveMinimum     int64 // seconds, 0 to 65,535
	KeepAliveMaximum     int64 // seconds, 0 to 65,535; also bounds "off"
	WillDelay            int64 // seconds, the longest Will Delay Interval
	WillSize             int64 // bytes of a will payload

	Devices      int64 // devices in the registry
	Credentials  int64 // credentials
	ClientCAs    int64 // certificate authorities of client certificates
	Grants       int64 // entries of one grant
	PolicyBytes  int64 // bytes of the tenant's own policy
	PolicyTimeMS int64 // milliseconds of one policy evaluation
	Webhooks     int64 // webhooks
	Sinks        int64 // sinks
	Rules        int64 // rules
	Bridges      int64 // bridges
	APIRate      int64 // API requests per second
	Tenants      int64 // tenants of the organization
	Members      int64 // members of the organization
	APIKeys      int64 // API keys of the organization
	Domains      int64 // custom domains
	EventDays    int64 // days that connection events are kept
	AuditDays    int64 // days that the audit log is kept
	Traces       int64 // live traces
	Backups      int64 // backups kept
}

// quota is one row of the table that joins a name to a field.
type quota struct {
	name  string
	field func(*Limits) *int64
	// low and high bound a value that is not Unlimited.
	low, high int64
}

const (
	noCeiling = int64(1) << 53 // the largest integer that JSON carries exactly
	maxU16    = 65535
	maxU32    = 1<<32 - 1
	// maxPacket is the largest MQTT packet: fixed header and Remaining Length
	// [MQTT-2.1.4].
	maxPacket = 268435455 + 5
	// MaxDomains is how many custom domains one tenant has at most, with any plan.
	MaxDomains = 1000
)

// quotas is the table of all quota names, in the order in which they are shown.
var quotas = []quota{
	{"connections", func(l *Limits) *int64 { return &l.Connections }, 0, noCeiling},
	{"connect_rate", func(l *Limits) *int64 { return &l.ConnectRate }, 0, noCeiling},
	{"connect_rate_client", func(l *Limits) *int64 { return &l.ConnectRateClient }, 0, noCeiling},
	{"publish_rate", func(l *Limits) *int64 { return &l.PublishRate }, 0, noCeiling},
	{"publish_rate_client", func(l *Limits) *int64 { return &l.PublishRateClient }, 0, noCeiling},
	{"delivery_rate", func(l *Limits) *int64 { return &l.DeliveryRate }, 0, noCeiling},
	{"bytes_in_rate", func(l *Limits) *int64 { return &l.BytesInRate }, 0, noCeiling},
	{"bytes_out_rate", func(l *Limits) *int64 { return &l.BytesOutRate }, 0, noCeiling},
	{"bytes_in_rate_client", func(l *Limits) *int64 { return &l.BytesInRateClient }, 0, noCeiling},
	{"bytes_out_rate_client", func(l *Limits) *int64 { return &l.BytesOutRateClient }, 0, noCeiling},
	// A CONNECT must fit, or nobody could be told what the limit is.
	{"packet_size", func(l *Limits) *int64 { return &l.PacketSize }, 128, maxPacket},
	{"topic_length", func(l *Limits) *int64 { return &l.TopicLength }, 1, maxU16},
	{"topic_levels", func(l *Limits) *int64 { return &l.TopicLevels }, 1, maxU16},
	{"topic_alias_maximum", func(l *Limits) *int64 { return &l.TopicAliasMaximum }, 0, maxU16},
	{"receive_maximum", func(l *Limits) *int64 { return &l.ReceiveMaximum }, 1, maxU16},
	{"subscriptions_client", func(l *Limits) *int64 { return &l.SubscriptionsClient }, 0, noCeiling},
	{"subscriptions_request", func(l *Limits) *int64 { return &l.SubscriptionsRequest }, 1, noCeiling},
	{"subscriptions", func(l *Limits) *int64 { return &l.Subscriptions }, 0, noCeiling},
	{"shared_groups", func(l *Limits) *int64 { return &l.SharedGroups }, 0, noCeiling},
	{"shared_group_members", func(l *Limits) *int64 { return &l.SharedGroupMembers }, 0, noCeiling},
	{"fan_out", func(l *Limits) *int64 { return &l.FanOut }, 0, noCeiling},
	{"persistent_sessions", func(l *Limits) *int64 { return &l.PersistentSessions }, 0, noCeiling},
	{"session_expiry", func(l *Limits) *int64 { return &l.SessionExpiry }, 0, maxU32},
	{"queue_messages", func(l *Limits) *int64 { return &l.QueueMessages }, 0, noCeiling},
	{"queue_bytes", func(l *Limits) *int64 { return &l.QueueBytes }, 0, noCeiling},
	{"storage_bytes", func(l *Limits) *int64 { return &l.StorageBytes }, 0, noCeiling},
	{"retained_messages", func(l *Limits) *int64 { return &l.RetainedMessages }, 0, noCeiling},
	{"retained_bytes", func(l *Limits) *int64 { return &l.RetainedBytes }, 0, noCeiling},
	{"retained_rate", func(l *Limits) *int64 { return &l.RetainedRate }, 0, noCeiling},
	{"retained_subscribe", func(l *Limits) *int64 { return &l.RetainedSubscribe }, 0, noCeiling},
	{"keep_alive_minimum", func(l *Limits) *int64 { return &l.KeepAliveMinimum }, 0, maxU16},
	{"keep_alive_maximum", func(l *Limits) *int64 { return &l.KeepAliveMaximum }, 1, maxU16},
	{"will_delay", func(l *Limits) *int64 { return &l.WillDelay }, 0, maxU32},
	{"will_size", func(l *Limits) *int64 { return &l.WillSize }, 0, maxU16},
	{"topic_level_length", func(l *Limits) *int64 { return &l.TopicLevelLength }, 1, maxU16},
	{"wildcard_root", func(l *Limits) *int64 { return &l.WildcardRoot }, 0, 1},
	{"devices", func(l *Limits) *int64 { return &l.Devices }, 0, noCeiling},
	{"credentials", func(l *Limits) *int64 { return &l.Credentials }, 0, noCeiling},
	{"client_cas", func(l *Limits) *int64 { return &l.ClientCAs }, 0, noCeiling},
	{"grants", func(l *Limits) *int64 { return &l.Grants }, 0, noCeiling},
	{"policy_bytes", func(l *Limits) *int64 { return &l.PolicyBytes }, 0, noCeiling},
	{"policy_time_ms", func(l *Limits) *int64 { return &l.PolicyTimeMS }, 1, noCeiling},
	{"webhooks", func(l *Limits) *int64 { return &l.Webhooks }, 0, noCeiling},
	{"sinks", func(l *Limits) *int64 { return &l.Sinks }, 0, noCeiling},
	{"rules", func(l *Limits) *int64 { return &l.Rules }, 0, noCeiling},
	{"bridges", func(l *Limits) *int64 { return &l.Bridges }, 0, noCeiling},
	{"api_rate", func(l *Limits) *int64 { return &l.APIRate }, 1, noCeiling},
	{"tenants", func(l *Limits) *int64 { return &l.Tenants }, 0, noCeiling},
	{"members", func(l *Limits) *int64 { return &l.Members }, 0, noCeiling},
	{"api_keys", func(l *Limits) *int64 { return &l.APIKeys }, 0, noCeiling},
	{"domains", func(l *Limits) *int64 { return &l.Domains }, 0, MaxDomains},
	{"event_days", func(l *Limits) *int64 { return &l.EventDays }, 0, noCeiling},
	{"audit_days", func(l *Limits) *int64 { return &l.AuditDays }, 0, noCeiling},
	{"traces", func(l *Limits) *int64 { return &l.Traces }, 0, noCeiling},
	{"backups", func(l *Limits) *int64 { return &l.Backups }, 0, noCeiling},
}

// QuotaNames returns the names of all quotas, in the order in which they are
// shown.
func QuotaNames() []string {
	names := make([]string, len(quotas))
	for i, q := range quotas {
		names[i] = q.name
	}
	return names
}

func findQuota(name string) *quota {
	for i := range quotas {
		if quotas[i].name == name {
			return &quotas[i]
		}
	}
	return nil
}

// Get returns the limit of that name, and whether there is such a quota.
func (l Limits) Get(name string) (int64, bool) {
	q := findQuota(name)
	if q == nil {
		return 0, false
	}
	return *q.field(&l), true
}

// With returns l with the limit of that name set to v. The error is Invalid if
// there is no such quota or v is out of its range.
func (l Limits) With(name string, v int64) (Limits, error) {
	if err := ValidLimit(name, v); err != nil {
		return l, err
	}
	*findQuota(name).field(&l) = v
	return l, nil
}

// Override lays the overrides over l. The error is that of With.
func (l Limits) Override(overrides map[string]int64) (Limits, error) {
	var err error
	for name, v := range overrides {
		if l, err = l.With(name, v); err != nil {
			return l, err
		}
	}
	return l, nil
}

// known lays those limits over l that there are; the others are left out.
func (l Limits) known(limits map[string]int64) Limits {
	for name, v := range limits {
		if with, err := l.With(name, v); err == nil {
			l = with
		}
	}
	return l
}

// All are the limits by the quotas' names.
func (l Limits) All() map[string]int64 {
	all := make(map[string]int64, len(quotas))
	for _, q := range quotas {
		all[q.name] = *q.field(&l)
	}
	return all
}

// ValidLimit checks that there is a quota of that name and that v is Unlimited
// or within its range. The error is Invalid with Code "quota_unknown" or
// "limit_invalid".
func ValidLimit(name string, v int64) error {
	q := findQuota(name)
	switch {
	case q == nil:
		return errs.Coded(errs.Invalid, "quota_unknown", "there is no quota named %q", name)
	case v == Unlimited:
		return nil
	case v < q.low || v > q.high:
		return errs.Coded(errs.Invalid, "limit_invalid", "expected %d to %d, or %d for no limit, for the quota %s, found %d",
			q.low, q.high, Unlimited, name, v)
	}
	return nil
}

// NoLimits returns Limits in which nothing is limited.
func NoLimits() Limits {
	var l Limits
	for _, q := range quotas {
		*q.field(&l) = Unlimited
	}
	return l
}

// ExceededError is a quota that refuses something.
type ExceededError struct {
	Quota string
	Limit int64
	Usage int64
	// RetryAfter is in seconds; 0 means that waiting does not help.
	RetryAfter int64
}

func (e *ExceededError) Error() string {
	return fmt.Sprintf("the quota %s of %d is reached", e.Quota, e.Limit)
}

// ErrKind makes ExceededError an errs.Kinder.
func (e *ExceededError) ErrKind() errs.Kind { return errs.Quota }
