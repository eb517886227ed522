// SPDX-License-Identifier: Apache-2.0

package mqtt

import "fmt"

// QoS is a Quality of Service level, 0 to 2 [MQTT-4.3].
type QoS uint8

// The three levels.
const (
	AtMostOnce  QoS = 0
	AtLeastOnce QoS = 1
	ExactlyOnce QoS = 2
)

// Valid reports whether q is one of the three levels.
func (q QoS) Valid() bool { return q <= ExactlyOnce }

func (q QoS) String() string { return fmt.Sprintf("QoS %d", uint8(q)) }

// ClientID identifies a session within its tenant [MQTT-3.1.3-2].
type ClientID string

// Message is an Application Message and what travels with it. Its byte slices
// are views: whoever keeps a Message beyond the call that brought it calls
// Clone.
type Message struct {
	// Topic is the Topic Name, validated, without any tenant prefix.
	Topic []byte
	// Payload is opaque; it may be empty.
	Payload []byte
	// Properties are those that a server forwards unaltered (Payload Format
	// Indicator, Content Type, Response Topic, Correlation Data, User
	// Property; [MQTT-3.3.2-4, -15 to -20]), in the order of their arrival and
	// the encoding of MQTT 5 §2.2.2 without the length in front. Empty when
	// there are none.
	Properties []byte
	// Expiry is the Message Expiry Interval in seconds, counted from the
	// moment at which the Message is handed over. Only read if HasExpiry.
	Expiry    uint32
	HasExpiry bool
	QoS       QoS
	Retain    bool
}

// Clone returns a Message that shares no memory with m: one allocation holds
// its three byte slices.
func (m *Message) Clone() Message {
	c, _ := m.CloneTo(make([]byte, 0, m.Size()))
	return c
}

// CloneTo returns a copy of m whose bytes are appended to b, and the longer b.
func (m *Message) CloneTo(b []byte) (Message, []byte) {
	c, at := *m, len(b)
	b = append(b, m.Topic...)
	b = append(b, m.Properties...)
	b = append(b, m.Payload...)
	t := at + len(m.Topic)
	p := t + len(m.Properties)
	c.Topic, c.Properties, c.Payload = b[at:t:t], b[t:p:p], b[p:len(b):len(b)]
	return c, b
}

// Size is what m counts against byte limits: topic, properties and payload.
func (m *Message) Size() int { return len(m.Topic) + len(m.Properties) + len(m.Payload) }

// Will is the message that a server publishes for a client whose connection
// ends without a DISCONNECT of reason 0x00 [MQTT-3.1.2-8].
type Will struct {
	Message Message
	// Delay is the Will Delay Interval in seconds.
	Delay uint32
}

// SessionNeverExpires is the Session Expiry Interval that means "never"
// [MQTT-3.1.2.11.2].
const SessionNeverExpires uint32 = 0xFFFFFFFF

// RetainHandling says when retained messages are sent on SUBSCRIBE
// [MQTT-3.3.1-9 to -11].
type RetainHandling uint8

// The values of Retain Handling.
const (
	RetainSend      RetainHandling = 0
	RetainSendIfNew RetainHandling = 1
	RetainDontSend  RetainHandling = 2
)

// Subscription is one Topic Filter of a SUBSCRIBE with its options
// [MQTT-3.8.3.1].
type Subscription struct {
	// Filter is the Topic Filter as the client wrote it, $share/NAME/
	// included.
	Filter            string
	QoS               QoS
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    RetainHandling
	// ID is the Subscription Identifier, 1 to 268,435,455; 0 means none.
	ID uint32
}

// AckKind is which of the four acknowledgement packets an acknowledgement is.
type AckKind uint8

// The acknowledgements of §3.4 to §3.7.
const (
	Puback AckKind = iota + 1
	Pubrec
	Pubrel
	Pubcomp
)

func (k AckKind) String() string {
	switch k {
	case Puback:
		return "PUBACK"
	case Pubrec:
		return "PUBREC"
	case Pubrel:
		return "PUBREL"
	case Pubcomp:
		return "PUBCOMP"
	}
	return fmt.Sprintf("AckKind(%d)", uint8(k))
}
