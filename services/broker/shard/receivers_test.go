// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// A message counts in the mailbox of another shard as often as it has receivers there, while
// those change: the race detector looks at that.
func TestReceivers_WhileTheyChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, false)
	p := w.connect(clientIn(0, "p"))
	stays, changes := w.connect(clientIn(1, "stays")), w.connect(clientIn(1, "changes"))
	stays.subscribe("t", 0)
	var both sync.WaitGroup
	both.Go(func() {
		for range 200 {
			changes.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: "t"}}})
			changes.send(link.UpFrame{Kind: link.UpUnsubscribe, PacketID: 1, Unsubscribe: []string{"t"}})
		}
	})
	for i := range uint16(200) {
		p.publish(1+i, "t", "x", 1)
		if r := p.wantAck(mqtt.Puback, 1+i); r.Failed() {
			t.Fatal(r)
		}
		stays.wantDeliver("x", 0)
	}
	both.Wait()
}
