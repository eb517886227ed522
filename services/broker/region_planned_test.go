// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// settler is a client that stays connected, behind a gateway that knows how connections
// go on at another broker.
type settler struct {
	town *town
	open link.Open

	frames chan settled
	acks   chan link.DownFrame
	ended  chan struct{} // closed when its test has ended; the brokers go on for a moment

	mu sync.Mutex
	// All below is guarded by mu. kept is what the client says while it is paused.
	link   link.Broker
	token  uint64
	kept   []link.UpFrame
	got    []string
	closed []string
	moved  int
	// pauses are for how long it was paused each time.
	pauses []time.Duration
}

// settled is a frame, with the payload of a delivery.
type settled struct {
	link.DownFrame
	payload string
}

// settle connects a client.
func (w *town) settle(id string, expiry uint32) *settler {
	w.t.Helper()
	c := &settler{town: w, frames: make(chan settled, 1<<16), acks: make(chan link.DownFrame, 1<<10), ended: make(chan struct{})}
	c.open = link.Open{
		Tenant: w.tenant, ClientID: mqtt.ClientID(id), Partitions: w.spread, SessionExpiry: expiry, ReceiveMaximum: 10, Credit: 1 << 40, Limits: limitless,
		Will: &mqtt.Will{Message: mqtt.Message{Topic: []byte("wills/" + id), Payload: []byte("gone")}},
	}
	c.find(&c.open)
	go c.live()
	w.t.Cleanup(func() { close(c.ended) })
	return c
}

// Features implements link.Featured.
func (c *settler) Features() uint32 { return link.Features }

// Receive implements link.Gateway.
func (c *settler) Receive(b *link.Down) {
	for _, f := range b.Frames {
		switch f.Kind {
		case link.DownTable, link.DownLoad, link.DownWindow:
			continue
		default:
		}
		x := settled{DownFrame: f}
		if f.Kind == link.DownDeliver {
			x.payload = string(b.Messages[f.Slot].Payload)
		}
		select {
		case c.frames <- x:
		case <-c.ended:
		}
	}
}

// next is the next frame, none if the test has ended.
func (c *settler) next() (f settled, ok bool) {
	select {
	case f = <-c.frames:
		return f, true
	case <-c.ended:
		return f, false
	}
}

// Flush implements link.Gateway.
func (c *settler) Flush() {}

// Lost implements link.Gateway.
func (c *settler) Lost(error) {}

// find opens a channel where the client belongs.
func (c *settler) find(o *link.Open) {
	for begun := time.Now(); time.Since(begun) < 20*time.Second; time.Sleep(2 * time.Millisecond) {
		for _, h := range c.town.brokers {
			l := h.Attach(c)
			_ = l.Send(&link.Up{Frames: []link.UpFrame{{Kind: link.UpOpen, Channel: 1, Open: o}}})
			f, ok := c.next()
			if !ok {
				_ = l.Close()
				return
			}
			if f.Kind == link.DownOpened {
				c.mu.Lock()
				c.link = l
				c.mu.Unlock()
				return
			}
			_ = l.Close()
			if f.Kind != link.DownMoved {
				c.mu.Lock()
				c.closed = append(c.closed, f.Text)
				c.mu.Unlock()
				return
			}
		}
	}
	c.town.t.Errorf("%s is at no broker", c.open.ClientID)
}

// live answers the broker.
func (c *settler) live() {
	var paused time.Time
	for f, ok := c.next(); ok; f, ok = c.next() {
		switch f.Kind {
		case link.DownPause:
			paused = time.Now()
			c.send(link.UpFrame{Kind: link.UpPaused})
			c.mu.Lock()
			c.token = f.Bytes
			c.mu.Unlock()
		case link.DownMoved:
			c.find(&link.Open{Tenant: c.open.Tenant, ClientID: c.open.ClientID, Partitions: c.open.Partitions, Credit: 1 << 40, Resume: c.token})
			c.mu.Lock()
			kept := c.kept
			c.token, c.kept = 0, nil
			c.moved++
			c.pauses = append(c.pauses, time.Since(paused))
			c.mu.Unlock()
			for _, k := range kept {
				c.send(k)
			}
		case link.DownDeliver:
			c.mu.Lock()
			c.got = append(c.got, f.payload)
			c.mu.Unlock()
			switch f.QoS {
			case mqtt.AtLeastOnce:
				c.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Puback, PacketID: f.PacketID})
			case mqtt.ExactlyOnce:
				c.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Pubrec, PacketID: f.PacketID})
			case mqtt.AtMostOnce:
			}
		case link.DownAck:
			if f.Ack == mqtt.Pubrel {
				c.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Pubcomp, PacketID: f.PacketID})
				break
			}
			c.acks <- f.DownFrame
		case link.DownSuback:
			c.acks <- f.DownFrame
		case link.DownClose:
			c.mu.Lock()
			c.closed = append(c.closed, f.Text)
			c.mu.Unlock()
		default:
		}
	}
}

// send says something, now or when the client is not paused any more.
func (c *settler) send(f link.UpFrame) {
	f.Channel = 1
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != 0 {
		c.kept = append(c.kept, f)
		return
	}
	_ = c.link.Post(&link.Up{Frames: []link.UpFrame{f}})
}

func (c *settler) subscribe(filter string) {
	c.town.t.Helper()
	c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: filter, QoS: mqtt.ExactlyOnce}}})
	select {
	case <-c.acks:
	case <-time.After(10 * time.Second):
		c.town.t.Fatalf("%s got no SUBACK", c.open.ClientID)
	}
}

// write publishes numbers until stop is closed, at QoS 0, 1 and 2 in turn, and returns
// which were acknowledged.
func (c *settler) write(stop chan struct{}) (acked []string) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return acked
		default:
		}
		qos, packet := mqtt.QoS(n%3), uint16(n%60000)+1
		payload := fmt.Sprintf("%s %d %d", c.open.ClientID, qos, n)
		if qos == 0 {
			packet = 0
		}
		c.send(link.UpFrame{Kind: link.UpPublish, PacketID: packet, Message: mqtt.Message{Topic: []byte("t/" + c.open.ClientID), Payload: []byte(payload), QoS: qos}})
		for done := qos == 0; !done; {
			select {
			case f := <-c.acks:
				done = f.Ack != mqtt.Pubrec
				if !done {
					c.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Pubrel, PacketID: f.PacketID})
				}
				if f.PacketID != packet || f.Reason.Failed() {
					c.town.t.Errorf("%s: %d is answered %+v", c.open.ClientID, packet, f)
				}
			case <-time.After(10 * time.Second):
				c.town.t.Errorf("%s: message %d is not acknowledged", c.open.ClientID, n)
				return acked
			}
		}
		if qos > 0 {
			acked = append(acked, payload)
		}
	}
}

// A broker that is drained while clients of every kind talk closes none of them: they get
// everything once and in order, and no will is sent.
func TestRegion_DrainConnected(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a quarter of a minute")
	}
	w := newTown(t, 3)
	unbroken(t, w, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := w.brokers[0].Drain(ctx); err != nil {
			t.Error(err)
		}
	})
}

// unbroken has clients of every kind talk while do has partitions move as planned, and
// looks whether any has noticed.
func unbroken(t *testing.T, w *town, do func()) {
	t.Helper()
	wills := w.settle("wills", 3600)
	wills.subscribe("wills/#")
	all := []*settler{wills}
	var readers, writers []*settler
	for i := range 6 {
		r, x := w.settle(fmt.Sprint("r", i), uint32(i%2)*3600), w.settle(fmt.Sprint("w", i), uint32(i%2)*3600)
		r.subscribe("t/#")
		readers, writers, all = append(readers, r), append(writers, x), append(all, r, x)
	}
	stop := make(chan struct{})
	acked := make([][]string, len(writers))
	var writing sync.WaitGroup
	for i, x := range writers {
		writing.Go(func() { acked[i] = x.write(stop) })
	}
	time.Sleep(300 * time.Millisecond) // some traffic before
	do()
	time.Sleep(300 * time.Millisecond) // and after
	close(stop)
	writing.Wait()
	total := 0
	for _, a := range acked {
		total += len(a)
	}
	for _, r := range readers {
		w.eventually("all has come", func() string {
			r.mu.Lock()
			defer r.mu.Unlock()
			n := 0
			for _, p := range r.got {
				if !strings.Contains(p, " 0 ") {
					n++
				}
			}
			if n < total {
				return fmt.Sprintf("%s has %d of %d", r.open.ClientID, n, total)
			}
			return ""
		})
		r.exact(t, acked)
	}
	moved := 0
	var pauses []time.Duration
	for _, c := range all {
		c.mu.Lock()
		moved += c.moved
		pauses = append(pauses, c.pauses...)
		if len(c.closed) > 0 {
			t.Errorf("%s was closed: %q", c.open.ClientID, c.closed)
		}
		c.mu.Unlock()
	}
	if len(wills.got) > 0 {
		t.Errorf("wills were sent: %q", wills.got)
	}
	if moved == 0 {
		t.Error("no connection went on elsewhere")
	}
	slices.Sort(pauses)
	t.Logf("%d messages were acknowledged, connections went on %d times, paused for %v, at most %v", total, moved, pauses[len(pauses)/2], pauses[len(pauses)-1])
}

// exact holds that a reader has got what was acknowledged once and in order, and at QoS 0
// nothing twice.
func (c *settler) exact(t *testing.T, acked [][]string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	seen, newest := map[string]int{}, map[string]int{}
	for _, p := range c.got {
		var writer, qos string
		n := 0
		if _, err := fmt.Sscan(p, &writer, &qos, &n); err != nil {
			t.Fatal(err)
		}
		if seen[p]++; seen[p] > 1 {
			t.Errorf("%s got %q %d times", c.open.ClientID, p, seen[p])
		}
		if k := writer + qos; n < newest[k] {
			t.Errorf("%s got %q after number %d", c.open.ClientID, p, newest[k])
		} else {
			newest[k] = n
		}
	}
	for _, all := range acked {
		for _, p := range all {
			if seen[p] == 0 {
				t.Errorf("%s did not get %q, which was acknowledged", c.open.ClientID, p)
			}
		}
	}
}
