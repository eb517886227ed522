// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// stored has a client come whose session stays, with a subscription to q/ID, and go
// again. It returns why it was refused, empty if it was not.
func (n *wideNode) stored(id string, limits link.Limits) (refused string) {
	t := n.w.t
	t.Helper()
	c := &wideConn{node: n, link: n.link, gw: n.gw, frames: &wideInbox{}}
	n.gw.mu.Lock()
	n.gw.last++
	c.id = n.gw.last
	n.gw.channels[c.id] = c
	n.gw.mu.Unlock()
	c.send(link.UpFrame{Kind: link.UpOpen, Open: &link.Open{
		Tenant: "acme", ClientID: mqtt.ClientID(id), SessionExpiry: 3600, ReceiveMaximum: 8, Credit: 1 << 30, Limits: limits,
	}})
	beforeDeadline(t, "an answer", func() bool {
		items, _ := c.frames.take()
		for i := range items {
			refused = items[i].Text
		}
		return len(items) > 0
	})
	if refused == "" {
		c.suback(t, "q/"+id)
		c.close()
	}
	return refused
}

// setMute has the questions of a broker reach nobody, or all again.
func (n *wideNode) setMute(on bool) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.mute = on
}

// total is what a broker takes the tenant to have.
func (n *wideNode) total(what counted) (total int64) {
	s := n.set.shards[0]
	s.ask(func() { total = s.everywhere(n.set.Tenant("acme"), what, 1<<40) })
	return total
}

// age makes all that a broker has heard of the others older by ms milliseconds.
func (n *wideNode) age(ms int64) {
	t := n.set.Tenant("acme")
	t.far.put(n.set, t, n.set.now(), func(by map[string]heard) {
		for name, h := range by {
			h.at -= ms
			by[name] = h
		}
	})
}

// What others have said long ago refuses and drops nothing, and who is near a limit is
// asked about without anything being decided.
func TestWide_QuotaOldAnswers(t *testing.T) {
	t.Parallel()
	n := pair(t)
	limits := bounded(func(l *link.TenantLimits) { l.StorageBytes = 1000 })
	limits.Sessions = 4
	x, y := clientIn(0, "x"), clientIn(1, "y")
	for i, id := range []string{x, y} {
		if why := n[i].stored(id, limits); why != "" {
			t.Fatal(why)
		}
	}
	p := n[1].visitor(clientIn(3, "p"), limits)
	publish := func(packet uint16, to string) {
		t.Helper()
		p.send(link.UpFrame{Kind: link.UpPublish, PacketID: packet, Message: message("q/"+to, strings.Repeat("q", 600), 1, false)})
		if r := p.want(t, link.DownAck); r.Reason.Failed() {
			t.Error(r.Reason)
		}
	}
	waits := func(of *wideNode) bool { return of.set.Tenant("acme").Usage().QueueBytes > 600 }
	publish(1, x)
	fresh := &n[1].set.Tenant("acme").far.fresh[ofStorage]
	beforeDeadline(t, "what the first has is known", func() bool { return n[1].total(ofStorage) > 600 })
	publish(2, y)
	if waits(n[1]) {
		t.Error("more is stored than there may be at both")
	}
	beforeDeadline(t, "it is watched", n[1].set.Tenant("acme").far.watched.Load)
	n[1].setMute(true)
	n[1].age(heardFor)
	n[1].total(ofStorage)
	if v := fresh.Load(); v != 0 {
		t.Errorf("an old answer of %d bytes counts", v)
	}
	publish(3, y)
	if !waits(n[1]) {
		t.Error("a message was dropped on an old answer")
	}
	limits.Sessions = 2 // of which one is here
	if why := n[1].stored(clientIn(5, "z"), limits); why != "" {
		t.Errorf("a session is refused on an old answer: %s", why)
	}
	n[1].setMute(false)
	beforeDeadline(t, "the others are asked though nothing is decided", func() bool { return fresh.Load() > 600 })
	if why := n[1].stored(clientIn(7, "z"), limits); !strings.Contains(why, "persistent_sessions") {
		t.Errorf("a session was refused with %q", why)
	}
}

// What comes from another broker is not counted there, too.
func TestWide_QuotaMove(t *testing.T) {
	t.Parallel()
	n := pair(t)
	limits := bounded(func(l *link.TenantLimits) { l.StorageBytes = 1 << 40 })
	x := clientIn(2, "x")
	if why := n[0].stored(x, limits); why != "" {
		t.Fatal(why)
	}
	p := n[1].visitor(clientIn(1, "p"), limits)
	p.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message("q/"+x, strings.Repeat("q", 600), 1, false)})
	p.want(t, link.DownAck)
	beforeDeadline(t, "what the first has is known", func() bool { return n[1].total(ofStorage) > 600 })
	n[0].w.give(2, n[1], true)
	for end := time.Now().Add(movedFor * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if v := n[1].total(ofStorage); v < 600 || v > 1200 {
			t.Fatalf("%d bytes are counted where 600 have come", v)
		}
		if v := n[1].total(ofSessions); v != 1 {
			t.Fatalf("%d sessions are counted where one has come", v)
		}
	}
	beforeDeadline(t, "the others are known again", func() bool {
		n[1].total(ofStorage)
		return n[1].set.Tenant("acme").far.until.Load() < 1<<60
	})
}
