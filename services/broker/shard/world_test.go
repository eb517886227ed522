// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
)

// world is a Set with its goroutines over a store in memory, and gateways that
// record what they are told.
type world struct {
	t     *testing.T
	store kv.Store
	set   *Set
	gw    *gateway
	link  link.Broker
	stop  func()
	clock atomic.Int64
	// far puts a pipe, and the codec, between the gateways and the broker.
	far   bool
	asked uint64
	delay time.Duration // Config.WriteDelay
}

func newWorld(t *testing.T, shards int, far bool) *world {
	w := &world{t: t, store: mem.New(), far: far, delay: 2 * time.Millisecond}
	w.clock.Store(1_000_000)
	w.start(shards)
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) start(shards int) {
	w.t.Helper()
	set, err := New(Config{
		Store: w.store, Partitions: 8, Shards: shards, Sync: partition.Sync{Every: -1}, WriteDelay: w.delay,
		Now: w.clock.Load, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	set.noteEvery = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := set.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	w.set = set
	w.stop = func() { cancel(); <-done }
	w.gw, w.link = w.attach()
}

// attach makes a gateway and its link: a call, or a pipe with everything
// written and read again.
func (w *world) attach() (*gateway, link.Broker) {
	w.t.Helper()
	g := &gateway{clients: map[link.Channel]*client{}, answers: make(chan uint64, 64)}
	if !w.far {
		return g, w.set.Attach(g)
	}
	near, far := wire.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	go func() {
		conn, err := wire.New(ctx, far, wire.Config{Node: "broker", Features: link.Features})
		if err != nil {
			w.t.Error(err)
			return
		}
		_ = link.Accept(ctx, conn, func(gw link.Gateway, _ string) link.Broker { return w.set.Attach(gw) })
	}()
	conn, err := wire.New(ctx, near, wire.Config{Node: "gateway", Features: g.Features()})
	if err != nil {
		w.t.Fatal(err)
	}
	return g, link.Connect(conn, g)
}

// restart ends the set and starts another one over the same store, as a killed
// process and its successor: no channel is closed first.
func (w *world) restart(shards int) {
	w.t.Helper()
	w.stop()
	w.start(shards)
}

type gateway struct {
	answers chan uint64
	mu      sync.Mutex
	clients map[link.Channel]*client
	next    link.Channel
	load    load.Level
	notes   []link.Note
	levels  []link.Note // those with a Level
	names   []string    // of the quotas that refuse
	// watched, if any, gets the channel of each delivery.
	watched *[]link.Channel
}

// watch begins to note to whom deliveries go, and returns what says it.
func (g *gateway) watch() func() []link.Channel {
	var seen []link.Channel
	g.mu.Lock()
	g.watched = &seen
	g.mu.Unlock()
	return func() []link.Channel {
		g.mu.Lock()
		defer g.mu.Unlock()
		return slices.Clone(seen)
	}
}

// Receive implements link.Gateway.
func (g *gateway) Receive(b *link.Down) {
	for i := range b.Frames {
		f := b.Frames[i]
		switch f.Kind {
		case link.DownAnswer:
			g.answers <- f.Answer.ID
			continue
		case link.DownNote:
			g.mu.Lock()
			switch {
			case f.Note.Level != level.Below:
				g.levels = append(g.levels, *f.Note)
			case f.Note.Count > 0:
				g.notes = append(g.notes, *f.Note)
			default:
				g.names = append(g.names, f.Note.Reason)
			}
			g.mu.Unlock()
			continue
		case link.DownLoad:
			g.mu.Lock()
			g.load = f.Load
			g.mu.Unlock()
			continue
		}
		g.mu.Lock()
		c := g.clients[f.Channel]
		if g.watched != nil && f.Kind == link.DownDeliver {
			*g.watched = append(*g.watched, f.Channel)
		}
		g.mu.Unlock()
		if c == nil {
			continue
		}
		r := record{DownFrame: f}
		r.SubscriptionIDs, r.Reasons = slices.Clone(f.SubscriptionIDs), slices.Clone(f.Reasons)
		if f.Kind == link.DownDeliver {
			r.msg = b.Messages[f.Slot].Clone()
		}
		c.mu.Lock()
		c.got = append(c.got, r)
		c.mu.Unlock()
	}
}

// Flush implements link.Gateway.
func (g *gateway) Flush() {}

// Features implements link.Featured.
func (g *gateway) Features() uint32 {
	return link.FeatureOwners | link.FeatureQuotas | link.FeatureRefusals | link.FeatureLevels
}

// Lost implements link.Gateway.
func (g *gateway) Lost(error) {}

type record struct {
	link.DownFrame
	msg mqtt.Message
}

type client struct {
	w  *world
	id link.Channel
	mu sync.Mutex
	// got is everything the broker said; read is how much a test has looked at.
	got  []record
	read int
}

type option func(*link.Open)

func persistent(o *link.Open)   { o.SessionExpiry, o.CleanStart = 3600, false }
func clean(o *link.Open)        { o.CleanStart = true }
func window(n uint16) option    { return func(o *link.Open) { o.ReceiveMaximum = n } }
func credit(n uint64) option    { return func(o *link.Open) { o.Credit = n } }
func expiry(s uint32) option    { return func(o *link.Open) { o.SessionExpiry = s } }
func inTenant(t string) option  { return func(o *link.Open) { o.Tenant = t } }
func queueLimit(n int64) option { return func(o *link.Open) { o.Limits.QueueMessages = n } }
func will(topic string, delay uint32) option {
	return func(o *link.Open) {
		o.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte(topic), Payload: []byte("gone"), QoS: 1}, Delay: delay}
	}
}

func (w *world) open(id string, opts ...option) *client {
	w.t.Helper()
	o := &link.Open{
		Tenant: "acme", ClientID: mqtt.ClientID(id), CleanStart: true, ReceiveMaximum: 20, Credit: 1 << 30,
		Limits: unlimited,
	}
	for _, f := range opts {
		f(o)
	}
	w.gw.mu.Lock()
	w.gw.next++
	c := &client{w: w, id: w.gw.next}
	w.gw.clients[c.id] = c
	w.gw.mu.Unlock()
	c.send(link.UpFrame{Kind: link.UpOpen, Open: o})
	return c
}

func (w *world) connect(id string, opts ...option) *client {
	w.t.Helper()
	c := w.open(id, opts...)
	c.want(link.DownOpened)
	return c
}

func (c *client) send(f link.UpFrame) {
	c.w.t.Helper()
	f.Channel = c.id
	if err := c.w.link.Send(&link.Up{Frames: []link.UpFrame{f}}); err != nil {
		c.w.t.Fatal(err)
	}
	c.w.link.Flush()
}

// want waits for the next frame other than a window, and checks its kind.
func (c *client) want(k link.DownKind) record {
	c.w.t.Helper()
	r, ok := c.next(5 * time.Second)
	if !ok {
		c.w.t.Fatalf("channel %d: nothing came, frame %d was expected", c.id, k)
	}
	if r.Kind != k {
		c.w.t.Fatalf("channel %d: got frame %+v %s, expected kind %d", c.id, r.DownFrame, r.msg.Payload, k)
	}
	return r
}

func (c *client) next(d time.Duration) (record, bool) {
	for end := time.Now().Add(d); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		for c.read < len(c.got) {
			r := c.got[c.read]
			c.read++
			if r.Kind != link.DownWindow {
				c.mu.Unlock()
				return r, true
			}
		}
		c.mu.Unlock()
		if time.Now().After(end) {
			return record{}, false
		}
	}
}

// silent checks that nothing comes: a question to the owning shards goes and
// returns behind everything that was under way.
func (c *client) silent() {
	c.w.t.Helper()
	c.w.settle()
	if r, ok := c.next(0); ok {
		c.w.t.Fatalf("channel %d: got %+v %s, expected nothing", c.id, r.DownFrame, r.msg.Payload)
	}
}

// cross waits until what was sent before has crossed the link, both ways.
func (w *world) cross() {
	w.t.Helper()
	w.asked++
	q := &link.Query{ID: w.asked, Kind: link.QueryUsage, Tenant: "acme"}
	if err := w.link.Send(&link.Up{Frames: []link.UpFrame{{Kind: link.UpQuery, Query: q}}}); err != nil {
		w.t.Fatal(err)
	}
	w.link.Flush()
	for {
		select {
		case id := <-w.gw.answers:
			if id == w.asked {
				return
			}
		case <-time.After(5 * time.Second):
			w.t.Fatal("the link does not answer")
		}
	}
}

// settle waits until every shard has done what it was left, commits included.
// Three rounds follow a message over two shards and its answer back.
func (w *world) settle() {
	w.t.Helper()
	w.cross()
	defer w.cross()
	for range 3 {
		for _, s := range w.set.shards {
			done := make(chan struct{})
			s.post(item{kind: itemFence, call: func() { s.wait(s.ledger, waiter{after: func() { close(done) }}) }}, nil)
			select {
			case <-done:
			case <-time.After(5 * time.Second):
				w.t.Fatal("a shard does not come to rest")
			}
		}
	}
}

func (c *client) subscribe(filter string, qos mqtt.QoS, change ...func(*mqtt.Subscription)) {
	c.w.t.Helper()
	sub := mqtt.Subscription{Filter: filter, QoS: qos}
	for _, f := range change {
		f(&sub)
	}
	c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{sub}})
	if r := c.want(link.DownSuback); r.Reasons[0].Failed() {
		c.w.t.Fatalf("subscribe %s: %s", filter, r.Reasons[0])
	}
}

func message(topic, payload string, qos mqtt.QoS, retain bool) mqtt.Message {
	return mqtt.Message{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, Retain: retain}
}

func (c *client) publish(packet uint16, topic, payload string, qos mqtt.QoS) {
	c.w.t.Helper()
	c.send(link.UpFrame{Kind: link.UpPublish, PacketID: packet, Message: message(topic, payload, qos, false)})
}

func (c *client) retain(packet uint16, topic, payload string, qos mqtt.QoS) {
	c.w.t.Helper()
	c.send(link.UpFrame{Kind: link.UpPublish, PacketID: packet, Message: message(topic, payload, qos, true)})
}

func (c *client) ack(k mqtt.AckKind, packet uint16) {
	c.w.t.Helper()
	c.send(link.UpFrame{Kind: link.UpAck, Ack: k, PacketID: packet})
}

func (c *client) wantAck(k mqtt.AckKind, packet uint16) mqtt.ReasonCode {
	c.w.t.Helper()
	r := c.want(link.DownAck)
	if r.Ack != k || r.PacketID != packet {
		c.w.t.Fatalf("got %s %d, expected %s %d", r.Ack, r.PacketID, k, packet)
	}
	return r.Reason
}

func (c *client) wantDeliver(payload string, qos mqtt.QoS) record {
	c.w.t.Helper()
	r := c.want(link.DownDeliver)
	if string(r.msg.Payload) != payload || r.QoS != qos {
		c.w.t.Fatalf("got %q at %s, expected %q at %s", r.msg.Payload, r.QoS, payload, qos)
	}
	return r
}

func (c *client) close(cause link.CloseCause) {
	c.w.t.Helper()
	c.send(link.UpFrame{Kind: link.UpClose, Close: &link.Close{Cause: cause}})
}

func each(t *testing.T, f func(t *testing.T, w *world)) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("direct/shards=%d", n), func(t *testing.T) { f(t, newWorld(t, n, false)) })
	}
	t.Run("wire", func(t *testing.T) { f(t, newWorld(t, 2, true)) })
}

// filters are those that the broker holds for a client.
func (w *world) filters(id string) (out []string) {
	a := w.set.Ask(&link.Query{Kind: link.QueryClient, Tenant: "acme", ClientID: mqtt.ClientID(id)})
	for _, c := range a.Clients {
		for _, s := range c.Subscriptions {
			out = append(out, s.Filter)
		}
	}
	return out
}
