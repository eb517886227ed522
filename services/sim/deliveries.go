// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// ack acknowledges.
func (d *device) ack(k mqtt.AckKind, packet uint16) {
	d.send(link.UpFrame{Kind: link.UpAck, Ack: k, PacketID: packet})
}

// deliver takes a PUBLISH of the broker, and tells the checkers unless it has it already.
func (d *device) deliver(f *link.DownFrame, payload string) {
	if f.QoS == mqtt.ExactlyOnce && d.received[f.PacketID] {
		if !f.Dup {
			d.w.History.Break("%s gets %q under packet identifier %d again, which it has not released, without DUP [MQTT-3.3.1-1]", d.label, payload, f.PacketID)
		}
		d.ack(mqtt.Pubrec, f.PacketID)
		return
	}
	d.w.note(d.label+" gets "+payload, d.at.n.name, uint64(f.PacketID))
	d.house.Delivered(d.id, payload, f.Dup, d.connection, f.PacketID, d.place())
	switch f.QoS {
	case mqtt.ExactlyOnce:
		d.received[f.PacketID] = true
		d.ack(mqtt.Pubrec, f.PacketID)
	case mqtt.AtLeastOnce:
		d.ack(mqtt.Puback, f.PacketID)
	case mqtt.AtMostOnce:
		d.w.History.Break("%s got %q at QoS 0", d.label, payload)
	}
}

// acked takes an acknowledgement of the broker.
func (d *device) acked(f *link.DownFrame) {
	if f.Ack == mqtt.Pubrel {
		delete(d.received, f.PacketID)
		d.ack(mqtt.Pubcomp, f.PacketID)
		return
	}
	at := slices.IndexFunc(d.inflight, func(p *published) bool { return p.packet == f.PacketID })
	if at < 0 {
		if f.Ack == mqtt.Pubrec {
			d.ack(mqtt.Pubrel, f.PacketID)
		}
		return
	}
	p := d.inflight[at]
	if f.Reason.Failed() && (f.Ack != mqtt.Pubcomp || f.Reason != mqtt.PacketIdentifierNotFound) { // it had been there
		d.w.History.Break("%s: publish %d is answered %s", d.label, f.PacketID, f.Reason)
	}
	switch f.Ack {
	case mqtt.Pubrec:
		p.released = true
		d.house.Acked(p.Publish)
		d.ack(mqtt.Pubrel, f.PacketID)
		return
	case mqtt.Puback, mqtt.Pubcomp:
		d.house.Acked(p.Publish)
	default:
		d.w.History.Break("%s got %s", d.label, f.Ack)
	}
	// At QoS 1 nothing is written of the publisher's own session.
	d.kept = d.kept || p.QoS == mqtt.ExactlyOnce
	d.inflight = slices.Delete(d.inflight, at, at+1)
}
