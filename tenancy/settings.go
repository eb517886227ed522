// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// Settings are how a tenant's sessions behave, where Limits are how much of them
// there may be. It is a plain value; nobody changes the slice.
type Settings struct {
	MaximumQoS               int64
	RetainAvailable          bool
	WildcardAvailable        bool
	SharedAvailable          bool
	SubscriptionIDsAvailable bool
	ResponseInformation      string
	ServerReference          string
	ServerReferencePermanent bool

	AllowedProtocolVersions          []string
	MaxClientIDSize                  int64
	MaxConnectionLifetime            int64
	RetryInterval                    int64
	DisconnectOnUnauthorizedPublish3 bool
	DisconnectOverRateAfter          int64

	QueueType                    string
	MaxOnlineMessages            int64
	OverrideMaxOnlineMessages    bool
	MaxInflightMessages          int64
	UpgradeOutgoingQoS           bool
	SuppressLWTOnSessionTakeover bool
	SharedSubscriptionPolicy     string
	SharedMemberTimeout          int64
	AllowMultipleSessions        bool
	QueueDeliverMode             string

	AllowRegisterDuringNetsplit    bool
	AllowPublishDuringNetsplit     bool
	AllowSubscribeDuringNetsplit   bool
	AllowUnsubscribeDuringNetsplit bool
}

// defaultSettings are those of a tenant that has set nothing.
var defaultSettings = Settings{
	MaximumQoS: 2, RetainAvailable: true, WildcardAvailable: true, SharedAvailable: true, SubscriptionIDsAvailable: true,
	ResponseInformation:     "response/%c",
	AllowedProtocolVersions: []string{"3.1", "3.1.1", "5"}, MaxClientIDSize: maxU16,
	DisconnectOnUnauthorizedPublish3: true,
	QueueType:                        "fifo", SharedSubscriptionPolicy: "round_robin", QueueDeliverMode: "fanout",
}

// DefaultSettings are those of a tenant that has set nothing.
func DefaultSettings() Settings { return defaultSettings }

// SettingsOverride are the settings that somebody has set: a tenant's over the
// defaults, or a credential's over its tenant's. A nil field was not. Its tags
// are the table of settings, of which docs/settings.md and the API's description
// are written: the bounds, VerneMQ's name and default, where it holds and what
// the client is told, what a change does to live sessions.
type SettingsOverride struct {
	MaximumQoS               *int64  `json:"maximum_qos,omitempty" minimum:"0" maximum:"2" doc:"The highest QoS that clients may publish at." vernemq:"p_max_qos" vdefault:"none" told:"CONNACK Maximum QoS; a higher QoS: DISCONNECT 0x9B, a will: CONNACK 0x9B, 3.x: closed. SUBACK grants no more" live:"the next packet"`
	RetainAvailable          *bool   `json:"retain_available,omitempty" doc:"Whether messages may be retained." vernemq:"p_retain_available" vdefault:"none" told:"CONNACK Retain Available; else DISCONNECT 0x9A, a will: CONNACK 0x9A, 3.x: closed" live:"the next packet"`
	WildcardAvailable        *bool   `json:"wildcard_available,omitempty" doc:"Whether filters may have wildcards." vernemq:"p_wildcard_subs_available" vdefault:"none" told:"CONNACK Wildcard Subscription Available, then DISCONNECT 0xA2; after a change SUBACK 0xA2 (3.x: 0x80)" live:"the next packet; subscriptions that are there stay"`
	SharedAvailable          *bool   `json:"shared_available,omitempty" doc:"Whether subscriptions may be shared." vernemq:"p_shared_subs_available" vdefault:"none" told:"CONNACK Shared Subscription Available, then DISCONNECT 0x9E; after a change SUBACK 0x9E (3.x: 0x80)" live:"the next packet; subscriptions that are there stay"`
	SubscriptionIDsAvailable *bool   `json:"subscription_ids_available,omitempty" doc:"Whether subscriptions may have identifiers." vernemq:"p_sub_ids_available" vdefault:"none" told:"CONNACK Subscription Identifiers Available, then DISCONNECT 0xA1; after a change SUBACK 0xA1" live:"the next packet"`
	ResponseInformation      *string `json:"response_information,omitempty" maxLength:"1024" doc:"What a client is given that requests response information; %c is its client id, %u its user name. Empty gives nothing." vernemq:"p_response_info" vdefault:"none" told:"CONNACK Response Information, on request" live:"the next CONNACK"`
	ServerReference          *string `json:"server_reference,omitempty" maxLength:"1024" doc:"Where clients are to go instead, such as mqtt.other.example:8883; several with a space between. Empty is here." vernemq:"p_server_ref" vdefault:"none" told:"CONNACK and DISCONNECT 0x9C or 0x9D with Server Reference; 3.x: 0x03, closed" live:"all connections end"`
	ServerReferencePermanent *bool   `json:"server_reference_permanent,omitempty" doc:"Whether the server reference is for ever." vernemq:"" told:"0x9D instead of 0x9C" live:"with server_reference"`

	AllowedProtocolVersions          []string `json:"allowed_protocol_versions,omitempty" enum:"3.1,3.1.1,5" minItems:"1" maxItems:"3" doc:"The versions of MQTT that clients may speak." vernemq:"allowed_protocol_versions" vdefault:"3,4,5,131" told:"CONNACK 0x84 (3.x: 0x01)" live:"connections of others end: DISCONNECT 0x98"`
	MaxClientIDSize                  *int64   `json:"max_client_id_size,omitempty" minimum:"1" maximum:"65535" doc:"Bytes of a client id; 23 is what MQTT 3.1 allows." vernemq:"max_client_id_size" vdefault:"100" told:"CONNACK 0x85 (3.x: 0x02)" live:"the next CONNECT"`
	MaxConnectionLifetime            *int64   `json:"max_connection_lifetime,omitempty" minimum:"0" maximum:"4294967295" doc:"Seconds after which a connection ends; 0 is for ever." vernemq:"max_connection_lifetime" vdefault:"0" told:"DISCONNECT 0xA0; 3.x: closed" live:"counted from CONNECT; those that are older end"`
	RetryInterval                    *int64   `json:"retry_interval,omitempty" minimum:"0" maximum:"65535" doc:"Seconds after which a 3.x client is sent again, on a live connection, what it has not acknowledged; 0 is never." vernemq:"retry_interval" vdefault:"20" told:"PUBLISH with DUP, PUBREL" live:"messages sent from then on"`
	DisconnectOnUnauthorizedPublish3 *bool    `json:"disconnect_on_unauthorized_publish_v3,omitempty" doc:"Whether a 3.1 client that publishes what it may not is disconnected; else it is given an acknowledgement and the message is dropped." vernemq:"disconnect_on_unauthorized_publish_v3" vdefault:"off" told:"3.1: closed, or PUBACK, PUBREC" live:"the next packet"`
	DisconnectOverRateAfter          *int64   `json:"disconnect_over_rate_after,omitempty" minimum:"0" maximum:"86400" doc:"Seconds for which a client may want to send more than publish_rate_client or bytes_in_rate_client allow, with no pause in which half a second's worth is saved, before it is disconnected; 0 is for ever: it is read more slowly." vernemq:"" told:"DISCONNECT 0x96; 3.x: closed" live:"connections that are over it, too"`

	QueueType                    *string `json:"queue_type,omitempty" enum:"fifo,lifo" doc:"Which of the messages that wait goes first. A full fifo refuses the new message, a full lifo drops the oldest." vernemq:"queue_type" vdefault:"fifo" told:"the order" live:"the next message that has to wait"`
	MaxOnlineMessages            *int64  `json:"max_online_messages,omitempty" minimum:"0" maximum:"9007199254740992" doc:"Messages of QoS 1 and 2 that wait for a session with a connection; 0 is as many as queue_messages allows. Without a connection queue_messages holds." vernemq:"max_online_messages" vdefault:"1000" told:"nothing; dropped messages are counted" live:"the next message that has to wait"`
	OverrideMaxOnlineMessages    *bool   `json:"override_max_online_messages,omitempty" doc:"Whether a session keeps, when its client comes back, all that waited, even if that is more than max_online_messages." vernemq:"override_max_online_messages" vdefault:"off" told:"nothing; dropped messages are counted" live:"the next CONNECT"`
	MaxInflightMessages          *int64  `json:"max_inflight_messages,omitempty" minimum:"0" maximum:"65535" doc:"Messages of QoS 1 and 2 that are sent to a client and not acknowledged, all versions, within its Receive Maximum; 0 is as many as that." vernemq:"max_inflight_messages, receive_max_client" vdefault:"20, 65535" told:"nothing; the rest waits" live:"the next message"`
	UpgradeOutgoingQoS           *bool   `json:"upgrade_outgoing_qos,omitempty" doc:"Whether messages are delivered at the subscription's QoS where they were published at a lower one." vernemq:"upgrade_outgoing_qos" vdefault:"off" told:"the QoS of PUBLISH" live:"the next message"`
	SuppressLWTOnSessionTakeover *bool   `json:"suppress_lwt_on_session_takeover,omitempty" doc:"Whether a client that takes its session over from another connection keeps the will of that from being sent." vernemq:"suppress_lwt_on_session_takeover" vdefault:"off" told:"no will" live:"the next CONNECT"`
	SharedSubscriptionPolicy     *string `json:"shared_subscription_policy,omitempty" enum:"round_robin,random,prefer_local,local_only,prefer_online_before_local,sticky_publisher,sticky_topic" doc:"Which member of a group gets a message; the publisher's holds. Local is: at the same broker." vernemq:"shared_subscription_policy" vdefault:"prefer_local" told:"nothing" live:"the next message"`
	SharedMemberTimeout          *int64  `json:"shared_member_timeout,omitempty" minimum:"0" maximum:"65535" doc:"Seconds that a message of QoS 1 stays with one member of a group at most, while another can take it: what a busy member has no room for goes to one that has after a quarter, and who has not acknowledged what it was sent in the other three is disconnected. 0 is as long as the connection." vernemq:"" told:"DISCONNECT 0x98; 3.x: closed" live:"messages that are there"`
	AllowMultipleSessions        *bool   `json:"allow_multiple_sessions,omitempty" doc:"Whether several connections may have one client id, and share its session." vernemq:"allow_multiple_sessions" vdefault:"off" told:"no take over; Session Present" live:"the next CONNECT"`
	QueueDeliverMode             *string `json:"queue_deliver_mode,omitempty" enum:"fanout,balance" doc:"Whether each of the connections of one client id gets every message, or one of them." vernemq:"queue_deliver_mode" vdefault:"fanout" told:"nothing" live:"the next CONNECT"`

	AllowRegisterDuringNetsplit    *bool `json:"allow_register_during_netsplit,omitempty" doc:"Whether a client whose partition cannot be reached is given a guest session: a clean one elsewhere, until the partition is back." vernemq:"allow_register_during_netsplit" vdefault:"off" told:"CONNACK with Session Expiry Interval 0 and a Reason String, at the end DISCONNECT 0x9C; else CONNACK 0x88 (3.x: 0x03)" live:"the next CONNECT"`
	AllowPublishDuringNetsplit     *bool `json:"allow_publish_during_netsplit,omitempty" doc:"Whether a message above QoS 0 is acknowledged when it is kept at the broker of its publisher, if a partition that it is for cannot be reached; it goes there later." vernemq:"allow_publish_during_netsplit" vdefault:"off" told:"PUBACK, PUBREC; else none until the partition has the message" live:"messages that wait, and the next"`
	AllowSubscribeDuringNetsplit   *bool `json:"allow_subscribe_during_netsplit,omitempty" doc:"Whether a guest session may subscribe. Other sessions may always: SUBACK comes when the subscription is stored." vernemq:"allow_subscribe_during_netsplit" vdefault:"off" told:"SUBACK 0x83 (3.x: 0x80)" live:"the next SUBSCRIBE"`
	AllowUnsubscribeDuringNetsplit *bool `json:"allow_unsubscribe_during_netsplit,omitempty" doc:"Whether a guest session may unsubscribe. Other sessions may always: UNSUBACK comes when that is stored." vernemq:"allow_unsubscribe_during_netsplit" vdefault:"off" told:"UNSUBACK 0x83 (3.x: none)" live:"the next UNSUBSCRIBE"`
}

// field is one row of the table of settings.
type field struct {
	name  string
	tag   reflect.StructTag
	index int
}

// settingFields is made once from the tags.
var settingFields = makeSettingFields()

func makeSettingFields() []field {
	t := reflect.TypeFor[SettingsOverride]()
	fields := make([]field, t.NumField())
	for i := range fields {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[i] = field{name, f.Tag, i}
	}
	return fields
}

// Setting is one row of the table of settings, for people.
type Setting struct {
	Name    string
	Value   any
	Default any
	// Set says that it was set.
	Set bool
	// Doc, VerneMQ and its default, Told and Live are the texts of the table.
	Doc, VerneMQ, VerneMQDefault, Told, Live string
}

// Table lists the settings in the order in which they are shown, as o has them.
func (o *SettingsOverride) Table() []Setting {
	v := reflect.ValueOf(o.Over(defaultSettings))
	was := reflect.ValueOf(defaultSettings)
	rows := make([]Setting, len(settingFields))
	for i, f := range settingFields {
		rows[i] = Setting{
			Name: f.name, Value: v.Field(i).Interface(), Default: was.Field(i).Interface(),
			Set: o != nil && !reflect.ValueOf(*o).Field(i).IsNil(),
			Doc: f.tag.Get("doc"), VerneMQ: f.tag.Get("vernemq"), VerneMQDefault: f.tag.Get("vdefault"),
			Told: f.tag.Get("told"), Live: f.tag.Get("live"),
		}
	}
	return rows
}

// Over returns s with what o has set.
func (o *SettingsOverride) Over(s Settings) Settings {
	if o == nil {
		return s
	}
	from, to := reflect.ValueOf(*o), reflect.ValueOf(&s).Elem()
	for i := range settingFields {
		if v := from.Field(i); !v.IsNil() {
			to.Field(i).Set(reflect.Indirect(v))
		}
	}
	return s
}

// Valid checks every setting against the bounds of the table. The error is
// Invalid with Code "setting_invalid".
func (o *SettingsOverride) Valid() error {
	if o == nil {
		return nil
	}
	from := reflect.ValueOf(*o)
	for i, f := range settingFields {
		if v := from.Field(i); !v.IsNil() {
			if err := f.valid(reflect.Indirect(v)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *field) valid(v reflect.Value) error {
	const code = "setting_invalid"
	switch v.Kind() {
	case reflect.Int64:
		low, _ := strconv.ParseInt(f.tag.Get("minimum"), 10, 64)
		high, _ := strconv.ParseInt(f.tag.Get("maximum"), 10, 64)
		if n := v.Int(); n < low || n > high {
			return errs.Coded(errs.Invalid, code, "expected %d to %d for the setting %s, found %d", low, high, f.name, n)
		}
	case reflect.String:
		most, err := strconv.Atoi(f.tag.Get("maxLength"))
		if err == nil && (v.Len() > most || !validText(v.String())) {
			return errs.Coded(errs.Invalid, code, "expected at most %d bytes of UTF-8 without control characters for the setting %s", most, f.name)
		}
		return f.oneOf(v.String())
	case reflect.Slice:
		if v.Len() == 0 {
			return errs.Coded(errs.Invalid, code, "expected at least one value for the setting %s", f.name)
		}
		for k := range v.Len() {
			if err := f.oneOf(v.Index(k).String()); err != nil {
				return err
			}
		}
	default: // a bool is always valid
	}
	return nil
}

func (f *field) oneOf(v string) error {
	allowed := f.tag.Get("enum")
	if allowed == "" || slices.Contains(strings.Split(allowed, ","), v) {
		return nil
	}
	return errs.Coded(errs.Invalid, "setting_invalid", "expected one of %s for the setting %s, found %q", allowed, f.name, v)
}

// validText reports whether s can be an MQTT string for people
// [MQTT-1.5.4-1, -2].
func validText(s string) bool {
	return strings.ToValidUTF8(s, "") == s && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r >= 0x7F && r < 0xA0 })
}
