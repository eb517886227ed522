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
