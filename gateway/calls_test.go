// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"crypto/tls"
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

// callBudget is what a round may cost on average, over a transport, whose figures are those
// of a round without acknowledgements.
type callBudget struct {
	transport            string
	reads, writes, polls float64
}

// What a message costs in system calls does not depend on how many come: packets
// that come together are read together, and written together with what they
// bring about.
func TestSystemCalls(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("event loops need epoll")
	}
	// A round costs a read for each write of a client and a write for each who reads, and a
	// poll that finds nothing comes before each wait; now and then a write is read in two
	// pieces.
	for _, c := range []callBudget{{"mqtt", 1.5, 1.5, 3}, {"TLS 1.2", 1.5, 1.5, 3}, {"TLS 1.3", 1.5, 1.5, 3}} {
		t.Run(c.transport, func(t *testing.T) { testCalls(t, c) })
	}
}

func testCalls(t *testing.T, budget callBudget) {
	w := start(t, nil)
	dial := func() *client {
		config := w.tls("acme.localhost")
		switch budget.transport {
		case "mqtt":
			return w.dial("mqtt")
		case "TLS 1.2":
			config.MaxVersion = tls.VersionTLS12
		}
		c, err := tls.Dial("tcp", w.addr("mqtts"), config)
		if err != nil {
			t.Fatal(err)
		}
		if got := tls.VersionName(c.ConnectionState().Version); got != budget.transport {
			t.Fatalf("the connection has %s, expected %s", got, budget.transport)
		}
		return w.client(c)
	}
	sub, pub := dial(), dial()
	sub.connect(hello("sub"))
	sub.subscribe("t")
	pub.connect(hello("pub"))
	acks := func(c *client, kind packet.Type, ids []uint16) {
		var b []byte
		for _, id := range ids {
			b = packet.Append(b, c.v, &packet.Packet{Type: kind, Ack: packet.Ack{PacketID: id}}, 0)
		}
		if len(b) > 0 {
			c.write(b)
		}
	}
	// come takes what a publish leads to, and has both ends acknowledge.
	come := func(qos mqtt.QoS, n int) {
		t.Helper()
		var delivered, received []uint16
		for range n {
			p := sub.want(packet.PUBLISH)
			if got := p.Publish.Message.QoS; got != min(qos, 1) { // the broker of this test has no other
				t.Fatalf("a delivery has QoS %d, expected %d", got, min(qos, 1))
			}
			switch qos {
			case mqtt.AtMostOnce:
				continue
			case mqtt.AtLeastOnce:
				pub.want(packet.PUBACK)
			case mqtt.ExactlyOnce:
				received = append(received, pub.want(packet.PUBREC).Ack.PacketID)
			}
			delivered = append(delivered, p.Publish.PacketID)
		}
		acks(sub, packet.PUBACK, delivered)
		acks(pub, packet.PUBREL, received)
		for range received {
			pub.want(packet.PUBCOMP)
		}
	}
	pub.send(publish("t", "first", 0)) // both are on loops then
	come(0, 1)
	acked := 0
	for _, c := range []struct {
		qos      mqtt.QoS
		together int
		// times the budget: each that acknowledges is read, and each to whom that is said
		// is written to.
		times float64
	}{
		{0, 1, 1},
		{0, 10, 1},
		{0, 400, 1},
		{1, 1, 2},
		{1, 10, 2},
		{1, 400, 2},
		{2, 1, 3},
		{2, 10, 3},
		{2, 400, 3},
	} {
		t.Run(fmt.Sprintf("qos=%d/together=%d", c.qos, c.together), func(t *testing.T) {
			const rounds = 50
			var b []byte
			for range c.together {
				b = packet.Append(b, pub.v, publish("t", "0123456789", c.qos), 0)
			}
			polls, reads, writes := w.calls()
			controls := w.metric("mqtt_gateway_loop_controls_total")
			for range rounds {
				pub.write(b)
				come(c.qos, c.together)
			}
			acked += int(min(c.qos, 1)) * rounds * c.together
			w.eventually("every acknowledgement at the broker", func() bool { return w.broker.acks() == acked })
			if n := w.metric("mqtt_gateway_loop_controls_total") - controls; n > rounds/10 { // a socket may be full now and then
				t.Errorf("the kernel was told %v times what to wait for, in %d rounds: nothing has changed", n, rounds)
			}
			p, r, wr := w.calls()
			for name, n := range map[string][2]float64{"reads": {r - reads, budget.reads}, "writes": {wr - writes, budget.writes}, "polls": {p - polls, budget.polls}} {
				if most := n[1] * c.times; n[0] > most*rounds || n[0] < rounds {
					t.Errorf("%v %s for %d times %d messages, expected 1 to %v each time", n[0], name, rounds, c.together, most)
				}
			}
		})
	}
}
