// SPDX-License-Identifier: Apache-2.0

package metadata_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/faulty"
	"github.com/manormq/manor/infra/kv/leveldb"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/services/broker/metadata"
)

// mesh connects Stores in one process; those that are cut off reach nobody.
type mesh struct {
	mu     sync.Mutex
	stores map[string]*metadata.Store
	cut    map[string]bool
}

// port is one Store's side of a mesh.
type port struct {
	*mesh
	name string
}

func (p port) Peers() (names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.stores {
		if name != p.name && !p.cut[name] && !p.cut[p.name] {
			names = append(names, name)
		}
	}
	return names
}

func (p port) Send(peer string, message []byte) {
	p.mu.Lock()
	s, cut := p.stores[peer], p.cut[peer] || p.cut[p.name]
	p.mu.Unlock()
	if s != nil && !cut {
		s.Receive(p.name, message)
	}
}

// start runs a Store for each of stores, all members, until the test ends.
func start(t testing.TB, stores ...kv.Store) []*metadata.Store {
	t.Helper()
	net := &mesh{stores: map[string]*metadata.Store{}, cut: map[string]bool{}}
	var out []*metadata.Store
	for i, s := range stores {
		name := fmt.Sprintf("b%d", i)
		m, err := metadata.Open(metadata.Config{Name: name}, s, port{net, name}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		net.mu.Lock()
		net.stores[name] = m
		net.mu.Unlock()
		out = append(out, m)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, m := range out {
		for i := range out {
			if err := m.Join(fmt.Sprintf("b%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		wg.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return out
}

// mirror is what a watch says is in a space.
type mirror struct {
	sync.Mutex
	items map[string]uint64
	bad   int
}

func watch(t *testing.T, s *metadata.Space[uint64]) *mirror {
	m := &mirror{items: map[string]uint64{}}
	t.Cleanup(s.Watch(func(updates []metadata.Update[uint64]) {
		m.Lock()
		defer m.Unlock()
		for _, u := range updates {
			if old, ok := m.items[u.Name]; ok != (u.Old != nil) || ok && u.Old.Value != old {
				t.Errorf("%s changes from %v, but was %d", u.Name, u.Old, old)
			}
			if u.New == nil {
				delete(m.items, u.Name)
			} else {
				m.items[u.Name] = u.New.Value
			}
		}
	}, func(error) { m.Lock(); m.bad++; m.Unlock() }))
	return m
}

func (m *mirror) copy() map[string]uint64 {
	m.Lock()
	defer m.Unlock()
	return maps.Clone(m.items)
}

var errShort = errors.New("want 8 bytes")

var counters = metadata.Codec[uint64]{
	Encode: binary.BigEndian.AppendUint64,
	Decode: func(b []byte) (uint64, error) {
		if len(b) != 8 {
			return 0, errShort
		}
		return binary.BigEndian.Uint64(b), nil
	},
}

// Many goroutines write on every broker, one broker is cut off for a while, and in
// the end every watch and every store say the same.
func TestStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := start(t, mem.New(), mem.New(), mem.New())
		var spaces []*metadata.Space[uint64]
		var mirrors []*mirror
		for _, s := range stores {
			spaces = append(spaces, metadata.NewSpace(s, "counters", counters))
			mirrors = append(mirrors, watch(t, spaces[len(spaces)-1]))
		}
		var wg sync.WaitGroup
		for i, s := range spaces {
			for g := range 4 {
				wg.Go(func() {
					for n := range uint64(50) {
						name := fmt.Sprintf("%d/%d/%d", i, g, n%10)
						x := s.Put(name, n, 0)
						if n%7 == 6 {
							x = s.Delete(name, 0)
						}
						if err := s.Do(t.Context(), x, s.Put("all", n, 0)); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		wg.Wait()
		time.Sleep(20 * time.Second)
		want := mirrors[0].copy()
		for i, s := range spaces {
			if got := mirrors[i].copy(); !maps.Equal(got, want) {
				t.Errorf("broker %d has seen %d names, broker 0 %d", i, len(got), len(want))
			}
			stored := map[string]uint64{}
			if err := s.Range(func(x metadata.Item[uint64]) bool { stored[x.Name] = x.Value; return true }); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(stored, want) {
				t.Errorf("broker %d has stored %d names, want %d", i, len(stored), len(want))
			}
			if st := stores[i].Stats(); st.Dots != 0 || st.Tombstones != 0 || !st.Synced || st.Objects != len(want) {
				t.Errorf("broker %d: %+v", i, st)
			}
		}
		if late := watch(t, spaces[1]); true {
			synctest.Wait()
			if !maps.Equal(late.copy(), want) {
				t.Error("a late watch does not begin with all there is")
			}
		}
	})
}

func TestStore_ReachedWhenOthersHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := start(t, mem.New(), mem.New(), mem.New())
		time.Sleep(time.Second)
		begin := time.Now()
		reached := make(chan time.Duration, 1)
		stores[0].Write([]metadata.Mutation{{Key: key("k"), Value: []byte("v")}}, nil, func() { reached <- time.Since(begin) })
		if took := <-reached; took > 10*time.Millisecond {
			t.Errorf("reaching the others took %v", took)
		}
		for i, s := range stores {
			if v, ok, err := s.Get(key("k")); !ok || string(v.Bytes) != "v" || err != nil {
				t.Errorf("broker %d has %q, %v", i, v.Bytes, err)
			}
		}
	})
}

func TestStore_NothingIsAcknowledgedThatIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := faulty.New(mem.New(), faulty.Script{Apply: faulty.Between(2, 4, faulty.ErrDisk)})
		s := start(t, disk)[0]
		begin := time.Now()
		if err := s.Do(t.Context(), metadata.Mutation{Key: key("k"), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 3*time.Second {
			t.Errorf("a write is acknowledged after %v, though the disk fails three times", took)
		}
		if s.Stats().Failing {
			t.Error("the store is said to fail when it does not any more")
		}
	})
}

func TestStore_StopsWithAnAnswerToAll(t *testing.T) {
	s, err := metadata.Open(metadata.Config{Name: "b0"}, mem.New(), port{&mesh{}, "b0"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var answered atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	const writes = 200
	for i := range writes {
		if i == writes/2 {
			cancel()
		}
		s.Write([]metadata.Mutation{{Key: key(fmt.Sprint(i)), Value: []byte("v")}}, func(error) { answered.Add(1) }, nil)
	}
	wg.Wait()
	if got := answered.Load(); got != writes {
		t.Errorf("%d of %d writes are answered", got, writes)
	}
	if err := s.Do(t.Context(), metadata.Mutation{Key: key("k")}); !errors.Is(err, metadata.ErrStopped) {
		t.Errorf("a write after the end: %v, want ErrStopped", err)
	}
}

func TestSpace_ValuesThatDoNotDecode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, mem.New())[0]
		space := metadata.NewSpace(s, "counters", counters)
		m := watch(t, space)
		bad := metadata.Mutation{Key: metadata.Key{Space: "counters", Name: "bad"}, Value: []byte("short")}
		if err := space.Do(t.Context(), bad, space.Put("good", 7, 3)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		m.Lock()
		if m.bad != 1 || len(m.items) != 1 {
			t.Errorf("a watch has %d bad values and %d good ones, want 1 and 1", m.bad, len(m.items))
		}
		m.Unlock()
		if _, _, err := space.Get("bad"); !errors.Is(err, errShort) {
			t.Errorf("Get: %v, want what the codec says", err)
		}
		if err := space.Range(func(metadata.Item[uint64]) bool { return true }); !errors.Is(err, errShort) {
			t.Errorf("Range: %v, want what the codec says", err)
		}
		if x, ok, err := space.Get("good"); !ok || err != nil || x != (metadata.Item[uint64]{Name: "good", Value: 7, Rank: 3}) {
			t.Errorf("Get = %+v, %v, %v", x, ok, err)
		}
		if _, ok, err := space.Get("none"); ok || err != nil {
			t.Errorf("Get of nothing = %v, %v", ok, err)
		}
	})
}

// BenchmarkSpread writes 100,000 keys one by one at one broker, on disks, and waits
// until the watch of another has seen all.
func BenchmarkSpread(b *testing.B) {
	const keys = 100_000
	for b.Loop() {
		var disks []kv.Store
		for range 2 {
			d, err := leveldb.Open(b.TempDir(), leveldb.Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = d.Close() })
			disks = append(disks, d)
		}
		stores := start(b, disks...)
		all := make(chan struct{})
		n := 0
		stores[1].Watch("test", func(c []metadata.Change) {
			if n += len(c); n == keys {
				close(all)
			}
		}, func(err error) { b.Error(err) })
		begin := time.Now()
		var wg sync.WaitGroup
		wg.Add(keys)
		for i := range keys {
			k := key(fmt.Sprintf("tenant/devices/%d/commands", i))
			stores[0].Write([]metadata.Mutation{{Key: k, Value: make([]byte, 16), Rank: 1}}, func(error) { wg.Done() }, nil)
		}
		wg.Wait()
		b.ReportMetric(time.Since(begin).Seconds(), "s-durable")
		<-all
		b.ReportMetric(time.Since(begin).Seconds(), "s-everywhere")
	}
}
