// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// serveLinks has b accept links on a free port, as the node of that name, and tell
// them table. stop ends them.
func serveLinks(t *testing.T, b *fakeBroker, name string, table func() *link.TableUpdate) (addr string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s := &link.Server{Node: name, Attach: func(gw link.Gateway, _ string) link.Broker {
		end, _ := b.Dial(ctx, gw)
		gw.Receive(&link.Down{Frames: []link.DownFrame{{Kind: link.DownTable, Table: table()}}})
		gw.Flush()
		return end
	}}
	go func() {
		defer close(ended)
		if err := s.Serve(ctx, ln); err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			<-ended
		})
	}
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

// Over true links: tables cross, brokers are found by them, and one that comes back
// somewhere else is found again.
func TestOwners_OverTCP(t *testing.T) {
	var mu sync.Mutex
	table := link.TableUpdate{Partitions: partitions, Brokers: []link.TableBroker{{Name: "b0"}, {Name: "b1"}}}
	for p := range uint16(partitions) {
		table.Owners = append(table.Owners, link.TableOwner{Partition: p, Epoch: 1, Broker: table.Brokers[p%2].Name})
	}
	now := func() *link.TableUpdate {
		mu.Lock()
		defer mu.Unlock()
		u := table
		u.Brokers = append([]link.TableBroker(nil), table.Brokers...)
		return &u
	}
	seed, b0, b1 := &fakeBroker{}, &fakeBroker{}, &fakeBroker{}
	seedAddr, _ := serveLinks(t, seed, "seed", now)
	table.Brokers[0].Address, _ = serveLinks(t, b0, "b0", now)
	addr, stop := serveLinks(t, b1, "b1", now)
	table.Brokers[1].Address = addr
	w := start(t, func(_ *world, c *gateway.Config) {
		c.Dialer = nil
		c.Seeds = []uplink.Dialer{uplink.DialerFunc(func(ctx context.Context, gw link.Gateway) (link.Broker, error) {
			return link.Dial(ctx, seedAddr, nil, "gw", gw)
		})}
		c.Dial = func(ctx context.Context, b link.TableBroker, gw link.Gateway) (link.Broker, error) {
			return link.DialBroker(ctx, b, nil, "gw", gw)
		}
	})
	w.eventually("links to both brokers", func() bool { return w.metric("mqtt_gateway_links") == 2 })
	zero, one := w.dial("mqtt").mustConnect(hello(idIn(0, 0))), w.dial("mqtt").mustConnect(hello(idIn(1, 0)))
	if b0.opened() != 1 || b1.opened() != 1 || seed.opened() != 0 {
		t.Errorf("%d, %d and %d opens, want 1, 1 and 0 at the seed", b0.opened(), b1.opened(), seed.opened())
	}
	stop()
	if d := one.want(packet.DISCONNECT).Disconnect; d.Reason != mqtt.ServerShuttingDown {
		t.Errorf("DISCONNECT %v", d.Reason)
	}
	again := w.dial("mqtt")
	again.send(&packet.Packet{Type: packet.CONNECT, Connect: hello(idIn(1, 0))})
	w.eventually("a client waits", func() bool { return w.metric("mqtt_gateway_opens_waiting") == 1 })
	addr, _ = serveLinks(t, b1, "b1", now)
	mu.Lock()
	table.Brokers[1].Address = addr
	mu.Unlock()
	b0.link(link.DownFrame{Kind: link.DownTable, Table: now()})
	again.welcome()
	zero.send(&packet.Packet{Type: packet.PINGREQ})
	zero.want(packet.PINGRESP)
}
