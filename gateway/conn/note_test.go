// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// An acknowledgement that refuses names the quota that the broker has noted before, and
// nothing else that it has noted.
func TestNote(t *testing.T) {
	note := func(reason string) *link.DownFrame {
		return &link.DownFrame{Kind: link.DownNote, Note: &link.Note{Reason: reason, Text: "because of " + reason, Count: 1}}
	}
	suback := &link.DownFrame{Kind: link.DownSuback, PacketID: 1, Reasons: []mqtt.ReasonCode{mqtt.QuotaExceeded}}
	puback := &link.DownFrame{Kind: link.DownAck, Ack: mqtt.Puback, PacketID: 1, Reason: mqtt.QuotaExceeded}
	for _, c := range []struct {
		notes []string
		then  *link.DownFrame
		limit string
	}{
		{nil, suback, "subscriptions_client"},
		{[]string{"subscriptions"}, suback, "subscriptions"},
		{[]string{"shared_groups", "queue_full"}, suback, "shared_groups"},
		{[]string{"shared_group_members", "fan_out", "storage_bytes"}, suback, "shared_group_members"},
		{[]string{"subscriptions", "subscriptions_client"}, suback, "subscriptions_client"},
		{nil, puback, "retained_messages"},
		{[]string{"retained_rate", "queue_full"}, puback, "retained_rate"},
		{[]string{"retained_rate", "retained_quota"}, puback, "retained_messages"},
	} {
		m := &Conn{version: packet.V5, phase: open}
		m.rules.Store(&Rules{})
		for _, n := range c.notes {
			if out, r := m.Receive(nil, nil, note(n)); len(out) > 0 || r.Close.Ended {
				t.Fatalf("a note is sent on: %x", out)
			}
		}
		out, _ := m.Receive(nil, nil, c.then)
		var dec packet.Decoder
		var p packet.Packet
		if n, err := dec.Decode(out, packet.V5, 0, &p); err != nil || n != len(out) {
			t.Fatal(err)
		}
		got := string(p.Ack.UserProperties)
		if p.Type == packet.SUBACK {
			got = string(p.Suback.UserProperties)
		}
		if want := string(packet.AppendUserProperty(nil, "limit", c.limit)); got != want {
			t.Errorf("%v: the properties are %q, want %q", c.notes, got, want)
		}
	}
}
