// SPDX-License-Identifier: Apache-2.0

package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/manormq/manor/infra/mqtt"
)

// ErrMalformed says that bytes are no batch of this package.
var ErrMalformed = errors.New("link: malformed batch")

// frameHeader is the size of what stands before each frame's body:
//
//	type u8 | flags u8 | channel u32 | length u32
const frameHeader = 10

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
)

// The flags of frames and Deliver entries: the first four bits describe a
// message or its delivery.
const (
	flagQoS    = 0b0000_0011
	flagRetain = 0b0000_0100
	flagDup    = 0b0000_1000
	flagExpiry = 0b0001_0000 // a message has an expiry; a Close has a session expiry
	flagIDs    = 0b0010_0000 // a Deliver entry has Subscription Identifiers
	flagYes    = 0b0100_0000 // clean start, session present, found, purge
	flagWill   = 0b1000_0000 // an Open has a will
)

// frame is one decoded frame header with its body.
type frame struct {
	kind, flags byte
	channel     Channel
	body        []byte
}

// open appends a frame header without its length and returns where the body
// begins.
func open(dst []byte, kind, flags byte, ch Channel) (out []byte, body int) {
	dst = append(dst, kind, flags)
	dst = binary.BigEndian.AppendUint32(dst, uint32(ch))
	dst = append(dst, 0, 0, 0, 0)
	return dst, len(dst)
}

// shut writes the length of the frame whose body begins at body.
func shut(dst []byte, body int) []byte {
	binary.BigEndian.PutUint32(dst[body-4:], uint32(len(dst)-body))
	return dst
}

// frames calls f for each of the count frames of a batch.
func frames(data []byte, count int, f func(frame) error) error {
	for n := range count {
		if len(data) < frameHeader {
			return fmt.Errorf("%w: ends in the header of frame %d of %d", ErrMalformed, n+1, count)
		}
		size := uint64(binary.BigEndian.Uint32(data[6:]))
		if size > uint64(len(data)-frameHeader) {
			return fmt.Errorf("%w: ends in frame %d of %d, type %#02x, of %d bytes", ErrMalformed, n+1, count, data[0], size)
		}
		end := frameHeader + int(size)
		fr := frame{data[0], data[1], Channel(binary.BigEndian.Uint32(data[2:])), data[frameHeader:end:end]}
		if err := f(fr); err != nil {
			return err
		}
		data = data[end:]
	}
	if len(data) > 0 {
		return fmt.Errorf("%w: %d bytes behind the last of %d frames", ErrMalformed, len(data), count)
	}
	return nil
}

// malformed is the error of a frame whose body does not parse.
func (f frame) malformed(what string) error {
	return fmt.Errorf("%w: frame type %#02x of %d bytes: %s", ErrMalformed, f.kind, len(f.body), what)
}

// reader takes values off a body. After the first that is not there, all are
// zero and bad is set.
type reader struct {
	data []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.data) {
		r.bad = true
		return nil
	}
	out := r.data[:n:n]
	r.data = r.data[n:]
	return out
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) i64() int64 { return int64(r.u64()) }

// length is a uvarint that counts things of at least least bytes each that
// follow, so that it cannot promise more than there is.
func (r *reader) length(least int) int {
	n, w := binary.Uvarint(r.data)
	if r.bad || w <= 0 || n > uint64(len(r.data)-w)/uint64(least) || w > 1 && r.data[w-1] == 0 {
		r.bad = true
		return 0
	}
	r.data = r.data[w:]
	return int(n)
}

// uvarint is a uvarint of at most 32 bits, in its shortest form.
func (r *reader) uvarint() uint32 {
	n, w := binary.Uvarint(r.data)
	if r.bad || w <= 0 || n > math.MaxUint32 || w > 1 && r.data[w-1] == 0 {
		r.bad = true
		return 0
	}
	r.data = r.data[w:]
	return uint32(n)
}

func (r *reader) bytes() []byte  { return r.take(r.length(1)) }
func (r *reader) string() string { return string(r.bytes()) }

// rest is what is left.
func (r *reader) rest() []byte { return r.take(len(r.data)) }

func appendBytes[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// messageFlags are the flags of m.
func messageFlags(m *mqtt.Message) byte {
	flags := byte(m.QoS) & flagQoS
	if m.Retain {
		flags |= flagRetain
	}
	if m.HasExpiry {
		flags |= flagExpiry
	}
	return flags
}

// appendMessage appends
//
//	[expiry u32] | topic | properties | payload
//
// where topic and properties have a uvarint length in front and the payload is
// what is left of the frame.
func appendMessage(dst []byte, m *mqtt.Message) []byte {
	if m.HasExpiry {
		dst = binary.BigEndian.AppendUint32(dst, m.Expiry)
	}
	dst = appendBytes(dst, m.Topic)
	dst = appendBytes(dst, m.Properties)
	return append(dst, m.Payload...)
}

// message reads what appendMessage wrote, up to the end of r.
func (r *reader) message(flags byte) mqtt.Message {
	m := mqtt.Message{QoS: mqtt.QoS(flags & flagQoS), Retain: flags&flagRetain != 0, HasExpiry: flags&flagExpiry != 0}
	if m.HasExpiry {
		m.Expiry = r.u32()
	}
	m.Topic, m.Properties, m.Payload = r.bytes(), r.bytes(), r.rest()
	if !m.QoS.Valid() {
		r.bad = true
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
	return appendBytes(dst, s.Filter)
}

func (r *reader) subscription() mqtt.Subscription {
	options := r.u8()
	s := mqtt.Subscription{
		QoS: mqtt.QoS(options & 0x03), NoLocal: options&0x04 != 0, RetainAsPublished: options&0x08 != 0,
		RetainHandling: mqtt.RetainHandling(options >> 4), ID: r.uvarint(), Filter: r.string(),
	}
	if !s.QoS.Valid() || s.RetainHandling > mqtt.RetainDontSend {
		r.bad = true
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
	ch, kind, reason, id = Channel(r.u32()), mqtt.AckKind(r.u8()), mqtt.ReasonCode(r.u8()), r.u16()
	if kind < mqtt.Puback || kind > mqtt.Pubcomp {
		r.bad = true
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
