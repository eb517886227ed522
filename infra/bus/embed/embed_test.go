// SPDX-License-Identifier: Apache-2.0

package embed_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/bustest"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
)

func start(t *testing.T, cfg embed.Config) *embed.Server {
	t.Helper()
	cfg.Log = telemetry.Discard()
	s, err := embed.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func TestBus_InProcess(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bus.Bus {
		b, err := start(t, embed.Config{Dir: t.TempDir()}).Bus("test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	})
}

func connect(t *testing.T, s *embed.Server, token string) *nats.Bus {
	t.Helper()
	b, err := nats.Connect(nats.Config{URLs: []string{s.URL()}, Name: "test", Token: token, Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestBus_OverTCP(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bus.Bus {
		return connect(t, start(t, embed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "secret"}), "secret")
	})
}

func TestStart_Refuses(t *testing.T) {
	for _, cfg := range []embed.Config{{}, {Dir: t.TempDir(), Listen: "nowhere"}, {Dir: t.TempDir(), Listen: "127.0.0.1:x"}} {
		cfg.Log = telemetry.Discard()
		if s, err := embed.Start(t.Context(), cfg); !errs.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v, want Invalid", cfg, err)
			if s != nil {
				s.Shutdown()
			}
		}
	}
}

// TestRestart holds that a watch goes on, that what was acknowledged is there,
// and that what happened meanwhile is told, when the server comes back at the
// same address; and that nothing blocks while it is away.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, embed.Config{Dir: dir, Listen: "127.0.0.1:0"})
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	b := connect(t, s, "")
	ctx := t.Context()
	k, err := b.Bucket(ctx, bus.BucketConfig{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Put(ctx, "a", []byte("1"), bus.Absent); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 10)
	watchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_ = k.Watch(watchCtx, bus.Watch{}, func(u bus.Update) { // ends with its context
			if u.Synced {
				got <- "synced"
				return
			}
			got <- u.Entry.Key
		})
	}()
	next := func(want string) {
		t.Helper()
		select {
		case g := <-got:
			if g != want {
				t.Fatalf("got %s, want %s", g, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no %s", want)
		}
	}
	next("a")
	next("synced")

	s.Shutdown()
	deadline := time.Now().Add(10 * time.Second)
	for b.Connected() && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	begin := time.Now()
	if _, err := k.Get(ctx, "a"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("get without server: %v, want Unavailable", err)
	}
	if _, err := k.Put(ctx, "a", nil, bus.Any); !errors.Is(err, bus.ErrUntaken) {
		t.Errorf("put without server: %v, want %v", err, bus.ErrUntaken)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("get without server took %s", d)
	}

	s2 := start(t, embed.Config{Dir: dir, Listen: u.Host})
	other := connect(t, s2, "")
	for !other.Connected() && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	k2, err := other.Bucket(ctx, bus.BucketConfig{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := k2.Get(ctx, "a"); err != nil || string(e.Value) != "1" {
		t.Errorf("after restart: %+v %v", e, err)
	}
	if _, err := k2.Put(ctx, "b", nil, bus.Absent); err != nil {
		t.Fatal(err)
	}
	next("b")
}

// TestCrash holds that what was acknowledged is in the files already: a copy of
// the folder of a running server, which is what kill -9 leaves, has all of it.
func TestCrash(t *testing.T) {
	ctx := t.Context()
	dir, left := t.TempDir(), t.TempDir()
	b, err := start(t, embed.Config{Dir: dir}).Bus("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	k, err := b.Bucket(ctx, bus.BucketConfig{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	const n = 100
	for i := range n {
		if _, err := k.Put(ctx, fmt.Sprint("k", i), []byte(fmt.Sprint(i)), bus.Absent); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Delete(ctx, "k0", bus.Any); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	b2, err := start(t, embed.Config{Dir: left}).Bus("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b2.Close() })
	k2, err := b2.Bucket(ctx, bus.BucketConfig{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		e, err := k2.Get(ctx, fmt.Sprint("k", i))
		if i == 0 && !errs.Is(err, errs.NotFound) || i > 0 && (err != nil || string(e.Value) != fmt.Sprint(i)) {
			t.Errorf("k%d: %s %v", i, e.Value, err)
		}
	}
	// Revisions go on where they were, or a watcher would miss what comes.
	if rev, err := k2.Put(ctx, "later", nil, bus.Absent); err != nil || rev != n+2 {
		t.Errorf("revision %d %v, want %d", rev, err, n+2)
	}
}
