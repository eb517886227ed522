// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// timeout is shared_member_timeout, in seconds.
func timeout(s uint16) option { return with(func(l *link.Settings) { l.Member = s }) }

// pass lets d go by, in steps that the shards see, until done.
func (w *world) pass(d time.Duration, done func() bool) (took time.Duration) {
	w.t.Helper()
	const step = 100 * time.Millisecond
	for took < d && !done() {
		w.clock.Add(step.Milliseconds())
		took += step
		for range 2 { // what a first look moves, a second sees
			for _, s := range w.set.shards {
				s.call(s.tick)
			}
			w.settle()
		}
	}
	return took
}

// deliveries are the payloads that have come to the client and were not looked at.
func (c *client) deliveries() (out []record) {
	for {
		r, ok := c.next(0)
		if !ok {
			return out
		}
		if r.Kind == link.DownDeliver {
			out = append(out, r)
		}
	}
}

// has counts the deliveries that have come to the client.
func (c *client) has() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.got {
		if r.Kind == link.DownDeliver {
			n++
		}
	}
	return n
}

func (c *client) closed() (reason mqtt.ReasonCode, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.got {
		if r.Kind == link.DownClose {
			return r.Reason, true
		}
	}
	return 0, false
}

// A member that does not acknowledge is disconnected when its time is over, not
// before, and not while nobody could take its place. QoS 2 in flight stays with it
// [MQTT-4.8.2-4].
func TestMember_Stuck(t *testing.T) {
	for _, c := range []struct {
		name   string
		stuck  []option
		rest   []option
		passed bool
	}{
		{"clean", nil, nil, true},
		{"clean to stored", nil, []option{persistent}, true},
		{"stored", []option{persistent}, []option{persistent}, true},
		{"stored, but nobody else is", []option{persistent}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				a := w.connect("a", append(c.stuck, timeout(10))...)
				a.subscribe("$share/g/t", 2)
				pub := w.connect("pub")
				pub.publish(1, "t", "one", 1)
				pub.publish(2, "t", "two", 2)
				pub.wantAck(mqtt.Puback, 1)
				pub.wantAck(mqtt.Pubrec, 2)
				pub.ack(mqtt.Pubrel, 2)
				pub.wantAck(mqtt.Pubcomp, 2)
				w.settle()
				w.pass(20*time.Second, func() bool { return false })
				if _, ok := a.closed(); ok {
					t.Fatal("disconnected, though it is alone")
				}
				b := w.connect("b", append(c.rest, timeout(10))...)
				b.subscribe("$share/g/t", 2)
				took := w.pass(10*time.Second, func() bool { return b.has() > 0 })
				reason, ended := a.closed()
				if ended != c.passed || ended && reason != mqtt.AdministrativeAction {
					t.Fatalf("disconnected: %v, %v", ended, reason)
				}
				if !c.passed {
					b.silent()
					return
				}
				t.Logf("after %v", took)
				b.wantDeliver("one", 1)
				b.silent()
				if c.stuck == nil {
					return
				}
				a = w.connect("a", append(c.stuck, timeout(10))...)
				a.wantDeliver("two", 2)
				a.silent()
			})
		})
	}
}

// A member that acknowledges late, but in time, keeps its connection, and what
// waits behind its window goes to one that has room, though it could go on.
func TestMember_Slow(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprintf("stored=%v", stored), func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				opts := []option{timeout(10), window(2)}
				if stored {
					opts = append(opts, persistent)
				}
				a := w.connect("a", opts...)
				a.subscribe("$share/g/t", 1)
				pub := w.connect("pub")
				pub.publishAll("t", 40)
				w.settle()
				if n := a.has(); n != 2 {
					t.Fatalf("%d deliveries fill a window of 2", n)
				}
				got := map[string]int{}
				b := w.connect("b", append(opts, window(10))...)
				b.subscribe("$share/g/t", 1)
				slow := a.deliveries()
				all := w.pass(60*time.Second, func() bool {
					for _, r := range b.deliveries() {
						got[string(r.msg.Payload)]++
						b.ack(mqtt.Puback, r.PacketID)
					}
					if slow = append(slow, a.deliveries()...); len(slow) > 0 && w.clock.Load()%3000 == 0 {
						got[string(slow[0].msg.Payload)]++
						a.ack(mqtt.Puback, slow[0].PacketID)
						slow = slow[1:]
					}
					return len(got) == 40
				})
				if _, ok := a.closed(); ok {
					t.Error("who acknowledges in time was disconnected")
				}
				if len(got) != 40 || all > 10*time.Second {
					t.Errorf("%d of 40 messages after %v", len(got), all)
				}
				for k, n := range got {
					if n != 1 {
						t.Errorf("%s came %d times", k, n)
					}
				}
			})
		})
	}
}

// What a member without a connection has in flight or waiting goes to one that comes, also when
// the broker has been started again meanwhile.
func TestMember_Offline(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
			w := newWorld(t, 2, false)
			a := w.connect("a", persistent, timeout(10))
			a.subscribe("$share/g/t", 1)
			w.connect("b", persistent, timeout(10)).subscribe("$share/g/other", 1)
			w.connect("pub").publishAll("t", 2) // in flight
			w.settle()
			a.close(link.CloseLost)
			w.settle()
			w.connect("pub").publishAll("t", 3) // waits
			w.settle()
			if restart {
				w.restart(3)
			}
			b := w.connect("b", persistent, timeout(10))
			b.subscribe("$share/g/t", 1)
			if took := w.pass(20*time.Second, func() bool { return b.has() == 5 }); took > 10*time.Second {
				t.Fatalf("%d of 5 messages after %v", b.has(), took)
			}
			for _, payload := range []string{"0", "1", "0", "1", "2"} {
				b.wantDeliver(payload, 1)
			}
		})
	}
}

// The time is changed for who is connected, and without one nothing happens.
func TestMember_Change(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a, b := w.connect("a"), w.connect("b")
		a.subscribe("$share/g/t", 1)
		w.connect("pub").publishAll("t", 1)
		b.subscribe("$share/g/t", 1)
		w.pass(time.Minute, func() bool { return false })
		if _, ok := a.closed(); ok || b.has() > 0 {
			t.Fatal("there is no timeout, and it was disconnected")
		}
		a.change(func(l *link.NewLimits) { l.Limits.Settings.Member = 5 })
		w.settle()
		w.pass(5*time.Second, func() bool { return b.has() > 0 })
		b.wantDeliver("0", 1)
	})
}

// A member keeps what it was to give away if nobody is left to take it.
func TestMember_NobodyLeft(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.connect("a", persistent, window(1), timeout(10))
		a.subscribe("$share/g/t", 1)
		pub := w.connect("pub")
		pub.publishAll("t", 5)
		w.settle()
		tenant := w.set.Tenant("acme")
		s := w.set.shardOf(partition.Choose(tenant.parts(), "a"))
		s.ask(func() { s.pass(s.session(tenant, "a"), "$share/g/t", nil, math.MaxUint64, relievePage) })
		w.settle()
		got := 0
		for range 5 {
			r := a.want(link.DownDeliver)
			got++
			a.ack(mqtt.Puback, r.PacketID)
		}
		if got != 5 || tenant.Counts().Dropped["shared_group_without_member"] != 0 {
			t.Errorf("%d of 5 messages, %+v", got, tenant.Counts())
		}
	})
}

// What nobody could take when a member was ended goes to who comes for it.
func TestMember_LooksOnAfterItsEnd(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.connect("a", persistent, timeout(10))
		a.subscribe("$share/g1/t", 1)
		a.subscribe("$share/g2/u", 1)
		pub := w.connect("pub")
		pub.publish(1, "t", "one", 1)
		pub.publish(2, "u", "two", 1)
		w.settle()
		b := w.connect("b", persistent, timeout(10))
		b.subscribe("$share/g1/t", 1)
		w.pass(20*time.Second, func() bool { return b.has() > 0 })
		if _, ended := a.closed(); !ended {
			t.Fatal("the stuck member is not disconnected")
		}
		c := w.connect("c", persistent, timeout(10))
		c.subscribe("$share/g2/u", 1)
		w.pass(20*time.Second, func() bool { return c.has() > 0 })
		c.wantDeliver("two", 1)
	})
}
