// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// arrivals are when messages came to a client, until their end.
type arrivals struct {
	mu sync.Mutex
	at []time.Time
	of []string
}

// gather reads messages until the connection ends or has had that many.
func (c *client) gather(a *arrivals, most int) {
	for len(a.seen()) < most {
		p := c.next()
		if p == nil {
			return
		}
		if p.Type != packet.PUBLISH {
			continue
		}
		if p.Publish.Message.QoS > 0 {
			c.send(&packet.Packet{Type: packet.PUBACK, Ack: packet.Ack{PacketID: p.Publish.PacketID}})
		}
		a.mu.Lock()
		a.at, a.of = append(a.at, time.Now()), append(a.of, string(p.Publish.Message.Payload))
		a.mu.Unlock()
	}
}

func (a *arrivals) seen() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.of)
}

// Small messages, which are far below the credit of a connection, come at the tenant's rate
// from the first on, whichever of its clients they are for, each of which has its share of
// them, in their order.
func TestDeliveryRate(t *testing.T) {
	t.Parallel()
	const rate, each = 50, 75
	for name, qos := range map[string]mqtt.QoS{"mqtt": 0, "mqtts": 1, "ws": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, nil)
			w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.DeliveryRate = rate })
			var got [2]arrivals
			var subs [2]*client
			for n := range subs {
				subs[n] = w.any(name, "acme.localhost").mustConnect(hello("s" + strconv.Itoa(n)))
				subs[n].subscribe("t")
			}
			p := w.dial("mqtt").mustConnect(hello("p"))
			begin := time.Now()
			for n := range each {
				p.send(publish("t", strconv.Itoa(n), qos))
			}
			var wait sync.WaitGroup
			for n := range subs {
				wait.Go(func() { subs[n].gather(&got[n], each) })
			}
			wait.Wait()
			var all []time.Time
			for n := range got {
				all = append(all, got[n].at...)
				for i, payload := range got[n].of {
					if payload != strconv.Itoa(i) {
						t.Fatalf("client %d: message %d is %s", n, i, payload)
					}
				}
			}
			slices.SortFunc(all, time.Time.Compare)
			if len(all) != 2*each {
				t.Fatalf("%d of %d messages came", len(all), 2*each)
			}
			for i, at := range all { // a second's worth at once
				if most := rate + 2 + rate*at.Sub(begin).Seconds(); float64(i+1) > most {
					t.Fatalf("%d messages came in %s, expected at most %.0f", i+1, at.Sub(begin), most)
				}
			}
			last := all[len(all)-1]
			if took := last.Sub(begin); took > 5*time.Second {
				t.Errorf("%d messages at %d a second took %s", len(all), rate, took)
			}
			for n := range got { // nobody waits for all that another waits for
				if early := last.Sub(got[n].at[each-1]); early > time.Second {
					t.Errorf("client %d had all its messages %s before the other", n, early)
				}
			}
			if w.metric("mqtt_gateway_throttled_total", "delivery_rate") == 0 {
				t.Error("not counted")
			}
		})
	}
}

// What waits for a rate keeps no answers back, is let go when the rate is, and counted if
// its connection ends before.
func TestDeliveryRate_AnswersAndEnds(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	change := func(rate int64) {
		w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.DeliveryRate = rate })
		w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"}
	}
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.DeliveryRate = 1 })
	s := w.dial("mqtt").mustConnect(hello("s"))
	s.subscribe("t")
	p := w.dial("mqtt").mustConnect(hello("p"))
	send := func(n int) {
		for range n {
			p.send(publish("t", "x", 0))
		}
		p.send(&packet.Packet{Type: packet.PINGREQ})
		p.want(packet.PINGRESP)
	}
	send(30)
	for range 2 { // of which a message may come between
		s.send(&packet.Packet{Type: packet.PINGREQ})
		for n := 0; ; n++ {
			if x := s.next(); x == nil || n > 5 {
				t.Fatal("no PINGRESP while messages wait")
			} else if x.Type == packet.PINGRESP {
				break
			}
		}
	}
	begin := time.Now()
	change(tenancy.Unlimited)
	var got arrivals
	s.gather(&got, 20)
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("what waited came %s after the rate had gone", took)
	}
	change(1)
	w.eventually("messages are held back again", func() bool {
		before := w.metric("mqtt_gateway_throttled_total", "delivery_rate")
		send(20)
		return w.metric("mqtt_gateway_throttled_total", "delivery_rate") > before
	})
	send(20)
	s.send(&packet.Packet{Type: packet.DISCONNECT, Disconnect: &packet.Disconnect{}})
	w.eventually("what waited is counted", func() bool { return w.metric("mqtt_gateway_dropped_total", "held") >= 10 })
}

// A message that expires while it waits for a rate is not passed; others tell what is left.
func TestDeliveryRate_Expiry(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.BytesOutRateClient = 64 << 10 })
	s := w.dial("mqtt").mustConnect(hello("s"))
	s.subscribe("t")
	p := w.dial("mqtt").mustConnect(hello("p"))
	p.send(publish("t", strings.Repeat("x", 256<<10), 0)) // three seconds' debt
	s.want(packet.PUBLISH)
	s.send(&packet.Packet{Type: packet.PINGREQ}) // the broker has credit again when it is answered
	s.want(packet.PINGRESP)
	for _, m := range []struct {
		payload string
		expiry  uint32
	}{{"gone", 1}, {"left", 100}} {
		x := publish("t", m.payload, 0)
		x.Publish.Message.Expiry, x.Publish.Message.HasExpiry = m.expiry, true
		p.send(x)
	}
	m := s.want(packet.PUBLISH).Publish.Message
	if string(m.Payload) != "left" || !m.HasExpiry || m.Expiry < 90 || m.Expiry > 98 {
		t.Errorf("%q with an expiry of %d s, expected what has 100 s less about 3", m.Payload, m.Expiry)
	}
	if n := w.metric("mqtt_gateway_dropped_total", "held"); n != 1 {
		t.Errorf("%g messages counted as dropped", n)
	}
}

// What the broker sends again while it still waits for a rate comes once, as the first sending
// of it, and takes from the rate once; what the client was sent comes again.
func TestDeliveryRate_Retransmitted(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.DeliveryRate = 1 })
	p := hello("s")
	p.Version = packet.V311
	s := w.dial("mqtt").mustConnect(p)
	deliver := func(dup bool, ids ...uint16) {
		w.broker.mu.Lock()
		down := &link.Down{Messages: []mqtt.Message{{Topic: []byte("t"), Payload: []byte("x"), QoS: 1}}}
		for channel := range w.broker.channels {
			for _, id := range ids {
				down.Frames = append(down.Frames, link.DownFrame{Kind: link.DownDeliver, Channel: channel, QoS: 1, PacketID: id, Dup: dup})
			}
		}
		gw := w.broker.gw
		w.broker.mu.Unlock()
		gw.Receive(down)
		gw.Flush()
	}
	deliver(false, 1, 2, 3)
	if x := s.want(packet.PUBLISH).Publish; x.PacketID != 1 {
		t.Fatalf("the first is %d", x.PacketID)
	}
	for range 5 {
		deliver(true, 2, 3)
	}
	begin := time.Now()
	for id := uint16(2); id <= 3; id++ {
		if x := s.want(packet.PUBLISH).Publish; x.PacketID != id || x.Dup {
			t.Errorf("got %d with DUP %v, expected %d as it was sent first", x.PacketID, x.Dup, id)
		}
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("two messages at 1 a second took %s", took)
	}
	deliver(true, 1)
	if x := s.want(packet.PUBLISH).Publish; x.PacketID != 1 || !x.Dup {
		t.Errorf("got %d with DUP %v, expected 1 again", x.PacketID, x.Dup)
	}
	s.send(&packet.Packet{Type: packet.PINGREQ})
	s.want(packet.PINGRESP)
}
