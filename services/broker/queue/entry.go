// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/manormq/manor/infra/mqtt"
)

// Entry is one message that waits for one session.
type Entry struct {
	Seq uint64
	// Message is shared by all entries that one publish made; it is never
	// changed. Its QoS, Retain and Expiry are not used: those below are.
	Message *mqtt.Message
	QoS     mqtt.QoS
	Retain  bool
	// batch is that of a Push, from 1 on; 0 is none.
	batch uint32
	// ExpireAt is in Unix milliseconds; 0 means never [MQTT-3.3.2-5].
	ExpireAt int64
	// IDs are the Subscription Identifiers to send [MQTT-3.3.4-3].
	IDs []uint32
	// Group is the shared subscription ($share/NAME/FILTER) that chose this
	// session, or empty.
	Group string
	// Serial names the Message within its shard, so that a batch holds it
	// once; 0 has no name. It is not stored.
	Serial uint64
	// body is the id of a stored body shared with other entries, or 0.
	body uint64
	// inside is the Packet Identifier of the delivery whose record holds the entry, or
	// 0: it has a record of its own, or none.
	inside uint16
}

// Size is what an entry counts against queue limits, in bytes.
func (e *Entry) Size() int {
	return e.Message.Size() + len(e.Group) + idCost*len(e.IDs) + entryOverhead
}

// entryOverhead is about what an entry costs beyond its message.
const entryOverhead = 64

// idCost is the most that a Subscription Identifier takes in a packet, with the
// identifier of its property, in bytes.
const idCost = 5

var errEntry = errors.New("queue: stored entry is not readable")

const (
	entryVersion = 1

	flagRetain = 1 << 0
	flagBody   = 1 << 1
)

// appendEntry encodes e: version, flags, qos, deadline, identifiers, group, and
// then the id of its body or the message itself.
func appendEntry(dst []byte, e *Entry) []byte {
	var flags byte
	if e.Retain {
		flags |= flagRetain
	}
	if e.body != 0 {
		flags |= flagBody
	}
	dst = append(dst, entryVersion, flags, byte(e.QoS))
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.ExpireAt))
	dst = binary.AppendUvarint(dst, uint64(len(e.IDs)))
	for _, id := range e.IDs {
		dst = binary.AppendUvarint(dst, uint64(id))
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Group)))
	dst = append(dst, e.Group...)
	if e.body != 0 {
		return binary.BigEndian.AppendUint64(dst, e.body)
	}
	return AppendMessage(dst, e.Message)
}

// parseEntry decodes what appendEntry wrote. The message is nil if the entry
// refers to a body. Nothing of b is kept.
func parseEntry(b []byte) (Entry, error) {
	if len(b) < 11 || b[0] != entryVersion {
		return Entry{}, errEntry
	}
	flags := b[1]
	e := Entry{QoS: mqtt.QoS(b[2]), Retain: flags&flagRetain != 0}
	e.ExpireAt = int64(binary.BigEndian.Uint64(b[3:]))
	b = b[11:]
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)) {
		return Entry{}, errEntry
	}
	b = b[w:]
	for range n {
		id, w := binary.Uvarint(b)
		if w <= 0 {
			return Entry{}, errEntry
		}
		e.IDs = append(e.IDs, uint32(id))
		b = b[w:]
	}
	n, w = binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return Entry{}, errEntry
	}
	e.Group = string(b[w : w+int(n)])
	b = b[w+int(n):]
	if flags&flagBody != 0 {
		if len(b) != 8 {
			return Entry{}, errEntry
		}
		e.body = binary.BigEndian.Uint64(b)
		return e, nil
	}
	m, err := ParseMessage(b)
	if err != nil {
		return Entry{}, err
	}
	e.Message = m
	return e, nil
}

// AppendMessage encodes topic, properties and payload of m.
func AppendMessage(dst []byte, m *mqtt.Message) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(m.Topic)))
	dst = append(dst, m.Topic...)
	dst = binary.AppendUvarint(dst, uint64(len(m.Properties)))
	dst = append(dst, m.Properties...)
	return append(dst, m.Payload...)
}

// ParseMessage decodes what AppendMessage wrote into memory of its own.
func ParseMessage(b []byte) (*mqtt.Message, error) {
	own := append([]byte(nil), b...)
	t, w := binary.Uvarint(own)
	if w <= 0 || t > uint64(len(own)-w) {
		return nil, fmt.Errorf("%w: topic", errEntry)
	}
	m := &mqtt.Message{Topic: own[w : w+int(t) : w+int(t)]}
	own = own[w+int(t):]
	p, w := binary.Uvarint(own)
	if w <= 0 || p > uint64(len(own)-w) {
		return nil, fmt.Errorf("%w: properties", errEntry)
	}
	m.Properties = own[w : w+int(p) : w+int(p)]
	m.Payload = own[w+int(p):]
	return m, nil
}
