// SPDX-License-Identifier: Apache-2.0

package routes_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv/leveldb"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/routes"
)

// broker has the routes, the metadata and the links of one, and its sink.
type broker struct {
	*routes.Routes
	name, dir, addr string
	mesh            *cluster.Mesh
	store           *metadata.Store
	end             func()

	mu     sync.Mutex
	plain  map[routes.Key]bool
	groups map[routes.Key]routes.GroupState
	has    map[routes.Key]bool // what its partitions have
	told   int
	sent   int // bytes told to this broker
}

func (*broker) Enqueue(string, *cluster.Enqueue, func(cluster.Answer)) {}
func (*broker) Linked(string, bool)                                    {}
func (*broker) Asked(string, []byte, func([]byte))                     {}
func (*broker) Batched(string)                                         {}
func (b *broker) Told(from string, s cluster.Stream, m []byte) {
	if s == cluster.Metadata {
		b.mu.Lock()
		b.sent += len(m)
		b.mu.Unlock()
		b.store.Receive(from, bytes.Clone(m))
	}
}

func (b *broker) FarRoute(tenant, filter string, p partition.ID, present bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told++
	if k := (routes.Key{Tenant: tenant, Filter: filter, Partition: p}); present {
		b.plain[k] = true
	} else {
		delete(b.plain, k)
	}
}

func (b *broker) FarGroup(tenant, key string, p partition.ID, g routes.GroupState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told++
	if k := (routes.Key{Tenant: tenant, Filter: key, Partition: p}); g.Members > 0 {
		b.groups[k] = g
	} else {
		delete(b.groups, k)
	}
}

// own has the broker own p.
func (b *broker) own(p partition.ID, epoch uint64) {
	b.Gained(p, epoch, func(tenant, filter string) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.has[routes.Key{Tenant: tenant, Filter: filter, Partition: p}]
	})
}

// subscribe is a first subscription in p.
func (b *broker) subscribe(filter string, p partition.ID, epoch uint64, reached func()) {
	b.set(filter, p, true)
	b.Add("acme", filter, p, epoch, reached)
}

func (b *broker) unsubscribe(filter string, p partition.ID, epoch uint64) {
	b.set(filter, p, false)
	b.Remove("acme", filter, p, epoch)
}

func (b *broker) set(filter string, p partition.ID, has bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := (routes.Key{Tenant: "acme", Filter: filter, Partition: p}); has {
		b.has[k] = true
	} else {
		delete(b.has, k)
	}
}

// knows is what of the space the broker was told.
func (b *broker) knows() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.plain) + len(b.groups)
}

func (b *broker) filters() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for k := range maps.Keys(b.plain) {
		out = append(out, k.Filter)
	}
	slices.Sort(out)
	return out
}

// begin starts a broker with its store in dir.
func begin(t testing.TB, name, dir string) *broker {
	t.Helper()
	b := &broker{name: name, dir: dir, plain: map[routes.Key]bool{}, groups: map[routes.Key]routes.GroupState{}, has: map[routes.Key]bool{}}
	b.mesh = cluster.New(cluster.Config{Node: name, Receiver: b})
	db, err := leveldb.Open(dir, leveldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	b.store, err = metadata.Open(metadata.Config{Name: name}, db, cluster.Voice{Mesh: b.mesh, Stream: cluster.Metadata}, log)
	if err != nil {
		t.Fatal(err)
	}
	b.Routes = routes.New(routes.Config{Store: b.store, Sink: b, Log: log})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.mesh.Run(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := b.store.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	wg.Go(func() { b.Run(ctx) })
	b.end = sync.OnceFunc(func() { cancel(); wg.Wait(); _ = db.Close() })
	t.Cleanup(b.end)
	return b
}

// meet has the brokers know each other, and waits until they do.
func meet(t testing.TB, brokers ...*broker) {
	t.Helper()
	addrs := map[string]string{}
	for _, b := range brokers {
		addrs[b.name] = b.addr
	}
	for _, b := range brokers {
		b.mesh.SetPeers(addrs)
		for name := range addrs {
			if err := b.store.Join(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(t, "the links are there and the stores have met", func() bool {
		for _, b := range brokers {
			if len((cluster.Voice{Mesh: b.mesh, Stream: cluster.Metadata}).Peers()) != len(brokers)-1 || len(b.store.Members()) != len(brokers) || !b.store.Stats().Synced {
				return false
			}
		}
		return true
	})
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("expected for 60 s that %s", what)
		}
	}
}
