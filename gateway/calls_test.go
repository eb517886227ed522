// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// calls are the system calls of the gateway's event loops until now.
func (w *world) calls() (polls, reads, writes float64) {
	return w.metric("mqtt_gateway_loop_polls_total"), w.metric("mqtt_gateway_loop_reads_total"), w.metric("mqtt_gateway_loop_writes_total")
}

// What a message costs in system calls does not depend on how many come: packets
// that come together are read together, and written together with what they
// bring about.
func TestSystemCalls(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("event loops need epoll")
	}
	w := start(t, nil)
	sub, pub := w.dial("mqtt"), w.dial("mqtt")
	sub.connect(hello("sub"))
	sub.subscribe("t")
	pub.connect(hello("pub"))
	// come takes what a publish leads to, and has the subscriber acknowledge.
	come := func(qos mqtt.QoS, n int) {
		t.Helper()
		var acks []byte
		for range n {
			p := sub.want(packet.PUBLISH)
			if p.Publish.Message.QoS != qos {
				t.Fatalf("a delivery has QoS %d, expected %d", p.Publish.Message.QoS, qos)
			}
			if qos > 0 {
				pub.want(packet.PUBACK)
				acks = packet.Append(acks, sub.v, &packet.Packet{Type: packet.PUBACK, Ack: packet.Ack{PacketID: p.Publish.PacketID}}, 0)
			}
		}
		if qos > 0 {
			sub.write(acks)
		}
	}
	pub.send(publish("t", "first", 0)) // both are on loops then
	come(0, 1)
	acked := 0
	for _, c := range []struct {
		qos      mqtt.QoS
		together int
		// What a round may cost on average. It costs a read for each write of a client
		// and a write for each who reads, and a poll that finds nothing comes before
		// each wait; now and then a write is read in two pieces. At QoS 1 the
		// acknowledgements, to the publisher and from the subscriber, are as much again.
		reads, writes, polls float64
	}{
		{0, 1, 1.5, 1.5, 3},
		{0, 10, 1.5, 1.5, 3},
		{0, 400, 1.5, 1.5, 3},
		{1, 1, 3, 3, 6},
		{1, 10, 3, 3, 6},
		{1, 400, 3, 3, 6},
	} {
		t.Run(fmt.Sprintf("qos=%d/together=%d", c.qos, c.together), func(t *testing.T) {
			const rounds = 50
			var b []byte
			for range c.together {
				b = packet.Append(b, pub.v, publish("t", "0123456789", c.qos), 0)
			}
			polls, reads, writes := w.calls()
			for range rounds {
				pub.write(b)
				come(c.qos, c.together)
			}
			acked += int(c.qos) * rounds * c.together
			w.eventually("every acknowledgement at the broker", func() bool { return w.broker.acks() == acked })
			p, r, wr := w.calls()
			for name, n := range map[string][2]float64{"reads": {r - reads, c.reads}, "writes": {wr - writes, c.writes}, "polls": {p - polls, c.polls}} {
				if n[0] > n[1]*rounds || n[0] < rounds {
					t.Errorf("%v %s for %d times %d messages, expected 1 to %v each time", n[0], name, rounds, c.together, n[1])
				}
			}
		})
	}
}
