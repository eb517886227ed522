// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
)

// A reader walks the body of one packet. The first error sticks: later reads
// yield zero values.
type reader struct {
	b   []byte // the body
	i   int    // what is read
	typ Type
	err *Error
}

func (r *reader) fail(reason mqtt.ReasonCode, text string) {
	if r.err == nil {
		r.err = &Error{Reason: reason, Type: r.typ, Text: text}
	}
}

func (r *reader) malformed(text string) { r.fail(mqtt.MalformedPacket, text) }
func (r *reader) protocol(text string)  { r.fail(mqtt.ProtocolError, text) }

func (r *reader) left() int { return len(r.b) - r.i }

func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > r.left() {
		r.malformed("a field reaches beyond the end")
		return nil
	}
	b := r.b[r.i : r.i+n : r.i+n]
	r.i += n
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// varint reads a Variable Byte Integer [MQTT-1.5.5].
func (r *reader) varint() uint32 {
	if r.err != nil {
		return 0
	}
	v, n, state := varint(r.b[r.i:])
	switch state {
	case varintShort:
		r.malformed("a field reaches beyond the end")
	case varintLong:
		r.malformed("a variable byte integer has more than four bytes")
	case varintPadded:
		r.malformed("a variable byte integer has more bytes than it needs [MQTT-1.5.5-1]")
	case varintGood:
		r.i += n
		return v
	}
	return 0
}

func (r *reader) binary() []byte { return r.take(int(r.uint16())) }

func (r *reader) utf8() []byte {
	b := r.binary()
	if r.err == nil && !topic.ValidUTF8(b) {
		r.malformed("a string is not UTF-8 without U+0000 [MQTT-1.5.4-1, MQTT-1.5.4-2]")
		return nil
	}
	return b
}

func (r *reader) string() string { return string(r.utf8()) }

// packetID reads a Packet Identifier, which is not 0 [MQTT-2.2.1-3].
func (r *reader) packetID() uint16 {
	id := r.uint16()
	if id == 0 && r.err == nil {
		r.protocol("the packet identifier is 0 [MQTT-2.2.1-3]")
	}
	return id
}

// topicName reads a Topic Name, which has no wildcards [MQTT-3.3.2-2]. It may
// be empty.
func (r *reader) topicName() []byte {
	b := r.utf8()
	for _, c := range b {
		if c == '+' || c == '#' {
			r.fail(mqtt.TopicNameInvalid, "the topic name contains a wildcard [MQTT-3.3.2-2]")
			return nil
		}
	}
	return b
}

type varintState uint8

const (
	varintGood varintState = iota
	varintShort
	varintLong
	varintPadded
)

// varint decodes the Variable Byte Integer at the front of b. A padded one has
// its value too.
func varint(b []byte) (v uint32, n int, state varintState) {
	for n < 4 {
		if n == len(b) {
			return 0, n, varintShort
		}
		c := b[n]
		v |= uint32(c&0x7F) << (7 * n)
		n++
		if c < 0x80 {
			if c == 0 && n > 1 {
				return v, n, varintPadded
			}
			return v, n, varintGood
		}
	}
	return 0, n, varintLong
}

func appendVarint(dst []byte, v uint32) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func varintSize(v uint32) int {
	switch {
	case v < 1<<7:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<21:
		return 3
	}
	return 4
}
