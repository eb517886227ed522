// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// visitor is a client with a channel at a broker that need not be its own.
type visitor struct {
	t  *testing.T
	id mqtt.ClientID
	*wideConn
	got []record
}

// visit opens a channel for a guest.
func (n *wideNode) visit(t *testing.T, id mqtt.ClientID, edit func(o *link.Open)) *visitor {
	v := &visitor{t: t, id: id, wideConn: &wideConn{node: n, link: n.link, gw: n.gw, frames: &wideInbox{}}}
	n.gw.mu.Lock()
	n.gw.last++
	v.wideConn.id = n.gw.last
	n.gw.channels[v.wideConn.id] = v.wideConn
	n.gw.mu.Unlock()
	o := &link.Open{Tenant: "acme", ClientID: id, Guest: true, SessionExpiry: 3600, ReceiveMaximum: 8, Credit: 1 << 40, Limits: unlimited}
	if edit != nil {
		edit(o)
	}
	v.send(link.UpFrame{Kind: link.UpOpen, Open: o})
	return v
}

// want waits for the next frame, which is of that kind.
func (v *visitor) want(k link.DownKind) record {
	v.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if len(v.got) == 0 {
			v.got, _ = v.frames.take()
		}
		if len(v.got) > 0 {
			r := v.got[0]
			v.got = v.got[1:]
			if r.Kind != k {
				v.t.Fatalf("%s got %+v, expected kind %d", v.id, r.DownFrame, k)
			}
			return r
		}
		if time.Now().After(end) {
			v.t.Fatalf("%s got no frame of kind %d", v.id, k)
		}
	}
}

// servedWide is a world of three brokers in which every partition is served.
func servedWide(t *testing.T) *wide {
	w := newWide(t, 1, 3)
	for p := range partition.ID(wideParts) {
		w.nodes[0].eventually(t, "served", func() bool {
			return slices.ContainsFunc(w.nodes, func(n *wideNode) bool { return n.set.Serves(p) })
		})
	}
	return w
}

// away is a client id whose partition is not served at n, and that partition.
func (n *wideNode) away() (id mqtt.ClientID, p partition.ID) {
	id = "guest"
	for p = partition.Choose(n.set.cell, string(id)); n.set.Serves(p); p = partition.Choose(n.set.cell, string(id)) {
		id += "'"
	}
	return id, p
}

func subscribeTo(filter string) link.UpFrame {
	return link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: filter, QoS: 1}}}
}

// allowed lets a guest do everything.
func allowed(o *link.Open) { o.Limits.Settings.Subscribe, o.Limits.Settings.Unsubscribe = true, true }

// A guest is a clean session elsewhere, which gets and sends messages; a second one of
// its client id takes its place; its end leaves nothing.
func TestGuest(t *testing.T) {
	w := servedWide(t)
	n := w.nodes[0]
	id, _ := n.away()
	a := n.visit(t, id, allowed)
	if o := a.want(link.DownOpened); o.SessionPresent {
		t.Error("it has a session")
	}
	a.send(subscribeTo("g"))
	a.want(link.DownSuback)
	a.send(link.UpFrame{Kind: link.UpPublish, PacketID: 2, Message: message("g", "hello", 1, false)})
	if m := a.want(link.DownDeliver); string(m.msg.Payload) != "hello" {
		t.Errorf("got %q", m.msg.Payload)
	} else {
		a.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Puback, PacketID: m.PacketID})
	}
	a.want(link.DownAck)
	b := n.visit(t, id, allowed)
	if b.want(link.DownOpened).SessionPresent {
		t.Error("the second has a session")
	}
	if c := a.want(link.DownClose); c.Reason != mqtt.SessionTakenOver {
		t.Errorf("the first was closed with %v", c.Reason)
	}
	if g := n.set.Guests(); g != 1 {
		t.Errorf("%d guests", g)
	}
	b.close()
	n.eventually(t, "no guest is left", func() bool { return n.set.Guests() == 0 })
	if all := n.set.Tenant("acme").all.Load(); all != 0 {
		t.Errorf("%d sessions are left", all)
	}
}

func (n *wideNode) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s", what)
		}
	}
}

// A guest whose tenant does not allow it neither subscribes nor unsubscribes.
func TestGuest_MayNot(t *testing.T) {
	n := servedWide(t).nodes[0]
	id, _ := n.away()
	v := n.visit(t, id, func(o *link.Open) { o.Limits.Settings.Unsubscribe = true })
	v.want(link.DownOpened)
	v.send(subscribeTo("g"))
	if a := v.want(link.DownSuback); len(a.Reasons) != 1 || a.Reasons[0] != mqtt.ImplementationSpecificError {
		t.Errorf("SUBACK %v", a.Reasons)
	}
	v = n.visit(t, id, func(o *link.Open) { o.Limits.Settings.Subscribe = true })
	v.want(link.DownOpened)
	v.send(subscribeTo("g"))
	if a := v.want(link.DownSuback); a.Reasons[0] != mqtt.GrantedQoS1 {
		t.Errorf("SUBACK %v", a.Reasons)
	}
	v.send(link.UpFrame{Kind: link.UpUnsubscribe, PacketID: 2, Unsubscribe: []string{"g"}})
	if a := v.want(link.DownUnsuback); len(a.Reasons) != 1 || a.Reasons[0] != mqtt.ImplementationSpecificError {
		t.Errorf("UNSUBACK %v", a.Reasons)
	}
	v.send(link.UpFrame{Kind: link.UpPublish, Message: message("g", "still there", 0, false)})
	v.want(link.DownDeliver)
}

// Who belongs to the broker is no guest there, and guests leave when their partition
// comes to it: without their will, and its session is untouched.
func TestGuest_PartitionComes(t *testing.T) {
	w := servedWide(t)
	n := w.nodes[0]
	id, p := n.away()
	w.mu.Lock()
	home := w.nodeLocked(w.parts[p].owner)
	w.mu.Unlock()
	own := home.visit(t, id, func(o *link.Open) { o.Guest = false })
	own.want(link.DownOpened)
	own.send(subscribeTo("own"))
	own.want(link.DownSuback)
	if m := home.visit(t, id, allowed).want(link.DownMoved); m.Moved.Partition != uint16(p) {
		t.Errorf("the owner's answer to a guest: %+v", m.Moved)
	}
	local := mqtt.ClientID("watch")
	for !n.set.Serves(partition.Choose(n.set.cell, string(local))) {
		local += "'"
	}
	watch := n.visit(t, local, func(o *link.Open) { o.Guest = false })
	watch.want(link.DownOpened)
	watch.send(subscribeTo("#"))
	watch.want(link.DownSuback)
	guest := n.visit(t, id, func(o *link.Open) {
		allowed(o)
		o.Will = &mqtt.Will{Message: message("gone", "will", 1, false)}
	})
	guest.want(link.DownOpened)
	own.send(link.UpFrame{Kind: link.UpPublish, Message: message("x", "its own session is open", 0, false)})
	watch.want(link.DownDeliver)
	w.give(p, n, true)
	if c := guest.want(link.DownClose); c.Reason != mqtt.UseAnotherServer {
		t.Errorf("closed with %v", c.Reason)
	}
	back := n.visit(t, id, func(o *link.Open) { o.Guest = false })
	if !back.want(link.DownOpened).SessionPresent {
		t.Error("its own session is not there")
	}
	back.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message("x", "back", 0, false)})
	if m := watch.want(link.DownDeliver); string(m.msg.Payload) != "back" {
		t.Errorf("got %q, the will of a guest that was sent away?", m.msg.Payload)
	}
}

// The will of a guest goes out once when its broker dies.
func TestGuest_BrokerDies(t *testing.T) {
	w := servedWide(t)
	n := w.nodes[0]
	id, _ := n.away()
	watch := w.client("watch", []string{"gone"}, 0)
	for n.set.Serves(watch.part) { // it outlives the broker
		watch = w.client(string(watch.id)+"'", []string{"gone"}, 0)
	}
	done := make(chan struct{})
	go func() { watch.live(); close(done) }()
	t.Cleanup(func() {
		watch.mu.Lock()
		watch.quit = true
		watch.mu.Unlock()
		<-done
	})
	n.eventually(t, "subscribed", watch.isReady)
	g := n.visit(t, id, func(o *link.Open) { o.Will = &mqtt.Will{Message: message("gone", "will", 2, false)} })
	g.want(link.DownOpened)
	g.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message("x", "commits what is before it", 2, false)})
	w.mu.Lock()
	for p := range w.parts { // the record of its will
		w.commitLocked(partition.ID(p), len(w.parts[p].log), nil, true)
	}
	w.mu.Unlock()
	n.die()
	w.heal()
	w.begin(n.name)
	n.eventually(t, "the will is out", func() bool { return watch.counts()["will"] > 0 })
	n.eventually(t, "at rest", func() bool { return len(w.leftovers()) == 0 })
	if c := watch.counts()["will"]; c != 1 {
		t.Errorf("it came %d times", c)
	}
}

// A guest does not go along when the partition that it is in moves as planned: its
// gateway would ask its own partition for it. It is sent back, without its will, and
// nothing of it comes to the next owner.
func TestGuest_PartitionMoves(t *testing.T) {
	w := servedWide(t)
	n, next := w.nodes[0], w.nodes[1]
	watch := next.visitor(clientInServed(next), unlimited)
	watch.send(subscribeTo("gone"))
	watch.wants(t, link.DownSuback)
	id, own := n.away()
	guest := n.visit(t, id, func(o *link.Open) {
		allowed(o)
		o.Will = &mqtt.Will{Message: message("gone", "will", 1, false)}
	})
	guest.want(link.DownOpened)
	in := n.set.guests.of(own)[0].space.id
	slow := n.visitor(clientIn(in, "slow"), unlimited)
	moved := make(chan struct{})
	go func() {
		w.give(in, next, true)
		close(moved)
	}()
	slow.wants(t, link.DownPause)
	n.visit(t, id, allowed).want(link.DownMoved) // none is let in meanwhile
	slow.send(link.UpFrame{Kind: link.UpPaused})
	<-moved
	if c := guest.want(link.DownClose); c.Reason != mqtt.UseAnotherServer {
		t.Errorf("closed with %v", c.Reason)
	}
	w.give(in, n, true)
	for _, s := range n.set.shards {
		s.ask(func() {
			if se := s.session(n.set.Tenant("acme"), id); se != nil {
				t.Errorf("a session of the guest in partition %d", se.space.id)
			}
		})
	}
	watch.send(link.UpFrame{Kind: link.UpPublish, PacketID: 2, Message: message("gone", "no will before", 1, false)})
	if m := watch.wants(t, link.DownDeliver); string(m.msg.Payload) != "no will before" {
		t.Errorf("got %q", m.msg.Payload)
	}
}

// clientInServed is a client id whose partition n serves.
func clientInServed(n *wideNode) string {
	for p := range partition.ID(wideParts) {
		if n.set.Serves(p) {
			return clientIn(p, "watch")
		}
	}
	return ""
}
