// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// What one tenant's clients are authenticated by does not answer: those of others come in
// as ever, and its own are let in, in turn, once it does.
func TestShares(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.dir.think()
	w.dir.thinksOf = "acme"
	var stuck []*client
	for range 64*runtime.GOMAXPROCS(0) + 10 { // more than are under way at once
		c := w.dial("mqtt")
		c.v = packet.V5
		c.send(&packet.Packet{Type: packet.CONNECT, Connect: hello("")})
		stuck = append(stuck, c)
	}
	w.eventually("acme has what it may", func() bool {
		w.dir.mu.Lock()
		defer w.dir.mu.Unlock()
		return w.dir.asked >= 32*runtime.GOMAXPROCS(0)
	})
	begin := time.Now()
	for range 20 {
		p := hello("")
		p.Username = "beta:dev"
		c := w.dial("mqtt")
		if k := c.connect(p); k.Reason != mqtt.Success {
			t.Fatalf("CONNACK of another tenant: %v %q", k.Reason, k.ReasonString)
		}
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("20 clients of another tenant took %s", took)
	}
	close(w.dir.thinks)
	for _, c := range stuck {
		if k := c.want(packet.CONNACK).Connack; k.Reason != mqtt.Success {
			t.Fatalf("CONNACK: %v %q", k.Reason, k.ReasonString)
		}
	}
}
