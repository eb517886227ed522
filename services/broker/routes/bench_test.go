// SPDX-License-Identifier: Apache-2.0

package routes_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/manormq/manor/services/broker/partition"
)

// full is the variable that asks for what takes minutes: make bench-routes.
const full = "MANOR_BENCH_ROUTES"

// A hundred thousand routes added at once at one broker are soon at the others.
// The figures are printed: go test -v.
func TestManyRoutes(t *testing.T) {
	if testing.Short() {
		t.Skip("100,000 routes take seconds")
	}
	b1, b2, b3 := begin(t, "b1", t.TempDir()), begin(t, "b2", t.TempDir()), begin(t, "b3", t.TempDir())
	meet(t, b1, b2, b3)
	const n = 100_000
	before, start, busy := heap(), time.Now(), cpu(t)
	var last atomic.Int64
	var all sync.WaitGroup
	all.Add(n)
	for i := range n {
		b1.Add("acme", fmt.Sprintf("site/%d/sensor/%d/+", i%977, i), 7, 1, func() {
			if i == n-1 {
				last.Store(time.Now().UnixNano())
			}
			all.Done()
		})
	}
	since := func(at time.Time) time.Duration { return time.Since(at).Round(time.Millisecond) }
	added := since(start)
	until(t, "the writer has all routes", func() bool { return b1.knows() == n })
	written, at := since(start), time.Now()
	until(t, "the others have all routes", func() bool { return b2.knows() == n && b3.knows() == n })
	there, total, used := since(at), since(start), cpu(t)-busy
	late := since(time.Unix(0, last.Load()))
	all.Wait()
	t.Logf("%d routes: added in %v, written after %v, at both others after %v: %v later, and %v after the last reached was called, by its time", n, added,
		written, total, there, late)
	t.Logf("processor time: %v for each route and broker, with this test's own", (used / (3 * n)).Round(100*time.Nanosecond))
	t.Logf("memory of three brokers and of the maps of this test: %d bytes for each route; told to each other: %d bytes for each route and broker; %+v",
		max(0, heap()-before)/n, (b2.received()+b3.received())/(2*n), b1.Stats())
	for _, b := range []*broker{b1, b2, b3} {
		if s := b.Stats(); s.Keys != n || s.Pending != 0 {
			t.Errorf("%s: %+v", b.name, s)
		}
	}
}

// Random filters come and go: 20,000, or a million with MANOR_BENCH_ROUTES. In the
// end the metadata are as small as before.
func TestRoutesComeAndGo(t *testing.T) {
	total := 20_000
	if os.Getenv(full) != "" {
		total = 1_000_000
	} else if testing.Short() {
		t.Skip("20,000 routes and their deletes take seconds")
	}
	const page = 10_000
	b1, b2, b3 := begin(t, "b1", t.TempDir()), begin(t, "b2", t.TempDir()), begin(t, "b3", t.TempDir())
	brokers := []*broker{b1, b2, b3}
	meet(t, brokers...)
	before, start := heap(), time.Now()
	var early, written int64 // memory and stores once a fifth has come and gone
	for from := 0; from < total; from += page {
		if from == total/5 {
			early, written = heap()-before, size(t, brokers)
		}
		b := brokers[from/page%3]
		for i := from; i < from+page; i++ {
			b.Add("acme", fmt.Sprintf("session/%016x/#", uint64(i)*0x9e3779b97f4a7c15), 7, 1, nil)
		}
		until(t, "a page is written", func() bool { s := b.Stats(); return s.Pending == 0 && b.knows() >= page })
		for i := from; i < from+page; i++ {
			b.Remove("acme", fmt.Sprintf("session/%016x/#", uint64(i)*0x9e3779b97f4a7c15), 7, 1)
		}
		until(t, "a page is deleted", func() bool { return b1.knows()+b2.knows()+b3.knows() == 0 })
	}
	took := time.Since(start)
	until(t, "nothing is kept of what was deleted", func() bool {
		for _, b := range brokers {
			if s := b.store.Stats(); s.Objects+s.Tombstones+s.Dots+s.Contexts > 0 || b.Stats().Keys != 0 {
				return false
			}
		}
		return true
	})
	grown, stores := heap()-before, size(t, brokers)
	t.Logf("%d routes came and went in %v; memory of the three brokers grew by %d KiB, by %d KiB for the first fifth; their stores have %d KiB, %d then; metadata %+v", total,
		took.Round(time.Millisecond), grown>>10, early>>10, stores>>10, written>>10, b1.store.Stats())
	// What stays of a fifth are LevelDB's buffers, two of 32 MiB and more for each
	// broker, full or not, and tables that it has not compacted yet. Fifty bytes for
	// each further route at each broker would be more than this.
	if total == 1_000_000 && (grown > early+112<<20 || stores > written+64<<20) {
		t.Error("memory or stores grow with what came and went")
	}
}

// TestLeftovers prints what it takes to find the leftovers of an owner that left
// 20,000 routes in each of 5 partitions, of which the next owner has half.
func TestLeftovers(t *testing.T) {
	if os.Getenv(full) == "" {
		t.Skip("set " + full + ", or make bench-routes")
	}
	b1, b2 := begin(t, "b1", t.TempDir()), begin(t, "b2", t.TempDir())
	meet(t, b1, b2)
	const n = 100_000
	for i := range n {
		p, f := partition.ID(i%5), fmt.Sprint("f/", i)
		b1.Add("acme", f, p, 1, nil)
		b2.set(f, p, i%2 == 0)
	}
	until(t, "the routes are there", func() bool { return b2.knows() == n })
	start := time.Now()
	for p := range partition.ID(5) {
		b2.own(p, 2)
	}
	until(t, "half of them are gone", func() bool { return b1.knows() == n/2 && b2.knows() == n/2 })
	t.Logf("%d leftovers among %d routes were gone after %v", n/2, n, time.Since(start).Round(time.Millisecond))
}

func (b *broker) received() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sent
}

// cpu is the processor time of this process.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func size(t *testing.T, brokers []*broker) (n int64) {
	t.Helper()
	for _, b := range brokers {
		if err := filepath.WalkDir(b.dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if i, err := d.Info(); err == nil { // it may have been compacted away
				n += i.Size()
			}
			return nil
		}); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return n
}
