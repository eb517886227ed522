// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// guest is a client of n with an Open of its own.
func (n *wideNode) guest(gw link.Gateway, o *link.Open) *wideConn {
	n.w.t.Helper()
	c := &wideConn{node: n, link: n.link, gw: n.gw, frames: &wideInbox{}}
	if gw != nil {
		c.link = n.set.Attach(gw)
	}
	n.gw.mu.Lock()
	n.gw.last++
	c.id = n.gw.last
	n.gw.channels[c.id] = c
	n.gw.mu.Unlock()
	o.Tenant = "acme"
	if o.Resume == 0 {
		o.ReceiveMaximum, o.Limits = max(o.ReceiveMaximum, 1), unlimited
	}
	if o.Credit == 0 {
		o.Credit = 1 << 30
	}
	c.send(link.UpFrame{Kind: link.UpOpen, Open: o})
	return c
}

func (c *wideConn) ack(k mqtt.AckKind, packet uint16) {
	c.send(link.UpFrame{Kind: link.UpAck, Ack: k, PacketID: packet})
}

// wants waits for frames, of those kinds, and returns the last.
func (c *wideConn) wants(t *testing.T, kinds ...link.DownKind) (last record) {
	t.Helper()
	for _, k := range kinds {
		last = record{}
		for end := time.Now().Add(5 * time.Second); last.Kind == 0; time.Sleep(time.Millisecond) {
			c.frames.mu.Lock()
			if len(c.frames.items) > 0 {
				last = c.frames.items[0]
				c.frames.items = c.frames.items[1:]
			}
			c.frames.mu.Unlock()
			if time.Now().After(end) {
				t.Fatalf("nothing came, kind %d was expected", k)
			}
		}
		if last.Kind != k {
			t.Fatalf("got %+v, expected kind %d", last.DownFrame, k)
		}
	}
	return last
}

// moved has the partition of a client move to n, where it is, and answers its pause; it
// returns the token.
func (c *wideConn) moved(t *testing.T, p partition.ID) (token uint64) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		c.node.w.give(p, c.node, true)
		close(done)
	}()
	token = c.wants(t, link.DownPause).Bytes
	c.send(link.UpFrame{Kind: link.UpPaused})
	c.wants(t, link.DownMoved)
	<-done
	return token
}

// watcher gets the wills.
func (n *wideNode) watcher(t *testing.T) *wideConn {
	t.Helper()
	c := n.visitor(clientIn(1, "watcher"), unlimited)
	c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: "will", QoS: 1}}})
	c.wants(t, link.DownSuback)
	return c
}

var theWill = &mqtt.Will{Message: message("will", "gone", 0, false)}

// What is in flight goes along, what waits too, and the window holds: of a session that
// ends with its connection as of one that is stored.
func TestCede_TakesAlong(t *testing.T) {
	for name, expiry := range map[string]uint32{"clean": 0, "stored": 3600} {
		t.Run(name, func(t *testing.T) {
			_, n := lonely(t, 0, 1)
			id := mqtt.ClientID(clientIn(0, "c"))
			wills := n.watcher(t)
			c := n.guest(nil, &link.Open{ClientID: id, SessionExpiry: expiry, ReceiveMaximum: 2, Will: theWill})
			c.wants(t, link.DownOpened)
			c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: "t", QoS: 2, ID: 9}}})
			c.wants(t, link.DownSuback)
			p := n.visitor(clientIn(1, "p"), unlimited)
			for i, payload := range []string{"one", "two", "three", "four"} {
				p.send(link.UpFrame{Kind: link.UpPublish, PacketID: uint16(i + 1), Message: message("t", payload, mqtt.QoS(1+i%2), false)})
				p.wants(t, link.DownAck)
			}
			one, two := c.wants(t, link.DownDeliver), c.wants(t, link.DownDeliver)
			// It has published at QoS 2, and not released.
			c.send(link.UpFrame{Kind: link.UpPublish, PacketID: 5, Message: message("u", "x", 2, false)})
			c.wants(t, link.DownAck)
			old := c
			c = n.guest(nil, &link.Open{ClientID: id, Resume: c.moved(t, 0)})
			if r := c.wants(t, link.DownOpened); !r.SessionPresent {
				t.Error("the session is a new one")
			}
			p.send(link.UpFrame{Kind: link.UpPublish, PacketID: 8, Message: message("t", "late", 0, false)})
			if r := c.wants(t, link.DownDeliver); string(r.msg.Payload) != "late" { // nothing comes before it
				t.Fatalf("%q comes again", r.msg.Payload)
			}
			c.ack(mqtt.Puback, one.PacketID)
			if r := c.wants(t, link.DownDeliver); string(r.msg.Payload) != "three" || r.Dup || len(r.SubscriptionIDs) != 1 || r.PacketID == two.PacketID {
				t.Errorf("got %q, %+v", r.msg.Payload, r.DownFrame)
			}
			c.ack(mqtt.Pubrec, two.PacketID)
			if r := c.wants(t, link.DownAck); r.Ack != mqtt.Pubrel || r.PacketID != two.PacketID || r.Reason.Failed() {
				t.Errorf("got %+v", r.DownFrame)
			}
			c.ack(mqtt.Pubcomp, two.PacketID)
			if r := c.wants(t, link.DownDeliver); string(r.msg.Payload) != "four" || r.QoS != 2 {
				t.Errorf("got %q, %+v", r.msg.Payload, r.DownFrame)
			}
			c.send(link.UpFrame{Kind: link.UpPublish, PacketID: 5, Dup: true, Message: message("t", "x", 2, false)})
			if r := c.wants(t, link.DownAck); r.Ack != mqtt.Pubrec { // and "x" does not come
				t.Errorf("got %+v", r.DownFrame)
			}
			c.ack(mqtt.Pubrel, 5)
			if r := c.wants(t, link.DownAck); r.Ack != mqtt.Pubcomp || r.Reason.Failed() {
				t.Errorf("got %+v", r.DownFrame)
			}
			for _, x := range []*wideConn{wills, old} {
				if items, _ := x.frames.take(); len(items) > 0 {
					t.Errorf("came: %+v", items)
				}
			}
			if got := n.moving(0); got != 0 {
				t.Errorf("%d records of connections are left", got)
			}
			c.send(link.UpFrame{Kind: link.UpClose, Close: &link.Close{Cause: link.CloseLost}})
			wills.wants(t, link.DownDeliver)
		})
	}
}

// moving counts the records of connections in a partition, once all is committed.
func (n *wideNode) moving(p partition.ID) (count int) {
	done := make(chan struct{})
	s := n.set.shardOf(p)
	s.call(func() { s.wait(s.spaces[p].ledger, waiter{after: func() { close(done) }}) })
	<-done
	start, end := partition.Range(p, partition.KindMoving)
	it := n.w.store.Scan(start, end)
	defer it.Close()
	for it.Next() {
		count++
	}
	return count
}

// Who does not become quiet is closed, and told that the server has moved.
func TestCede_NotQuiet(t *testing.T) {
	w, n := lonely(t, 0, 1)
	c := n.guest(nil, &link.Open{ClientID: mqtt.ClientID(clientIn(0, "c"))})
	c.wants(t, link.DownOpened)
	begun := time.Now()
	w.give(0, n, true)
	c.wants(t, link.DownPause)
	if r := c.wants(t, link.DownClose); r.Reason != mqtt.ServerMoved {
		t.Errorf("it is told %s", r.Reason)
	}
	if took := time.Since(begun); took < cedeMost || took > 3*cedeMost {
		t.Errorf("it was waited for %v", took)
	}
}

// oldGateway does not know how connections go on.
type oldGateway struct{ gw *wideGateway }

// Receive implements link.Gateway.
func (g oldGateway) Receive(b *link.Down) { g.gw.Receive(b) }

// Flush implements link.Gateway.
func (g oldGateway) Flush() {}

// Lost implements link.Gateway.
func (g oldGateway) Lost(error) {}

// The clients of an older gateway are closed as at an unplanned change, at once.
func TestCede_OldGateway(t *testing.T) {
	w, n := lonely(t, 0, 1)
	c := n.guest(oldGateway{n.gw}, &link.Open{ClientID: mqtt.ClientID(clientIn(0, "c"))})
	c.wants(t, link.DownOpened)
	begun := time.Now()
	w.give(0, n, true)
	if r := c.wants(t, link.DownClose); r.Reason != mqtt.ServerShuttingDown {
		t.Errorf("it is told %s", r.Reason)
	}
	if took := time.Since(begun); took > cedeMost {
		t.Errorf("it was waited for %v", took)
	}
}

// A client that comes through another gateway before its connection goes on has the
// session; the connection is refused, and told why.
func TestCede_Overtaken(t *testing.T) {
	_, n := lonely(t, 0, 1)
	id := mqtt.ClientID(clientIn(0, "c"))
	wills := n.watcher(t)
	open := link.Open{ClientID: id, SessionExpiry: 3600, Will: theWill}
	first := open
	c := n.guest(nil, &first)
	c.wants(t, link.DownOpened)
	token := c.moved(t, 0)
	second := n.guest(nil, &open)
	if r := second.wants(t, link.DownOpened); !r.SessionPresent {
		t.Error("the session is a new one")
	}
	wills.wants(t, link.DownDeliver) // as of any session that is taken over
	c = n.guest(nil, &link.Open{ClientID: id, Resume: token})
	if r := c.wants(t, link.DownRefused); r.Reason != mqtt.SessionTakenOver {
		t.Errorf("it is told %s", r.Reason)
	}
	if got := n.moving(0); got != 0 {
		t.Errorf("%d records of connections are left", got)
	}
	second.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message("u", "x", 1, false)})
	second.wants(t, link.DownAck)
}

// A session whose connection does not come has lost it, with all that follows.
func TestCede_Unresumed(t *testing.T) {
	_, n := lonely(t, 0, 1)
	id := mqtt.ClientID(clientIn(0, "c"))
	wills := n.watcher(t)
	c := n.guest(nil, &link.Open{ClientID: id, Will: theWill})
	c.wants(t, link.DownOpened)
	token := c.moved(t, 0)
	s := n.set.shardOf(0)
	s.ask(func() {
		se := s.session(n.set.Tenant("acme"), id)
		if left := se.awaited.until - s.now; left > resumeWait || left < resumeWait/2 {
			t.Errorf("it is waited for %d ms", left)
		}
		se.awaited.until = s.now
		s.due(se)
	})
	wills.wants(t, link.DownDeliver)
	c = n.guest(nil, &link.Open{ClientID: id, Resume: token})
	if r := c.wants(t, link.DownRefused); r.Reason != mqtt.ServerShuttingDown {
		t.Errorf("it is told %s", r.Reason)
	}
	if n.set.Tenant("acme").all.Load() != 1 || n.moving(0) != 0 { // the watcher's
		t.Error("something is left of the session")
	}
}

// If the new owner is lost before the connection has come, it is over: nobody knows what
// the session has got meanwhile.
func TestCede_LostMeanwhile(t *testing.T) {
	w, n := lonely(t, 0, 1)
	id := mqtt.ClientID(clientIn(0, "c"))
	wills := n.watcher(t)
	c := n.guest(nil, &link.Open{ClientID: id, Will: theWill})
	c.wants(t, link.DownOpened)
	token := c.moved(t, 0)
	n.moving(0)
	w.give(0, n, false)
	wills.wants(t, link.DownDeliver)
	c = n.guest(nil, &link.Open{ClientID: id, Resume: token})
	if r := c.wants(t, link.DownRefused); r.Reason != mqtt.ServerShuttingDown {
		t.Errorf("it is told %s", r.Reason)
	}
}

// A partition that moves on takes along what has come for a client that has not.
func TestCede_MovesOn(t *testing.T) {
	w, n := lonely(t, 0, 1)
	id := mqtt.ClientID(clientIn(0, "c"))
	c := n.guest(nil, &link.Open{ClientID: id, ReceiveMaximum: 8})
	c.wants(t, link.DownOpened)
	c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: "t", QoS: 1}}})
	c.wants(t, link.DownSuback)
	token := c.moved(t, 0)
	p := n.visitor(clientIn(1, "p"), unlimited)
	p.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message("t", "meanwhile", 1, false)})
	p.wants(t, link.DownAck)
	p.send(link.UpFrame{Kind: link.UpPublish, Message: message("t", "late", 0, false)})
	w.give(0, n, true)
	c = n.guest(nil, &link.Open{ClientID: id, Resume: token})
	c.wants(t, link.DownOpened)
	if r := c.wants(t, link.DownDeliver); string(r.msg.Payload) != "meanwhile" {
		t.Errorf("got %q", r.msg.Payload)
	}
}
