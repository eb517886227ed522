// SPDX-License-Identifier: Apache-2.0

package link

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
)

// ErrMalformed says that bytes are no batch of this package.
var ErrMalformed = wire.ErrMalformed

// The types of frames on the wire. Acks, Credit, Deliver and Window are
// vectors: their header's channel is 0 and each entry names its own.
const (
	wireOpen        = 0x01
	wirePublish     = 0x02
	wireAcks        = 0x03
	wireSubscribe   = 0x04
	wireUnsubscribe = 0x05
	wireCredit      = 0x06
	wireTooLarge    = 0x07
	wireClose       = 0x08
	wireQuery       = 0x09
	wireLimits      = 0x0A
	wirePaused      = 0x0B

	wireOpened   = 0x41
	wireRefused  = 0x42
	wireMessage  = 0x43
	wireDeliver  = 0x44
	wireDownAcks = 0x45
	wireSuback   = 0x46
	wireUnsuback = 0x47
	wireEnd      = 0x48
	wireWindow   = 0x49
	wireAnswer   = 0x4A
	wireGoaway   = 0x4B
	wireLoad     = 0x4C
	wireTable    = 0x4D
	wireMoved    = 0x4E
	wirePause    = 0x4F
	wireNote     = 0x50
)

// The flags of frames and Deliver entries: the first four bits describe a
// message or its delivery.
const (
	flagQoS    = 0b0000_0011
	flagRetain = 0b0000_0100
	flagDup    = 0b0000_1000
	flagExpiry = 0b0001_0000 // a message has an expiry; a Close has a session expiry; an Open resumes
	flagCell   = 0b0000_1000 // an Open says of the tenant's cell
	flagIDs    = 0b0010_0000 // a Deliver entry has Subscription Identifiers
	flagGuest  = 0b0010_0000 // an Open is a guest's
	flagYes    = 0b0100_0000 // clean start, session present, found, purge
	flagSet    = 0b1000_0000 // an Answer has Usage.RetainedSet
	flagWill   = 0b1000_0000 // an Open has a will
	flagLoose  = 0b1000_0000 // a Note is of no channel
	flagLevel  = 0b0000_0011 // the Level of a Note
)

// open appends a frame header without its length and returns where the body
// begins.
func open(dst []byte, kind, flags byte, ch Channel) (out []byte, body int) {
	return wire.OpenFrame(dst, kind, flags, uint32(ch))
}

// reader takes the values of this package off a body.
type reader struct{ wire.Reader }

func read(body []byte) reader { return reader{wire.Reader{Data: body}} }

// MessageFlags are the flags of a frame with m.
func MessageFlags(m *mqtt.Message) byte {
	flags := byte(m.QoS) & flagQoS
	if m.Retain {
		flags |= flagRetain
	}
	if m.HasExpiry {
		flags |= flagExpiry
	}
	return flags
}

// AppendMessage appends
//
//	[expiry u32] | topic | properties | payload
//
// where topic and properties have a uvarint length in front and the payload is
// what is left of the frame.
func AppendMessage(dst []byte, m *mqtt.Message) []byte {
	if m.HasExpiry {
		dst = binary.BigEndian.AppendUint32(dst, m.Expiry)
	}
	dst = wire.AppendBytes(dst, m.Topic)
	dst = wire.AppendBytes(dst, m.Properties)
	return append(dst, m.Payload...)
}

// ReadMessage reads what AppendMessage wrote, up to the end of r. The Message's bytes
// are views.
func ReadMessage(r *wire.Reader, flags byte) mqtt.Message {
	m := mqtt.Message{QoS: mqtt.QoS(flags & flagQoS), Retain: flags&flagRetain != 0, HasExpiry: flags&flagExpiry != 0}
	if m.HasExpiry {
		m.Expiry = r.U32()
	}
	m.Topic, m.Properties, m.Payload = r.Bytes(), r.Bytes(), r.Rest()
	if !m.QoS.Valid() {
		r.Bad = true
	}
	return m
}

// appendSubscription appends
//
//	options u8 | Subscription Identifier uvarint | filter
//
// with the options as MQTT writes them [MQTT-3.8.3.1].
func appendSubscription(dst []byte, s *mqtt.Subscription) []byte {
	options := byte(s.QoS) | byte(s.RetainHandling)<<4
	if s.NoLocal {
		options |= 0x04
	}
	if s.RetainAsPublished {
		options |= 0x08
	}
	dst = append(dst, options)
	dst = binary.AppendUvarint(dst, uint64(s.ID))
	return wire.AppendBytes(dst, s.Filter)
}

func (r *reader) subscription() mqtt.Subscription {
	options := r.U8()
	s := mqtt.Subscription{
		QoS: mqtt.QoS(options & 0x03), NoLocal: options&0x04 != 0, RetainAsPublished: options&0x08 != 0,
		RetainHandling: mqtt.RetainHandling(options >> 4), ID: r.Uvarint(), Filter: r.String(),
	}
	if !s.QoS.Valid() || s.RetainHandling > mqtt.RetainDontSend {
		r.Bad = true
	}
	return s
}

// appendAck appends one entry of an Acks vector:
//
//	channel u32 | kind u8 | reason u8 | Packet Identifier u16
func appendAck(dst []byte, ch Channel, kind mqtt.AckKind, reason mqtt.ReasonCode, id uint16) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(ch))
	dst = append(dst, byte(kind), byte(reason))
	return binary.BigEndian.AppendUint16(dst, id)
}

func (r *reader) ack() (ch Channel, kind mqtt.AckKind, reason mqtt.ReasonCode, id uint16) {
	ch, kind, reason, id = Channel(r.U32()), mqtt.AckKind(r.U8()), mqtt.ReasonCode(r.U8()), r.U16()
	if kind < mqtt.Puback || kind > mqtt.Pubcomp {
		r.Bad = true
	}
	return ch, kind, reason, id
}

// appendWindow appends one entry of a Credit or Window vector:
//
//	channel u32 | total bytes u64
func appendWindow(dst []byte, ch Channel, total uint64) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(ch))
	return binary.BigEndian.AppendUint64(dst, total)
}
