// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

func with(f func(s *link.Settings)) option {
	return func(o *link.Open) { f(&o.Limits.Settings) }
}

// change tells the broker what holds for the channel from now on.
func (c *client) change(f func(l *link.NewLimits)) {
	c.w.t.Helper()
	l := &link.NewLimits{SessionExpiry: 3600, Limits: unlimited}
	f(l)
	c.send(link.UpFrame{Kind: link.UpLimits, Limits: l})
}

// publishAll publishes "0" to "n-1" to topic at QoS 1 and waits for the answers.
func (c *client) publishAll(topic string, n int) {
	c.w.t.Helper()
	for i := range n {
		c.publish(uint16(i+1), topic, fmt.Sprint(i), 1)
		c.wantAck(mqtt.Puback, uint16(i+1))
	}
}

// A lifo gives the newest first and drops the oldest, also after a restart.
func TestSettings_LIFO(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
			w := newWorld(t, 2, false)
			lifo := with(func(s *link.Settings) { s.LIFO = true })
			sub := w.connect("sub", persistent, lifo, queueLimit(3))
			sub.subscribe("t", 1)
			sub.close(link.CloseLost)
			w.settle()
			w.connect("pub").publishAll("t", 5)
			if restart {
				w.restart(3)
				w.connect("pub2").publish(0, "x", "", 0)
			}
			sub = w.connect("sub", persistent, lifo, window(1))
			for i, want := range []string{"4", "3", "2"} {
				r := sub.wantDeliver(want, 1)
				if i == 0 {
					// What comes while others wait goes before them.
					pub := w.connect("pub3")
					pub.publish(1, "t", "new", 1)
					pub.wantAck(mqtt.Puback, 1)
				}
				sub.ack(mqtt.Puback, r.PacketID)
				if i == 0 {
					r = sub.wantDeliver("new", 1)
					sub.ack(mqtt.Puback, r.PacketID)
				}
			}
			sub.silent()
			drops := uint64(0)
			w.set.Stats(func(s *Stats) { drops += s.drops[dropQueueFull].Load() })
			if want := uint64(2); !restart && drops != want {
				t.Errorf("%d dropped, expected %d", drops, want)
			}
		})
	}
}

// A fifo has the oldest first and refuses the newest.
func TestSettings_OnlineMessages(t *testing.T) {
	each(t, func(_ *testing.T, w *world) {
		few := with(func(s *link.Settings) { s.OnlineMessages = 2 })
		sub := w.connect("sub", persistent, few, window(1))
		sub.subscribe("t", 1)
		pub := w.connect("pub")
		pub.publishAll("t", 5) // one is in flight, two wait
		for _, want := range []string{"0", "1", "2"} {
			r := sub.wantDeliver(want, 1)
			sub.ack(mqtt.Puback, r.PacketID)
		}
		sub.silent()
		// Without a connection queue_messages holds; what is too much when it comes
		// back goes, unless that is to be kept.
		for _, keep := range []bool{false, true} {
			sub.close(link.CloseLost)
			w.settle()
			pub.publishAll("t", 5)
			sub = w.connect("sub", persistent, window(1), with(func(s *link.Settings) { s.OnlineMessages, s.KeepOffline = 2, keep }))
			wanted := []string{"0", "1", "2", "3", "4"}
			if !keep {
				wanted = wanted[:2]
			}
			for _, want := range wanted {
				r := sub.wantDeliver(want, 1)
				sub.ack(mqtt.Puback, r.PacketID)
			}
			sub.silent()
		}
		// A change reaches the live session.
		sub.change(func(l *link.NewLimits) { l.Limits.QueueMessages = 1 })
		pub.publishAll("t", 5)
		for _, want := range []string{"0", "1", "2", "3", "4"} { // Inflight is unbounded now, but the Receive Maximum is not
			r, ok := sub.next(0)
			if !ok {
				break
			}
			if string(r.msg.Payload) != want {
				w.t.Fatalf("got %q", r.msg.Payload)
			}
			sub.ack(mqtt.Puback, r.PacketID)
			w.settle()
		}
		sub.silent()
	})
}

func TestSettings_Inflight(t *testing.T) {
	each(t, func(_ *testing.T, w *world) {
		sub := w.connect("sub", with(func(s *link.Settings) { s.Inflight = 1 }))
		sub.subscribe("t", 2)
		pub := w.connect("pub")
		pub.publishAll("t", 3)
		first := sub.wantDeliver("0", 1)
		sub.silent()
		sub.change(func(l *link.NewLimits) { l.Limits.Settings.Inflight = 2 })
		second := sub.wantDeliver("1", 1)
		sub.silent()
		sub.ack(mqtt.Puback, first.PacketID)
		sub.wantDeliver("2", 1)
		sub.ack(mqtt.Puback, second.PacketID)
		sub.silent()
	})
}

// Deliveries have the subscription's QoS: live, queued, shared and retained, and
// a change reaches routes that are there.
func TestSettings_UpgradeQoS(t *testing.T) {
	each(t, func(_ *testing.T, w *world) {
		pub := w.connect("pub")
		pub.retain(1, "r", "kept", 1)
		pub.wantAck(mqtt.Puback, 1)
		up := with(func(s *link.Settings) { s.UpgradeQoS = true })
		sub := w.connect("sub", persistent, up)
		sub.subscribe("t", 1)
		sub.subscribe("$share/g/s", 2)
		sub.subscribe("r", 2)
		sub.ack(mqtt.Pubrec, sub.wantDeliver("kept", 2).PacketID)
		sub.want(link.DownAck)
		sub.close(link.CloseLost)
		w.settle()
		pub.publish(0, "t", "offline", 0)
		w.settle()
		sub = w.connect("sub", persistent, up)
		sub.want(link.DownAck) // the PUBREL again
		sub.ack(mqtt.Puback, sub.wantDeliver("offline", 1).PacketID)
		pub.publish(0, "s", "shared", 0)
		sub.wantDeliver("shared", 2)
		sub.change(func(l *link.NewLimits) { l.Limits.Settings.UpgradeQoS = false })
		w.settle()
		pub.publish(0, "t", "as it is", 0)
		sub.wantDeliver("as it is", 0)
		sub.change(func(l *link.NewLimits) { l.Limits.Settings.UpgradeQoS = true })
		w.settle()
		pub.publish(0, "t", "upgraded", 0)
		sub.wantDeliver("upgraded", 1)
	})
}

// 3.x: what a client does not acknowledge comes again, for a session that is
// stored and for one that is not; a change reaches both.
func TestSettings_Retry(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		retry := with(func(s *link.Settings) { s.Retry = 5 })
		for i, kind := range []option{persistent, clean} {
			topic := fmt.Sprint("t", i)
			sub := w.connect("sub"+topic, kind, retry)
			sub.subscribe(topic, 2)
			pub := w.connect("pub" + topic)
			pub.publish(1, topic, "a", 1)
			pub.publish(2, topic, "b", 2)
			a, b := sub.wantDeliver("a", 1), sub.wantDeliver("b", 2)
			w.settle()
			w.clock.Add(5200)
			again := sub.wantDeliver("a", 1)
			if !again.Dup || again.PacketID != a.PacketID {
				t.Errorf("again: %+v", again.DownFrame)
			}
			if again = sub.wantDeliver("b", 2); !again.Dup || again.PacketID != b.PacketID {
				t.Errorf("again: %+v", again.DownFrame)
			}
			sub.ack(mqtt.Puback, a.PacketID)
			sub.ack(mqtt.Pubrec, b.PacketID)
			sub.wantAck(mqtt.Pubrel, b.PacketID)
			w.settle()
			w.clock.Add(5200)
			sub.wantAck(mqtt.Pubrel, b.PacketID)
			sub.change(func(*link.NewLimits) {})
			w.settle()
			w.clock.Add(60_000)
			sub.silent()
			sub.ack(mqtt.Pubcomp, b.PacketID)
			sub.silent()
		}
	})
}

func TestSettings_QuietTakeover(t *testing.T) {
	each(t, func(_ *testing.T, w *world) {
		watch := w.connect("watch")
		watch.subscribe("gone", 0)
		quiet := with(func(s *link.Settings) { s.QuietTakeover = true })
		w.connect("a", will("gone", 0))
		w.connect("a", will("gone", 0), quiet)
		w.settle()
		watch.silent()
		w.connect("a", clean)
		watch.wantDeliver("gone", 0)
	})
}

func TestSettings_SharePolicy(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var subs []*client
		for i := range 5 {
			c := w.connect(fmt.Sprint("m", i))
			c.subscribe("$share/g/#", 0)
			subs = append(subs, c)
		}
		count := func() (members int) {
			w.settle()
			for _, c := range subs {
				if _, ok := c.next(0); ok {
					members++
					for ok {
						_, ok = c.next(0)
					}
				}
			}
			return members
		}
		send := func(c *client, topics int) {
			for i := range 40 {
				c.publish(0, fmt.Sprint("t", i%topics), "x", 0)
			}
		}
		sticky := with(func(s *link.Settings) { s.Share = link.ShareStickyPublisher })
		pub := w.connect("pub", sticky)
		send(pub, 40)
		if n := count(); n != 1 {
			t.Errorf("one publisher went to %d members", n)
		}
		// The publisher's change reaches its next message.
		pub.change(func(l *link.NewLimits) { l.Limits.Settings.Share = link.ShareStickyTopic })
		send(pub, 1)
		if n := count(); n != 1 {
			t.Errorf("one topic went to %d members", n)
		}
		for _, p := range []link.SharePolicy{link.ShareRoundRobin, link.ShareRandom, link.SharePreferLocal, link.ShareLocalOnly, link.ShareOnlineBeforeLocal} {
			pub.change(func(l *link.NewLimits) { l.Limits.Settings.Share = p })
			send(pub, 1)
			if n := count(); n < 3 {
				t.Errorf("%v: 40 messages went to %d members", p, n)
			}
		}
	})
}

// The tenant's cap of the session expiry reaches a session with a connection.
func TestSettings_Expiry(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		c := w.connect("c", persistent)
		c.change(func(l *link.NewLimits) { l.SessionExpiry = 10 })
		w.settle()
		c.close(link.CloseLost)
		w.settle()
		w.clock.Add(11_000)
		for end := time.Now().Add(5 * time.Second); w.set.Ask(&link.Query{Kind: link.QueryClient, Tenant: "acme", ClientID: "c"}).Found; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the session is still there")
			}
		}
	})
}
