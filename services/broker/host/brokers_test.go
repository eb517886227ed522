// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/leveldb"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/host"
	"github.com/manormq/manor/services/broker/partition"
)

const partitions = 12

// broker is one broker with real parts: a store on disk, links on loopback, its own
// connection to the bus.
type broker struct {
	c    *brokers
	name string
	addr string
	dir  string

	up    bool
	store *leveldb.Store
	bus   *nats.Bus
	host  *host.Host
	stop  func()
}

// Enqueue implements cluster.Receiver.
func (b *broker) Enqueue(string, *cluster.Enqueue, func(cluster.Answer)) {}

// Told implements cluster.Receiver.
func (b *broker) Told(from string, s cluster.Stream, m []byte) {
	if s == cluster.Replication {
		b.host.Told(from, m)
	}
}

// Linked implements cluster.Receiver.
func (b *broker) Linked(to string, up bool)          { b.host.Linked(to, up) }
func (b *broker) Asked(string, []byte, func([]byte)) {}
func (b *broker) Batched(string)                     {}

// brokers is the cluster and the clients that append to it.
type brokers struct {
	t   *testing.T
	log *slog.Logger
	bus *embed.Server
	all []*broker

	mu    sync.Mutex
	acked [partitions][]uint64 // guarded by mu: the tags that were acknowledged
}

func newBrokers(t *testing.T, n int) *brokers {
	c := &brokers{t: t, log: telemetry.Discard()}
	if os.Getenv("HOST_LOG") != "" {
		c.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	var err error
	if c.bus, err = embed.Start(t.Context(), embed.Config{Dir: t.TempDir(), NoSync: true, Log: telemetry.Discard()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.bus.Shutdown)
	for i := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.all = append(c.all, &broker{c: c, name: fmt.Sprintf("b%d", i+1), addr: ln.Addr().String(), dir: filepath.Join(t.TempDir(), "store")})
		ln.Close()
	}
	return c
}

func (b *broker) start() {
	t, ctx := b.c.t, context.Background()
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	b.store, err = leveldb.Open(b.dir, leveldb.Options{})
	must(err)
	b.bus, err = b.c.bus.Bus(b.name)
	must(err)
	table, err := b.bus.Bucket(ctx, bus.BucketConfig{Name: "partitions"})
	must(err)
	beats, err := b.bus.Bucket(ctx, bus.BucketConfig{Name: "beats"})
	must(err)
	mesh := cluster.New(cluster.Config{Node: b.name, Receiver: b, Log: telemetry.Discard()})
	b.host, err = host.New(host.Config{
		Self: partition.Broker(b.name), Partitions: partitions, Store: b.store, Sync: partition.Sync{Every: 20 * time.Millisecond},
		Transport: cluster.Voice{Mesh: mesh, Stream: cluster.Replication},
		Table:     host.NewBucketTable(table, b.c.log), Beats: beats, LogKept: 16 << 10, Log: b.c.log,
	})
	must(err)
	addrs := map[string]string{}
	for _, o := range b.c.all {
		addrs[o.name] = o.addr
	}
	mesh.SetPeers(addrs)
	ln, err := net.Listen("tcp", b.addr)
	must(err)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := mesh.Run(ctx, ln); err != nil {
			t.Errorf("links of %s: %v", b.name, err)
		}
	})
	wg.Go(func() {
		if err := b.host.Run(ctx); err != nil {
			t.Errorf("%s: %v", b.name, err)
		}
	})
	b.c.mu.Lock()
	b.up = true
	b.c.mu.Unlock()
	b.stop = sync.OnceFunc(func() {
		b.c.mu.Lock()
		b.up = false
		b.c.mu.Unlock()
		cancel()
		wg.Wait()
		b.bus.Close()
		if err := b.store.Close(); err != nil {
			t.Errorf("store of %s: %v", b.name, err)
		}
	})
	t.Cleanup(b.stop)
}

// eventually waits until ok says nothing, and returns how long that took.
func (c *brokers) eventually(what string, most time.Duration, ok func() string) time.Duration {
	c.t.Helper()
	why := ""
	for begin := time.Now(); time.Since(begin) < most; time.Sleep(10 * time.Millisecond) {
		if why = ok(); why == "" {
			took := time.Since(begin).Round(10 * time.Millisecond)
			c.t.Logf("%s: after %v", what, took)
			return took
		}
	}
	for _, b := range c.all {
		if b.up {
			c.t.Logf("%s: %+v", b.name, b.host.Stats())
		}
	}
	c.t.Fatalf("not %s after %v: %s", what, most, why)
	return 0
}

// owner is the broker that serves p, nil if there is none.
func (c *brokers) owner(p partition.ID) *broker {
	b, _ := c.serving(p)
	return b
}

// serving is the broker that serves p and its host, which is another one after a
// return.
func (c *brokers) serving(p partition.ID) (*broker, *host.Host) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.all {
		if b.up && b.host.Entry(p).Serving {
			return b, b.host
		}
	}
	return nil, nil
}

// settled says which partition is not served in two replicas in sync.
func (c *brokers) settled() string {
	for p := range partition.ID(partitions) {
		b := c.owner(p)
		if b == nil {
			return fmt.Sprintf("partition %d is not served", p)
		}
		if e := b.host.Entry(p).Table; len(e.InSync) != 2 {
			return fmt.Sprintf("partition %d is in sync on %v, not on %v", p, e.InSync, e.Others)
		}
	}
	return ""
}

func tagKey(p partition.ID, tag uint64) []byte {
	return partition.KeyU64(nil, p, partition.KindRetained, tag)
}

// load appends to each partition, one after the other, until stop is called, which
// returns when nothing is on its way.
func (c *brokers) load() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for p := range partition.ID(partitions) {
		wg.Go(func() {
			for tag := uint64(time.Now().UnixNano()); ctx.Err() == nil; tag++ {
				c.append(p, tag)
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	c.t.Cleanup(stop)
	return stop
}

func (c *brokers) append(p partition.ID, tag uint64) {
	_, h := c.serving(p)
	if h == nil {
		return
	}
	var batch kv.Batch
	batch.Put(tagKey(p, tag), make([]byte, 100))
	done := make(chan error, 1)
	begin := time.Now()
	h.Append(p, h.Entry(p).Table.Epoch, batch.Encoded(), func(err error) { done <- err })
	select {
	case err := <-done:
		if took := time.Since(begin); took > 200*time.Millisecond {
			c.log.Info("slow append", slog.Int("partition", int(p)), slog.Duration("took", took), slog.Any("error", err))
		}
		switch {
		case err == nil:
			c.mu.Lock()
			c.acked[p] = append(c.acked[p], tag)
			c.mu.Unlock()
		case !errors.Is(err, host.ErrNotOwner) && !errors.Is(err, host.ErrLost) && !errors.Is(err, host.ErrClosed):
			c.t.Errorf("append: %v", err)
		}
	case <-time.After(30 * time.Second):
		c.t.Errorf("an append to partition %d has no answer", p)
	}
}

func (c *brokers) counts() (out [partitions]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.acked {
		out[p] = len(c.acked[p])
	}
	return out
}

// more waits until n more appends to every partition are acknowledged.
func (c *brokers) more(what string, n int) {
	c.t.Helper()
	begin := c.counts()
	c.eventually(what, 20*time.Second, func() string {
		for p, now := range c.counts() {
			if now < begin[p]+n {
				return fmt.Sprintf("partition %d acknowledged %d", p, now-begin[p])
			}
		}
		return ""
	})
}

// verify looks for what was acknowledged in the stores of all that are in sync.
func (c *brokers) verify(what string) {
	c.t.Helper()
	found := 0
	for p := range partition.ID(partitions) {
		owner := c.owner(p)
		if owner == nil {
			c.t.Fatalf("%s: partition %d is not served", what, p)
		}
		e := owner.host.Entry(p).Table
		c.mu.Lock()
		acked := c.acked[p]
		c.mu.Unlock()
		for _, b := range c.all {
			if !b.up || !e.IsInSync(partition.Broker(b.name)) {
				continue
			}
			missing := 0
			for _, tag := range acked {
				if _, err := b.store.Get(tagKey(p, tag)); err != nil {
					missing++
				}
				found++
			}
			if missing > 0 {
				c.t.Errorf("%s: %s lacks %d of %d acknowledged appends to partition %d, owner %s", what, b.name, missing, len(acked), p, e.Owner)
			}
		}
	}
	c.t.Logf("%s: %d acknowledged appends looked up", what, found)
}
