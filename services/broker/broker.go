// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/leveldb"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/shard"
	"github.com/manormq/manor/services/broker/systree"
)

// Broker is one broker. Attach may be called concurrently.
type Broker struct {
	config   Config
	name     string
	log      *slog.Logger
	store    kv.Store
	shards   *shard.Set
	metrics  prometheus.Gatherer
	listener net.Listener
	tls      *tls.Config
	region   *region // nil for a broker that is alone
	desk     *desk
	gates    gates
}

// New opens the store and restores what it holds. The metrics are registered
// with reg; if that gathers them too, $SYS has all that it has. The caller runs the Broker, and closes it if it never does.
func New(c Config, name string, log *slog.Logger, reg prometheus.Registerer) (*Broker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	sync, err := partition.ParseSync(c.Sync)
	if err != nil {
		return nil, err
	}
	b := &Broker{config: c, name: name, log: log}
	b.metrics, _ = reg.(prometheus.Gatherer)
	if c.Listen != "" {
		if b.tls, err = wire.TLS(c.Cert, c.Key, c.CA); err != nil {
			return nil, err
		}
	}
	if b.store, err = leveldb.Open(filepath.Join(c.Data, "store"), leveldb.Options{}); err != nil {
		if errors.Is(err, kv.ErrCorrupt) {
			err = fmt.Errorf("%w: put a copy of the folder %s back, or move it away to begin without sessions, queues and retained messages",
				err, filepath.Join(c.Data, "store"))
		}
		return nil, fmt.Errorf("open the broker's store: %w", err)
	}
	if err := b.restore(sync, reg); err != nil {
		_ = b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Broker) restore(sync partition.Sync, reg prometheus.Registerer) (err error) {
	lost, err := powerLost(b.store, boot())
	if err != nil {
		return err
	}
	if err := checkStore(b.store, &b.config); err != nil {
		return err
	}
	if err := upgradeStore(b.store, b.log); err != nil {
		return err
	}
	if b.config.Listen != "" {
		if b.listener, err = node.Listen(context.Background(), b.config.Listen, "broker.listen", node.PortPatience); err != nil {
			return fmt.Errorf("listen for links: %w", err)
		}
	}
	config := shard.Config{
		Store: b.store, Partitions: b.config.Partitions, Reserved: b.config.Cluster.Reserved, Shards: b.config.Shards, Sync: sync, WriteDelay: b.config.WriteDelay, Log: b.log,
		Cell: func(q *link.Query) *link.Answer { return b.desk.answerTenant(q) },
	}
	if b.config.Cluster.On() {
		if b.region, err = newRegion(&b.config, b.name, b.store, sync, lost, b.listener.Addr().String(), b.tls, b.log); err != nil {
			return err
		}
		config.Cluster = b.region
	}
	if b.shards, err = shard.New(config); err != nil {
		return err
	}
	b.desk = &desk{Broker: b, started: time.Now()}
	if b.region != nil {
		b.region.shards, b.region.desk = b.shards, b.desk
	}
	return register(reg, b)
}

// partitionsKey is above every partition's prefix but the last, which no region
// has (partition.ID 65,535 is refused); so is clusterKey, which only the store of a
// broker of a cluster has.
var (
	partitionsKey = []byte{0xFF, 0xFF, 'p'}
	clusterKey    = []byte{0xFF, 0xFF, 'c'}
)

// checkStore holds the number of partitions that a store was made with, and whether
// its broker was one of a cluster: only then there is a log for others.
func checkStore(store kv.Store, c *Config) error {
	v, err := store.Get(partitionsKey)
	if errors.Is(err, kv.ErrNotFound) {
		var b kv.Batch
		b.Put(partitionsKey, binary.BigEndian.AppendUint32(nil, uint32(c.Partitions)))
		b.Put(versionKey, binary.BigEndian.AppendUint16(nil, storeVersion))
		if c.Cluster.On() {
			b.Put(clusterKey, reservedValue(c))
			b.Put(newKey, nil)
			b.Put(uninformedKey, nil)
		}
		return store.Apply(&b, true)
	}
	if err != nil {
		return err
	}
	if len(v) != 4 || int(binary.BigEndian.Uint32(v)) != c.Partitions {
		return fmt.Errorf("partitions: the store was made with %d partitions, the configuration says %d; set partitions back", binary.BigEndian.Uint32(v), c.Partitions)
	}
	v, err = store.Get(clusterKey)
	switch {
	case err == nil && c.Cluster.On() && !bytes.Equal(v, reservedValue(c)):
		return fmt.Errorf("cluster.reserved: the store was made with another number than %d; set it back", c.Cluster.Reserved)
	case err == nil && !c.Cluster.On():
		return errors.New("cluster: the store is that of a broker of a cluster, which alone cannot know whether it is the newest; set cluster.listen back")
	case errors.Is(err, kv.ErrNotFound) && c.Cluster.On():
		return errors.New("cluster: the store is that of a broker that was alone, which cannot join a cluster; begin with an empty folder, or without cluster.listen")
	case err != nil && !errors.Is(err, kv.ErrNotFound):
		return err
	}
	return nil
}

// reservedValue is what stands under clusterKey: how many partitions are reserved, u32;
// nothing for none, as in stores from before there were any.
func reservedValue(c *Config) []byte {
	if c.Cluster.Reserved == 0 {
		return nil
	}
	return binary.BigEndian.AppendUint32(nil, uint32(c.Cluster.Reserved))
}

// Attach makes a link to a gateway in this process.
func (b *Broker) Attach(gw link.Gateway) link.Broker { return b.shards.Attach(gw) }

// Addr is where links are accepted, or nil.
func (b *Broker) Addr() net.Addr {
	if b.listener == nil {
		return nil
	}
	return b.listener.Addr()
}

// Check reports what keeps the broker from acknowledging; it is a health check.
func (b *Broker) Check(context.Context) error {
	if b.shards.Failing() {
		return errors.New("the store refuses writes: see the log for why")
	}
	return nil
}

// Run works until ctx is done; then links end, what was begun is committed, and
// the store is closed.
func (b *Broker) Run(ctx context.Context) error {
	life, end := context.WithCancel(ctx)
	defer end()
	g, gctx := errgroup.WithContext(life)
	// The shards stop after the links, so that what a link's end brings (wills,
	// detached sessions) is still done.
	shards, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- b.runShards(shards) }()
	if b.listener != nil {
		s := &link.Server{
			Node: b.name, TLS: b.tls, Logger: b.log,
			Attach: func(gw link.Gateway, name string) link.Broker { return b.gates.enter(name, b.Attach(gw)) },
		}
		g.Go(func() error { return s.Serve(gctx, b.listener) })
	}
	g.Go(func() error {
		b.systree().Run(gctx)
		return nil
	})
	g.Go(func() error {
		b.watchLoad(gctx)
		return nil
	})
	var err error
	select {
	case err = <-done:
		end() // a shard, the committer or the region failed: everything ends
	case <-gctx.Done():
	}
	if lerr := g.Wait(); err == nil {
		err = lerr
	}
	stop()
	if err == nil {
		err = <-done
	}
	return errors.Join(err, b.store.Close())
}

// runShards runs the shards, and what commits for them and ends after them.
func (b *Broker) runShards(ctx context.Context) error {
	if b.region == nil {
		return b.shards.Run(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	replicas, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	done := make(chan error, 1)
	go func() {
		done <- b.region.Run(replicas)
		cancel()
	}()
	err := b.shards.Run(ctx)
	end()
	return errors.Join(err, <-done)
}

// Drain is asked before Run ends: others become the owners of the partitions of a broker
// of a cluster, which stays their follower. It returns when it owns none, with ctx, or
// when there is nobody who takes them.
func (b *Broker) Drain(ctx context.Context) error {
	if b.region == nil {
		return nil
	}
	return b.region.drain(ctx)
}

// watchLoad has the shards and the gateways hear how overloaded the node is.
func (b *Broker) watchLoad(ctx context.Context) {
	load.Watch(ctx, b.shards.CommitLatency, func(_ time.Time, level load.Level, s load.Signals) {
		if before := b.shards.Load(); level != before {
			b.shards.SetLoad(level)
			b.log.Warn("the broker's load has another level",
				slog.String("level", level.String()), slog.String("before", before.String()),
				slog.Duration("run_queue", s.RunQueue), slog.Float64("memory", s.Memory), slog.Duration("commit", s.Commit))
		}
	})
}

// Close releases a Broker that was never run.
func (b *Broker) Close() error {
	if b.listener != nil {
		_ = b.listener.Close()
	}
	if b.region != nil {
		b.region.close()
	}
	return b.store.Close()
}

// systree publishes what this broker counts.
func (b *Broker) systree() *systree.Tree {
	return systree.New(systree.Config{
		Interval: b.config.Systree, Node: b.name, Operator: b.config.Operator, Metrics: b.metrics, Log: b.log,
		Tenants: func(yield func(string, systree.Figures)) {
			b.shards.Tenants(func(id string, t *shard.Tenant) {
				if !t.Listens() {
					return
				}
				u := t.Usage()
				if u.Subscriptions == 0 {
					return // they are of other brokers, which speak for themselves
				}
				in, out := t.Flow()
				yield(id, systree.Figures{
					Connections: u.Connections, Sessions: u.PersistentSessions, Subscriptions: u.Subscriptions,
					QueueMessages: u.QueueMessages, QueueBytes: u.QueueBytes,
					Retained: u.Retained, RetainedBytes: u.RetainedBytes, Received: in, Sent: out,
				})
			})
		},
		Listens: func(tenant string) bool { return b.shards.Tenant(tenant).Listens() },
		Publish: b.shards.Announce,
	})
}
