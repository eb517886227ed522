// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// region is a gateway with a seed, which serves nothing but tells tables, and
// brokers b0, b1 ...
type region struct {
	*world
	seed    *fakeBroker
	brokers []*fakeBroker
	mu      sync.Mutex
	table   link.TableUpdate
}

const partitions = 8

// startRegion starts a gateway in a region of n brokers. Partition p is owned by the
// broker p modulo n, at epoch 1, if owned.
func startRegion(t testing.TB, n int, owned bool, edit func(c *gateway.Config)) *region {
	t.Helper()
	r := &region{seed: &fakeBroker{}, table: link.TableUpdate{Partitions: partitions}}
	for i := range n {
		r.brokers = append(r.brokers, &fakeBroker{})
		r.table.Brokers = append(r.table.Brokers, link.TableBroker{Name: fmt.Sprint("b", i), Address: fmt.Sprint("b", i, ":1")})
	}
	for p := range uint16(partitions) {
		o := link.TableOwner{Partition: p, Epoch: 1}
		if owned {
			o.Broker = fmt.Sprint("b", int(p)%n)
		}
		r.table.Owners = append(r.table.Owners, o)
	}
	r.world = start(t, func(_ *world, c *gateway.Config) {
		c.Dialer = uplink.DialerFunc(func(ctx context.Context, gw link.Gateway) (link.Broker, error) {
			b, err := r.seed.Dial(ctx, gw)
			gw.Receive(&link.Down{Frames: []link.DownFrame{{Kind: link.DownTable, Table: &r.table}}})
			return b, err
		})
		c.Dial = func(ctx context.Context, to link.TableBroker, gw link.Gateway) (link.Broker, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for i, b := range r.table.Brokers {
				if b == to {
					return r.brokers[i].Dial(ctx, gw)
				}
			}
			return nil, errors.New("nobody is there")
		}
		if edit != nil {
			edit(c)
		}
	})
	r.eventually("links to all brokers", func() bool { return r.metric("mqtt_gateway_links") == float64(n) })
	return r
}

// own has the broker number to own those partitions from now on; below 0 is nobody.
// Broker number from tells it.
func (r *region) own(from, to int, epoch uint64, parts ...uint16) {
	u := &link.TableUpdate{Partitions: partitions, Brokers: r.table.Brokers}
	for _, p := range parts {
		o := link.TableOwner{Partition: p, Epoch: epoch}
		if to >= 0 {
			o.Broker = fmt.Sprint("b", to)
		}
		u.Owners = append(u.Owners, o)
	}
	r.brokers[from].link(link.DownFrame{Kind: link.DownTable, Table: u})
}

// lose ends the link of a broker, which cannot be dialled after it.
func (b *fakeBroker) lose() {
	b.mu.Lock()
	gw := b.gw
	b.away = true
	b.lives++
	b.mu.Unlock()
	gw.Lost(errors.New("gone"))
}

func (b *fakeBroker) back() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = false
}

// refuses has a broker serve nobody, or everybody.
func (b *fakeBroker) refuses(m *link.Moved) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moved = nil
	if m != nil {
		b.moved = func(mqtt.ClientID) *link.Moved { return m }
	}
}

// opened counts the Opens that came.
func (b *fakeBroker) opened() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.opens)
}

// idIn is the n-th client id of a partition.
func idIn(partition uint16, n int) string {
	cell := make([]uint16, partitions)
	for i := range cell {
		cell[i] = uint16(i)
	}
	for i := 0; ; i++ {
		if id := fmt.Sprint("c", i); link.Choose(cell, id) == partition {
			if n--; n < 0 {
				return id
			}
		}
	}
}

// hello sends a CONNECT and does not wait for CONNACK.
func (r *region) hello(listener, id string) *client {
	c := r.dial(listener)
	c.send(&packet.Packet{Type: packet.CONNECT, Connect: hello(id)})
	return c
}

func (r *region) waiting(n int) {
	r.t.Helper()
	r.eventually(fmt.Sprint(n, " clients wait"), func() bool { return r.metric("mqtt_gateway_opens_waiting") == float64(n) })
}

func (c *client) welcome() {
	c.t.Helper()
	if k := c.want(packet.CONNACK).Connack; k.Reason != mqtt.Success {
		c.t.Fatalf("CONNACK %v %s", k.Reason, k.ReasonString)
	}
}

// Each client's channel is at the owner of its partition, and nowhere else.
func TestOwners_OpenGoesToTheOwner(t *testing.T) {
	r := startRegion(t, 3, true, nil)
	want := map[int][]string{}
	for p := range uint16(partitions) {
		for n := range 2 {
			id := idIn(p, n)
			r.dial("mqtt").mustConnect(hello(id))
			want[int(p)%3] = append(want[int(p)%3], id)
		}
	}
	for i, b := range r.brokers {
		var got []string
		for _, o := range b.opens {
			got = append(got, string(o.ClientID))
		}
		if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want[i]))) {
			t.Errorf("broker %d was asked for %q, want %q", i, got, want[i])
		}
	}
	if r.seed.opened() > 0 || r.metric("mqtt_gateway_opens_total") > 0 {
		t.Error("somebody was at a wrong broker, or had to wait")
	}
}

// A broker whose table is newer says who has the partition, and that one likewise:
// the client finds the third, once.
func TestOwners_MovedTwice(t *testing.T) {
	r := startRegion(t, 3, true, nil)
	r.brokers[0].refuses(&link.Moved{Partition: 0, Epoch: 2, Broker: "b1"})
	r.brokers[1].refuses(&link.Moved{Partition: 0, Epoch: 3, Broker: "b2"})
	will := &mqtt.Will{Message: mqtt.Message{Topic: []byte("gone"), Payload: []byte("will")}}
	h := hello(idIn(0, 0))
	h.Will = will
	c := r.dial("mqtt").mustConnect(h)
	for i, b := range r.brokers {
		if o := b.lastOpen(); b.opened() != 1 || string(o.ClientID) != h.ClientID || o.Will == nil || string(o.Will.Message.Payload) != "will" {
			t.Errorf("broker %d was asked %d times, last for %+v", i, b.opened(), o)
		}
	}
	if n := r.metric("mqtt_gateway_opens_total", "moved"); n != 2 {
		t.Errorf("%v were moved", n)
	}
	c.send(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a"}}}})
	c.want(packet.SUBACK)
	r.eventually("no channel is left where it is not open", func() bool {
		r.brokers[2].mu.Lock()
		defer r.brokers[2].mu.Unlock()
		return len(r.brokers[2].channels) == 1
	})
}

// A partition without an owner gets one: what clients sent behind their CONNECT is
// handled then, on every kind of listener.
func TestOwners_NoneForAWhile(t *testing.T) {
	for _, listener := range []string{"mqtt", "mqtts", "ws", "wss"} {
		t.Run(listener, func(t *testing.T) {
			r := startRegion(t, 2, false, nil)
			c := r.any(listener, "acme.localhost")
			eager := packet.Append(nil, c.v, &packet.Packet{Type: packet.CONNECT, Connect: hello(idIn(3, 0))}, 0)
			eager = packet.Append(eager, c.v, &packet.Packet{Type: packet.PINGREQ}, 0)
			c.write(eager)
			r.waiting(1)
			c.write(packet.Append(nil, c.v, publish("a", "b", 1), 0)[:3])
			r.own(0, 1, 2, 3)
			c.welcome()
			c.want(packet.PINGRESP)
			c.write(packet.Append(nil, c.v, publish("a", "b", 1), 0)[3:])
			c.want(packet.PUBACK)
			r.waiting(0)
			if r.brokers[0].opened() != 0 || r.brokers[1].opened() != 1 {
				t.Error("the wrong broker was asked")
			}
		})
	}
}

// What is asked for clients that wait is theirs, though what they sent is overwritten
// by now.
func TestOwners_WillsAreKept(t *testing.T) {
	r := startRegion(t, 1, false, nil)
	will := func(i int) string { return strings.Repeat(fmt.Sprint("will ", i, " "), 300) }
	var clients []*client
	for i := range 20 {
		h := hello(idIn(2, i))
		h.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte(fmt.Sprint("gone/", i)), Payload: []byte(will(i))}}
		c := r.dial("mqtt")
		c.send(&packet.Packet{Type: packet.CONNECT, Connect: h})
		r.waiting(i + 1)
		clients = append(clients, c)
	}
	r.own(0, 0, 2, 2)
	for _, c := range clients {
		c.welcome()
	}
	for i, o := range r.brokers[0].opens {
		// Those that wait are asked for in their order.
		if want := idIn(2, i); string(o.ClientID) != want || string(o.Will.Message.Payload) != will(i) || string(o.Will.Message.Topic) != fmt.Sprint("gone/", i) {
			t.Errorf("open %d is of %s with the will %.10q, want %s", i, o.ClientID, o.Will.Message.Payload, want)
		}
	}
}

// A client that has authenticated by AUTH waits likewise.
func TestOwners_AfterAUTH(t *testing.T) {
	r := startRegion(t, 1, false, nil)
	c := r.dial("mqtt")
	c.send(&packet.Packet{Type: packet.CONNECT, Connect: enhancedHello(idIn(2, 0), "FAKE", "acme:dev")})
	c.wantAuth(mqtt.ContinueAuthentication, "prove it, acme:dev")
	c.auth(mqtt.ContinueAuthentication, "secret")
	r.waiting(1)
	r.own(0, 0, 2, 2)
	if k := c.want(packet.CONNACK).Connack; k.Reason != mqtt.Success || string(k.AuthData) != "welcome" {
		t.Errorf("CONNACK %+v", k)
	}
	c.subscribe("t")
}

// Who waits is told when the gateway ends, and when its credential has gone.
func TestOwners_EndsWhileWaiting(t *testing.T) {
	r := startRegion(t, 1, false, nil)
	c := r.hello("mqtt", idIn(1, 0))
	r.waiting(1)
	r.dir.changes <- tenancy.Change{Kind: tenancy.CredentialGone, Tenant: "acme", Username: "dev"}
	if k := c.want(packet.CONNACK).Connack; k.Reason != mqtt.NotAuthorized {
		t.Errorf("CONNACK %v", k.Reason)
	}
	c.wantEnd()
	r.waiting(0)
	var clients []*client
	for _, listener := range []string{"mqtt", "mqtts", "ws", "wss"} {
		c := r.any(listener, "acme.localhost")
		c.send(&packet.Packet{Type: packet.CONNECT, Connect: hello(idIn(1, 0))})
		clients = append(clients, c)
	}
	r.waiting(len(clients))
	drained := make(chan error, 1)
	go func() { drained <- r.gw.Drain(t.Context()) }()
	for _, c := range clients {
		if k := c.want(packet.CONNACK).Connack; k.Reason != mqtt.ServerUnavailable {
			t.Errorf("CONNACK %v", k.Reason)
		}
		_ = c.cut()
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	r.waiting(0)
}

// An owner that does not serve yet is asked by one client for all of its partition.
func TestOwners_OneAsksForAll(t *testing.T) {
	r := startRegion(t, 1, true, nil)
	r.brokers[0].refuses(&link.Moved{Partition: 0, Epoch: 1})
	const n = 50
	var clients []*client
	for i := range n {
		clients = append(clients, r.hello("mqtt", idIn(0, i)))
	}
	r.waiting(n)
	before := r.brokers[0].opened()
	r.eventually("it is asked again", func() bool { return r.brokers[0].opened() >= before+5 })
	r.waiting(n)
	if asked := r.brokers[0].opened(); asked > before+n {
		t.Errorf("it was asked %d times", asked)
	}
	r.brokers[0].refuses(nil)
	from := time.Now()
	for _, c := range clients {
		c.welcome()
	}
	if took := time.Since(from); took > n*100*time.Millisecond/2 {
		t.Errorf("when it serves, it takes %v until all are served", took)
	}
}

// Who waits in vain is told why.
func TestOwners_Timeout(t *testing.T) {
	r := startRegion(t, 1, false, func(c *gateway.Config) { c.OwnerWait = 700 * time.Millisecond })
	const text = "the partition of this client has no broker now; try again"
	c := r.any("ws", "") // which no loop takes
	c.send(&packet.Packet{Type: packet.CONNECT, Connect: hello(idIn(1, 0))})
	h := hello(idIn(1, 1))
	h.Version = packet.V311
	old := r.dial("mqtt")
	old.v = packet.V311
	old.send(&packet.Packet{Type: packet.CONNECT, Connect: h})
	from := time.Now()
	if k := c.want(packet.CONNACK).Connack; k.Reason != mqtt.ServerUnavailable || k.ReasonString != text {
		t.Errorf("CONNACK %v %q", k.Reason, k.ReasonString)
	}
	c.wantEnd()
	if k := old.want(packet.CONNACK).Connack; k.Reason != mqtt.ServerUnavailable {
		t.Errorf("CONNACK of 3.1.1: %v", k.Reason)
	}
	if took := time.Since(from); took < 500*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	r.waiting(0)
	if waited, out := r.metric("mqtt_gateway_opens_total", "waited"), r.metric("mqtt_gateway_opens_total", "timed_out"); waited != 2 || out != 2 {
		t.Errorf("%v waited and %v timed out", waited, out)
	}
	if r.brokers[0].opened() > 0 {
		t.Error("a broker was asked")
	}
}

// A broker is lost: its clients end, the others' go on. Those that come back wait,
// and so do those whose CONNECT was under way.
func TestOwners_ABrokerIsLost(t *testing.T) {
	r := startRegion(t, 2, true, nil)
	zero, one := r.dial("mqtt").mustConnect(hello(idIn(0, 0))), r.dial("mqtt").mustConnect(hello(idIn(1, 0)))
	r.brokers[0].link(link.DownFrame{Kind: link.DownLoad, Load: load.Refuse})
	r.brokers[0].mu.Lock()
	r.brokers[0].quiet = true
	r.brokers[0].mu.Unlock()
	underWay := r.hello("mqtt", idIn(2, 0))
	r.eventually("the CONNECT under way", func() bool { return r.brokers[0].opened() == 2 })
	r.brokers[0].lose()
	if d := zero.want(packet.DISCONNECT); d.Disconnect.Reason != mqtt.ServerShuttingDown {
		t.Errorf("DISCONNECT %v", d.Disconnect.Reason)
	}
	one.send(&packet.Packet{Type: packet.PINGREQ})
	one.want(packet.PINGRESP)
	if err := r.gw.Healthy(t.Context()); err != nil {
		t.Errorf("with one of two brokers the gateway is not well: %v", err)
	}
	again := r.hello("mqtt", idIn(0, 0))
	r.waiting(2)
	r.own(1, 1, 2, 0, 2)
	again.welcome()
	underWay.welcome()
	if n := r.brokers[1].opened(); n != 3 {
		t.Errorf("the new owner was asked %d times", n)
	}
	// What the lost broker said of its load is forgotten.
	r.eventually("calm", func() bool { return r.metric("mqtt_gateway_load_level") < float64(load.Refuse) })
}

// The owner has no link for a while, and gets one.
func TestOwners_ABrokerComesBack(t *testing.T) {
	r := startRegion(t, 2, true, nil)
	r.brokers[0].lose()
	c := r.hello("mqtt", idIn(0, 0))
	r.waiting(1)
	r.brokers[0].back()
	c.welcome()
}

// A broker that takes no new channels keeps those that it has; others wait until their
// partition is somewhere else.
func TestOwners_Goaway(t *testing.T) {
	r := startRegion(t, 2, true, nil)
	c := r.dial("mqtt").mustConnect(hello(idIn(0, 0)))
	r.brokers[0].link(link.DownFrame{Kind: link.DownGoaway})
	other := r.hello("mqtt", idIn(0, 1))
	r.waiting(1)
	r.own(0, 1, 2, 0)
	other.welcome()
	c.subscribe("a")
	if r.brokers[0].opened() != 1 || r.brokers[1].opened() != 1 {
		t.Error("a broker that takes no new channels was asked for one")
	}
}

// One broker that has told no table, and does not serve a client yet, is asked again.
func TestOwners_OneBrokerWithoutATable(t *testing.T) {
	w := start(t, nil)
	w.broker.refuses(&link.Moved{})
	c := w.dial("mqtt")
	c.send(&packet.Packet{Type: packet.CONNECT, Connect: hello("c")})
	w.eventually("it is asked again", func() bool { return w.broker.opened() >= 3 })
	w.broker.refuses(nil)
	c.welcome()
	w.broker.lose()
	if d := c.want(packet.DISCONNECT).Disconnect; d.Reason != mqtt.ServerShuttingDown {
		t.Errorf("DISCONNECT %v", d.Reason)
	}
	if k := w.dial("mqtt").connect(hello("c")); k.Reason != mqtt.ServerUnavailable || k.ReasonString != "no broker is reachable" {
		t.Errorf("CONNACK %v %q", k.Reason, k.ReasonString)
	}
}

// Who waits and hangs up is forgotten, also if what it sent was not read.
func TestOwners_HangingUp(t *testing.T) {
	r := startRegion(t, 1, false, func(c *gateway.Config) { c.OwnerWait = time.Minute })
	for _, listener := range []string{"mqtt", "mqtts", "ws", "wss"} {
		for _, eager := range []bool{false, true} {
			c := r.any(listener, "acme.localhost")
			c.send(&packet.Packet{Type: packet.CONNECT, Connect: hello(idIn(1, 0))})
			r.waiting(1)
			if eager {
				c.write(packet.Append(nil, c.v, publish("a", "b", 0), 0))
			}
			_ = c.cut()
			r.waiting(0)
		}
	}
	r.eventually("all connections end", func() bool { return r.gw.Connections() == 0 })
	r.own(0, 0, 2, 1)
	r.dial("mqtt").mustConnect(hello(idIn(1, 1)))
	if n := r.brokers[0].opened(); n != 1 {
		t.Errorf("the broker was asked %d times", n)
	}
}

// Partitions move at random and brokers come and go, while clients come and go: in the
// end everybody is served, and nothing is left anywhere.
func TestOwners_Storm(t *testing.T) {
	r := startRegion(t, 3, true, func(c *gateway.Config) { c.OwnerWait, c.ConnectTimeout = 20*time.Second, 20*time.Second })
	var mu sync.Mutex
	owner, epoch := [partitions]int{}, [partitions]uint64{}
	for p := range owner {
		owner[p], epoch[p] = p%3, 1
	}
	cell := []uint16{0, 1, 2, 3, 4, 5, 6, 7}
	for i, b := range r.brokers {
		b.mu.Lock()
		b.moved = func(id mqtt.ClientID) *link.Moved {
			mu.Lock()
			defer mu.Unlock()
			p := link.Choose(cell, string(id))
			if owner[p] == i {
				return nil
			}
			return &link.Moved{Partition: p, Epoch: epoch[p], Broker: fmt.Sprint("b", owner[p])}
		}
		b.mu.Unlock()
	}
	random := rand.New(rand.NewPCG(1, 2))
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 60 {
		random := rand.New(rand.NewPCG(3, uint64(i)))
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				nc, err := net.Dial("tcp", r.addr("mqtt"))
				if err != nil {
					t.Error(err)
					return
				}
				b := packet.Append(nil, packet.V5, &packet.Packet{Type: packet.CONNECT, Connect: hello(fmt.Sprint("storm-", i))}, 0)
				b = packet.Append(b, packet.V5, publish("a", "b", 1), 0)
				_, _ = nc.Write(b)
				_ = nc.SetReadDeadline(time.Now().Add(time.Duration(random.IntN(60)) * time.Millisecond))
				_, _ = nc.Read(make([]byte, 1024))
				_ = nc.Close()
			}
		})
	}
	for range 100 {
		p, to, teller := random.IntN(partitions), random.IntN(3), random.IntN(3)
		mu.Lock()
		owner[p] = to
		epoch[p]++
		e := epoch[p]
		mu.Unlock()
		switch random.IntN(4) {
		case 0:
			r.own(teller, to, e, uint16(p))
		case 1:
			r.brokers[teller].lose()
			time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
			r.brokers[teller].back()
		}
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	clients.Wait()
	for i := range 60 {
		r.eventually("the client is let in", func() bool {
			c := r.hello("mqtt", fmt.Sprint("storm-", i))
			k := c.want(packet.CONNACK).Connack
			_ = c.cut()
			if k.Reason != mqtt.Success && k.Reason != mqtt.ConnectionRateExceeded { // the machine may be overloaded
				t.Fatalf("CONNACK %v %s", k.Reason, k.ReasonString)
			}
			return k.Reason == mqtt.Success
		})
	}
	r.eventually("all connections end", func() bool { return r.gw.Connections() == 0 })
	r.waiting(0)
	for i, b := range r.brokers {
		r.eventually("all channels end", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, c := range b.channels {
				if owner[link.Choose(cell, string(c.open.ClientID))] == i {
					return false // one that was answered by Moved was never open
				}
			}
			return true
		})
	}
	if r.metric("mqtt_gateway_opens_total", "timed_out") > 0 {
		t.Error("somebody waited in vain")
	}
}

// Thousands wait without a goroutine each, and all are served.
func TestOwners_Thousands(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("event loops need epoll")
	}
	n := 5000
	if raceEnabled || testing.Short() {
		n = 1000
	}
	r := startRegion(t, 2, false, func(c *gateway.Config) {
		c.OwnerWait, c.ConnectTimeout = 2*time.Minute, 2*time.Minute
	})
	before := runtime.NumGoroutine()
	conns := make([]net.Conn, n)
	ids := make([]string, n)
	for i := range conns {
		c, err := net.Dial("tcp", r.addr("mqtt"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i], ids[i] = c, fmt.Sprint("many-", i)
		if _, err := c.Write(packet.Append(nil, packet.V5, &packet.Packet{Type: packet.CONNECT, Connect: hello(ids[i])}, 0)); err != nil {
			t.Fatal(err)
		}
	}
	// On a machine that is overloaded some are refused.
	refused := func() int {
		return int(r.metric("mqtt_gateway_connects_total", mqtt.ConnectionRateExceeded.String()))
	}
	r.eventually("all wait", func() bool { return int(r.metric("mqtt_gateway_opens_waiting"))+refused() == n })
	n -= refused()
	r.eventually("waiting clients keep goroutines", func() bool { return runtime.NumGoroutine() < before+n/20 })
	for p := range uint16(partitions) {
		r.own(0, int(p)%2, 2, p)
	}
	for i, nc := range conns {
		c := &client{t: t, c: nc, v: packet.V5}
		if k := c.want(packet.CONNACK).Connack; k.Reason != mqtt.Success && k.Reason != mqtt.ConnectionRateExceeded {
			t.Fatalf("client %d: CONNACK %v %s", i, k.Reason, k.ReasonString)
		}
	}
	got := map[string]int{}
	for _, b := range r.brokers {
		for _, o := range b.opens {
			got[string(o.ClientID)]++
		}
	}
	if len(got) != n || slices.Max(slices.Collect(maps.Values(got))) != 1 {
		t.Errorf("the brokers were asked for %d clients, some up to %d times", len(got), slices.Max(slices.Collect(maps.Values(got))))
	}
	r.waiting(0)
}
