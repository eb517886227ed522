// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

func TestQoS0(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		sub, pub := w.connect("sub"), w.connect("pub")
		sub.subscribe("a/+", 2)
		pub.publish(0, "a/b", "one", 0)
		r := sub.wantDeliver("one", 0)
		if string(r.msg.Topic) != "a/b" || r.PacketID != 0 || r.Retain {
			t.Fatalf("delivered %+v", r)
		}
		pub.publish(0, "a/b/c", "two", 0)
		sub.silent()
	})
}

func TestQoS1(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, o := range []option{clean, persistent} {
			sub, pub := w.connect("sub", o), w.connect("pub")
			sub.subscribe("t", 1)
			for i := range 50 {
				pub.publish(uint16(i+1), "t", fmt.Sprint(i), 1)
			}
			// The window is 20: the rest waits until acknowledgements come.
			for i := range 50 {
				r := sub.wantDeliver(fmt.Sprint(i), 1)
				if i < 20 && r.PacketID != uint16(i+1) {
					t.Fatalf("packet id %d, expected %d", r.PacketID, i+1)
				}
				sub.ack(mqtt.Puback, r.PacketID)
			}
			for i := range 50 {
				if reason := pub.wantAck(mqtt.Puback, uint16(i+1)); reason != mqtt.Success {
					t.Fatalf("PUBACK %s", reason)
				}
			}
			sub.silent()
		}
	})
}

func TestNoMatchingSubscribers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		pub := w.connect("pub")
		pub.publish(1, "nobody", "x", 1)
		if r := pub.wantAck(mqtt.Puback, 1); r != mqtt.NoMatchingSubscribers {
			t.Fatal(r)
		}
	})
}

func TestQoS2(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, o := range []option{clean, persistent} {
			sub, pub := w.connect("sub", o), w.connect("pub", o)
			sub.subscribe("t", 2)
			pub.publish(7, "t", "once", 2)
			pub.wantAck(mqtt.Pubrec, 7)
			pub.publish(7, "t", "once", 2) // duplicate: acknowledged, not routed [MQTT-4.3.3-10]
			pub.wantAck(mqtt.Pubrec, 7)
			pub.ack(mqtt.Pubrel, 7)
			pub.wantAck(mqtt.Pubcomp, 7)
			r := sub.wantDeliver("once", 2)
			sub.ack(mqtt.Pubrec, r.PacketID)
			sub.wantAck(mqtt.Pubrel, r.PacketID)
			sub.ack(mqtt.Pubcomp, r.PacketID)
			sub.silent()
			pub.ack(mqtt.Pubrel, 7)
			if reason := pub.wantAck(mqtt.Pubcomp, 7); reason != mqtt.PacketIdentifierNotFound {
				t.Fatal(reason)
			}
		}
	})
}

// What was acknowledged is there after the process is gone, in order, with the
// same packet identifiers and DUP [MQTT-4.4.0-1].
func TestRestart(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		sub := w.connect("sub", persistent, window(5))
		sub.subscribe("t/#", 2)
		pub := w.connect("pub", persistent)
		for i := range 10 {
			qos := mqtt.QoS(1 + i%2)
			pub.publish(uint16(i+1), "t/x", fmt.Sprint(i), qos)
		}
		acked := map[uint16]bool{}
		for range 10 {
			acked[pub.want(link.DownAck).PacketID] = true
		}
		first := map[string]uint16{}
		for range 5 {
			r := sub.want(link.DownDeliver)
			first[string(r.msg.Payload)] = r.PacketID
		}
		sub.ack(mqtt.Puback, first["0"])
		sub.ack(mqtt.Pubrec, first["1"])
		for k := link.DownKind(0); k != link.DownAck; { // PUBREL 1, with deliveries around it
			r, ok := sub.next(5 * time.Second)
			if !ok {
				t.Fatal("no PUBREL")
			}
			k = r.Kind
			if k == link.DownDeliver {
				first[string(r.msg.Payload)] = r.PacketID
			}
		}
		w.settle()
		w.restart(2)

		sub = w.open("sub", persistent, window(20))
		if r := sub.want(link.DownOpened); !r.SessionPresent {
			t.Fatal("no session present")
		}
		seen := map[string]bool{}
		var order []string
		released := false
		for len(seen) < 8 || !released {
			r, ok := sub.next(5 * time.Second)
			if !ok {
				t.Fatalf("nothing more after %v, released %v", order, released)
			}
			switch r.Kind {
			case link.DownAck:
				released = r.Ack == mqtt.Pubrel && r.PacketID == first["1"]
			case link.DownDeliver:
				p := string(r.msg.Payload)
				if id, ok := first[p]; ok && (id != r.PacketID || !r.Dup) || !ok && r.Dup {
					t.Fatalf("%s: id %d dup %v, first had %d", p, r.PacketID, r.Dup, id)
				}
				seen[p] = true
				order = append(order, p)
			}
		}
		for _, odd := range []int{0, 1} {
			var same []string
			for _, p := range order {
				if int(p[0]-'0')%2 == odd {
					same = append(same, p)
				}
			}
			if !slices.IsSorted(same) {
				t.Fatalf("order %v", order)
			}
		}
		// The publisher's QoS 2 duplicate is recognised after the restart.
		pub = w.connect("pub", persistent)
		pub.publish(2, "t/x", "1", 2)
		pub.wantAck(mqtt.Pubrec, 2)
		sub.silent()
	})
}

func TestTakeOver(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		watch := w.connect("watch")
		watch.subscribe("will/#", 0)
		one := w.connect("c", persistent, will("will/now", 0))
		one.subscribe("t", 1)
		two := w.open("c", persistent, will("will/late", 5))
		if r := one.want(link.DownClose); r.Reason != mqtt.SessionTakenOver {
			t.Fatal(r.Reason)
		}
		if r := two.want(link.DownOpened); !r.SessionPresent {
			t.Fatal("session not present")
		}
		watch.wantDeliver("gone", 0)
		one.close(link.CloseLost) // the gateway's close for the old channel changes nothing
		pub := w.connect("pub")
		pub.publish(1, "t", "x", 1)
		two.wantDeliver("x", 1)
		two.ack(mqtt.Puback, 1)
		// A takeover without Clean Start cancels a delayed will; one with it
		// ends the session, so the will goes out [MQTT-3.1.4-3].
		three := w.connect("c", persistent, will("will/late", 5))
		two.want(link.DownClose)
		watch.silent()
		w.connect("c", clean)
		three.want(link.DownClose)
		watch.wantDeliver("gone", 0)
	})
}

func TestWill(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		watch := w.connect("watch")
		watch.subscribe("w/#", 0)
		w.connect("a", will("w/a", 0)).close(link.CloseNormal)
		w.connect("b", will("w/b", 0)).close(link.CloseLost)
		if r := watch.wantDeliver("gone", 0); string(r.msg.Topic) != "w/b" {
			t.Fatalf("%s", r.msg.Topic)
		}
		w.connect("c", persistent, will("w/c", 10)).close(link.CloseWithWill)
		watch.silent()
		w.clock.Add(9_000)
		watch.silent()
		w.clock.Add(2_000)
		if r := watch.wantDeliver("gone", 0); string(r.msg.Topic) != "w/c" {
			t.Fatalf("%s", r.msg.Topic)
		}
		// The session ends before the delay: the will goes with it.
		w.connect("d", expiry(3), will("w/d", 10)).close(link.CloseLost)
		w.settle()
		w.clock.Add(4_000)
		watch.wantDeliver("gone", 0)
	})
}

// A connection that was open when the broker died has lost its network: its
// will goes out after the restart, also that of a session without expiry.
func TestWillAfterRestart(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		watch := w.connect("watch", persistent)
		watch.subscribe("w/#", 1)
		w.connect("a", will("w/a", 0))
		w.connect("b", persistent, will("w/b", 2))
		w.settle()
		w.restart(2)
		watch = w.connect("watch", persistent)
		if r := watch.wantDeliver("gone", 1); string(r.msg.Topic) != "w/a" {
			t.Fatalf("%s", r.msg.Topic)
		}
		w.clock.Add(3_000)
		if r := watch.wantDeliver("gone", 1); string(r.msg.Topic) != "w/b" {
			t.Fatalf("%s", r.msg.Topic)
		}
	})
}

func TestSessionExpiry(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		c := w.connect("c", expiry(10))
		c.subscribe("t", 1)
		c.close(link.CloseLost)
		w.settle()
		w.clock.Add(9_000)
		c = w.open("c", func(o *link.Open) { o.CleanStart, o.SessionExpiry = false, 10 })
		if r := c.want(link.DownOpened); !r.SessionPresent {
			t.Fatal("expired too early")
		}
		c.close(link.CloseLost)
		w.settle()
		w.clock.Add(11_000)
		for end := time.Now().Add(5 * time.Second); w.set.Tenant("acme").sessions.Load() != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("session did not expire")
			}
		}
		c = w.open("c", func(o *link.Open) { o.CleanStart, o.SessionExpiry = false, 10 })
		if r := c.want(link.DownOpened); r.SessionPresent {
			t.Fatal("session present after expiry")
		}
		if n := w.set.Tenant("acme").routes.Len(); n != 0 {
			t.Fatalf("%d routes left", n)
		}
	})
}

func TestRetained(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		pub := w.connect("pub")
		pub.retain(1, "r/1", "one", 1)
		pub.wantAck(mqtt.Puback, 1)
		pub.retain(0, "r/2", "two", 0)
		pub.retain(2, "r/3", "three", 2)
		pub.wantAck(mqtt.Pubrec, 2)
		pub.retain(3, "r/2", "", 1)
		pub.wantAck(mqtt.Puback, 3)
		w.settle()
		w.restart(2)
		sub := w.connect("sub")
		sub.subscribe("r/#", 2)
		got := map[string]mqtt.QoS{}
		for range 2 {
			r := sub.want(link.DownDeliver)
			if !r.Retain {
				t.Fatal("RETAIN not set")
			}
			got[string(r.msg.Payload)] = r.QoS
		}
		if got["one"] != 1 || got["three"] != 2 {
			t.Fatalf("QoS of the publish is not kept: %v", got)
		}
		sub.silent()
		sub.subscribe("r/#", 2, func(s *mqtt.Subscription) { s.RetainHandling = mqtt.RetainSendIfNew })
		sub.silent()
		sub.subscribe("r/1", 0, func(s *mqtt.Subscription) { s.RetainHandling = mqtt.RetainSendIfNew })
		sub.wantDeliver("one", 0)
	})
}

// A replay of many retained messages is as fast as its reader and loses none.
func TestRetainedReplayIsPaced(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		pub := w.connect("pub")
		const n = 1000
		for i := range n {
			pub.retain(uint16(i+1), fmt.Sprintf("r/%d", i), strings.Repeat("x", 100), 1)
			pub.wantAck(mqtt.Puback, uint16(i+1))
		}
		for _, qos := range []mqtt.QoS{0, 1} {
			sub := w.connect("sub", credit(2000), queueLimit(10))
			sub.subscribe("r/#", qos)
			granted := uint64(2000)
			seen := map[string]bool{}
			for len(seen) < n {
				r, ok := sub.next(20 * time.Millisecond)
				if !ok {
					granted += 5000
					sub.send(link.UpFrame{Kind: link.UpCredit, Bytes: granted})
					continue
				}
				if seen[string(r.msg.Topic)] {
					t.Fatalf("%s came twice", r.msg.Topic)
				}
				seen[string(r.msg.Topic)] = true
				if qos > 0 {
					sub.ack(mqtt.Puback, r.PacketID)
				}
			}
			sub.silent()
		}
	})
}

func TestMessageExpiry(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		sub := w.connect("sub", persistent)
		sub.subscribe("t", 1)
		sub.close(link.CloseLost)
		pub := w.connect("pub")
		for i, e := range []uint32{5, 60} {
			m := message("t", fmt.Sprint(e), 1, false)
			m.HasExpiry, m.Expiry = true, e
			pub.send(link.UpFrame{Kind: link.UpPublish, PacketID: uint16(i + 1), Message: m})
			pub.wantAck(mqtt.Puback, uint16(i+1))
		}
		w.settle()
		w.restart(2)
		w.clock.Add(10_000)
		sub = w.connect("sub", persistent)
		r := sub.wantDeliver("60", 1)
		if !r.msg.HasExpiry || r.msg.Expiry != 50 { // [MQTT-3.3.2-6]
			t.Fatalf("expiry %d", r.msg.Expiry)
		}
	})
}

func TestOverlappingSubscriptions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		sub, pub := w.connect("sub"), w.connect("pub")
		sub.subscribe("a/#", 0, func(s *mqtt.Subscription) { s.ID = 3 })
		sub.subscribe("a/b", 1, func(s *mqtt.Subscription) { s.ID = 4; s.RetainAsPublished = true })
		sub.subscribe("+/b", 0, func(s *mqtt.Subscription) { s.NoLocal = true })
		pub.retain(1, "a/b", "x", 2)
		r := sub.wantDeliver("x", 1)
		slices.Sort(r.SubscriptionIDs)
		if !slices.Equal(r.SubscriptionIDs, []uint32{3, 4}) || !r.Retain {
			t.Fatalf("ids %v retain %v", r.SubscriptionIDs, r.Retain)
		}
		sub.silent()
		// No Local [MQTT-3.8.3-3].
		sub.publish(0, "z/b", "mine", 0)
		sub.silent()
	})
}

func TestQueueLimit(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		sub := w.connect("sub", persistent, queueLimit(10))
		sub.subscribe("t", 1)
		sub.close(link.CloseLost)
		pub := w.connect("pub")
		for i := range 25 {
			pub.publish(uint16(i+1), "t", fmt.Sprint(i), 1)
			pub.wantAck(mqtt.Puback, uint16(i+1))
		}
		var dropped uint64
		w.set.Stats(func(s *Stats) { dropped += s.drops[dropQueueFull].Load() })
		if dropped != 15 {
			t.Fatalf("%d dropped, expected 15", dropped)
		}
		sub = w.connect("sub", persistent)
		for i := range 10 {
			sub.wantDeliver(fmt.Sprint(i), 1)
		}
		sub.silent()
	})
}

// A reader that stalls gets everything at QoS 1 when it reads again: what does
// not fit in memory waits in the store, for clean sessions too.
func TestSlowReaderSpills(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, o := range []option{clean, persistent} {
			sub, pub := w.connect("sub", o, credit(10)), w.connect("pub")
			sub.subscribe("t", 1)
			const n, size = 600, 8 << 10
			pad := strings.Repeat(".", size)
			for i := range n {
				pub.publish(uint16(i+1), "t", fmt.Sprintf("%d%s", i, pad), 1)
				pub.wantAck(mqtt.Puback, uint16(i+1))
			}
			granted := uint64(10)
			for i := 0; i < n; {
				r, ok := sub.next(time.Millisecond)
				if !ok {
					granted += 20 * size
					sub.send(link.UpFrame{Kind: link.UpCredit, Bytes: granted})
					if granted > 100*n*size {
						t.Fatalf("message %d does not come", i)
					}
					continue
				}
				if want := fmt.Sprintf("%d%s", i, pad); string(r.msg.Payload) != want {
					t.Fatalf("message %.10q in place of %d", r.msg.Payload, i)
				}
				sub.ack(mqtt.Puback, r.PacketID)
				i++
			}
			sub.close(link.CloseNormal)
		}
	})
}

func TestSharedSubscription(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		pub := w.connect("pub")
		var members []*client
		for i := range 4 {
			m := w.connect(fmt.Sprint("m", i))
			m.subscribe("$share/g/t/#", 1)
			members = append(members, m)
		}
		for i := range 40 {
			pub.publish(uint16(i+1), "t/x", fmt.Sprint(i), 1)
		}
		for i := range 40 {
			pub.wantAck(mqtt.Puback, uint16(i+1))
		}
		w.settle()
		total := 0
		for _, m := range members {
			n := 0
			for r, ok := m.next(0); ok; r, ok = m.next(0) {
				if r.Kind == link.DownDeliver {
					n++
				}
			}
			if n != 10 {
				t.Errorf("a member got %d of 40", n)
			}
			total += n
		}
		if total != 40 {
			t.Fatalf("%d deliveries of 40 messages", total)
		}
	})
}

// What a member leaves unacknowledged goes to another one.
func TestSharedRedelivery(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, o := range []option{clean, persistent} {
			pub := w.connect("pub")
			a := w.connect("a", o, window(3))
			a.subscribe("$share/g/t", 1)
			for i := range 8 {
				pub.publish(uint16(i+1), "t", fmt.Sprint(i), 1)
				pub.wantAck(mqtt.Puback, uint16(i+1))
			}
			for i := range 3 {
				a.wantDeliver(fmt.Sprint(i), 1)
			}
			a.ack(mqtt.Puback, 1)
			a.wantDeliver("3", 1)
			b := w.connect("b", o)
			b.subscribe("$share/g/t", 1)
			w.settle()
			a.close(link.CloseLost)
			got := map[string]bool{}
			for range 7 {
				r := b.want(link.DownDeliver)
				got[string(r.msg.Payload)] = true
				b.ack(mqtt.Puback, r.PacketID)
			}
			if len(got) != 7 || got["0"] {
				t.Fatalf("redelivered %v", got)
			}
			b.silent()
			b.close(link.CloseNormal)
			w.connect("a", clean).close(link.CloseNormal)
			w.connect("b", clean).close(link.CloseNormal)
		}
	})
}

// An exact publish reaches every session once, whichever filters lead to it and
// in whichever partitions they are.
func TestExactFanOut(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var subs []*client
		for i := range 24 {
			c := w.connect(fmt.Sprint("s", i), persistent)
			for k, f := range []string{"t/#", "t/+", "t/x", "+/x"} {
				if i&(1<<k) != 0 || i%5 == k {
					c.subscribe(f, 2)
				}
			}
			if len(w.filters(fmt.Sprint("s", i))) == 0 {
				c.subscribe("#", 2)
			}
			subs = append(subs, c)
		}
		member := w.connect("member", persistent)
		member.subscribe("$share/g/t/x", 2)
		pub := w.connect("pub", persistent)
		for i := range 5 {
			pub.publish(uint16(i+1), "t/x", fmt.Sprint(i), 2)
			pub.wantAck(mqtt.Pubrec, uint16(i+1))
		}
		for _, c := range append(subs, member) {
			for i := range 5 {
				c.wantDeliver(fmt.Sprint(i), 2)
			}
			c.silent()
		}
		for i := range w.set.shards {
			it := w.store.Scan(nil, nil)
			for it.Next() {
				if it.Key()[2] == 'o' {
					t.Errorf("shard %d: an outbox record is left", i)
				}
			}
			it.Close()
		}
	})
}

func TestTenantsDoNotMeet(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a, b := w.connect("same", inTenant("one")), w.connect("same", inTenant("two"))
		a.subscribe("#", 1)
		b.subscribe("#", 1)
		a.retain(1, "t", "for one", 1)
		a.wantDeliver("for one", 1)
		b.silent()
		c := w.connect("late", inTenant("two"))
		c.subscribe("#", 1)
		c.silent()
	})
}

func TestLinkLost(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		watch := w.connect("watch")
		watch.subscribe("w", 0)
		first := w.link
		w.gw, w.link = w.attach()
		w.connect("a", will("w", 0))
		if err := w.link.Close(); err != nil {
			t.Fatal(err)
		}
		w.link = first
		watch.wantDeliver("gone", 0)
	})
}
