// SPDX-License-Identifier: Apache-2.0

package embed_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/bustest"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
)

// patience bounds what a cluster may take, on a busy machine: an election takes up to
// 9 s when a server was killed.
const patience = 60 * time.Second

// eventually calls f until it returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	begin := time.Now()
	for {
		err := f()
		if err == nil {
			t.Logf("%s after %v", what, time.Since(begin).Round(time.Millisecond))
			return
		}
		if time.Since(begin) > patience {
			t.Fatalf("not %s after %v: %v", what, patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

const secret = "s3cret/with:signs@"

// cluster starts three servers that know each other.
func cluster(t *testing.T) (servers []*embed.Server, urls []string) {
	t.Helper()
	var routes []string
	var held []net.Listener
	for range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		held, routes = append(held, ln), append(routes, ln.Addr().String())
	}
	for _, ln := range held {
		_ = ln.Close()
	}
	for i, r := range routes {
		s := start(t, embed.Config{
			Dir: t.TempDir(), Name: fmt.Sprint("nats-", i+1), Listen: "127.0.0.1:0", Token: secret,
			Cluster: "test", ClusterListen: r, Routes: routes,
		})
		servers, urls = append(servers, s), append(urls, s.URL())
	}
	return servers, urls
}

// open connects to urls and waits until the servers have agreed.
func open(t *testing.T, urls ...string) *nats.Bus {
	t.Helper()
	b, err := nats.Connect(nats.Config{URLs: urls, Name: "test", Token: secret, Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	eventually(t, "ready", func() error { return b.Ready(t.Context()) })
	return b
}

// raw is NATS itself, to look at what is there.
func raw(t *testing.T, urls []string) jetstream.JetStream {
	t.Helper()
	nc, err := natsgo.Connect(strings.Join(urls, ","), natsgo.Token(secret))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestCluster_Bus(t *testing.T) {
	t.Parallel()
	_, urls := cluster(t)
	js := raw(t, urls)
	bustest.Run(t, func(t *testing.T) bus.Bus {
		b := open(t, urls...)
		for name := range js.StreamNames(t.Context()).Name() {
			if err := js.DeleteStream(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		// The third may not be known yet to the first two.
		eventually(t, "a bucket of three", func() error {
			_, err := b.Bucket(t.Context(), bus.BucketConfig{Name: "first"})
			return err
		})
		return b
	})
	s, err := js.Stream(t.Context(), "KV_first")
	if err != nil {
		t.Fatal(err)
	}
	if c := s.CachedInfo().Config; c.Replicas != 3 || c.AllowDirect || len(s.CachedInfo().Cluster.Replicas) != 2 {
		t.Errorf("a bucket is kept by %d servers, and any of them answers: %v", c.Replicas, c.AllowDirect)
	}
}

// A server on its own keeps a bucket once, and one that is asked for three says so.
func TestCluster_OfOne(t *testing.T) {
	s := start(t, embed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	b := connect(t, s, "")
	if _, err := b.Bucket(t.Context(), bus.BucketConfig{Name: "a"}); err != nil {
		t.Error(err)
	}
	if _, err := b.Bucket(t.Context(), bus.BucketConfig{Name: "b", Replicas: 3}); !errs.Is(err, errs.Invalid) {
		t.Errorf("three copies on one server: %v, want Invalid", err)
	}
}

func TestCluster_Refuses(t *testing.T) {
	one := embed.Config{Listen: "127.0.0.1:0", Cluster: "c", ClusterListen: "127.0.0.1:0", Routes: []string{"127.0.0.1:1"}}
	for what, change := range map[string]func(*embed.Config){
		"no routes":         func(c *embed.Config) { c.Routes = nil },
		"a bad route":       func(c *embed.Config) { c.Routes = []string{"nats://x"} },
		"no cluster listen": func(c *embed.Config) { c.ClusterListen = "" },
		"no listen":         func(c *embed.Config) { c.Listen = "" },
	} {
		cfg := one
		cfg.Dir, cfg.Log = t.TempDir(), telemetry.Discard()
		change(&cfg)
		if s, err := embed.Start(t.Context(), cfg); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, want Invalid", what, err)
			if s != nil {
				s.Shutdown()
			}
		}
	}
}

// A server without the secret hears nothing, where one with it hears all.
func TestCluster_Stranger(t *testing.T) {
	t.Parallel()
	servers, urls := cluster(t)
	inside := open(t, urls[0])
	member := open(t, urls[1])
	stranger, err := nats.Connect(nats.Config{Name: "test", Token: "guessed", Log: telemetry.Discard(), URLs: []string{start(t, embed.Config{
		Dir: t.TempDir(), Name: "stranger", Listen: "127.0.0.1:0", Token: "guessed",
		Cluster: "test", ClusterListen: "127.0.0.1:0", Routes: []string{servers[0].ClusterAddress()},
	}).URL()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stranger.Close() })
	eventually(t, "connected to the stranger", func() error { return stranger.Check(t.Context()) })
	heard, leaked := make(chan string, 1000), make(chan string, 1000)
	for b, to := range map[*nats.Bus]chan string{member: heard, stranger: leaked} {
		stop, err := b.Subscribe("a.b", func(_ string, body []byte) { to <- string(body) })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	// It tries to connect once a second.
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err := inside.Publish(t.Context(), "a.b", []byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	if len(heard) == 0 || len(leaked) != 0 {
		t.Errorf("a member heard %d events, a stranger %d", len(heard), len(leaked))
	}
}

// TestCluster_LosesOne holds that with one of three servers gone writes and reads go
// on, a watch tells what is written, and who was connected to it finds another: for
// each of the three, so that it was the leader and the watch's once.
func TestCluster_LosesOne(t *testing.T) {
	for lost := range 3 {
		t.Run(fmt.Sprint(lost+1), func(t *testing.T) {
			t.Parallel()
			servers, urls := cluster(t)
			b := open(t, urls...)
			stay := open(t, urls[(lost+1)%3]) // its own server lives; what it watches may not
			ctx := t.Context()
			var k, k2 bus.Bucket
			eventually(t, "a bucket of three", func() (err error) {
				k, err = b.Bucket(ctx, bus.BucketConfig{Name: "x"})
				return err
			})
			k2, err := stay.Bucket(ctx, bus.BucketConfig{Name: "x"})
			if err != nil {
				t.Fatal(err)
			}
			seen := make(chan string, 100)
			for _, bucket := range []bus.Bucket{k, k2, k2, k2} {
				synced := make(chan struct{})
				go func() {
					_ = bucket.Watch(ctx, bus.Watch{}, func(u bus.Update) { // ends with its context
						if u.Synced {
							close(synced)
							return
						}
						seen <- u.Entry.Key
					})
				}()
				select {
				case <-synced:
				case <-time.After(patience):
					t.Fatal("the watch does not begin")
				}
			}
			if _, err := k.Put(ctx, "before", []byte("1"), bus.Absent); err != nil {
				t.Fatal(err)
			}
			servers[lost].Shutdown()
			write := func(key string) func() error {
				return func() error {
					_, err := k.Put(ctx, key, []byte("2"), bus.Any)
					return err
				}
			}
			eventually(t, "written", write("after"))
			if e, err := k.Get(ctx, "before"); err != nil || string(e.Value) != "1" {
				t.Errorf("what was written before: %+v %v", e, err)
			}
			count := map[string]int{}
			for deadline := time.After(patience); count["before"] < 4 || count["after"] < 4; {
				select {
				case key := <-seen:
					count[key]++
				case <-deadline:
					t.Fatalf("told %v, want both of each watch", count)
				}
			}
			eventually(t, "listed", func() error { // a request may go to the server that is lost
				keys, err := k2.Keys(ctx, "")
				if err == nil && len(keys) != 2 {
					t.Errorf("keys: %q", keys)
				}
				return err
			})
			// A majority is needed.
			servers[(lost+2)%3].Shutdown()
			limited, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			if _, err := k2.Put(limited, "minority", nil, bus.Any); err == nil {
				t.Error("one of three servers took a write")
			} else if !errs.Is(err, errs.Unavailable) {
				t.Errorf("one of three servers: %v, want Unavailable", err)
			}
		})
	}
}
