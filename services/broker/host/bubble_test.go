// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/bus"
	busmem "github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/services/broker/host"
	"github.com/manormq/manor/services/broker/partition"
)

// few is how many partitions the hosts of a bubble have.
const few = 4

// bubble is some hosts in one synctest bubble, on memory.
type bubble struct {
	t     *testing.T
	bus   *busmem.Bus
	names []string

	mu    sync.Mutex
	hosts map[string]*host.Host // guarded by mu
	cut   map[string]bool       // guarded by mu: whose links are cut
	// changes are what each host told of its roles.
	changes map[string][]host.Change // guarded by mu
	stores  map[string]kv.Store
	stops   map[string]func()
	// tweak changes what a host is made of, if it is set.
	tweak func(*host.Config)
}

// direct is the Transport of one host: what is sent is there at once.
type direct struct {
	b    *bubble
	from string
}

func (d direct) Peers() (names []string) {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	for name := range d.b.hosts {
		if name != d.from && !d.b.cut[name] && !d.b.cut[d.from] {
			names = append(names, name)
		}
	}
	return names
}

func (d direct) Send(to string, b []byte) {
	d.b.mu.Lock()
	h := d.b.hosts[to]
	if d.b.cut[to] || d.b.cut[d.from] {
		h = nil
	}
	d.b.mu.Unlock()
	if h != nil {
		h.Told(d.from, b)
	}
}

func inBubble(t *testing.T, names []string, f func(b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{
			t: t, bus: busmem.New(), names: names, hosts: map[string]*host.Host{}, cut: map[string]bool{},
			changes: map[string][]host.Change{}, stores: map[string]kv.Store{}, stops: map[string]func(){},
		}
		for _, name := range names {
			b.stores[name] = mem.New()
			b.start(name)
		}
		defer func() {
			for _, stop := range b.stops {
				stop()
			}
		}()
		b.eventually("served and in sync", b.settled)
		f(b)
	})
}

func (b *bubble) start(name string) {
	table, err := b.bus.Bucket(b.t.Context(), bus.BucketConfig{Name: "partitions"})
	if err != nil {
		b.t.Fatal(err)
	}
	beats, err := b.bus.Bucket(b.t.Context(), bus.BucketConfig{Name: "beats"})
	if err != nil {
		b.t.Fatal(err)
	}
	config := host.Config{
		Self: partition.Broker(name), Partitions: few, Store: b.stores[name], Transport: direct{b, name},
		Table: host.NewBucketTable(table, telemetry.Discard()), Beats: beats,
		Replicas: func(partition.ID) int { return min(2, len(b.names)) },
		Changed: func(c host.Change) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.changes[name] = append(b.changes[name], c)
		},
	}
	if b.tweak != nil {
		b.tweak(&config)
	}
	h, err := host.New(config)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	b.mu.Lock()
	b.hosts[name] = h
	b.mu.Unlock()
	b.link(name)
	b.stops[name] = sync.OnceFunc(func() {
		b.mu.Lock()
		delete(b.hosts, name)
		b.mu.Unlock()
		cancel()
		if err := <-done; err != nil && !errors.Is(err, kv.ErrClosed) {
			b.t.Errorf("%s: %v", name, err)
		}
	})
}

// link tells of new links to and from a host.
func (b *bubble) link(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for other, h := range b.hosts {
		if other != name {
			h.Linked(name, true)
			b.hosts[name].Linked(other, true)
		}
	}
}

func (b *bubble) setCut(name string, cut bool) {
	b.mu.Lock()
	b.cut[name] = cut
	b.mu.Unlock()
	if !cut {
		b.link(name)
	}
}

func (b *bubble) eventually(what string, ok func() bool) time.Duration {
	b.t.Helper()
	begin := time.Now()
	for time.Since(begin) < time.Minute {
		if ok() {
			b.t.Logf("%s: after %v", what, time.Since(begin))
			return time.Since(begin)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for name, h := range b.hosts {
		for p := range partition.ID(few) {
			b.t.Logf("%s: %+v", name, h.Entry(p))
		}
	}
	b.t.Fatalf("not %s after a minute", what)
	return 0
}

func (b *bubble) owner(p partition.ID) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, h := range b.hosts {
		if h.Entry(p).Serving {
			return name
		}
	}
	return ""
}

func (b *bubble) settled() bool {
	for p := range partition.ID(few) {
		name := b.owner(p)
		if name == "" || len(b.hosts[name].Entry(p).Table.InSync) != min(2, len(b.names)) {
			return false
		}
	}
	return true
}

// append appends to a partition at a host and waits.
func (b *bubble) append(at string, p partition.ID, tag uint64) error {
	var batch kv.Batch
	batch.Put(tagKey(p, tag), []byte("x"))
	done := make(chan error, 1)
	b.hosts[at].Append(p, b.hosts[at].Entry(p).Table.Epoch, batch.Encoded(), func(err error) { done <- err })
	return <-done
}

func (b *bubble) has(at string, p partition.ID, tag uint64) bool {
	_, err := b.stores[at].Get(tagKey(p, tag))
	return err == nil
}

// changed is how many changes of roles were told.
func (b *bubble) changed() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.changes {
		n += len(c)
	}
	return n
}
