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

// A tenant with as many retained messages as it may have is refused one whose
// partition another broker serves, as one that is served here.
func TestWide_RetainedLimit(t *testing.T) {
	_, n := lonely(t, 0, 1, 2, 3)
	c := &wideConn{node: n, link: n.link, gw: n.gw, id: 1, frames: &wideInbox{}}
	n.gw.mu.Lock()
	n.gw.channels[1] = c
	n.gw.mu.Unlock()
	limits := unlimited
	limits.Retained = 1
	c.send(link.UpFrame{Kind: link.UpOpen, Open: &link.Open{
		Tenant: "acme", ClientID: mqtt.ClientID(clientIn(0, "p")), CleanStart: true, ReceiveMaximum: 8, Credit: 1 << 30, Limits: limits,
	}})
	next := func(k link.DownKind) record {
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
	next(link.DownOpened)
	for i, p := range []partition.ID{1, 5, 6} { // of this shard and the other one
		c.send(link.UpFrame{Kind: link.UpPublish, PacketID: uint16(i + 1), Message: message(topicIn(p), "x", 1, true)})
		if r, want := next(link.DownAck), i > 0; r.Reason == mqtt.QuotaExceeded != want {
			t.Errorf("partition %d is answered %s", p, r.Reason)
		}
	}
}
