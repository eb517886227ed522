// SPDX-License-Identifier: Apache-2.0

package bench

import "encoding/binary"

// First bytes of MQTT 3.1.1 control packets.
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

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func connectPacket(clientID string, clean bool, keepAlive uint16, user, pass string) []byte {
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
	body := append(appendString(nil, "MQTT"), 4, flags)
	body = binary.BigEndian.AppendUint16(body, keepAlive)
	body = appendString(body, clientID)
	if user != "" {
		body = appendString(body, user)
	}
	if pass != "" {
		body = appendString(body, pass)
	}
	return append(appendLength([]byte{pktConnect}, len(body)), body...)
}

func subscribePacket(id uint16, qos byte, filters ...string) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	for _, f := range filters {
		body = append(appendString(body, f), qos)
	}
	return append(appendLength([]byte{pktSubscribe}, len(body)), body...)
}

// appendPublish appends a PUBLISH and returns the offsets of its Packet
// Identifier (-1 at QoS 0) and of its payload.
func appendPublish(b []byte, topic string, qos byte, retain bool, payload []byte) (out []byte, id, body int) {
	n, first := 2+len(topic)+len(payload), pktPublish|qos<<1
	if qos > 0 {
		n += 2
	}
	if retain {
		first |= 1
	}
	b = appendString(appendLength(append(b, first), n), topic)
	id = -1
	if qos > 0 {
		id = len(b)
		b = append(b, 0, 0)
	}
	return append(b, payload...), id, len(b)
}

// publishFields are the QoS, Packet Identifier and payload of a PUBLISH.
func publishFields(first byte, body []byte) (qos byte, id uint16, payload []byte) {
	qos = first >> 1 & 3
	n := 2 + int(binary.BigEndian.Uint16(body))
	if qos > 0 {
		id = binary.BigEndian.Uint16(body[n:])
		n += 2
	}
	return qos, id, body[n:]
}

// appendAck appends an acknowledgement of id.
func appendAck(b []byte, first byte, id uint16) []byte {
	return append(b, first, 2, byte(id>>8), byte(id))
}
