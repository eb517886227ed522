// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
)

// Growing a list by one partition moves about 1/(m+1) of the names to it, and
// no name between the others.
func TestChooseMovesLittle(t *testing.T) {
	var list []ID
	for i := range 8 {
		list = append(list, ID(i*3))
	}
	longer := append(append([]ID(nil), list...), 100)
	const n = 20000
	moved, counts := 0, map[ID]int{}
	for i := range n {
		name := fmt.Sprintf("device-%d", i)
		before, after := Choose(list, name), Choose(longer, name)
		counts[after]++
		if before != after {
			if after != 100 {
				t.Fatalf("%s moved from %d to %d", name, before, after)
			}
			moved++
		}
		if b := Choose(longer, []byte(name)); b != after {
			t.Fatalf("%d for bytes, %d for a string", b, after)
		}
	}
	if moved < n/9*8/10 || moved > n/9*12/10 {
		t.Errorf("%d of %d names moved, expected about %d", moved, n, n/9)
	}
	for p, c := range counts {
		if c < n/9*8/10 || c > n/9*12/10 {
			t.Errorf("partition %d has %d of %d names", p, c, n)
		}
	}
}

func TestKeys(t *testing.T) {
	k := KeyNamed(nil, 7, KindSession, "acme", "client/1")
	tenant, name, err := SplitNamed(k)
	if err != nil || tenant != "acme" || name != "client/1" {
		t.Fatal(tenant, name, err)
	}
	if _, _, err := SplitNamed(k[:5]); !errors.Is(err, ErrBadKey) {
		t.Fatal(err)
	}
	// Keys of one session are contiguous and in order of seq; neighbours are
	// outside the range.
	start, end := RangeU64(7, KindQueue, 5)
	in := [][]byte{KeyU64U64(nil, 7, KindQueue, 5, 0), KeyU64U64(nil, 7, KindQueue, 5, 1<<40)}
	outside := [][]byte{
		KeyU64U64(nil, 7, KindQueue, 4, ^uint64(0)), KeyU64U64(nil, 7, KindQueue, 6, 0),
		KeyU64U64(nil, 8, KindQueue, 5, 1), KeyU64U64(nil, 7, KindRetained, 5, 1),
	}
	for _, k := range in {
		if bytes.Compare(k, start) < 0 || bytes.Compare(k, end) >= 0 {
			t.Errorf("%x is outside %x..%x", k, start, end)
		}
	}
	for _, k := range outside {
		if bytes.Compare(k, start) >= 0 && bytes.Compare(k, end) < 0 {
			t.Errorf("%x is inside %x..%x", k, start, end)
		}
	}
	l := Last{Epoch: 3, N: 1 << 50}
	if got, err := ParseLast(l.Append(nil)); err != nil || got != l {
		t.Fatal(got, err)
	}
}

func TestParseSync(t *testing.T) {
	for text, want := range map[string]time.Duration{"commit": 0, "none": -1, "20ms": 20 * time.Millisecond} {
		if s, err := ParseSync(text); err != nil || s.Every != want {
			t.Errorf("%s: %v %v", text, s.Every, err)
		}
	}
	for _, text := range []string{"", "always", "-1s", "0s", "20"} {
		if _, err := ParseSync(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

type owner struct {
	mu      sync.Mutex
	tickets []uint64
	got     chan struct{}
}

func (o *owner) Committed(ticket uint64, _ *kv.Batch) {
	o.mu.Lock()
	o.tickets = append(o.tickets, ticket)
	o.mu.Unlock()
	o.got <- struct{}{}
}

// failing refuses writes while broken.
type failing struct {
	kv.Store
	mu     sync.Mutex
	broken bool
}

func (f *failing) Apply(b *kv.Batch, sync bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken {
		return errors.New("disk full")
	}
	return f.Store.Apply(b, sync)
}

// Nothing is called committed while the store refuses writes; all of it is
// afterwards, in order.
func TestCommitterRetries(t *testing.T) {
	store := &failing{Store: mem.New(), broken: true}
	c := NewCommitter(store, Sync{Every: 0}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	o := &owner{got: make(chan struct{}, 16)}
	for i := range 5 {
		b := &kv.Batch{}
		b.Put([]byte{byte(i)}, []byte("v"))
		c.Submit(o, uint64(i+1), b)
	}
	for end := time.Now().Add(5 * time.Second); !c.Failing(); {
		if time.Now().After(end) {
			t.Fatal("the failure is not reported")
		}
		time.Sleep(time.Millisecond)
	}
	if len(o.got) != 0 {
		t.Fatal("committed without a write")
	}
	store.mu.Lock()
	store.broken = false
	store.mu.Unlock()
	for range 5 {
		select {
		case <-o.got:
		case <-time.After(5 * time.Second):
			t.Fatal("not committed after the store works again")
		}
	}
	for i, ticket := range o.tickets {
		if ticket != uint64(i+1) {
			t.Fatalf("order %v", o.tickets)
		}
		if _, err := store.Get([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	// The first may have been tried alone; those that came while it failed are one group.
	if groups, batches := c.Stats(); batches != 5 || groups > 2 {
		t.Errorf("%d batches in %d groups, expected 5 in 2 at most", batches, groups)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// With an interval, what is committed is synced within it.
func TestCommitterSyncs(t *testing.T) {
	store := mem.New()
	c := NewCommitter(store, Sync{Every: 5 * time.Millisecond}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	o := &owner{got: make(chan struct{}, 16)}
	b := &kv.Batch{}
	b.Put([]byte("k"), []byte("v"))
	c.Submit(o, 1, b)
	<-o.got
	cancel() // Run syncs before it returns
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	store.Crash()
	if _, err := store.Get([]byte("k")); err != nil {
		t.Fatalf("a synced write is lost: %v", err)
	}
}

// While the store refuses, the latency grows; what a commit took is told once.
func TestCommitterLatency(t *testing.T) {
	store := &failing{Store: mem.New(), broken: true}
	c := NewCommitter(store, Sync{Every: -1}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	if d := c.Latency(); d != 0 {
		t.Errorf("%s without a commit", d)
	}
	o := &owner{got: make(chan struct{}, 16)}
	b := &kv.Batch{}
	b.Put([]byte("k"), []byte("v"))
	c.Submit(o, 1, b)
	for end := time.Now().Add(5 * time.Second); c.Latency() < 20*time.Millisecond; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a commit that stands still has no latency")
		}
	}
	store.mu.Lock()
	store.broken = false
	store.mu.Unlock()
	<-o.got
	if d := c.Latency(); d < 20*time.Millisecond {
		t.Errorf("%s, expected what the commit took", d)
	}
	if d := c.Latency(); d != 0 {
		t.Errorf("%s is told again", d)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
