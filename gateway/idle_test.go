// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker"
)

// memory is what this process has, in bytes: what is alive after a collection,
// stacks included, and what is resident when all that is free was returned.
type memory struct{ live, rss int }

func measure(t *testing.T) memory {
	// Stacks that grew while clients were let in are halved by each collection.
	for range 4 {
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{live: int(m.HeapAlloc + m.StackInuse), rss: rss(t)}
}

// rss is the resident memory of this process.
func rss(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("resident memory is read from /proc")
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kib, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// realBroker has the gateway use a broker in this process, as manor dev does.
func realBroker(w *world, c *gateway.Config) {
	config := broker.DefaultConfig()
	config.Data = w.t.TempDir()
	b, err := broker.New(config, "broker", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("the broker's Run: %v", err)
		}
	})
	c.Dialer = uplink.DialerFunc(func(_ context.Context, gw link.Gateway) (link.Broker, error) { return b.Attach(gw), nil })
}

// An idle connection with one subscription costs no more than its budget,
// gateway and broker together.
func TestIdleConnectionBudget(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("opens 10,000 connections; the race detector has its own memory")
	}
	for _, c := range []struct {
		listener  string
		n         int
		live, rss int // budgets, in bytes
	}{
		// What is alive varies by a hundredth, so that its budget is close to what it
		// is. What is resident has the garbage between too, and is counted in pages,
		// which are large on some machines. 3 KB are promised, which it is close to:
		// a quarter more is its budget. Over TLS 14 KB are, which it is far below.
		{"mqtt", 10_000, 2_400, 3_840},
		{"mqtts", 2_000, 6_500, 14 << 10},
		{"ws", 1_000, 20_000, 32 << 10},
	} {
		t.Run(c.listener, func(t *testing.T) {
			if runtime.GOOS != "linux" { // a goroutine for each
				c.live, c.rss = c.live+(9<<10), c.rss+(9<<10)
			}
			var lim syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err == nil && lim.Cur < uint64(c.n+200) {
				c.n = int(lim.Cur) - 200
				t.Logf("only %d connections: the limit of open files is %d", c.n, lim.Cur)
			}
			w := start(t, realBroker)
			const warm = 50 // have made what is made once
			clients := w.idleClients(c.listener)
			clients.connect(warm)
			before := measure(t)
			clients.connect(c.n)
			if got := w.gw.Connections(); got != warm+c.n {
				t.Fatalf("%d connections, expected %d", got, warm+c.n)
			}
			after := measure(t)
			live, rss := (after.live-before.live)/c.n, (after.rss-before.rss)/c.n
			t.Logf("%d bytes alive and %d resident for each of %d connections", live, rss, c.n)
			if live > c.live || rss > c.rss || live <= 0 {
				t.Errorf("an idle connection costs %d bytes, %d resident, expected at most %d and %d", live, rss, c.live, c.rss)
			}
		})
	}
}
