// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// An acknowledgement that refuses names the quota that the broker has named for it, and
// nothing else that it has noted.
func TestNote(t *testing.T) {
	note := func(reason string, n uint32) *link.DownFrame {
		return &link.DownFrame{Kind: link.DownNote, Note: &link.Note{Reason: reason, Text: "because of " + reason, Count: n}}
	}
	event := func(reason string) *link.DownFrame { return note(reason, 1) }
	name := func(reason string) *link.DownFrame { return note(reason, 0) }
	suback := &link.DownFrame{Kind: link.DownSuback, PacketID: 1, Reasons: []mqtt.ReasonCode{mqtt.QuotaExceeded}}
	puback := &link.DownFrame{Kind: link.DownAck, Ack: mqtt.Puback, PacketID: 1, Reason: mqtt.QuotaExceeded}
	granted := &link.DownFrame{Kind: link.DownSuback, PacketID: 2, Reasons: []mqtt.ReasonCode{mqtt.Success}}
	taken := &link.DownFrame{Kind: link.DownAck, Ack: mqtt.Puback, PacketID: 2}
	for _, c := range []struct {
		frames []*link.DownFrame // of which the last is an acknowledgement
		limit  string
	}{
		{[]*link.DownFrame{suback}, "subscriptions_client"},
		{[]*link.DownFrame{name("subscriptions"), suback}, "subscriptions"},
		{[]*link.DownFrame{name("shared_groups"), suback}, "shared_groups"},
		{[]*link.DownFrame{event("shared_groups"), name("shared_group_members"), event("queue_full"), suback}, "shared_group_members"},
		{[]*link.DownFrame{name("subscriptions_client"), suback}, "subscriptions_client"},
		{[]*link.DownFrame{event("subscriptions"), suback}, "subscriptions_client"},
		{[]*link.DownFrame{name("subscriptions"), suback, suback}, "subscriptions_client"},
		{[]*link.DownFrame{name("subscriptions"), granted, suback}, "subscriptions_client"},
		{[]*link.DownFrame{puback}, "retained_messages"},
		{[]*link.DownFrame{name("retained_rate"), puback}, "retained_rate"},
		{[]*link.DownFrame{name("retained_quota"), event("retained_rate"), puback}, "retained_messages"},
		{[]*link.DownFrame{name("retained_rate"), puback, puback}, "retained_messages"},
		{[]*link.DownFrame{name("retained_rate"), taken, puback}, "retained_messages"},
	} {
		m := &Conn{version: packet.V5, phase: open}
		m.rules.Store(&Rules{})
		var out []byte
		for _, f := range c.frames {
			var r Result
			if out, r = m.Receive(nil, nil, f); f.Kind == link.DownNote && len(out) > 0 || r.Close.Ended {
				t.Fatalf("a note is sent on: %x", out)
			}
		}
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
			t.Errorf("%d frames: the properties are %q, want %q", len(c.frames), got, want)
		}
	}
}
