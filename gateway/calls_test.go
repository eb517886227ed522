// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"runtime"
	"testing"

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
	deliveries := func(n int) {
		t.Helper()
		for range n {
			sub.want(packet.PUBLISH)
		}
	}
	pub.send(publish("t", "first", 0)) // both are on loops then
	deliveries(1)
	for _, together := range []int{1, 10, 400} {
		t.Run(fmt.Sprintf("together=%d", together), func(t *testing.T) {
			const rounds = 50
			var b []byte
			for range together {
				b = packet.Append(b, pub.v, publish("t", "0123456789", 0), 0)
			}
			polls, reads, writes := w.calls()
			for range rounds {
				pub.write(b)
				deliveries(together)
			}
			p, r, wr := w.calls()
			// A write may be read in two pieces, and so may be flushed twice; a poll
			// that finds nothing comes before each wait.
			for name, n := range map[string][2]float64{"reads": {r - reads, 2}, "writes": {wr - writes, 2}, "polls": {p - polls, 5}} {
				if n[0] > n[1]*rounds || n[0] == 0 {
					t.Errorf("%v %s for %d times %d messages, expected at most %v each time", n[0], name, rounds, together, n[1])
				}
			}
		})
	}
}
