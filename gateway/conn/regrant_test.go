// SPDX-License-Identifier: Apache-2.0

package conn_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

func granted(t testing.TB, entries ...tenancy.GrantEntry) *tenancy.Grant {
	t.Helper()
	s, err := tenancy.NewGrantSet(5, "test", entries)
	if err != nil {
		t.Fatal(err)
	}
	return s.Bind(&tenancy.Subject{ClientID: "c"})
}

func oneEntry(filter string, qos int) tenancy.GrantEntry {
	return tenancy.GrantEntry{Action: tenancy.ActionAll, Filter: filter, QoS: &qos}
}

// TestRegrant: after another grant deliveries are held to it, and the answers to what
// the gateway itself has asked for are not passed on.
func TestRegrant(t *testing.T) {
	c, _ := accepted(t, 1<<20, granted(t, oneEntry("a/#", 2)), nil)
	deliver := func(topic string) (out []byte, r conn.Result) {
		return c.Receive(nil, &link.Down{Messages: []mqtt.Message{{Topic: []byte(topic)}}}, &link.DownFrame{Kind: link.DownDeliver})
	}
	if out, r := deliver("b/1"); len(out) == 0 || r.Denied || c.MayHold() {
		t.Error("a clean session holds nothing that was not granted")
	}
	c.Regrant(granted(t, oneEntry("b/#", 1)))
	if out, r := deliver("a/1"); len(out) != 0 || !r.Denied || !c.MayHold() {
		t.Errorf("delivered %q, %+v", out, r)
	}
	if out, r := deliver("b/1"); len(out) == 0 || r.Denied {
		t.Errorf("what is granted was not delivered: %+v", r)
	}
	red := c.Reduce([]mqtt.Subscription{{Filter: "a/#"}, {Filter: "b/#", QoS: 2, NoLocal: true}, {Filter: "b/1", QoS: 1}, {Filter: "$share/g/+/x"}}, nil)
	want := conn.Reduction{
		Gone: []string{"a/#", "$share/g/+/x"}, Lower: []mqtt.Subscription{{Filter: "b/#", QoS: 1, NoLocal: true, RetainHandling: mqtt.RetainDontSend}},
	}
	if d := cmp.Diff(want, red); d != "" {
		t.Error(d)
	}
	for _, f := range red.Frames(7) {
		if f.Channel != 7 || f.PacketID != 0 || len(f.Subscribe)+len(f.Unsubscribe) == 0 {
			t.Errorf("frame %+v", f)
		}
	}
	for _, kind := range []link.DownKind{link.DownSuback, link.DownUnsuback} {
		if out, _ := c.Receive(nil, nil, &link.DownFrame{Kind: kind, Reasons: []mqtt.ReasonCode{0}}); len(out) != 0 {
			t.Errorf("frame %v of packet 0 was passed on", kind)
		}
		if out, _ := c.Receive(nil, nil, &link.DownFrame{Kind: kind, PacketID: 1, Reasons: []mqtt.ReasonCode{0}}); len(out) == 0 {
			t.Errorf("frame %v of the client was not passed on", kind)
		}
	}
}

// TestGrant_CapsQoS: a subscription is granted at no more than the grant allows, and
// what is noted of decisions is bounded.
func TestGrant_CapsQoS(t *testing.T) {
	c, _ := accepted(t, 1<<20, granted(t, oneEntry("a/#", 1)), nil)
	var fx conn.Effects
	c.Handle(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{
		{Filter: "a/1", QoS: 2}, {Filter: "b", QoS: 2}, {Filter: "a/2", QoS: 0},
	}}}, &fx)
	got := ""
	for _, s := range fx.Up.Frames[0].Subscribe {
		got += fmt.Sprintf("%s@%d ", s.Filter, uint8(s.QoS))
	}
	if got != "a/1@1 a/2@0 " {
		t.Errorf("asked the broker for %s", got)
	}
	fx.Reset()
	allowed, denied := 0, 0
	for i := range 600 {
		topic := []string{"a/x", "b"}[i%2]
		c.Handle(&packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{Message: mqtt.Message{Topic: []byte(topic)}}}, &fx)
		if len(fx.Decided) > 4 {
			t.Fatalf("%d decisions are noted", len(fx.Decided))
		}
		if i%10 == 9 {
			for _, d := range fx.Decided {
				if d.Allowed {
					allowed++
				} else {
					denied++
				}
			}
			fx.Reset()
		}
	}
	if allowed != 1 || denied < 200 {
		t.Errorf("noted %d that were allowed, and %d that were denied", allowed, denied)
	}
}

// Of publishes to one topic that are allowed the first of each 4,096 is noted.
func TestPublish_Sampled(t *testing.T) {
	c, _ := accepted(t, 1<<40, granted(t, oneEntry("a/#", 2)), nil)
	var fx conn.Effects
	var noted []int
	for i := range 10_000 {
		fx.Reset()
		c.Handle(&packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{Message: mqtt.Message{Topic: []byte("a/x")}}}, &fx)
		if len(fx.Decided) > 0 {
			noted = append(noted, i)
		}
	}
	if !slices.Equal(noted, []int{0, 4096, 8192}) {
		t.Errorf("expected the publishes 0, 4096 and 8192 to be noted, found %v", noted)
	}
}

// TestPublish_Memo: what is remembered of topics is that of the grant that holds.
func TestPublish_Memo(t *testing.T) {
	c, _ := accepted(t, 1<<40, granted(t, oneEntry("a/#", 1)), nil)
	var fx conn.Effects
	may := func(topic string, qos mqtt.QoS) bool {
		fx.Reset()
		c.Handle(&packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{PacketID: 1, Message: mqtt.Message{Topic: []byte(topic), QoS: qos}}}, &fx)
		return len(fx.Up.Frames) == 1
	}
	for range 3 {
		for i := range 40 {
			if !may(fmt.Sprintf("a/%d", i), 1) || may(fmt.Sprintf("a/%d", i), 2) || may(fmt.Sprintf("b/%d", i), 0) {
				t.Fatalf("topics %d are not what the grant says", i)
			}
		}
	}
	c.Regrant(granted(t, oneEntry("b/#", 2)))
	for i := range 40 {
		if may(fmt.Sprintf("a/%d", i), 0) || !may(fmt.Sprintf("b/%d", i), 2) {
			t.Fatalf("after another grant topics %d are what the old one says", i)
		}
	}
	// One after the other to a topic, up to where it has no place: another QoS, another name
	// of the same length, a longer and a shorter one.
	for _, length := range []int{1, 44, 45, 46, 47, 255, 256, 257, 300} {
		name := strings.Repeat("x", length-1)
		for _, row := range []struct {
			topic string
			qos   mqtt.QoS
			may   bool
		}{{"b/" + name, 1, true}, {"b/" + name, 2, true}, {"a/" + name, 0, false}, {"b/" + name, 2, true}, {"b/" + name + "y", 0, true}, {"b", 1, true}, {"a/" + name, 0, false}} {
			for range 2 {
				if may(row.topic, row.qos) != row.may {
					t.Fatalf("%q at QoS %d: expected that it may be published to: %v", row.topic, row.qos, row.may)
				}
			}
		}
	}
	c.Regrant(granted(t, oneEntry("b/#", 1)))
	for i := range 3 {
		if may("b/x", 2) || !may("b/x", 1) || may("b/x", 2) {
			t.Fatalf("round %d: QoS 2 is allowed, or 1 is not", i)
		}
	}
	c.Regrant(granted(t, oneEntry("b/#", 2)))
	// The limits on topics are those that hold, of long topics too.
	limited := func(levels int64) {
		tn := &tenancy.Tenant{ID: "acme", Limits: tenancy.NoLimits()}
		tn.Limits.TopicLevels = levels
		c.Change(conn.NewRules(tn, nil))
	}
	deep, long := "b/c/d/e", "b/"+strings.Repeat("x", 300)+"/d/e"
	for _, levels := range []int64{4, 3, 4} {
		limited(levels)
		for range 3 {
			if may(deep, 0) != (levels == 4) || may(long, 0) != (levels == 4) || !may("b/c", 0) || may("a/c", 0) {
				t.Fatalf("with %d levels topics are not held to them", levels)
			}
		}
	}
}

// BenchmarkPublish is what the machine does for one PUBLISH at QoS 0, under the
// default and under a policy with 200 entries.
func BenchmarkPublish(b *testing.B) {
	var entries []tenancy.GrantEntry
	for i := range 200 {
		e := tenancy.GrantEntry{Action: tenancy.ActionAll, Filter: fmt.Sprintf("site%d/dev/%%c/+/data", i)}
		if i%10 == 0 {
			e = tenancy.GrantEntry{Effect: tenancy.EffectDeny, Action: tenancy.ActionAll, Filter: fmt.Sprintf("site%d/dev/+/secret/#", i), Priority: 1}
		}
		entries = append(entries, e)
	}
	for _, row := range []struct {
		name   string
		grant  *tenancy.Grant
		topics int
	}{{"default", tenancy.DefaultGrant(), 1}, {"200-one-topic", granted(b, entries...), 1}, {"200-four-topics", granted(b, entries...), 4}, {"200-many-topics", granted(b, entries...), 1000}} {
		b.Run(row.name, func(b *testing.B) {
			g := row.grant
			c := &conn.Conn{}
			p := &packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true}
			c.Connect(p)
			c.Accept(p, conn.Admission{Identity: &tenancy.Identity{Tenant: &tenancy.Tenant{ID: "acme", Limits: tenancy.NoLimits()}, Grant: g}})
			c.Receive(nil, nil, &link.DownFrame{Kind: link.DownOpened, Bytes: 1 << 62})
			var fx conn.Effects
			in := packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{Message: mqtt.Message{Payload: make([]byte, 64)}}}
			topics := make([][]byte, row.topics)
			for i := range topics {
				topics[i] = fmt.Appendf(nil, "site%d/dev/c/temp%d/data", 100+(i*10+7)%100, i)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				in.Publish.Message.Topic = topics[i%len(topics)]
				c.Handle(&in, &fx)
				if len(fx.Up.Frames) != 1 {
					b.Fatal("not passed on")
				}
				fx.Reset()
			}
		})
	}
}
