// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/mqtt"
)

// Delivery is what a PUBLISH says about one delivery of a message. QoS and
// Retain stand for the message's own.
type Delivery struct {
	QoS      mqtt.QoS
	Retain   bool
	Dup      bool
	PacketID uint16 // not written at QoS 0

	// The rest is not written in 3.x.

	SubscriptionIDs []uint32
	TopicAlias      uint16
	HasTopicAlias   bool
	// OmitTopic leaves the topic name empty, since the alias stands for it.
	OmitTopic bool
}

// sizes returns the length of the properties and the remaining length.
func (d *Delivery) sizes(v Version, m *mqtt.Message) (props, remaining int) {
	remaining = 2 + len(m.Payload)
	if !d.OmitTopic || v != V5 {
		remaining += len(m.Topic)
	}
	if d.QoS > 0 {
		remaining += 2
	}
	if v != V5 {
		return 0, remaining
	}
	props = len(m.Properties)
	if m.HasExpiry {
		props += 5
	}
	if d.HasTopicAlias {
		props += 3
	}
	for _, id := range d.SubscriptionIDs {
		props += 1 + varintSize(id)
	}
	return props, remaining + varintSize(uint32(props)) + props
}

// PublishSize is how many bytes AppendPublish will append.
func PublishSize(v Version, m *mqtt.Message, d Delivery) int {
	_, n := d.sizes(v, m)
	return 1 + varintSize(uint32(n)) + n
}

// AppendPublish appends a PUBLISH packet. It allocates only to grow dst.
func AppendPublish(dst []byte, v Version, m *mqtt.Message, d Delivery) []byte {
	return append(AppendPublishHead(dst, v, m, d), m.Payload...)
}

// AppendPublishHead appends a PUBLISH packet up to its payload, which is its end
// and has to follow.
func AppendPublishHead(dst []byte, v Version, m *mqtt.Message, d Delivery) []byte {
	props, remaining := d.sizes(v, m)
	dst = append(dst, byte(PUBLISH)<<4|bit(d.Dup, 8)|byte(d.QoS)<<1|bit(d.Retain, 1))
	dst = appendVarint(dst, uint32(remaining))
	if d.OmitTopic && v == V5 {
		dst = append(dst, 0, 0)
	} else {
		dst = append(dst, byte(len(m.Topic)>>8), byte(len(m.Topic)))
		dst = append(dst, m.Topic...)
	}
	if d.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, d.PacketID)
	}
	if v == V5 {
		dst = appendVarint(dst, uint32(props))
		if m.HasExpiry {
			dst = appendProperty32(dst, messageExpiry, m.Expiry)
		}
		if d.HasTopicAlias {
			dst = append(dst, byte(topicAlias), byte(d.TopicAlias>>8), byte(d.TopicAlias))
		}
		for _, id := range d.SubscriptionIDs {
			dst = appendVarint(append(dst, byte(subscriptionID)), id)
		}
		dst = append(dst, m.Properties...)
	}
	return dst
}
