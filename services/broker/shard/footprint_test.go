// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// subacks is a gateway that counts what is granted.
type subacks struct{ granted atomic.Int64 }

func (g *subacks) Flush()     {}
func (g *subacks) Lost(error) {}

func (g *subacks) Receive(b *link.Down) {
	for i := range b.Frames {
		for _, r := range b.Frames[i].Reasons {
			if !r.Failed() {
				g.granted.Add(1)
			}
		}
	}
}

// alive is how many bytes of the heap collections leave, when they find nothing more: what is
// pooled or has a finalizer goes with the second, and other tests may just have ended.
func alive() (bytes int) {
	var m runtime.MemStats
	for i, same := 0, 0; i < 50 && same < 3; i++ {
		runtime.GC()
		runtime.ReadMemStats(&m)
		if now := int(m.HeapAlloc); max(now-bytes, bytes-now) < 4<<10 {
			same++
		} else {
			bytes, same = now, 0
		}
	}
	return bytes
}

// A subscription costs no more memory than its budget, its filter and its part of
// the routes included.
func TestSubscriptionBudget(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has its own memory")
	}
	for _, c := range []struct {
		name   string
		filter func(session, i int) string
		each   int // subscriptions of a session
		n      int // subscriptions
		most   int // bytes, a tenth above what it is; 500 are promised
	}{
		{"wildcards of its own", func(s, i int) string { return fmt.Sprintf("acme/w/+/d%d-%d/#", s, i) }, 1000, 50_000, 220},
		{"a topic of its own", func(s, i int) string { return fmt.Sprintf("acme/idle/%d-%d/cmd", s, i) }, 1000, 50_000, 275},
		{"one for each session", func(s, _ int) string { return fmt.Sprintf("acme/idle/%d/cmd", s) }, 1, 10_000, 250},
		{"one filter of all sessions", func(int, int) string { return "acme/all/+/news" }, 1, 10_000, 48},
	} {
		t.Run(c.name, func(t *testing.T) {
			// What another test has left may be collected meanwhile: what a subscription costs
			// too much it costs each time.
			var each int
			for try := 0; try < 3 && (try == 0 || each > c.most || each <= 0); try++ {
				each = costOf(t, c.n, c.each, c.filter)
				t.Logf("%d bytes for each of %d subscriptions", each, c.n)
			}
			if each > c.most || each <= 0 {
				t.Errorf("a subscription costs %d bytes, expected at most %d", each, c.most)
			}
		})
	}
}

// costOf is how many bytes of the heap each of n subscriptions takes, of which a session has
// perSession.
func costOf(t *testing.T, n, perSession int, filter func(session, i int) string) int {
	t.Helper()
	const together = 250
	w := newWorld(t, 2, false)
	gw := &subacks{}
	l := w.set.Attach(gw)
	send := func(f link.UpFrame) {
		if err := l.Send(&link.Up{Frames: []link.UpFrame{f}}); err != nil {
			t.Fatal(err)
		}
	}
	sessions := n / perSession
	for s := range sessions {
		send(link.UpFrame{Kind: link.UpOpen, Channel: link.Channel(s), Open: &link.Open{
			Tenant: "acme", ClientID: mqtt.ClientID(fmt.Sprint("c", s)), CleanStart: true, ReceiveMaximum: 100, Credit: 1 << 20, Limits: unlimited,
		}})
	}
	w.settle()
	before := alive()
	for s := range sessions {
		for i := 0; i < perSession; i += together {
			f := link.UpFrame{Kind: link.UpSubscribe, Channel: link.Channel(s), PacketID: 1}
			for k := i; k < min(i+together, perSession); k++ {
				f.Subscribe = append(f.Subscribe, mqtt.Subscription{Filter: filter(s, k), QoS: 1})
			}
			send(f)
		}
	}
	w.settle()
	if got := gw.granted.Load(); got != int64(n) {
		t.Fatalf("%d subscriptions are granted, expected %d", got, n)
	}
	each := (alive() - before) / n
	runtime.KeepAlive(l)
	return each
}
