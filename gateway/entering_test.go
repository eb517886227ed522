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
	"github.com/manormq/manor/infra/link"
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

// eager is a CONNECT with a PINGREQ right behind it.
func eager(c *client, id string) []byte {
	c.v = packet.V5
	b := packet.Append(nil, c.v, &packet.Packet{Type: packet.CONNECT, Connect: hello(id)}, 0)
	return packet.Append(b, c.v, &packet.Packet{Type: packet.PINGREQ}, 0)
}

// What was said behind CONNECT is handled after CONNACK also if the broker that was
// asked is lost, or says that the partition has moved, and another answers, at once or
// later.
func TestEntering_AnotherBroker(t *testing.T) {
	for _, listener := range []string{"mqtt", "mqtts"} {
		for _, how := range []string{"lost", "moved", "moved and known"} {
			t.Run(listener+", "+how, func(t *testing.T) {
				for range 10 {
					r := startRegion(t, 2, true, nil)
					r.brokers[0].mu.Lock()
					r.brokers[0].quiet = true
					r.brokers[0].mu.Unlock()
					c := r.any(listener, "acme.localhost")
					c.write(eager(c, idIn(0, 0)))
					r.eventually("asked", func() bool { return r.brokers[0].opened() == 1 })
					switch how {
					case "lost":
						r.brokers[0].lose()
					case "moved":
						r.brokers[0].down(link.DownFrame{Kind: link.DownMoved, Moved: &link.Moved{Partition: 0, Epoch: 2}})
					default:
						r.brokers[0].down(link.DownFrame{Kind: link.DownMoved, Moved: &link.Moved{Partition: 0, Epoch: 2, Broker: "b1"}})
					}
					if how != "moved and known" {
						r.waiting(1)
						r.own(1, 1, 3, 0)
					}
					c.welcome()
					c.want(packet.PINGRESP)
				}
			})
		}
	}
}

// A connect, a subscription and a disconnect cost a bounded number of calls to the
// kernel: two writes, and a read for each packet and one in vain.
func TestEntering_Calls(t *testing.T) {
	w := start(t, nil)
	const n = 100
	reads, writes := w.metric("mqtt_gateway_loop_reads_total"), w.metric("mqtt_gateway_loop_writes_total")
	for range n {
		c := w.dial("mqtt").mustConnect(hello(""))
		c.subscribe("a")
		c.send(&packet.Packet{Type: packet.DISCONNECT, Disconnect: &packet.Disconnect{}})
		c.wantEnd()
	}
	reads, writes = w.metric("mqtt_gateway_loop_reads_total")-reads, w.metric("mqtt_gateway_loop_writes_total")-writes
	if reads > 4*n || writes > 2*n+n/10 || writes < n {
		t.Errorf("%v reads and %v writes for each", reads/n, writes/n)
	}
}
