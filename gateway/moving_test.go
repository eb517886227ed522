// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// pause has broker number from pause its channels, of which there are n, and waits until
// they are.
func (r *region) pause(from, n int) {
	r.t.Helper()
	b := r.brokers[from]
	b.down(link.DownFrame{Kind: link.DownPause, Bytes: 77})
	r.eventually("paused", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.paused == n
	})
}

// leave has broker number from say that partition 0 has gone, and forget its channels.
func (r *region) leave(from int) {
	b := r.brokers[from]
	b.down(link.DownFrame{Kind: link.DownMoved, Moved: &link.Moved{Partition: 0, Epoch: 1}})
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.channels)
	if b.late > 0 {
		r.t.Errorf("%d frames came on paused channels", b.late)
	}
}

func alias(topic string, id uint16) *packet.Packet {
	p := publish(topic, "x", 1)
	p.Publish.PacketID, p.Publish.TopicAlias, p.Publish.HasTopicAlias = id, 1, true
	return p
}

// A client whose partition moves notices nothing but a pause: what it sends meanwhile is
// answered by the new owner, its aliases hold, and it has no second CONNACK.
func TestMoving_GoesOn(t *testing.T) {
	for _, listener := range []string{"mqtt", "mqtts", "ws", "wss"} {
		t.Run(listener, func(t *testing.T) {
			r := startRegion(t, 2, true, nil)
			c := r.any(listener, "acme.localhost")
			h := hello(idIn(0, 0))
			h.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte("gone"), Payload: []byte("will")}}
			c.mustConnect(h)
			c.send(alias("a/b", 1))
			c.want(packet.PUBACK)
			c.subscribe("news")
			r.pause(0, 1)
			c.send(alias("", 2))
			c.send(&packet.Packet{Type: packet.PINGREQ})
			b := r.brokers[0]
			b.mu.Lock()
			var ch link.Channel
			for ch = range b.channels {
			}
			gw := b.gw
			b.mu.Unlock()
			gw.Receive(&link.Down{
				Messages: []mqtt.Message{{Topic: []byte("news"), Payload: []byte("still")}},
				Frames:   []link.DownFrame{{Kind: link.DownDeliver, Channel: ch}},
			})
			gw.Flush()
			if p := c.want(packet.PUBLISH); string(p.Publish.Message.Payload) != "still" {
				t.Errorf("got %q", p.Publish.Message.Payload)
			}
			r.leave(0)
			r.waiting(1)
			r.own(0, 1, 2, 0)
			got := map[packet.Type]uint16{} // PINGRESP is the gateway's own, and may come first
			for range 2 {
				p := c.next()
				if p == nil {
					t.Fatal("the connection has ended")
				}
				got[p.Type] = p.Ack.PacketID
			}
			if id, pinged := got[packet.PUBACK], len(got) == 2; id != 2 || !pinged {
				t.Errorf("got %v", got)
			}
			r.waiting(0)
			o := r.brokers[1].lastOpen()
			if o.Resume != 77 || o.Tenant != "acme" || string(o.ClientID) != h.ClientID || o.Credit == 0 || o.Will != nil {
				t.Errorf("the new owner was asked for %+v", o)
			}
			r.brokers[1].mu.Lock()
			for _, ch := range r.brokers[1].channels {
				if len(ch.topics) != 1 || ch.topics[0] != "a/b" {
					t.Errorf("the new owner got %q", ch.topics)
				}
			}
			r.brokers[1].mu.Unlock()
			if n := r.metric("mqtt_gateway_opens_total", "resumed"); n != 1 {
				t.Errorf("%v connections went on", n)
			}
			// The window of the new channel is the one that counts, and its end is told.
			c.send(&packet.Packet{Type: packet.DISCONNECT, Disconnect: &packet.Disconnect{}})
			c.wantEnd()
			if got := r.brokers[1].closed(); len(got) != 1 || got[0] != link.CloseNormal {
				t.Errorf("the new owner heard of %v", got)
			}
			if got := r.brokers[0].closed(); len(got) != 0 {
				t.Errorf("the old owner heard of %v", got)
			}
		})
	}
}

// Clients that never stop sending are paused behind all that was read of them.
func TestMoving_UnderLoad(t *testing.T) {
	r := startRegion(t, 2, true, nil)
	const clients, each = 20, 300
	var wg sync.WaitGroup
	for n := range clients {
		c := r.dial("mqtt").mustConnect(hello(idIn(0, n)))
		wg.Go(func() {
			for i := range each {
				p := publish("a", "x", 1)
				p.Publish.PacketID = uint16(i + 1)
				c.send(p)
			}
		})
		wg.Go(func() {
			for i := range each {
				if p := c.want(packet.PUBACK); p.Ack.PacketID != uint16(i+1) {
					t.Errorf("PUBACK of %d, want %d", p.Ack.PacketID, i+1)
					return
				}
			}
		})
	}
	r.pause(0, clients)
	r.leave(0)
	r.own(0, 1, 2, 0)
	wg.Wait()
	if n := r.metric("mqtt_gateway_opens_total", "resumed"); n != clients {
		t.Errorf("%v connections went on", n)
	}
}

// What keeps a client from going on ends its connection, as at an unplanned change.
func TestMoving_Fails(t *testing.T) {
	for name, do := range map[string]func(r *region){
		"the link is lost while it is paused": func(r *region) { r.brokers[0].lose() },
		"the old owner ends it": func(r *region) {
			r.brokers[0].down(link.DownFrame{Kind: link.DownClose, Reason: mqtt.ServerShuttingDown})
		},
		"nobody becomes the owner":   func(r *region) { r.own(0, -1, 2, 0); r.leave(0) },
		"the old owner says nothing": func(*region) {},
		"the new owner does not answer": func(r *region) {
			r.brokers[1].mu.Lock()
			r.brokers[1].quiet = true
			r.brokers[1].mu.Unlock()
			r.leave(0)
			r.own(0, 1, 2, 0)
		},
		"the new owner is older": func(r *region) {
			r.brokers[1].mu.Lock()
			r.brokers[1].older = true
			r.brokers[1].mu.Unlock()
			r.leave(0)
			r.own(0, 1, 2, 0)
		},
		"the new owner has not waited": func(r *region) {
			r.brokers[1].mu.Lock()
			r.brokers[1].quiet = true
			r.brokers[1].mu.Unlock()
			r.leave(0)
			r.own(0, 1, 2, 0)
			r.eventually("asked", func() bool { return r.brokers[1].opened() == 1 })
			r.brokers[1].down(link.DownFrame{Kind: link.DownRefused, Reason: mqtt.ServerShuttingDown})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := startRegion(t, 2, true, func(c *gateway.Config) { c.OwnerWait = 700 * time.Millisecond })
			c := r.dial("mqtt").mustConnect(hello(idIn(0, 0)))
			r.pause(0, 1)
			do(r)
			if p := c.want(packet.DISCONNECT); p.Disconnect.Reason != mqtt.ServerShuttingDown {
				t.Errorf("the client is told %s", p.Disconnect.Reason)
			}
			c.wantEnd()
			r.waiting(0)
		})
	}
}

// A message that is too large for its client, and a change of the tenant, are told to the
// new owner when they come while nothing may be said to the old one.
func TestMoving_KeepsWhatIsToBeTold(t *testing.T) {
	r := startRegion(t, 2, true, nil)
	h := hello(idIn(0, 0))
	h.MaximumPacketSize = 60
	c := r.dial("mqtt").mustConnect(h)
	r.pause(0, 1)
	b := r.brokers[0]
	b.mu.Lock()
	var ch link.Channel
	for ch = range b.channels {
	}
	gw := b.gw
	b.mu.Unlock()
	gw.Receive(&link.Down{
		Messages: []mqtt.Message{{Topic: []byte("news"), Payload: make([]byte, 100), QoS: 1}},
		Frames:   []link.DownFrame{{Kind: link.DownDeliver, Channel: ch, QoS: 1, PacketID: 9}},
	})
	gw.Flush()
	r.leave(0)
	r.own(0, 1, 2, 0)
	r.eventually("the new owner hears of it", func() bool {
		r.brokers[1].mu.Lock()
		defer r.brokers[1].mu.Unlock()
		for _, x := range r.brokers[1].channels {
			if x.tooLarge == 1 {
				return true
			}
		}
		return false
	})
	c.send(&packet.Packet{Type: packet.PINGREQ})
	c.want(packet.PINGRESP)
}

// What waits for a rate when the partition of its client moves comes before what the new
// owner sends, once, and counts against the credit of the new channel.
func TestMoving_HeldGoesOn(t *testing.T) {
	t.Parallel()
	r := startRegion(t, 2, true, nil)
	r.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.DeliveryRate = 30 })
	c := r.any("mqtt", "acme.localhost")
	c.mustConnect(hello(idIn(0, 0)))
	sent := 0
	deliver := func(broker, n int) {
		t.Helper()
		b := r.brokers[broker]
		b.mu.Lock()
		if len(b.channels) != 1 {
			t.Errorf("broker %d has %d channels", broker, len(b.channels))
		}
		var ch link.Channel
		for ch = range b.channels {
		}
		gw := b.gw
		b.mu.Unlock()
		for range n {
			gw.Receive(&link.Down{
				Messages: []mqtt.Message{{Topic: []byte("news"), Payload: []byte(strconv.Itoa(sent))}},
				Frames:   []link.DownFrame{{Kind: link.DownDeliver, Channel: ch}},
			})
			sent++
		}
		gw.Flush()
	}
	deliver(0, 60) // of which a second's worth comes at once
	r.pause(0, 1)
	r.leave(0)
	r.waiting(1)
	r.own(0, 1, 2, 0)
	r.waiting(0)
	r.eventually("the new owner has it", func() bool {
		r.brokers[1].mu.Lock()
		defer r.brokers[1].mu.Unlock()
		return len(r.brokers[1].channels) == 1
	})
	if o := r.brokers[1].lastOpen(); o.Credit >= 16<<10 || o.Credit < 14<<10 || o.Resume == 0 {
		t.Errorf("the new owner was asked for %+v", o)
	}
	deliver(1, 20)
	for n := range sent {
		if got := string(c.want(packet.PUBLISH).Publish.Message.Payload); got != strconv.Itoa(n) {
			t.Fatalf("message %d is %s", n, got)
		}
	}
}
