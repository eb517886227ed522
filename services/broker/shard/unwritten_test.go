// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// recorded is a world whose commits are counted, with a stored session that is
// subscribed to t and a publisher. Nothing is written before delay.
func recorded(t *testing.T, shards int, delay time.Duration) (w *world, rec *recorder, sub, pub *client) {
	w = newWorld(t, shards, false)
	w.stop()
	rec = &recorder{Store: mem.New()}
	w.store, w.delay = rec, delay
	w.start(shards)
	sub, pub = w.connect("sub", persistent), w.connect("pub")
	sub.subscribe("t", 1)
	w.settle()
	return w, rec, sub, pub
}

func bothPlaces(t *testing.T, f func(t *testing.T, shards int)) {
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprintf("shards=%d", shards), func(t *testing.T) { f(t, shards) })
	}
}

// What is acknowledged in time is never written, and its PUBACK comes with the
// acknowledgement, not before.
func TestUnwritten_AcknowledgedInTime(t *testing.T) {
	bothPlaces(t, func(t *testing.T, shards int) {
		w, rec, sub, pub := recorded(t, shards, time.Minute)
		before := rec.applied()
		for i := range 30 {
			pub.publish(uint16(i+1), "t", fmt.Sprint(i), 1)
			r := sub.wantDeliver(fmt.Sprint(i), 1)
			pub.silent()
			sub.ack(mqtt.Puback, r.PacketID)
			if reason := pub.wantAck(mqtt.Puback, uint16(i+1)); reason != mqtt.Success {
				t.Fatalf("PUBACK %s", reason)
			}
		}
		w.settle()
		if n := rec.applied() - before; n != 0 {
			t.Fatalf("%d commits, expected none", n)
		}
		var n uint64
		w.set.Stats(func(s *Stats) { n += s.Unwritten.Load() })
		if n != 30 {
			t.Errorf("%d messages are counted as unwritten, expected 30", n)
		}
		for _, s := range w.set.shards {
			done := make(chan int)
			s.call(func() { done <- len(s.unwritten.list) - s.unwritten.first + len(s.unwritten.acked) })
			if left := <-done; left != 0 {
				t.Errorf("shard %d still has %d", s.index, left)
			}
		}
	})
}

// Acknowledgements of a session come in any order; each answers its publisher,
// whose PUBACKs leave in the order of the publishes [MQTT-4.6.0-2].
func TestUnwritten_OutOfOrder(t *testing.T) {
	bothPlaces(t, func(t *testing.T, shards int) {
		_, _, sub, pub := recorded(t, shards, time.Minute)
		var ids []uint16
		for i := range 5 {
			pub.publish(uint16(i+1), "t", fmt.Sprint(i), 1)
			ids = append(ids, sub.wantDeliver(fmt.Sprint(i), 1).PacketID)
		}
		for i := 4; i >= 1; i-- {
			sub.ack(mqtt.Puback, ids[i])
		}
		pub.silent()
		sub.ack(mqtt.Puback, ids[0])
		for i := range 5 {
			pub.wantAck(mqtt.Puback, uint16(i+1))
		}
	})
}

// What nobody acknowledges is written after the delay: PUBACK comes, and a crash
// loses nothing. The next messages are written at once.
func TestUnwritten_Late(t *testing.T) {
	bothPlaces(t, func(t *testing.T, shards int) {
		w, rec, sub, pub := recorded(t, shards, 5*time.Millisecond)
		pub.publish(1, "t", "late", 1)
		first := sub.wantDeliver("late", 1)
		pub.wantAck(mqtt.Puback, 1)
		before := rec.applied()
		if before == 0 {
			t.Fatal("nothing was written")
		}
		pub.publish(2, "t", "at once", 1)
		second := sub.wantDeliver("at once", 1)
		pub.wantAck(mqtt.Puback, 2)
		w.restart(shards)
		sub = w.open("sub", persistent)
		if r := sub.want(link.DownOpened); !r.SessionPresent {
			t.Fatal("no session present")
		}
		for _, id := range []uint16{first.PacketID, second.PacketID} {
			if r := sub.want(link.DownDeliver); !r.Dup || r.PacketID != id {
				t.Fatalf("got %+v %s, expected id %d with DUP", r.DownFrame, r.msg.Payload, id)
			}
		}
		sub.ack(mqtt.Puback, first.PacketID)
		sub.ack(mqtt.Puback, second.PacketID)
		w.settle()
		w.restart(shards)
		sub = w.connect("sub", persistent)
		sub.silent()
	})
}

// A connection that is lost has what it did not acknowledge written at once, and
// sent again with its identifier [MQTT-4.4.0-1]; so has one that is taken over.
func TestUnwritten_ConnectionLost(t *testing.T) {
	for _, how := range []string{"closed", "taken over", "closed, then restarted"} {
		t.Run(how, func(t *testing.T) {
			bothPlaces(t, func(t *testing.T, shards int) {
				w, _, sub, pub := recorded(t, shards, time.Minute)
				pub.publish(1, "t", "a", 1)
				pub.publish(2, "t", "b", 1)
				a, b := sub.wantDeliver("a", 1), sub.wantDeliver("b", 1)
				sub.ack(mqtt.Puback, b.PacketID)
				pub.silent()
				if how != "taken over" {
					sub.close(link.CloseLost)
					pub.wantAck(mqtt.Puback, 1)
					pub.wantAck(mqtt.Puback, 2)
				}
				if how == "closed, then restarted" {
					w.restart(shards)
				}
				again := w.open("sub", persistent)
				if r := again.want(link.DownOpened); !r.SessionPresent {
					t.Fatal("no session present")
				}
				r := again.wantDeliver("a", 1)
				if !r.Dup || r.PacketID != a.PacketID {
					t.Fatalf("got %+v, expected id %d with DUP", r.DownFrame, a.PacketID)
				}
				again.ack(mqtt.Puback, r.PacketID)
				again.silent()
				if how == "taken over" {
					pub.wantAck(mqtt.Puback, 1)
					pub.wantAck(mqtt.Puback, 2)
				}
			})
		})
	}
}

// A session that is discarded holds up no publisher, and leaves nothing in the
// store.
func TestUnwritten_SessionDiscarded(t *testing.T) {
	bothPlaces(t, func(t *testing.T, shards int) {
		w, rec, sub, pub := recorded(t, shards, time.Minute)
		pub.publish(1, "t", "x", 1)
		sub.wantDeliver("x", 1)
		w.connect("sub", clean)
		pub.wantAck(mqtt.Puback, 1)
		w.settle()
		it := rec.Scan(nil, nil)
		defer it.Close()
		for it.Next() {
			if k := it.Key(); k[2] != 'x' {
				t.Errorf("the store still has %q", k)
			}
		}
	})
}

// A message with an off-line stored receiver waits for the commit, whatever the
// others do.
func TestUnwritten_OneReceiverOffline(t *testing.T) {
	bothPlaces(t, func(t *testing.T, shards int) {
		w, rec, sub, pub := recorded(t, shards, time.Minute)
		away := w.connect("away", persistent)
		away.subscribe("t", 1)
		away.close(link.CloseNormal)
		w.settle()
		before := rec.applied()
		pub.publish(1, "t", "x", 1)
		r := sub.wantDeliver("x", 1)
		sub.ack(mqtt.Puback, r.PacketID)
		pub.wantAck(mqtt.Puback, 1)
		if rec.applied() == before {
			t.Fatal("PUBACK before the message was written for the session that is away")
		}
		away = w.connect("away", persistent)
		away.wantDeliver("x", 1)
	})
}

// What is written later for a session takes what is unwritten with it: a crash
// leaves no message without those that were sent before it.
func TestUnwritten_KeepsTheOrder(t *testing.T) {
	bothPlaces(t, func(t *testing.T, shards int) {
		w, rec, _, pub := recorded(t, shards, time.Minute)
		slow := w.connect("slow", persistent, window(3))
		slow.subscribe("s", 1)
		w.settle()
		begin := rec.applied()
		for i := range 8 { // three fill the window, five wait for it
			pub.publish(uint16(i+1), "s", fmt.Sprint(i), 1)
		}
		for i := range 8 {
			pub.wantAck(mqtt.Puback, uint16(i+1))
		}
		w.settle()
		for n := begin; n <= rec.applied(); n++ {
			after := newWorld(t, shards, false)
			after.stop()
			after.store = rec.after(t, n)
			after.start(shards)
			c := after.open("slow", persistent, window(20))
			c.want(link.DownOpened)
			after.settle()
			for next := 0; ; next++ {
				r, ok := c.next(0)
				if !ok {
					break
				}
				if got := string(r.msg.Payload); got != fmt.Sprint(next) {
					t.Fatalf("after %d commits: %s came in the place of %d", n, got, next)
				}
			}
		}
	})
}

// A session with a plain and a shared subscription that match one publish has two
// deliveries of it; both answer.
func TestUnwritten_PlainAndShared(t *testing.T) {
	bothPlaces(t, func(t *testing.T, shards int) {
		_, _, sub, pub := recorded(t, shards, time.Minute)
		sub.subscribe("$share/g/t", 1)
		pub.publish(1, "t", "x", 1)
		for range 2 {
			sub.ack(mqtt.Puback, sub.wantDeliver("x", 1).PacketID)
		}
		pub.wantAck(mqtt.Puback, 1)
	})
}

// One hiccup is one late time, however many messages it caught.
func TestPatience(t *testing.T) {
	var p patience
	for range 100 {
		p.missed(1)
	}
	if p.skip != 1 {
		t.Errorf("%d messages are written at once after one late time, expected 1", p.skip)
	}
	for timer := range uint32(20) {
		p.missed(timer + 2)
	}
	if p.late != maxLate || p.skip != 1<<maxLate-1 {
		t.Errorf("late %d, skip %d", p.late, p.skip)
	}
}

// Hundreds of publishers that wait for one session are answered when it ends.
func TestUnwritten_ManyAnsweredAtOnce(t *testing.T) {
	w, _, sub, pub := recorded(t, 1, time.Minute)
	big := w.connect("big", persistent, window(65535))
	big.subscribe("b", 1)
	const n = 2_000
	for i := range n {
		pub.publish(uint16(i+1), "b", "x", 1)
	}
	sub.silent()
	w.connect("big", clean)
	for i := range n {
		pub.wantAck(mqtt.Puback, uint16(i+1))
	}
	for _, s := range w.set.shards {
		done := make(chan int)
		s.call(func() { done <- len(s.effects) })
		if depth := <-done; depth > 16 {
			t.Errorf("steps were nested %d deep", depth)
		}
	}
}
