// SPDX-License-Identifier: Apache-2.0

package conn_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// accepted returns a machine whose client was let in, with that window for what
// it sends, and what it was granted for what it receives.
func accepted(t *testing.T, window uint64, grant *tenancy.Grant, edit func(*tenancy.Limits)) (c *conn.Conn, credit uint64) {
	t.Helper()
	limits := tenancy.NoLimits()
	if edit != nil {
		edit(&limits)
	}
	c = &conn.Conn{}
	p := &packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true}
	c.Connect(p)
	o, r := c.Accept(p, conn.Admission{Identity: &tenancy.Identity{Tenant: &tenancy.Tenant{ID: "acme", Limits: limits}, Grant: grant}})
	if r.Reason.Failed() {
		t.Fatal(r.Text)
	}
	c.Receive(nil, nil, &link.DownFrame{Kind: link.DownOpened, Bytes: window})
	return c, o.Credit
}

// A session with thousands of overlapping subscriptions receives small messages
// whose packets are large, and yet no more than its credit.
func TestSubscriptionIdentifiersCountAgainstCredit(t *testing.T) {
	c, credit := accepted(t, 1<<20, tenancy.DefaultGrant(), nil)
	ids := make([]uint32, 2000)
	for i := range ids {
		ids[i] = 200_000_000 + uint32(i)
	}
	m := mqtt.Message{Topic: []byte("a/b")}
	b := &link.Down{Messages: []mqtt.Message{m}}
	f := &link.DownFrame{Kind: link.DownDeliver, SubscriptionIDs: ids}
	received, used, packetSize := 0, uint64(0), 0
	for used < credit {
		out, _ := c.Receive(nil, b, f)
		packetSize = len(out)
		received += packetSize
		used += uint64(link.DeliverCost(m.Size(), len(ids)))
	}
	if received > int(credit)+packetSize {
		t.Errorf("%d bytes for a socket that takes nothing, expected at most %d and a packet", received, credit)
	}
	if total, ok := c.Credit(0); !ok || total != used+conn.CreditWindow {
		t.Errorf("when the socket has taken all, %d is granted (%v), expected %d", total, ok, used+conn.CreditWindow)
	}
}

// Publishes that are refused wait for the answers of those before them, which
// the broker gives when it can: the client waits too, instead of being told at
// any cost of memory.
func TestRefusedPublishesThatWaitAreBounded(t *testing.T) {
	grant, err := tenancy.NewGrant(1, []string{"ok"}, []string{"#"})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := accepted(t, 1<<40, grant, nil)
	var fx conn.Effects
	publish := func(topic string, id uint16) {
		p := packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{PacketID: id, Message: mqtt.Message{Topic: []byte(topic), QoS: 1}}}
		c.Handle(&p, &fx)
		if out := c.Apply(nil, &fx); len(out) > 0 {
			t.Fatal("a publish is answered before those before it")
		}
		fx.Reset()
	}
	publish("ok", 1)
	n := 0
	for ; c.MayRead(packet.PUBLISH); n++ {
		if n > 10_000 {
			t.Fatalf("%d answers wait", n)
		}
		publish("no", 2)
	}
	out, r := c.Receive(nil, nil, &link.DownFrame{Kind: link.DownAck, Ack: mqtt.Puback, PacketID: 1})
	if !r.Resume || !c.MayRead(packet.PUBLISH) {
		t.Error("the client is not read again when the broker has answered")
	}
	var dec packet.Decoder
	got := 0
	for p := (packet.Packet{}); len(out) > 0; got++ {
		size, err := dec.Decode(out, packet.V5, 0, &p)
		if err != nil || p.Type != packet.PUBACK {
			t.Fatal(p.Type, err)
		}
		out = out[size:]
	}
	if got != n+1 {
		t.Errorf("%d PUBACKs, expected %d", got, n+1)
	}
}

// A SUBSCRIBE of which the broker decides one filter keeps the reasons for all
// others.
func TestRefusedFiltersThatWaitAreBounded(t *testing.T) {
	grant, err := tenancy.NewGrant(1, []string{"ok"}, []string{"ok"})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := accepted(t, 1<<40, grant, nil)
	subs := []mqtt.Subscription{{Filter: "ok"}}
	for range 1000 {
		subs = append(subs, mqtt.Subscription{Filter: "no"})
	}
	id := uint16(0)
	for c.MayRead(packet.SUBSCRIBE) {
		if id++; id > 1000 {
			t.Fatal("the reasons of 1000 times 1000 filters wait")
		}
		var fx conn.Effects
		c.Handle(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: id, Subscriptions: append([]mqtt.Subscription(nil), subs...)}}, &fx)
		c.Apply(nil, &fx)
	}
	for ; id > 0; id-- {
		if _, r := c.Receive(nil, nil, &link.DownFrame{Kind: link.DownSuback, PacketID: id, Reasons: []mqtt.ReasonCode{0}}); !r.Resume {
			t.Fatal("the client is not read again when the broker has answered")
		}
	}
	if !c.MayRead(packet.SUBSCRIBE) {
		t.Error("the client may not subscribe though nothing waits")
	}
}

// With hundreds of thousands of short filters, what goes to the broker is larger
// than the packet, and perhaps than any batch of the link.
func TestSubscribeOfTooManyFiltersIsRefused(t *testing.T) {
	c, _ := accepted(t, 1<<40, tenancy.DefaultGrant(), nil)
	subs := make([]mqtt.Subscription, 1<<16+1)
	for i := range subs {
		subs[i].Filter = "a"
	}
	var fx conn.Effects
	c.Handle(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: 1, Subscriptions: subs}}, &fx)
	if len(fx.Up.Frames) > 0 {
		t.Error("the broker is asked")
	}
	var dec packet.Decoder
	var p packet.Packet
	if _, err := dec.Decode(c.Apply(nil, &fx), packet.V5, 0, &p); err != nil || p.Type != packet.SUBACK {
		t.Fatal(p.Type, err)
	}
	if len(p.Suback.Reasons) != len(subs) || p.Suback.Reasons[0] != mqtt.QuotaExceeded {
		t.Errorf("%d reasons, the first %v", len(p.Suback.Reasons), p.Suback.Reasons[0])
	}
}

// The topics of aliases outlive their packets: all of them together are
// bounded, each way.
func TestTopicAliasesAreBoundedInBytes(t *testing.T) {
	c, _ := accepted(t, 1<<40, tenancy.DefaultGrant(), nil)
	kept, closed := 0, conn.Close{}
	for alias := uint16(1); alias <= 128 && !closed.Ended; alias++ {
		var fx conn.Effects
		topic := bytes.Repeat([]byte{'a' + byte(alias%16)}, 60_000)
		c.Handle(&packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{
			Message: mqtt.Message{Topic: topic}, TopicAlias: alias, HasTopicAlias: true,
		}}, &fx)
		kept, closed = kept+len(topic), fx.Close
	}
	if !closed.Ended || closed.Reason != mqtt.QuotaExceeded || kept > 128<<10 {
		t.Errorf("%d bytes of topics came and the connection ended with %v %v %q", kept, closed.Ended, closed.Reason, closed.Text)
	}

	// Replacing an alias gives back what it had.
	c, _ = accepted(t, 1<<40, tenancy.DefaultGrant(), nil)
	for i := range 100 {
		var fx conn.Effects
		c.Handle(&packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{
			Message: mqtt.Message{Topic: bytes.Repeat([]byte{'a' + byte(i%16)}, 60_000)}, TopicAlias: 1, HasTopicAlias: true,
		}}, &fx)
		if fx.Close.Ended {
			t.Fatalf("the %d. topic of one alias ended the connection: %s", i+1, fx.Close.Text)
		}
	}
}

// Outgoing aliases keep topics too.
func TestOutgoingTopicAliasesAreBoundedInBytes(t *testing.T) {
	c := &conn.Conn{}
	p := &packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true, TopicAliasMaximum: 64}
	c.Connect(p)
	if _, r := c.Accept(p, conn.Admission{Identity: &tenancy.Identity{Tenant: &tenancy.Tenant{ID: "acme", Limits: tenancy.NoLimits()}, Grant: tenancy.DefaultGrant()}}); r.Reason.Failed() {
		t.Fatal(r.Text)
	}
	c.Receive(nil, nil, &link.DownFrame{Kind: link.DownOpened, Bytes: 1 << 20})
	kept := 0
	for i := range 64 {
		topic := append(bytes.Repeat([]byte("a"), 60_000), '/', byte('0'+i/10), byte('0'+i%10))
		out, _ := c.Receive(nil, &link.Down{Messages: []mqtt.Message{{Topic: topic}}}, &link.DownFrame{Kind: link.DownDeliver})
		var dec packet.Decoder
		var q packet.Packet
		if _, err := dec.Decode(out, packet.V5, 0, &q); err != nil {
			t.Fatal(err)
		}
		if q.Publish.HasTopicAlias {
			kept += len(topic)
		}
	}
	if kept == 0 || kept > 64<<10 {
		t.Errorf("the aliases keep %d bytes of topics", kept)
	}
}

// A tenant without a limit of packets has one of all but PUBLISH: what they are
// decoded to is many times their size.
func TestPacketMax(t *testing.T) {
	for _, tc := range []struct {
		size             int64
		publish, control int
	}{{-1, 0, 8 << 20}, {1 << 30, 1 << 30, 8 << 20}, {1 << 10, 1 << 10, 1 << 10}} {
		c, _ := accepted(t, 1<<20, tenancy.DefaultGrant(), func(l *tenancy.Limits) { l.PacketSize = tc.size })
		if got := c.PacketMax(packet.PUBLISH); got != tc.publish {
			t.Errorf("packet_size %d: a PUBLISH has at most %d bytes, expected %d", tc.size, got, tc.publish)
		}
		if got := c.PacketMax(packet.SUBSCRIBE); got != tc.control {
			t.Errorf("packet_size %d: a SUBSCRIBE has at most %d bytes, expected %d", tc.size, got, tc.control)
		}
	}
	// The header is enough to be refused.
	c, _ := accepted(t, 1<<20, tenancy.DefaultGrant(), nil)
	var dec packet.Decoder
	var p packet.Packet
	_, err := dec.Decode([]byte{0x82, 0xFF, 0xFF, 0xFF, 0x7F}, packet.V5, c.PacketMax(packet.SUBSCRIBE), &p)
	var e *packet.Error
	if !errors.As(err, &e) || e.Reason != mqtt.PacketTooLarge {
		t.Errorf("a SUBSCRIBE of 256 MiB: %v", err)
	}
}

// What a large read of small packets leads to is brought about in pieces.
func TestEffectsFillUp(t *testing.T) {
	grant, err := tenancy.NewGrant(1, []string{"ok"}, []string{"#"})
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]packet.Packet{
		"frames":  {Type: packet.PUBACK, Ack: packet.Ack{PacketID: 1}},
		"bytes":   {Type: packet.PINGREQ},
		"answers": {Type: packet.PUBLISH, Publish: packet.Publish{PacketID: 1, Message: mqtt.Message{Topic: []byte("no"), QoS: 1}}},
	} {
		c, _ := accepted(t, 1<<40, grant, nil)
		var fx conn.Effects
		n := 0
		for ; !fx.Full(); n++ {
			if n > 100_000 {
				t.Fatalf("%s: not full after %d packets", name, n)
			}
			c.Handle(&p, &fx)
		}
		if fx.Reset(); n == 0 || fx.Full() {
			t.Errorf("%s: full after %d packets, and still after Reset", name, n)
		}
	}
}
