// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
)

// idAt is the n-th client id, or topic, whose partition is served at a node.
func (n *wideNode) idAt(prefix string, k int) string {
	for i := 0; ; i++ {
		id := fmt.Sprint(prefix, i)
		if n.set.Serves(partition.Choose(n.set.cell, id)) {
			if k--; k < 0 {
				return id
			}
		}
	}
}

// own opens a channel of a client at its own broker.
func (n *wideNode) own(t *testing.T, id string) *visitor {
	v := n.visit(t, mqtt.ClientID(id), func(o *link.Open) { o.Guest = false })
	v.want(link.DownOpened)
	return v
}

// A message that is published while somebody subscribes, and is retained at a third
// broker, comes live or retained.
func TestRetained_NeverNeither(t *testing.T) {
	w := servedWide(t)
	for qos := mqtt.AtLeastOnce; qos <= mqtt.ExactlyOnce; qos++ {
		for _, at := range []int{2, 1, 0} { // where it is retained
			pub, sub := w.nodes[0].own(t, w.nodes[0].idAt("pub", int(qos))), w.nodes[1].own(t, w.nodes[1].idAt("sub", int(qos)))
			for i := range 40 {
				topic := w.nodes[at].idAt(fmt.Sprintf("%d-%d-%d-", qos, at, i), 0)
				go pub.send(link.UpFrame{Kind: link.UpPublish, PacketID: uint16(i + 1), Message: message(topic, "there", qos, true)})
				if i%2 == 0 {
					time.Sleep(time.Duration(i) * 20 * time.Microsecond) // any moment
				}
				f := subscribeTo(topic)
				f.PacketID = uint16(i + 1)
				sub.send(f)
				got := false
				for end := time.Now().Add(5 * time.Second); !got; time.Sleep(100 * time.Microsecond) {
					items, _ := sub.frames.take()
					for _, r := range items {
						if r.Kind == link.DownDeliver {
							got = got || string(r.msg.Topic) == topic
							sub.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Puback, PacketID: r.PacketID})
						}
					}
					if time.Now().After(end) {
						t.Fatalf("at %s, retained at %s: message %d came neither live nor retained", qos, w.nodes[at].name, i)
					}
				}
				ack := pub.want(link.DownAck)
				if qos == mqtt.ExactlyOnce {
					pub.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Pubrel, PacketID: ack.PacketID})
					pub.want(link.DownAck)
				}
			}
			pub.close()
			sub.close()
		}
	}
}

// The publisher's partition is lost when its message is in the outbox and has not left,
// and nobody serves it while somebody subscribes: the message comes when the next owner
// has sent it, though it was matched before there was the subscription.
func TestRetained_OriginMoves(t *testing.T) {
	w := servedWide(t)
	for _, n := range w.nodes {
		n.set.keepsWait = 30 * time.Second
	}
	from, sub, to := w.nodes[0], w.nodes[1].own(t, w.nodes[1].idAt("sub", 0)), w.nodes[2]
	topic, id := to.idAt("r/", 0), from.idAt("pub", 0)
	pub := from.visit(t, mqtt.ClientID(id), func(o *link.Open) { o.Guest, o.SessionExpiry = false, 3600 })
	pub.want(link.DownOpened)
	w.splitUp(true)
	pub.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message(topic, "there", mqtt.ExactlyOnce, true)})
	p := partition.Choose(from.set.cell, id)
	start, end := partition.Range(p, partition.KindOutbox)
	from.eventually(t, "it is in the outbox", func() bool {
		it := w.store.Scan(start, end)
		defer it.Close()
		return it.Next()
	})
	w.mu.Lock()
	w.commitLocked(p, len(w.parts[p].log), nil, true)
	w.parts[p].owner = ""
	w.mu.Unlock()
	from.set.Lose(p)
	from.eventually(t, "it is lost", func() bool { return !from.set.Serves(p) })

	sub.send(subscribeTo(topic))
	sub.want(link.DownSuback)
	for begun := time.Now(); time.Since(begun) < 100*time.Millisecond; time.Sleep(time.Millisecond) {
		if items, _ := sub.frames.take(); len(items) > 0 {
			t.Fatalf("came before it can have: %+v", items)
		}
	}
	w.splitUp(false)
	w.begins(p, to, false)
	if r := sub.want(link.DownDeliver); string(r.msg.Topic) != topic {
		t.Errorf("got %+v", r)
	}
}

// What is under way to be retained is waited for also when its origin is lost meanwhile;
// what was not sent is not.
func TestKeeps_OriginLost(t *testing.T) {
	c := &oneOther{epoch: 1}
	set := withCluster(t, c)
	s := set.shards[0]
	turn := s.turnOf()
	done := 0
	turn(func() {
		p := s.newSpace(0, nil)
		for sent := range 2 {
			d := &dispatch{tenant: set.Tenant("acme"), msg: &mqtt.Message{Topic: []byte("t"), QoS: 1, Retain: true}}
			aims := []aim{{part: 1, keep: true}}
			s.keeping(d, 0, aims)
			if sent > 0 {
				s.launch(0, d, aims)
			}
		}
		s.awaitKeeps(func() { done++ })
		s.lose(p)
		s.awaitKeeps(func() { done++ })
	})
	if len(c.done) != 1 || done != 0 {
		t.Fatalf("%d are under way, and %d were told that none is", len(c.done), done)
	}
	c.done[0](cluster.Answer{Hit: true})
	turn(func() {})
	if done != 2 || len(s.keeps.under)+len(s.keeps.flying) > 0 {
		t.Errorf("it has arrived, and %d were told: %+v", done, s.keeps)
	}
}
