// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// keys is how many keys of deliveries and queues the batches from the first on wrote or
// deleted.
func (r *recorder) keys(t *testing.T, first int) (n int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, enc := range r.batches[first:] {
		var b kv.Batch
		if err := b.Decode(enc); err != nil {
			t.Fatal(err)
		}
		b.Each(func(_ bool, key, _ []byte) {
			if k := partition.Kind(key[2]); k == partition.KindInflight || k == partition.KindQueue {
				n++
			}
		})
	}
	return n
}

// deliver brings a message at QoS 2 to sub up to a point: 1 PUBLISH was sent, 2 PUBREL too,
// 3 it is over.
func deliver(sub, pub *client, id uint16, payload string, steps int) (packet uint16) {
	pub.publish(id, "t", payload, 2)
	packet = sub.wantDeliver(payload, 2).PacketID
	if steps > 1 {
		sub.ack(mqtt.Pubrec, packet)
		sub.wantAck(mqtt.Pubrel, packet)
	}
	if steps > 2 {
		sub.ack(mqtt.Pubcomp, packet)
	}
	return packet
}

// A message at QoS 2 costs the store three keys, whatever it is stored with: it comes with
// its delivery, which loses it with PUBREC and goes with PUBCOMP.
func TestInside_ThreeKeys(t *testing.T) {
	bothPlaces(t, func(t *testing.T, shards int) {
		w, rec, sub, pub := recorded(t, shards, time.Minute)
		sub.subscribe("t", 2)
		w.settle()
		begin := rec.applied()
		const messages = 20
		for i := range messages {
			deliver(sub, pub, uint16(i+1), fmt.Sprint(i), 3)
		}
		w.settle()
		if n := rec.keys(t, begin); n != 3*messages {
			t.Errorf("%d messages cost %d keys, expected 3 each", messages, n)
		}
	})
}

// Wherever the broker dies, a message that is in its delivery's record goes on from where
// it was, once; and so it does with a broker that writes both into one record where the
// last one did not, or the other way round.
func TestInside_EveryCrash(t *testing.T) {
	for _, inside := range []bool{true, false} {
		t.Run(fmt.Sprintf("inside=%v", inside), func(t *testing.T) {
			for steps := 1; steps <= 3; steps++ {
				w, rec, sub, pub := recorded(t, 1, time.Minute)
				sub.subscribe("t", 2)
				w.settle()
				w.set.SetInside(inside)
				packet := deliver(sub, pub, 1, "x", steps)
				w.settle()
				after := newWorld(t, 1, false)
				after.stop()
				after.store = rec.after(t, rec.applied())
				after.start(1)
				after.set.SetInside(!inside)
				again := after.open("sub", persistent)
				if r := again.want(link.DownOpened); !r.SessionPresent {
					t.Fatal("no session present")
				}
				switch steps {
				case 1:
					if r := again.wantDeliver("x", 2); !r.Dup || r.PacketID != packet {
						t.Errorf("got %+v, expected id %d with DUP", r.DownFrame, packet)
					}
					again.ack(mqtt.Pubrec, packet)
					again.wantAck(mqtt.Pubrel, packet)
					again.ack(mqtt.Pubcomp, packet)
				case 2:
					again.wantAck(mqtt.Pubrel, packet)
					again.ack(mqtt.Pubcomp, packet)
				}
				again.silent()
				after.settle()
				left := after.store.Scan(nil, nil)
				for left.Next() {
					if k := partition.Kind(left.Key()[2]); k == partition.KindInflight || k == partition.KindQueue {
						t.Errorf("after step %d the store still has %q", steps, left.Key())
					}
				}
				left.Close()
			}
		})
	}
}

// The messages of a session without a connection are in the store alone.
func TestInside_RestsInTheStore(t *testing.T) {
	w, _, sub, pub := recorded(t, 1, time.Minute)
	sub.subscribe("t", 2)
	w.settle()
	packet := deliver(sub, pub, 1, "x", 1)
	sub.close(link.CloseLost)
	w.settle()
	held := make(chan bool)
	s := w.set.shards[0]
	s.call(func() {
		for _, of := range s.sessions {
			if se := of["sub"]; se != nil {
				held <- se.queue.Held(1<<40) != nil
			}
		}
	})
	if <-held {
		t.Error("the message of a session that is away is in memory")
	}
	again := w.open("sub", persistent)
	again.want(link.DownOpened)
	if r := again.wantDeliver("x", 2); !r.Dup || r.PacketID != packet {
		t.Errorf("got %+v, expected id %d with DUP", r.DownFrame, packet)
	}
}

// queued is a world in which three messages at QoS 1 wait for sub.
func queued(t *testing.T) (w *world, rec *recorder, sub *client) {
	t.Helper()
	w, rec, sub, pub := recorded(t, 1, time.Minute)
	sub.close(link.CloseNormal)
	for i := range 3 {
		pub.publish(uint16(i+1), "t", fmt.Sprint(i), 1)
		pub.wantAck(mqtt.Puback, uint16(i+1))
	}
	return w, rec, w.connect("sub", persistent)
}

// What a session gets of its queue at QoS 1 and acknowledges costs the store one key: that
// of the message goes.
func TestUntold_OneKey(t *testing.T) {
	w, rec, sub := queued(t)
	w.settle()
	begin := rec.applied()
	for i := range 3 {
		sub.ack(mqtt.Puback, sub.wantDeliver(fmt.Sprint(i), 1).PacketID)
	}
	w.settle()
	if n := rec.keys(t, begin); n != 3 {
		t.Errorf("three messages cost %d keys, expected one each", n)
	}
}

// A connection that is lost has what it did not acknowledge sent again with its identifier
// [MQTT-4.4.0-1], also after a crash; before that a crash has it sent as if it were new.
func TestUntold_SentAgain(t *testing.T) {
	for _, lost := range []bool{true, false} {
		t.Run(fmt.Sprintf("lost=%v", lost), func(t *testing.T) {
			w, rec, sub := queued(t)
			var ids []uint16
			for i := range 3 {
				ids = append(ids, sub.wantDeliver(fmt.Sprint(i), 1).PacketID)
			}
			sub.ack(mqtt.Puback, ids[0])
			w.settle()
			if lost {
				sub.close(link.CloseLost)
				w.settle()
			}
			after := newWorld(t, 1, false)
			after.stop()
			after.store = rec.after(t, rec.applied())
			after.start(1)
			again := after.open("sub", persistent)
			if r := again.want(link.DownOpened); !r.SessionPresent {
				t.Fatal("no session present")
			}
			for i := 1; i < 3; i++ {
				r := again.wantDeliver(fmt.Sprint(i), 1)
				if r.Dup != lost || lost && r.PacketID != ids[i] {
					t.Errorf("got %+v", r.DownFrame)
				}
				again.ack(mqtt.Puback, r.PacketID)
			}
			again.silent()
		})
	}
}

// What is written for a session takes the deliveries before it that are not, so that a
// crash does not turn the order of a QoS round [MQTT-4.6.0-6].
func TestUntold_KeepsTheOrder(t *testing.T) {
	w, rec, sub, pub := recorded(t, 1, time.Minute)
	sub.subscribe("t", 2)
	sub.close(link.CloseNormal)
	w.settle()
	const messages = 8
	for i := range messages {
		pub.publish(uint16(i+1), "t", fmt.Sprint(i), mqtt.QoS(1+i/2%2))
	}
	w.settle()
	begin := rec.applied()
	sub = w.connect("sub", persistent)
	for range messages {
		sub.want(link.DownDeliver)
	}
	w.settle()
	for n := begin; n <= rec.applied(); n++ {
		after := newWorld(t, 1, false)
		after.stop()
		after.store = rec.after(t, n)
		after.start(1)
		c := after.open("sub", persistent)
		c.want(link.DownOpened)
		newest := map[mqtt.QoS]string{}
		for range messages {
			r := c.want(link.DownDeliver)
			if got := string(r.msg.Payload); got <= newest[r.QoS] {
				t.Errorf("after %d commits: %s came behind %s", n, got, newest[r.QoS])
			}
			newest[r.QoS] = string(r.msg.Payload)
		}
		after.stop()
		after.stop = func() {}
	}
}

// A session that keeps what it was given for longer than toldDelay has it written.
func TestUntold_Late(t *testing.T) {
	w, rec, sub := queued(t)
	for i := range 3 {
		sub.wantDeliver(fmt.Sprint(i), 1)
	}
	w.settle()
	begin := rec.applied()
	for deadline := time.Now().Add(10 * time.Second); rec.keys(t, begin) < 3; {
		if time.Now().After(deadline) {
			t.Fatal("the deliveries are not written")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A live message that has to be written takes with it what was sent before it out of the
// queue, though nobody waits for that: a crash does not turn them round.
func TestUntold_BeforeWhatIsLate(t *testing.T) {
	w, rec, sub, pub := recorded(t, 1, 4*time.Millisecond)
	sub.close(link.CloseNormal)
	pub.publish(1, "t", "queued", 1)
	pub.wantAck(mqtt.Puback, 1)
	sub = w.connect("sub", persistent)
	sub.wantDeliver("queued", 1)
	pub.publish(2, "t", "live", 1)
	sub.wantDeliver("live", 1)
	pub.wantAck(mqtt.Puback, 2) // it was late, and is written
	after := newWorld(t, 1, false)
	after.stop()
	after.store = rec.after(t, rec.applied())
	after.start(1)
	again := after.open("sub", persistent)
	again.want(link.DownOpened)
	again.wantDeliver("queued", 1)
	again.wantDeliver("live", 1)
}

// What a session does not acknowledge is bounded in memory, whatever its window.
func TestInside_Bounded(t *testing.T) {
	w, _, _, pub := recorded(t, 1, 0)
	big := w.connect("big", persistent, window(65535))
	big.subscribe("b", 2)
	w.settle()
	payload := strings.Repeat("x", 8<<10)
	for i := range 40 {
		pub.publish(uint16(i+1), "b", payload, 2)
		big.wantDeliver(payload, 2)
	}
	kept := make(chan bool)
	s := w.set.shards[0]
	s.call(func() {
		for _, of := range s.sessions {
			if se := of["big"]; se != nil {
				n := 0
				for seq := uint64(1 << 40); seq < 1<<40+40; seq++ {
					if se.queue.Held(seq) != nil {
						n++
					}
				}
				kept <- n < 12
			}
		}
	})
	if !<-kept {
		t.Error("all that a session has not acknowledged is in memory, expected about 64 KiB")
	}
}
