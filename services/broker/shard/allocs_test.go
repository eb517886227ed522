// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// deaf is a gateway that has nothing to do.
type deaf struct{ frames int }

func (d *deaf) Receive(b *link.Down) { d.frames += len(b.Frames) }
func (d *deaf) Flush()               {}
func (d *deaf) Lost(error)           {}

// A QoS 0 message goes from a gateway's batch to the subscriber's gateway
// without an allocation, and a QoS 1 message between sessions that end with
// their connection too, acknowledgements included, and a QoS 0 message to the member
// of a shared subscription: in one shard and from one to another.
func TestRoutingAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has pools forget at random")
	}
	for _, shards := range []int{1, 2} {
		t.Run(fmt.Sprintf("shards=%d", shards), func(t *testing.T) { routingAllocates(t, shards) })
	}
}

func routingAllocates(t *testing.T, shards int) {
	w := newWorld(t, shards, false)
	of := func(id string) *Shard { return w.set.shardOf(partition.Choose(w.set.cell, id)) }
	sub := "sub"
	for i := 0; shards > 1 && of(sub) == of("pub"); i++ {
		sub = fmt.Sprint("sub", i)
	}
	gw := &deaf{}
	l := w.set.Attach(gw)
	send := func(f ...link.UpFrame) {
		if err := l.Send(&link.Up{Frames: f}); err != nil {
			t.Fatal(err)
		}
	}
	for ch, id := range []mqtt.ClientID{"pub", mqtt.ClientID(sub)} {
		send(link.UpFrame{Kind: link.UpOpen, Channel: link.Channel(ch), Open: &link.Open{
			Tenant: "acme", ClientID: id, CleanStart: true, ReceiveMaximum: 100, Credit: 1 << 60, Limits: unlimited,
		}})
	}
	send(link.UpFrame{Kind: link.UpSubscribe, Channel: 1, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: "a/+/c", QoS: 1}, {Filter: "$share/g/s/+/c", QoS: 1}}})
	w.settle()
	up := link.Up{Frames: []link.UpFrame{
		{Kind: link.UpPublish, Channel: 0, Message: message("a/b/c", "payload", 0, false)},
		{Kind: link.UpPublish, Channel: 0, PacketID: 1, Message: message("a/b/c", "payload", 1, false)},
		{Kind: link.UpAck, Channel: 1, Ack: mqtt.Puback},
		{Kind: link.UpPublish, Channel: 0, Message: message("s/b/c", "payload", 0, false)},
	}}
	before := gw.frames
	const runs = 2000
	allocs := testing.AllocsPerRun(runs, func() {
		up.Frames[2].PacketID++ // the identifier of the next delivery
		if up.Frames[2].PacketID == 0 {
			up.Frames[2].PacketID = 1
		}
		if err := l.Send(&up); err != nil {
			t.Fatal(err)
		}
	})
	// Three deliveries and a PUBACK each time; windows come now and then.
	if got := gw.frames - before; got < 4*runs {
		t.Fatalf("%d frames came back, expected %d", got, 4*runs)
	}
	if allocs != 0 {
		t.Errorf("%v allocations for three publishes and an acknowledgement", allocs)
	}
}
