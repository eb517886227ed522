// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// What is retained between a SUBSCRIBE and its replay comes once, live, and what
// was retained before once, from the replay.
func TestRetainedWhileSubscribing(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.connect("p")
		p.retain(1, "a/old", "old", 1)
		p.wantAck(mqtt.Puback, 1)
		for i, id := range []string{"s1", "s2", "s3", "s4", "s5", "s6"} {
			c := w.connect(id, persistent)
			name := fmt.Sprint("a/new", i)
			up := link.Up{Frames: []link.UpFrame{
				{Kind: link.UpSubscribe, Channel: c.id, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: name, QoS: 1}, {Filter: "a/old", QoS: 1}}},
				{Kind: link.UpPublish, Channel: p.id, PacketID: 2, Message: message(name, "new", 1, true)},
			}}
			if err := w.link.Send(&up); err != nil {
				t.Fatal(err)
			}
			w.link.Flush()
			got := map[string]int{}
			for range 3 {
				switch r, ok := c.next(5e9); {
				case !ok:
					t.Fatalf("%s: something is missing: %v", id, got)
				case r.Kind == link.DownDeliver:
					got[string(r.msg.Payload)]++
					c.ack(mqtt.Puback, r.PacketID)
				case r.Kind == link.DownSuback:
					got["suback"]++
				}
			}
			if got["old"] != 1 || got["new"] != 1 {
				t.Errorf("%s got %v", id, got)
			}
			c.silent()
			p.wantAck(mqtt.Puback, 2)
		}
	})
}
