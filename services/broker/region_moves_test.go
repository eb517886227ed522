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

// writer publishes numbered messages of one kind for as long as it is told to, and
// connects again when its broker has changed. What was acknowledged is noted.
type writer struct {
	*resident
	qos   mqtt.QoS
	acked map[string]bool
	sent  int
	stop  chan struct{}
	wg    sync.WaitGroup
}

func (w *town) write(id string, qos mqtt.QoS) *writer {
	x := &writer{resident: w.connect(id, 3600), qos: qos, acked: map[string]bool{}, stop: make(chan struct{})}
	x.wg.Go(func() {
		for {
			select {
			case <-x.stop:
				return
			case <-x.pause():
			}
			x.one()
		}
	})
	return x
}

// asFastAsItCan is how many messages a writer writes without a pause. Six sessions keep what
// six writers write, and of a tenant that has 100,000 messages none are handed over.
const asFastAsItCan = 1_200

// pause is until when a writer waits before its next message.
func (x *writer) pause() <-chan time.Time {
	if x.sent < asFastAsItCan {
		return time.After(0)
	}
	return time.After(20 * time.Millisecond)
}

// one publishes the next message and sees it through, as a client does.
func (x *writer) one() {
	x.sent++
	payload := fmt.Sprintf("%s-%d", x.id, x.sent)
	packet := uint16(x.sent%60000) + 1
	x.publish(x.qos, "t/"+x.id, payload, packet)
	released := false
	for {
		select {
		case f := <-x.frames:
			switch f.Kind {
			case link.DownAck:
				switch {
				case f.PacketID != packet:
				case f.Ack == mqtt.Puback, f.Ack == mqtt.Pubcomp:
					if !f.Reason.Failed() {
						x.acked[payload] = true
					}
					return
				case f.Ack == mqtt.Pubrec:
					x.acked[payload] = true
					released = true
					x.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Pubrel, PacketID: packet})
				}
			case link.DownClose:
				x.repeat(payload, packet, released)
			}
		case <-x.gone:
			x.repeat(payload, packet, released)
		case <-time.After(15 * time.Second):
			x.town.t.Errorf("%s: message %d is not acknowledged", x.id, x.sent)
			return
		}
	}
}

// repeat connects again and repeats what was not acknowledged.
func (x *writer) repeat(payload string, packet uint16, released bool) {
	x.again()
	if released {
		x.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Pubrel, PacketID: packet})
	} else {
		x.publish(x.qos, "t/"+x.id, payload, packet)
	}
}

func (x *writer) end() {
	close(x.stop)
	x.wg.Wait()
}

// collect takes all that a session has got and gets, until nothing comes any more. A
// message at QoS 2 that comes again before it was released is the same one.
func (c *resident) collect(quiet time.Duration) (got []string) {
	held := map[uint16]bool{}
	for {
		select {
		case f := <-c.frames:
			switch {
			case f.Kind == link.DownClose: // its partition has moved
				c.again()
			case f.Kind == link.DownAck && f.Ack == mqtt.Pubrel:
				delete(held, f.PacketID)
				c.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Pubcomp, PacketID: f.PacketID})
			case f.Kind != link.DownDeliver:
			case f.QoS == mqtt.AtLeastOnce:
				c.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Puback, PacketID: f.PacketID})
			case f.QoS == mqtt.ExactlyOnce:
				c.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Pubrec, PacketID: f.PacketID})
			}
			if f.Kind == link.DownDeliver {
				p := <-c.payload
				if !held[f.PacketID] {
					got = append(got, p[:strings.LastIndexByte(p, ' ')])
				}
				held[f.PacketID] = f.QoS == mqtt.ExactlyOnce
			}
		case <-time.After(quiet):
			return got
		}
	}
}

// again connects again.
func (c *resident) again() {
	_ = c.link.Close()
	y := c.town.connect(c.id, c.expiry)
	c.at, c.gone, c.link, c.frames, c.payload = y.at, y.gone, y.link, y.frames, y.payload
}

// reader makes a session with a subscription to what writers write.
func (w *town) reader(id string) *resident {
	w.t.Helper()
	for {
		c := w.connect(id, 3600)
		c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: "t/#", QoS: mqtt.ExactlyOnce}}})
		select {
		case f := <-c.frames:
			if f.Kind == link.DownSuback {
				return c
			}
			_ = c.link.Close() // its partition has moved
		case <-time.After(10 * time.Second):
			w.t.Fatalf("%s got no SUBACK", id)
		}
	}
}

// check holds that a reader got all that writers were promised, in order, and at
// QoS 2 once.
func check(t *testing.T, name string, got []string, writers []*writer) {
	t.Helper()
	for _, x := range writers {
		last, seen := 0, map[string]int{}
		for _, p := range got {
			if !strings.HasPrefix(p, x.id+"-") {
				continue
			}
			seen[p]++
			n := 0
			if _, err := fmt.Sscanf(p[len(x.id)+1:], "%d", &n); err != nil {
				t.Fatal(err)
			}
			if seen[p] == 1 && n < last {
				t.Errorf("%s got %s after number %d", name, p, last)
			}
			last = max(last, n)
		}
		for p := range x.acked {
			if seen[p] == 0 {
				t.Errorf("%s did not get %s, which was acknowledged", name, p)
			}
		}
		if x.qos == mqtt.ExactlyOnce {
			for p, n := range seen {
				if n > 1 {
					t.Errorf("%s got %s %d times", name, p, n)
				}
			}
		}
	}
}

// disturb has writers write and readers be away while do happens, and looks at what
// the readers get afterwards.
func disturb(t *testing.T, w *town, do func()) {
	t.Helper()
	var readers []string
	for i := range 6 {
		c := w.reader(fmt.Sprintf("reader-%d", i))
		_ = c.link.Close()
		readers = append(readers, c.id)
	}
	var writers []*writer
	for i := range 3 {
		writers = append(writers, w.write(fmt.Sprintf("one-%d", i), mqtt.AtLeastOnce), w.write(fmt.Sprintf("two-%d", i), mqtt.ExactlyOnce))
	}
	time.Sleep(300 * time.Millisecond) // some traffic before
	do()
	time.Sleep(300 * time.Millisecond) // and after
	total := 0
	for _, x := range writers {
		x.end()
		total += len(x.acked)
	}
	t.Logf("%d messages were acknowledged", total)
	for _, id := range readers {
		c := w.connect(id, 3600)
		check(t, id, c.collect(2*time.Second), writers)
	}
}

// othersServe waits until the brokers that are up serve all partitions.
func (w *town) othersServe() {
	w.t.Helper()
	w.eventually("the others serve all", func() string {
		n := 0
		for _, o := range w.brokers {
			if o.up {
				n += o.region.host.Stats().Serving
			}
		}
		if n != 16 {
			return fmt.Sprintf("%d are served", n)
		}
		return ""
	})
}

// A broker that ends without handing anything over takes nothing with it.
func TestRegion_Failover(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("half a minute")
	}
	w := newTown(t, 3)
	disturb(t, w, func() {
		h := w.brokers[1]
		h.stop()
		w.othersServe()
	})
	// It comes back, and another goes.
	w.brokers[1].start()
	w.settled()
	disturb(t, w, func() {
		w.brokers[2].stop()
		w.othersServe()
		w.brokers[2].start()
		w.settled()
	})
}

// A broker that is drained hands everything over while writers write.
func TestRegion_Drain(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("half a minute")
	}
	w := newTown(t, 3)
	disturb(t, w, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := w.brokers[0].Drain(ctx); err != nil {
			t.Error(err)
		}
	})
}

// Retained messages are found from every broker.
func TestRegion_Retained(t *testing.T) {
	t.Parallel()
	w := newTown(t, 3)
	w.findRetained(w.retainSome())
}

// retainSome publishes messages to be retained, r00 and so on under ret/.
func (w *town) retainSome() (payloads []string) {
	w.t.Helper()
	pub := w.connect("pub", 0)
	for i := range 40 {
		p := fmt.Sprintf("r%02d", i)
		pub.send(link.UpFrame{Kind: link.UpPublish, PacketID: 7, Message: mqtt.Message{
			Topic: []byte("ret/" + p), Payload: []byte(p), QoS: mqtt.AtLeastOnce, Retain: true,
		}})
		pub.want(link.DownAck)
		payloads = append(payloads, p)
	}
	return payloads
}

// findRetained subscribes to them anew.
func (w *town) findRetained(want []string) {
	w.t.Helper()
	for i := range 4 {
		c := w.connect(fmt.Sprint("late-", i), 0)
		c.subscribe("ret/+", mqtt.AtLeastOnce)
		got := c.collect(time.Second)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			w.t.Errorf("at %s: got %v, expected %v", c.at.name, got, want)
		}
		c = w.connect(fmt.Sprint("exact-", i), 0)
		c.subscribe("ret/r07", mqtt.AtLeastOnce)
		if got := c.collect(time.Second); !slices.Equal(got, []string{"r07"}) {
			w.t.Errorf("at %s: got %v for one topic", c.at.name, got)
		}
	}
}
