// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"fmt"

	"github.com/manormq/manor/infra/mqtt"
)

// Version is a protocol level, as CONNECT names it [MQTT-3.1.2.2].
type Version uint8

// The protocol levels. The zero Version is that of a connection before its
// CONNECT.
const (
	V31  Version = 3
	V311 Version = 4
	V5   Version = 5
)

// String is the version's name in print: 3.1, 3.1.1 or 5.
func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5"
	}
	return fmt.Sprintf("level %d", uint8(v))
}

// Type is a Control Packet type [MQTT-2.1.2].
type Type uint8

// The fifteen types.
const (
	CONNECT     Type = 1
	CONNACK     Type = 2
	PUBLISH     Type = 3
	PUBACK      Type = 4
	PUBREC      Type = 5
	PUBREL      Type = 6
	PUBCOMP     Type = 7
	SUBSCRIBE   Type = 8
	SUBACK      Type = 9
	UNSUBSCRIBE Type = 10
	UNSUBACK    Type = 11
	PINGREQ     Type = 12
	PINGRESP    Type = 13
	DISCONNECT  Type = 14
	AUTH        Type = 15
)

var typeNames = [16]string{
	"reserved", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

func (t Type) String() string { return typeNames[t&15] }

// Error is what is wrong with a packet. It unwraps to its Reason.
type Error struct {
	Reason mqtt.ReasonCode
	Type   Type
	Text   string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s: %s", e.Type, e.Text, e.Reason.Error())
}

// Unwrap gives errors.As and errors.Is the Reason.
func (e *Error) Unwrap() error { return e.Reason }

// Packet is a decoded packet of any type: Type says which field was set. Its
// byte slices are views into what was decoded.
type Packet struct {
	Type        Type
	Publish     Publish      // PUBLISH
	Ack         Ack          // PUBACK, PUBREC, PUBREL, PUBCOMP
	Connect     *Connect     // CONNECT
	Connack     *Connack     // CONNACK
	Subscribe   *Subscribe   // SUBSCRIBE
	Suback      *Suback      // SUBACK, UNSUBACK
	Unsubscribe *Unsubscribe // UNSUBSCRIBE
	Disconnect  *Disconnect  // DISCONNECT
	Auth        *Auth        // AUTH
}

// Connect is a CONNECT packet [MQTT-3.1].
type Connect struct {
	Version Version
	// Bridge is set when the high bit of the protocol level is (131, 132): the
	// way in which mosquitto's and VerneMQ's bridges introduce themselves.
	Bridge      bool
	CleanStart  bool
	KeepAlive   uint16 // seconds; 0 is none
	ClientID    string
	Username    string
	HasUsername bool
	Password    []byte
	HasPassword bool
	Will        *mqtt.Will

	// The rest is MQTT 5.

	SessionExpiry     uint32 // seconds; read only if HasSessionExpiry
	HasSessionExpiry  bool
	ReceiveMaximum    uint16 // 1 to 65,535; 0 when not given, which means 65,535
	MaximumPacketSize uint32 // bytes; 0 when not given, which means no limit
	TopicAliasMaximum uint16
	RequestResponse   bool // Request Response Information
	// NoProblem is set when Request Problem Information is 0: no reason strings
	// or user properties but on PUBLISH, CONNACK and DISCONNECT [MQTT-3.1.2-29].
	NoProblem      bool
	HasAuthMethod  bool
	AuthMethod     string
	AuthData       []byte
	UserProperties []byte // encoded, each with its identifier
}

// Connack is a CONNACK packet [MQTT-3.2].
type Connack struct {
	SessionPresent bool
	// Reason is an MQTT 5 code for all versions. The return codes 1 to 5 of 3.x
	// are 0x84, 0x85, 0x88, 0x86 and 0x87 here.
	Reason mqtt.ReasonCode

	// The rest is MQTT 5; zero values are not sent.

	SessionExpiry              uint32
	HasSessionExpiry           bool
	ReceiveMaximum             uint16
	MaximumQoS                 mqtt.QoS
	HasMaximumQoS              bool
	RetainUnavailable          bool
	MaximumPacketSize          uint32
	AssignedClientID           string
	TopicAliasMaximum          uint16
	ReasonString               string
	UserProperties             []byte
	WildcardUnavailable        bool
	SubscriptionIDsUnavailable bool
	SharedUnavailable          bool
	ServerKeepAlive            uint16
	HasServerKeepAlive         bool
	ResponseInformation        string
	ServerReference            string
	AuthMethod                 string
	AuthData                   []byte
}

// Publish is a PUBLISH packet [MQTT-3.3]. QoS and Retain are the message's.
type Publish struct {
	Message  mqtt.Message
	PacketID uint16 // 0 at QoS 0
	Dup      bool
	// TopicAlias is read only if HasTopicAlias. Whether it may be used is for
	// the connection to say, 0 included [MQTT-3.3.2-8].
	TopicAlias    uint16
	HasTopicAlias bool
	// SubscriptionIDs come from servers only [MQTT-3.3.4-6]; the connection
	// checks.
	SubscriptionIDs []uint32
}

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP packet [MQTT-3.4 to 3.7].
type Ack struct {
	PacketID       uint16
	Reason         mqtt.ReasonCode
	ReasonString   []byte
	UserProperties []byte
}

// Subscribe is a SUBSCRIBE packet [MQTT-3.8]. Every filter is valid, and the
// Subscription Identifier is in every subscription.
type Subscribe struct {
	PacketID       uint16
	Subscriptions  []mqtt.Subscription
	UserProperties []byte
}

// Suback is a SUBACK or UNSUBACK packet [MQTT-3.9, 3.11]. An UNSUBACK of 3.x
// has no Reasons; failures in a SUBACK of 3.x are 0x80.
type Suback struct {
	PacketID       uint16
	Reasons        []mqtt.ReasonCode
	ReasonString   string
	UserProperties []byte
}

// Unsubscribe is an UNSUBSCRIBE packet [MQTT-3.10]. Every filter is valid.
type Unsubscribe struct {
	PacketID       uint16
	Filters        []string
	UserProperties []byte
}

// Disconnect is a DISCONNECT packet [MQTT-3.14].
type Disconnect struct {
	Reason           mqtt.ReasonCode
	SessionExpiry    uint32
	HasSessionExpiry bool
	ReasonString     string
	ServerReference  string
	UserProperties   []byte
}

// Auth is an AUTH packet [MQTT-3.15].
type Auth struct {
	Reason         mqtt.ReasonCode
	Method         string
	HasMethod      bool
	Data           []byte
	ReasonString   string
	UserProperties []byte
}
