// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
)

// An exact message for a group comes to a partition that has no member any more, and its
// broker dies: before the message has gone on, or before the origin has heard that it
// has. The group gets it once.
func TestGroup_PassedOnOnce(t *testing.T) {
	const filter = "$share/g/t"
	for name, stuck := range map[string]bool{"before it has gone on": true, "before that is heard of": false} {
		t.Run(name, func(t *testing.T) {
			w := servedWide(t)
			from, at, home := w.nodes[0], w.nodes[1], w.nodes[2]
			id := home.idAt("m", 0)
			c := home.visit(t, mqtt.ClientID(id), func(o *link.Open) { o.Guest, o.SessionExpiry, o.ReceiveMaximum = false, 3600, 10 })
			c.want(link.DownOpened)
			c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: filter, QoS: 2}}})
			c.want(link.DownSuback)
			for _, n := range []*wideNode{from, at} {
				n.eventually(t, "it knows of the member", func() bool {
					g := n.set.Tenant("acme").routes.Group(filter, "t")
					return g != nil && g.Durable()
				})
			}
			part, origin := servedAt(at), servedAt(from)
			send := func(to *wideNode, n uint64, payload string) {
				t.Helper()
				got := make(chan cluster.Answer, 1)
				in := to.set.Inlet("origin")
				in.Enqueue(&cluster.Enqueue{
					Tenant: "acme", From: "p", Origin: origin, N: n, First: true,
					Members: []cluster.Member{{Partition: part, Filter: filter}}, Message: message("t", payload, mqtt.ExactlyOnce, false),
				}, func(a cluster.Answer) { got <- a })
				in.Flush()
				if a := <-got; a.Err != nil || a.Again || a.Reason.Failed() {
					t.Fatalf("%s at %s: %+v", payload, to.name, a)
				}
			}
			w.splitUp(stuck)
			send(at, 5, "one")
			if !stuck {
				if r := c.want(link.DownDeliver); string(r.msg.Payload) != "one" {
					t.Fatalf("got %q", r.msg.Payload)
				}
			}
			at.die()
			w.splitUp(false)
			w.give(part, from, false)
			send(from, 5, "one") // the origin has not heard
			if stuck {
				if r := c.want(link.DownDeliver); string(r.msg.Payload) != "one" {
					t.Fatalf("got %q", r.msg.Payload)
				}
			}
			send(from, 6, "two")
			if r := c.want(link.DownDeliver); string(r.msg.Payload) != "two" {
				t.Errorf("got %q again", r.msg.Payload)
			}
			from.eventually(t, "nothing is left", func() bool {
				start, end := partition.Range(part, partition.KindOutbox)
				it := w.store.Scan(start, end)
				defer it.Close()
				return !it.Next()
			})
		})
	}
}

// servedAt is a partition that is served at n.
func servedAt(n *wideNode) (p partition.ID) {
	for !n.set.Serves(p) {
		p++
	}
	return p
}
