// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// lonely is a Set that is alone in a cluster: it owns the partitions given, and the
// others belong to a broker that is dead.
func lonely(t *testing.T, owned ...partition.ID) (*wide, *wideNode) {
	t.Helper()
	w := newWide(t, 1, 2)
	n, other := w.nodes[0], w.nodes[1]
	for p := range partition.ID(wideParts) {
		w.give(p, other, true)
	}
	for _, p := range owned {
		w.give(p, n, true)
	}
	other.die()
	return w, n
}

// topicIn gives a topic whose retained message lives in partition p.
func topicIn(p partition.ID) string {
	for i := 0; ; i++ {
		topic := fmt.Sprint("r/", i)
		if partition.Choose([]partition.ID{0, 1, 2, 3, 4, 5, 6, 7}, topic) == p {
			return topic
		}
	}
}

// visitor is a client of n alone, which keeps no session.
func (n *wideNode) visitor(id string, limits link.Limits) *wideConn {
	n.w.t.Helper()
	return n.opens(&link.Open{
		Tenant: "acme", ClientID: mqtt.ClientID(id), CleanStart: true, ReceiveMaximum: 8, Credit: 1 << 30, Limits: limits,
	})
}

// opens is a client of n alone that opens a connection.
func (n *wideNode) opens(o *link.Open) *wideConn {
	n.w.t.Helper()
	c := &wideConn{node: n, link: n.link, gw: n.gw, frames: &wideInbox{}}
	n.gw.mu.Lock()
	n.gw.last++
	c.id = n.gw.last
	n.gw.channels[c.id] = c
	n.gw.mu.Unlock()
	c.send(link.UpFrame{Kind: link.UpOpen, Open: o})
	c.wants(n.w.t, link.DownOpened) // what waits for its session may be behind it
	return c
}

// want waits for one frame, of that kind.
func (c *wideConn) want(t *testing.T, k link.DownKind) record {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if items, _ := c.frames.take(); len(items) > 0 {
			if items[0].Kind != k || len(items) > 1 {
				t.Fatalf("got %+v, expected one of kind %d", items, k)
			}
			return items[0]
		}
	}
	t.Fatalf("nothing came, kind %d was expected", k)
	return record{}
}

// A tenant with as many retained messages as it may have is refused one whose
// partition another broker serves, as one that is served here.
func TestWide_RetainedLimit(t *testing.T) {
	_, n := lonely(t, 0, 1, 2, 3)
	limits := unlimited
	limits.Retained = 1
	c := n.visitor(clientIn(0, "p"), limits)
	for i, p := range []partition.ID{1, 5, 6} { // of this shard and the other one
		c.send(link.UpFrame{Kind: link.UpPublish, PacketID: uint16(i + 1), Message: message(topicIn(p), "x", 1, true)})
		if r, want := c.want(t, link.DownAck), i > 0; r.Reason == mqtt.QuotaExceeded != want {
			t.Errorf("partition %d is answered %s", p, r.Reason)
		}
	}
}

// What other brokers said of the members in a partition is nothing when that is served
// here: a message for them is not sent to this broker again and again.
func TestWide_GroupOfOwnPartition(t *testing.T) {
	w, n := lonely(t, 0, 1)
	for _, p := range []partition.ID{2, 3} { // of both shards
		n.set.FarGroup("acme", "$share/g/t", p, 1, 1)
		w.give(p, n, true)
	}
	c := n.visitor(clientIn(0, "p"), unlimited)
	c.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message("t", "x", 1, false)})
	c.want(t, link.DownAck)
	if left := w.leftovers(); len(left) > 0 {
		t.Error(left)
	}
}

// A route of a partition that this region does not have leads nowhere.
func TestWide_NoSuchPartition(t *testing.T) {
	_, n := lonely(t, 0, 1)
	n.set.FarRoute("acme", "t", 60_000, true)
	n.set.FarGroup("acme", "$share/g/t", 60_000, 1, 1)
	c := n.visitor(clientIn(0, "p"), unlimited)
	c.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message("t", "x", 1, false)})
	if r := c.want(t, link.DownAck); r.Reason != mqtt.NoMatchingSubscribers {
		t.Errorf("answered %s", r.Reason)
	}
}

// What the last owner of a partition has said of filters leads nowhere once it is served here:
// who has subscribed anew gets a message once.
func TestWide_LeftoverOfOwnPartition(t *testing.T) {
	_, n := lonely(t, 0, 1)
	sub := n.visitor(clientIn(0, "s"), unlimited)
	sub.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: "a/b"}, {Filter: "end"}}})
	sub.want(t, link.DownSuback)
	n.set.FarRoute("acme", "a/+", 0, true)
	for _, p := range []partition.ID{0, 1} { // of both shards
		c := n.visitor(clientIn(p, fmt.Sprint("p", p)), unlimited)
		for qos := range mqtt.QoS(3) {
			packet := uint16(0)
			if qos > 0 {
				packet = 2*uint16(qos) + 1
			}
			c.send(link.UpFrame{Kind: link.UpPublish, PacketID: packet, Message: message("a/b", "x", qos, false)})
			if qos > 0 {
				c.wants(t, link.DownAck)
			}
			c.send(link.UpFrame{Kind: link.UpPublish, PacketID: 2*uint16(qos) + 2, Message: message("end", "x", mqtt.AtLeastOnce, false)})
			c.wants(t, link.DownAck)
			came := 0
			for {
				r := sub.wants(t, link.DownDeliver)
				if string(r.msg.Topic) == "end" {
					break
				}
				came++
			}
			if came != 1 {
				t.Errorf("from partition %d at QoS %d it came %d times", p, qos, came)
			}
		}
	}
}

// So it is of the wills that the next owner of a partition sends when it takes it up.
func TestWide_LeftoverAtTakeUp(t *testing.T) {
	w := newWide(t, 1, 2)
	first, next := w.nodes[0], w.nodes[1]
	w.give(0, first, true)
	open := func(n *wideNode, id string, will *mqtt.Will) *wideConn {
		return n.opens(&link.Open{
			Tenant: "acme", ClientID: mqtt.ClientID(clientIn(0, id)), SessionExpiry: 1000, ReceiveMaximum: 8, Credit: 1 << 30, Limits: unlimited, Will: will,
		})
	}
	sub := open(first, "s", nil)
	sub.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: "w/#", QoS: mqtt.ExactlyOnce}}})
	sub.want(t, link.DownSuback)
	open(first, "p", &mqtt.Will{Message: message("w/gone", "will", mqtt.ExactlyOnce, false)})
	next.set.FarRoute("acme", "w/+", 0, true) // as the first owner had it until a moment ago
	first.die()
	w.give(0, next, false)
	sub = open(next, "s", nil)
	for end := time.Now().Add(5 * time.Second); len(w.leftovers()) > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	c := next.visitor(clientIn(1, "c"), unlimited)
	c.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message("w/end", "x", mqtt.AtLeastOnce, false)})
	came := 0
	for string(sub.wants(t, link.DownDeliver).msg.Topic) != "w/end" {
		came++
	}
	if came != 1 {
		t.Errorf("the will came %d times, expected once", came)
	}
}
