// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gateway_test

import (
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// Who connects and says nothing, or not all, costs no goroutine.
func TestEntering_SilentOnes(t *testing.T) {
	w := start(t, nil)
	before := runtime.NumGoroutine()
	const n = 300
	for i := range n {
		c := w.dial("mqtt")
		if i%2 == 0 {
			c.write(packet.AppendConnect(nil, hello("half"))[:5])
		}
	}
	w.eventually("connections are not counted", func() bool { return w.gw.Connections() == n })
	// 32 wait for clients on two processors, 16 for each.
	w.eventually("they have goroutines", func() bool { return runtime.NumGoroutine() < before+n/4+16*runtime.GOMAXPROCS(0) })
}

// What a client says right behind its CONNECT is handled after CONNACK, in order,
// whether the broker answers at once or late.
func TestEntering_SaidAtOnce(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late=%v", late), func(t *testing.T) {
			w := start(t, nil)
			if late {
				w.dir.think()
			}
			c := w.dial("mqtt")
			c.v = packet.V5
			b := packet.AppendConnect(nil, hello("eager"))
			b = packet.Append(b, c.v, &packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a"}}}}, 0)
			b = packet.Append(b, c.v, publish("b", "x", 1), 0)
			half := len(b) - 3
			c.write(b[:half])
			if late {
				w.eventually("nobody authenticates", w.dir.isAsked)
			}
			c.write(b[half:])
			if late {
				close(w.dir.thinks)
			}
			for _, want := range []packet.Type{packet.CONNACK, packet.SUBACK, packet.PUBACK} {
				c.want(want)
			}
		})
	}
}

// A client that is gone before it is let in leaves nothing behind, and the loop does
// not ask the kernel of it again and again.
func TestEntering_GoneMeanwhile(t *testing.T) {
	w := start(t, func(w *world, _ *gateway.Config) {
		w.dir.think()
		w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.Connections = 1 })
	})
	c := w.dial("mqtt")
	c.write(packet.AppendConnect(nil, hello("gone")))
	w.eventually("nobody authenticates", w.dir.isAsked)
	c.write([]byte{0xC0, 0})
	tcp, ok := c.c.(*net.TCPConn)
	if !ok {
		t.Fatalf("expected a TCP connection, found %T", c.c)
	}
	if err := tcp.SetLinger(0); err != nil { // a reset, of which epoll never tires
		t.Fatal(err)
	}
	if err := tcp.Close(); err != nil {
		t.Fatal(err)
	}
	polls := w.metric("mqtt_gateway_loop_polls_total")
	time.Sleep(200 * time.Millisecond)
	if now := w.metric("mqtt_gateway_loop_polls_total"); now > polls+50 {
		t.Errorf("the loops asked the kernel %v times while a client that was gone was let in", now-polls)
	}
	close(w.dir.thinks)
	w.eventually("the connection stays", func() bool { return w.gw.Connections() == 0 })
	w.dial("mqtt").mustConnect(hello("next")) // the quota has its place back
}
