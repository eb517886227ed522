// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire/wiretest"
	"github.com/manormq/manor/services/broker/partition"
)

// town is a cluster of brokers in one process, with stores, links and a bus that are
// real, and one gateway that finds the owner of each client.
type town struct {
	t       *testing.T
	bus     *embed.Server
	brokers []*house
	log     *slog.Logger
	// tenant is the clients', and spread how many partitions it has, 0 for all.
	tenant string
	spread uint16
}

type house struct {
	*Broker
	town   *town
	name   string
	config Config
	stop   func()
	up     bool
	bus    bus.Bus
	// gate, if it is set, stands between the broker and the bus.
	gate func(bus.Bus) bus.Bus
	// gone is closed when the broker has ended, as a lost link would tell; ended when
	// its Run has returned.
	gone, ended chan struct{}
}

// newTown starts it; with changes the configuration of the i-th broker.
func newTown(t *testing.T, n int, with ...func(i int, c *Config)) *town {
	t.Helper()
	level := slog.LevelWarn
	if os.Getenv("REGION_LOG") != "" {
		level = slog.LevelDebug
	}
	w := &town{t: t, tenant: "acme", log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))}
	var err error
	if w.bus, err = embed.Start(t.Context(), embed.Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.bus.Shutdown)
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("b%d", i+1))
	}
	files := wiretest.Nodes(t, names...)
	for i, name := range names {
		c := DefaultConfig()
		f := files[name]
		c.Data, c.Partitions, c.Listen = filepath.Join(t.TempDir(), name), 16, "127.0.0.1:0"
		c.Cert, c.Key, c.CA = f.Cert, f.Key, f.CA
		c.Cluster.Listen, c.Cluster.Replicas = "127.0.0.1:0", 2
		c.Cluster.JoinListen, c.Cluster.CAKey = "127.0.0.1:0", f.CAKey
		for _, change := range with {
			change(i, &c)
		}
		w.brokers = append(w.brokers, &house{town: w, name: name, config: c})
	}
	for _, h := range w.brokers {
		h.start()
	}
	w.settled()
	return w
}

func (h *house) start() {
	t := h.town.t
	t.Helper()
	var err error
	if h.bus, err = h.town.bus.Bus(h.name); err != nil {
		t.Fatal(err)
	}
	c := h.config
	c.Bus = h.bus
	if h.gate != nil {
		c.Bus = h.gate(h.bus)
	}
	if h.Broker, err = New(c, h.name, h.town.log.With("node", h.name), nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	b, gone := h.Broker, make(chan struct{})
	h.gone = gone
	ended := make(chan struct{})
	h.ended = ended
	go func() {
		done <- b.Run(ctx)
		close(ended)
	}()
	h.up = true
	h.stop = sync.OnceFunc(func() {
		h.up = false
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errRetired) {
			t.Errorf("%s: %v", h.name, err)
		}
		close(gone)
		_ = h.bus.(interface{ Close() error }).Close()
	})
	t.Cleanup(h.stop)
}

// eventually waits until ok returns "".
func (w *town) eventually(what string, ok func() string) {
	w.t.Helper()
	begun, why := time.Now(), ""
	for time.Since(begun) < 20*time.Second {
		if why = ok(); why == "" {
			w.t.Logf("%s: after %v", what, time.Since(begun).Round(10*time.Millisecond))
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("not %s: %s", what, why)
}

// settled waits until each partition is served with as many replicas as there can be,
// and none has moved for longer than a controller takes to move one.
func (w *town) settled() {
	w.t.Helper()
	last, since := "", time.Now()
	w.eventually("served and in sync", func() string {
		served, inSync, up := 0, 0, 0
		var owners []string
		for _, h := range w.brokers {
			if h.up {
				s := h.region.host.Stats()
				served += s.Serving
				inSync += s.InSync
				up++
				for p := range partition.ID(16) {
					owners = append(owners, string(h.region.host.Entry(p).Table.Owner))
				}
			}
		}
		if now := fmt.Sprint(owners); now != last {
			last, since = now, time.Now()
		}
		if served != 16 || up > 1 && inSync != 16 {
			return fmt.Sprintf("%d served, %d in sync", served, inSync)
		}
		if time.Since(since) < 1500*time.Millisecond {
			return "partitions move"
		}
		return ""
	})
}

// resident is a client.
type resident struct {
	town    *town
	id      string
	expiry  uint32
	at      *house
	gone    chan struct{} // of at
	link    link.Broker
	frames  chan link.DownFrame
	payload chan string
}

var limitless = link.Limits{QueueMessages: -1, QueueBytes: -1, Subscriptions: -1, Retained: -1, RetainedBytes: -1, Sessions: -1, ReceiveMaximum: 1000}

// Features implements link.Featured: its connections do not go on elsewhere.
func (c *resident) Features() uint32 { return link.FeatureOwners | link.FeatureCells }

// Receive implements link.Gateway.
func (c *resident) Receive(b *link.Down) {
	for _, f := range b.Frames {
		switch f.Kind {
		case link.DownWindow, link.DownTable, link.DownLoad:
		case link.DownDeliver:
			c.payload <- fmt.Sprintf("%s %d", b.Messages[f.Slot].Payload, f.QoS)
			c.frames <- f
		default:
			c.frames <- f
		}
	}
}

// Flush implements link.Gateway.
func (c *resident) Flush() {}

// Lost implements link.Gateway.
func (c *resident) Lost(error) {}

// connect opens a channel where the client belongs.
func (w *town) connect(id string, expiry uint32) *resident {
	w.t.Helper()
	c := &resident{town: w, id: id, expiry: expiry}
	w.eventually(id+" is connected", func() string {
		for _, h := range w.brokers {
			if !h.up {
				continue
			}
			c.at, c.gone, c.frames, c.payload = h, h.gone, make(chan link.DownFrame, 1<<16), make(chan string, 1<<16)
			c.link = h.Attach(c)
			c.send(link.UpFrame{Kind: link.UpOpen, Open: &link.Open{
				Tenant: w.tenant, ClientID: mqtt.ClientID(id), SessionExpiry: expiry, ReceiveMaximum: 100, Credit: 1 << 40, Limits: limitless, Partitions: w.spread,
			}})
			select {
			case f := <-c.frames:
				switch f.Kind {
				case link.DownOpened:
					return ""
				case link.DownMoved:
				default:
					w.t.Fatalf("%s is answered %+v", id, f)
				}
			case <-time.After(5 * time.Second):
				w.t.Fatalf("%s is not answered", id)
			}
			_ = c.link.Close()
		}
		return "every broker says that it is elsewhere"
	})
	return c
}

func (c *resident) send(f link.UpFrame) {
	f.Channel = 1
	if err := c.link.Send(&link.Up{Frames: []link.UpFrame{f}}); err != nil {
		c.town.t.Errorf("%s: %v", c.id, err)
	}
}

func (c *resident) want(k link.DownKind) link.DownFrame {
	c.town.t.Helper()
	for {
		select {
		case f := <-c.frames:
			if f.Kind == link.DownDeliver && k != f.Kind {
				continue
			}
			if f.Kind != k {
				c.town.t.Fatalf("%s got %+v, expected kind %d", c.id, f, k)
			}
			return f
		case <-time.After(10 * time.Second):
			c.town.t.Fatalf("%s got no frame of kind %d", c.id, k)
		}
	}
}

func (c *resident) subscribe(filter string, qos mqtt.QoS) {
	c.town.t.Helper()
	c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: filter, QoS: qos}}})
	c.want(link.DownSuback)
}

func (c *resident) publish(qos mqtt.QoS, topic, payload string, packet uint16) {
	c.send(link.UpFrame{Kind: link.UpPublish, PacketID: packet, Message: mqtt.Message{Topic: []byte(topic), Payload: []byte(payload), QoS: qos}})
}

func (c *resident) wantPayload(want string) {
	c.town.t.Helper()
	select {
	case got := <-c.payload:
		if got != want {
			c.town.t.Fatalf("%s got %q, expected %q", c.id, got, want)
		}
	case <-time.After(10 * time.Second):
		c.town.t.Fatalf("%s did not get %q", c.id, want)
	}
}

// Messages go to sessions of every broker, at every QoS.
func TestRegion_Delivers(t *testing.T) {
	t.Parallel()
	w := newTown(t, 3)
	var subs []*resident
	at := map[*house]int{}
	for i := range 9 {
		c := w.connect(fmt.Sprintf("sub-%d", i), 3600)
		c.subscribe("t/#", mqtt.ExactlyOnce)
		subs = append(subs, c)
		at[c.at]++
	}
	if len(at) < 2 {
		t.Fatalf("the sessions are at %d brokers", len(at))
	}
	pub := w.connect("pub", 3600)
	for qos := range mqtt.QoS(3) {
		payload := fmt.Sprintf("at %d", qos)
		pub.publish(qos, "t/x", payload, uint16(qos)+1)
		if qos > 0 {
			if f := pub.want(link.DownAck); f.PacketID != uint16(qos)+1 || f.Reason.Failed() {
				t.Errorf("the publish is answered %+v", f)
			}
		}
		for _, c := range subs {
			c.wantPayload(fmt.Sprintf("%s %d", payload, qos))
		}
	}
}
