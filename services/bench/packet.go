// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"errors"
)

// protocol is the protocol level in CONNECT.
type protocol byte

// The protocol levels: of MQTT 3.1.1, and of 5, whose packets have properties.
const (
	mqtt3 protocol = 4
	mqtt5 protocol = 5
)

// First bytes of control packets.
const (
	pktConnect    = 0x10
	pktConnack    = 0x20
	pktPublish    = 0x30
	pktPuback     = 0x40
	pktPubrec     = 0x50
	pktPubrel     = 0x62
	pktPubcomp    = 0x70
	pktSubscribe  = 0x82
	pktSuback     = 0x90
	pktPingreq    = 0xC0
	pktPingresp   = 0xD0
	pktDisconnect = 0xE0

	kindMask = 0xF0
)

func appendLength(b []byte, n int) []byte {
	for n > 0x7F {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

// extent is where the body of the packet that b begins with starts and ends; 0
// and 0 if b is too short to say.
func extent(b []byte) (start, end int, err error) {
	n, shift := 0, 0
	for i := 1; i < len(b); i++ {
		if i > 4 {
			return 0, 0, errors.New("bad remaining length")
		}
		n |= int(b[i]&0x7F) << shift
		if b[i]&0x80 == 0 {
			return i + 1, i + 1 + n, nil
		}
		shift += 7
	}
	return 0, 0, nil
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// connect is a CONNECT. A session that is not clean never expires.
func (v protocol) connect(clientID string, clean bool, keepAlive uint16, user, pass string) []byte {
	var flags byte
	if clean {
		flags |= 0x02
	}
	if user != "" {
		flags |= 0x80
	}
	if pass != "" {
		flags |= 0x40
	}
	body := append(appendString(nil, "MQTT"), byte(v), flags)
	body = binary.BigEndian.AppendUint16(body, keepAlive)
	switch {
	case v == mqtt5 && !clean:
		body = append(body, 5, 0x11, 0xFF, 0xFF, 0xFF, 0xFF) // Session Expiry Interval
	case v == mqtt5:
		body = append(body, 0)
	}
	body = appendString(body, clientID)
	if user != "" {
		body = appendString(body, user)
	}
	if pass != "" {
		body = appendString(body, pass)
	}
	return append(appendLength([]byte{pktConnect}, len(body)), body...)
}

func (v protocol) subscribe(id uint16, qos byte, filters ...string) []byte {
	body := v.appendNoProperties(binary.BigEndian.AppendUint16(nil, id))
	for _, f := range filters {
		body = append(appendString(body, f), qos)
	}
	return append(appendLength([]byte{pktSubscribe}, len(body)), body...)
}

func (v protocol) appendNoProperties(b []byte) []byte {
	if v == mqtt5 {
		return append(b, 0)
	}
	return b
}

// skipProperties is what follows the properties that b begins with.
func (v protocol) skipProperties(b []byte) []byte {
	if v != mqtt5 {
		return b
	}
	size, n := binary.Uvarint(b) // MQTT's and Go's are the same up to four bytes
	if n <= 0 || size > uint64(len(b)-n) {
		return nil
	}
	return b[n+int(size):]
}

// appendPublish appends a PUBLISH and returns the offsets of its Packet
// Identifier (-1 at QoS 0) and of its payload.
func (v protocol) appendPublish(b []byte, topic string, qos byte, retain bool, payload []byte) (out []byte, id, body int) {
	n, first := 2+len(topic)+len(payload), pktPublish|qos<<1
	if qos > 0 {
		n += 2
	}
	if retain {
		first |= 1
	}
	if v == mqtt5 {
		n++
	}
	b = appendString(appendLength(append(b, first), n), topic)
	id = -1
	if qos > 0 {
		id = len(b)
		b = append(b, 0, 0)
	}
	b = v.appendNoProperties(b)
	return append(b, payload...), id, len(b)
}

// publish are the QoS, Packet Identifier and payload of a PUBLISH.
func (v protocol) publish(first byte, body []byte) (qos byte, id uint16, payload []byte) {
	qos = first >> 1 & 3
	n := 2 + int(binary.BigEndian.Uint16(body))
	if qos > 0 {
		id = binary.BigEndian.Uint16(body[n:])
		n += 2
	}
	return qos, id, v.skipProperties(body[n:])
}

// appendAck appends an acknowledgement of id.
func appendAck(b []byte, first byte, id uint16) []byte {
	return append(b, first, 2, byte(id>>8), byte(id))
}

// failed says whether an acknowledgement of a publish has a reason code of MQTT
// 5 that is a failure (§3.4.2.1).
func failed(body []byte) bool { return len(body) > 2 && body[2] >= 0x80 }
