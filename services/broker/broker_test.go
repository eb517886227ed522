// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

func config(t *testing.T) Config {
	c := DefaultConfig()
	c.Data = t.TempDir()
	return c
}

// run runs the broker; the function that it returns stops it.
func run(t *testing.T, c Config, reg prometheus.Registerer) (*Broker, func()) {
	t.Helper()
	b, err := New(c, "test", slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	return b, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// listener is a gateway that passes on what it is told.
type listener struct{ frames chan link.DownFrame }

func (l *listener) Receive(b *link.Down) {
	for _, f := range b.Frames {
		l.frames <- f
	}
}
func (l *listener) Flush()     {}
func (l *listener) Lost(error) {}

func (l *listener) want(t *testing.T, k link.DownKind) link.DownFrame {
	t.Helper()
	return l.wantOn(t, 0, k)
}

// wantOn is want for a channel, whatever comes on others meanwhile; 0 is any.
func (l *listener) wantOn(t *testing.T, ch link.Channel, k link.DownKind) link.DownFrame {
	t.Helper()
	for {
		select {
		case f := <-l.frames:
			if f.Kind == link.DownWindow || ch != 0 && f.Channel != ch {
				continue
			}
			if f.Kind != k {
				t.Fatalf("got %+v, expected kind %d", f, k)
			}
			return f
		case <-time.After(5 * time.Second):
			t.Fatalf("no frame of kind %d", k)
		}
	}
}

// An ordered stop and a start on the same folder keep sessions and messages,
// under every sync policy.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	for _, sync := range []string{"commit", "1ms", "none"} {
		t.Run(sync, func(t *testing.T) {
			c := config(t)
			c.Sync = sync
			for round, present := range []bool{false, true} {
				reg := prometheus.NewRegistry()
				b, stop := run(t, c, reg)
				gw := &listener{frames: make(chan link.DownFrame, 64)}
				l := b.Attach(gw)
				limits := link.Limits{QueueMessages: -1, QueueBytes: -1, Subscriptions: -1, Retained: -1, RetainedBytes: -1, Sessions: -1}
				open := &link.Open{Tenant: "acme", ClientID: "c", SessionExpiry: 600, ReceiveMaximum: 10, Credit: 1 << 20, Limits: limits}
				up := []link.UpFrame{{Kind: link.UpOpen, Channel: 1, Open: open}}
				if err := l.Send(&link.Up{Frames: up}); err != nil {
					t.Fatal(err)
				}
				if f := gw.want(t, link.DownOpened); f.SessionPresent != present {
					t.Fatalf("round %d: session present %v", round, f.SessionPresent)
				}
				if present {
					gw.want(t, link.DownDeliver)
				} else {
					// Channels have no order among them: the SUBACK comes first, and the message
					// may reach channel 1 before its end does.
					up = []link.UpFrame{{Kind: link.UpSubscribe, Channel: 1, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: "t", QoS: 1}}}}
					if err := l.Send(&link.Up{Frames: up}); err != nil {
						t.Fatal(err)
					}
					gw.want(t, link.DownSuback)
					up = []link.UpFrame{
						{Kind: link.UpClose, Channel: 1, Close: &link.Close{Cause: link.CloseLost}},
						{Kind: link.UpOpen, Channel: 2, Open: &link.Open{Tenant: "acme", ClientID: "p", CleanStart: true, ReceiveMaximum: 10, Limits: limits}},
						{Kind: link.UpPublish, Channel: 2, PacketID: 5, Message: mqtt.Message{Topic: []byte("t"), Payload: []byte("x"), QoS: 1}},
					}
					if err := l.Send(&link.Up{Frames: up}); err != nil {
						t.Fatal(err)
					}
					gw.wantOn(t, 2, link.DownOpened)
					gw.wantOn(t, 2, link.DownAck)
				}
				if _, err := reg.Gather(); err != nil {
					t.Error(err)
				}
				if err := b.Check(t.Context()); err != nil {
					t.Error(err)
				}
				stop()
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	c := config(t)
	_, stop := run(t, c, nil)
	defer stop()
	for what, change := range map[string]func(*Config){
		"in use":               func(*Config) {},
		"partitions":           func(c *Config) { c.Partitions = 0 },
		"shards":               func(c *Config) { c.Shards = 65 },
		"sync":                 func(c *Config) { c.Sync = "often" },
		"cert, key and ca":     func(c *Config) { c.Listen = "127.0.0.1:0" },
		"a folder is expected": func(c *Config) { c.Data = "" },
	} {
		bad := c
		change(&bad)
		if b, err := New(bad, "test", slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
			if b != nil {
				_ = b.Close()
			}
		}
	}
}

// What is wrong with a store is said with what to do about it.
func TestBrokenStore(t *testing.T) {
	c := config(t)
	_, stop := run(t, c, nil)
	stop()
	if err := os.Remove(filepath.Join(c.Data, "store", "CURRENT")); err != nil {
		t.Fatal(err)
	}
	_, err := New(c, "test", slog.New(slog.DiscardHandler), nil)
	if err == nil || !strings.Contains(err.Error(), "move it away") || !strings.Contains(err.Error(), c.Data) {
		t.Errorf("a store without CURRENT: %v", err)
	}
}

// A store keeps the number of partitions that it was made with: another one
// would look for sessions where they are not.
func TestPartitionsNeverChange(t *testing.T) {
	c := config(t)
	_, stop := run(t, c, nil)
	stop()
	c.Partitions = 32
	if _, err := New(c, "test", slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), "set partitions back") {
		t.Fatal(err)
	}
}
