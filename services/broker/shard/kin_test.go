// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

var (
	multiple = with(func(s *link.Settings) { s.Multiple = true })
	balanced = with(func(s *link.Settings) { s.Multiple, s.Balance = true, true })
)

// Each connection of a client id gets every message; whatever one of them
// subscribes to, all have.
func TestKin_Fanout(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.connect("c", persistent, multiple)
		a.subscribe("t", 1)
		b := w.open("c", persistent, multiple)
		if r := b.want(link.DownOpened); !r.SessionPresent {
			t.Error("the second connection was told of no session")
		}
		pub := w.connect("pub")
		pub.publishAll("t", 1)
		for _, c := range []*client{a, b} {
			c.ack(mqtt.Puback, c.wantDeliver("0", 1).PacketID)
		}
		b.subscribe("u", 0)
		a.silent() // it has not asked
		pub.publish(0, "u", "x", 0)
		for _, c := range []*client{a, b} {
			c.wantDeliver("x", 0)
		}
		// A group has the client id as one member, whose connections get it all.
		b.subscribe("$share/g/s", 1)
		pub.publish(2, "s", "shared", 1)
		for _, c := range []*client{a, b} {
			c.ack(mqtt.Puback, c.wantDeliver("shared", 1).PacketID)
		}
		pub.wantAck(mqtt.Puback, 2)
		// Who closes ends; the head has closed here, and the other goes on.
		a.close(link.CloseLost)
		w.settle()
		pub.publish(3, "t", "one", 1)
		b.ack(mqtt.Puback, b.wantDeliver("one", 1).PacketID)
		pub.wantAck(mqtt.Puback, 3)
		pub.publish(4, "s", "group", 1)
		b.ack(mqtt.Puback, b.wantDeliver("group", 1).PacketID)
		pub.wantAck(mqtt.Puback, 4)
		b.send(link.UpFrame{Kind: link.UpUnsubscribe, PacketID: 9, Unsubscribe: []string{"u"}})
		b.want(link.DownUnsuback)
		if got := w.filters("c"); len(got) != 2 {
			t.Errorf("filters %v", got)
		}
		// The last one leaves the session.
		b.close(link.CloseLost)
		w.settle()
		pub.publish(5, "t", "offline", 1)
		pub.wantAck(mqtt.Puback, 5)
		c := w.open("c", persistent, multiple)
		if r := c.want(link.DownOpened); !r.SessionPresent {
			t.Error("the session is gone")
		}
		c.ack(mqtt.Puback, c.wantDeliver("offline", 1).PacketID)
		c.silent()
		if u := w.set.Tenant("acme").Usage(); u.PersistentSessions != 1 || u.Subscriptions != 2 || u.QueueMessages != 0 {
			t.Errorf("usage %+v", u)
		}
	})
}

// One of the connections gets each message; what one that closes has not
// acknowledged goes to the others.
func TestKin_Balance(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, kind := range []option{persistent, clean} {
			a := w.connect("c", kind, balanced)
			a.subscribe("t", 2)
			b := w.connect("c", kind, balanced, window(1))
			pub := w.connect("pub")
			pub.publishAll("t", 6)
			pub.publish(7, "t", "exact", 2)
			pub.wantAck(mqtt.Pubrec, 7)
			w.settle()
			got := map[string]int{}
			take := func(c *client) (ids []uint16) {
				for {
					r, ok := c.next(0)
					if !ok {
						return ids
					}
					if r.Kind == link.DownDeliver {
						got[string(r.msg.Payload)]++
						ids = append(ids, r.PacketID)
					}
				}
			}
			if n := len(take(a)); n < 3 || n > 4 {
				t.Errorf("%d of 7 went to one connection", n)
			}
			if n := len(take(b)); n != 1 { // its window
				t.Errorf("%d went to the other", n)
			}
			b.close(link.CloseLost)
			w.settle()
			take(a)
			for i := range 6 {
				if n := got[fmt.Sprint(i)]; n < 1 {
					t.Errorf("message %d came %d times", i, n)
				}
			}
			if got["exact"] < 1 {
				t.Error("the message of QoS 2 did not come")
			}
			a.close(link.CloseNormal)
			w.settle()
			w.connect("c", clean).close(link.CloseNormal) // which ends it
			w.settle()
			if u := w.set.Tenant("acme").Usage(); u.QueueMessages != 0 || u.Subscriptions != 0 {
				t.Errorf("usage %+v", u)
			}
		}
	})
}

// Without the setting a client id has one connection, also if it had several.
func TestKin_TakeOver(t *testing.T) {
	each(t, func(_ *testing.T, w *world) {
		a, b := w.connect("c", persistent, multiple), w.connect("c", persistent, multiple)
		b.subscribe("t", 1)
		c := w.connect("c", persistent)
		for _, x := range []*client{a, b} {
			if r := x.want(link.DownClose); r.Reason != mqtt.SessionTakenOver {
				w.t.Errorf("closed with %v", r.Reason)
			}
		}
		pub := w.connect("pub")
		pub.publishAll("t", 1)
		c.wantDeliver("0", 1)
		c.silent()
	})
}

// No Local is about the client id, not about the connection.
func TestKin_MQTT_3_8_3_3_NoLocal(t *testing.T) {
	each(t, func(_ *testing.T, w *world) {
		a := w.connect("c", multiple)
		a.subscribe("t", 0, func(s *mqtt.Subscription) { s.NoLocal = true })
		b := w.connect("c", multiple)
		b.publish(0, "t", "own", 0)
		a.publish(0, "t", "own", 0)
		a.silent()
		b.silent()
	})
}

// After a crash with several connections one session is left, with everything
// that was acknowledged to publishers and not by the client.
func TestKin_Crash(t *testing.T) {
	for name, mode := range map[string]option{"fanout": multiple, "balance": balanced} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2, false)
			a := w.connect("c", persistent, mode, window(2))
			a.subscribe("t", 1)
			w.connect("c", persistent, mode, window(2))
			w.connect("c", persistent, mode, window(2))
			w.connect("pub").publishAll("t", 20)
			w.restart(3)
			c := w.open("c", persistent, mode)
			if r := c.want(link.DownOpened); !r.SessionPresent {
				t.Fatal("no session")
			}
			w.settle()
			got := map[string]int{}
			for r, ok := c.next(0); ok; r, ok = c.next(0) {
				got[string(r.msg.Payload)]++
				c.ack(mqtt.Puback, r.PacketID)
				w.settle()
			}
			for i := range 20 {
				if got[fmt.Sprint(i)] != 1 {
					t.Errorf("message %d came %d times", i, got[fmt.Sprint(i)])
				}
			}
			if u := w.set.Tenant("acme").Usage(); u.PersistentSessions != 1 || u.Subscriptions != 1 || u.QueueMessages != 0 {
				t.Errorf("usage %+v", u)
			}
			// And nothing of the others is left in the store.
			c.close(link.CloseNormal)
			w.settle()
			w.connect("c", clean).close(link.CloseNormal)
			w.settle()
			it := w.store.Scan(nil, nil)
			defer it.Close()
			for it.Next() {
				if k := it.Key(); len(k) > 2 && (k[2] == 's' || k[2] == 'f' || k[2] == 'q' || k[2] == 'i' || k[2] == 'b') {
					t.Errorf("left behind: %q", k)
				}
			}
		})
	}
}

// What is not in memory and not yet committed is handed over when it is.
func TestKin_BalanceUncommitted(t *testing.T) {
	w := newWorld(t, 1, false)
	a := w.connect("c", persistent, balanced)
	a.subscribe("t", 1)
	b := w.connect("c", persistent, balanced, window(1))
	pub := w.connect("pub")
	up := &link.Up{}
	const n = 100 // of 4 KiB: more than the queue of b has in memory
	for i := range n {
		up.Frames = append(up.Frames, link.UpFrame{
			Kind: link.UpPublish, Channel: pub.id, PacketID: uint16(i + 1), Message: message("t", fmt.Sprintf("%04096d", i), 1, false),
		})
	}
	up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpClose, Channel: b.id, Close: &link.Close{Cause: link.CloseLost}})
	if err := w.link.Send(up); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for len(got) < n-1 { // the one that b had in flight comes, too
		r := a.want(link.DownDeliver)
		got[string(r.msg.Payload)] = true
		a.ack(mqtt.Puback, r.PacketID)
	}
}

// Whatever comes and goes: in balance every message is delivered at least once,
// and the counts come back to nothing.
func TestKin_BalanceRandom(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			w := newWorld(t, 2, false)
			var open []*client
			got := map[string]int{}
			collect := func(c *client, ack bool) {
				for x, ok := c.next(0); ok; x, ok = c.next(0) {
					if x.Kind == link.DownDeliver && ack {
						got[string(x.msg.Payload)]++
						c.ack(mqtt.Puback, x.PacketID)
					}
				}
			}
			add := func() {
				c := w.connect("c", persistent, balanced, window(uint16(1+r.IntN(3))))
				open = append(open, c)
			}
			add()
			open[0].subscribe("t", 1)
			pub := w.connect("pub")
			n := 0
			for range 60 {
				switch k := r.IntN(6); {
				case k == 0 && len(open) < 4:
					add()
				case k == 1 && len(open) > 0:
					i := r.IntN(len(open))
					w.settle()
					collect(open[i], r.IntN(2) == 0)
					open[i].close(link.CloseLost)
					open = append(open[:i], open[i+1:]...)
					w.settle()
				case k == 2 && len(open) > 0:
					w.settle()
					collect(open[r.IntN(len(open))], true)
				default:
					n++
					pub.publish(uint16(n), "t", fmt.Sprint(n), 1)
					pub.wantAck(mqtt.Puback, uint16(n))
				}
			}
			if len(open) == 0 {
				add()
			}
			for range n {
				w.settle()
				for _, c := range open {
					collect(c, true)
				}
			}
			for i := 1; i <= n; i++ {
				if got[fmt.Sprint(i)] < 1 {
					t.Errorf("message %d did not come", i)
				}
			}
			w.settle()
			if u := w.set.Tenant("acme").Usage(); u.QueueMessages != 0 || u.Subscriptions != 1 || u.Connections != int64(len(open))+1 {
				t.Errorf("usage %+v with %d open", u, len(open))
			}
		})
	}
}
