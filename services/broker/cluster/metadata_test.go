// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv/leveldb"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/metadata"
)

// member is a broker that has metadata and nothing else.
type member struct {
	name  string
	mesh  *cluster.Mesh
	store *metadata.Store
	addr  string

	mu    sync.Mutex
	state map[string]bool // what watching the space has shown
}

func (*member) Enqueue(string, *cluster.Enqueue, func(cluster.Answer)) {}
func (*member) Linked(string, bool)                                    {}
func (*member) Batched(string)                                         {}
func (*member) Asked(string, []byte, func([]byte))                     {}
func (m *member) Told(from string, s cluster.Stream, b []byte) {
	if s == cluster.Metadata {
		m.store.Receive(from, bytes.Clone(b))
	}
}

// begin starts a broker with its store in dir.
func begin(t *testing.T, name, dir string) *member {
	t.Helper()
	m := &member{name: name, state: map[string]bool{}}
	m.mesh = cluster.New(cluster.Config{Node: name, Receiver: m})
	db, err := leveldb.Open(dir, leveldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m.store, err = metadata.Open(metadata.Config{Name: name}, db, cluster.Voice{Mesh: m.mesh, Stream: cluster.Metadata}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.mesh.Run(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := m.store.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = db.Close()
	})
	stop := m.store.Watch("routes", func(changes []metadata.Change) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, c := range changes {
			if c.New == nil {
				delete(m.state, c.Key.Name)
			} else {
				m.state[c.Key.Name] = true
			}
		}
	}, func(err error) { t.Error(err) })
	t.Cleanup(stop)
	return m
}

// What one broker writes the others see, over their links, whether they were there
// or came later.
func TestMetadataOverLinks(t *testing.T) {
	brokers := []*member{begin(t, "b1", t.TempDir()), begin(t, "b2", t.TempDir())}
	meet := func() {
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
	}
	meet()
	const n = 2_000
	put := func(by *member, from, to int) {
		t.Helper()
		done := make(chan error, to-from)
		for i := from; i < to; i++ {
			by.store.Write([]metadata.Mutation{{Key: metadata.Key{Space: "routes", Name: fmt.Sprint(i)}, Value: []byte("x"), Rank: 1}}, func(err error) { done <- err }, nil)
		}
		for i := from; i < to; i++ {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	all := func(want int) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			have := []int{}
			same := true
			for _, b := range brokers {
				b.mu.Lock()
				have = append(have, len(b.state))
				b.mu.Unlock()
				same = same && have[len(have)-1] == want
			}
			if same {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the brokers have %v, expected %d each", have, want)
			}
		}
	}
	put(brokers[0], 0, n)
	put(brokers[1], n, 2*n)
	all(2 * n)
	brokers = append(brokers, begin(t, "b3", t.TempDir()))
	meet()
	all(2 * n)
	for i := range 2 * n {
		brokers[2].store.Write([]metadata.Mutation{{Key: metadata.Key{Space: "routes", Name: fmt.Sprint(i)}, Delete: true, Rank: 1}}, nil, nil)
	}
	all(0)
}
