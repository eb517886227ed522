// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/host"
	"github.com/manormq/manor/services/broker/layout"
	"github.com/manormq/manor/services/broker/member"
	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/routes"
	"github.com/manormq/manor/services/broker/shard"
)

// region is what a broker of a cluster has of the others: the replicas of its
// partitions, the links, the replicated metadata. It is the Cluster of the shards.
type region struct {
	name   string
	log    *slog.Logger
	shards *shard.Set // before Run
	host   *host.Host
	mesh   *cluster.Mesh
	meta   *metadata.Store
	routes *routes.Routes
	layout *layout.Layout

	listener net.Listener
	// owners are the entries of the table that the shards ask for, by partition.
	owners []atomic.Pointer[owner]

	// gaining are the partitions that a shard is about to restore.
	gaining []atomic.Bool

	members *member.Members
	// informing is asked by the host.
	informing *informing
	// table is the bucket of the partition table.
	table *lateBucket
	// beats is the bucket of heartbeats and tombstones.
	beats  bus.Bucket
	splits netsplits
	// joins admits new brokers; nil where there is no key of the CA.
	joins *joins
	// desk answers what other brokers' operators ask; before Run.
	desk *desk

	// speaks has the version that each broker spoke last, by name.
	speaks sync.Map
	mu     struct {
		sync.Mutex
		// told are the partitions whose owner has not been told to gateways.
		told map[partition.ID]bool
		// placed are the tenants whose cell has not been told to gateways.
		placed map[string]bool
		// inlets are those of the brokers that have sent something.
		inlets map[string]*shard.Inlet
	}
	tell chan struct{}
	// moved is sent to when a tenant that moves has another record.
	moved chan struct{}
	// out is sent to when this broker is no member any more.
	out chan struct{}
}

// linkPing has the link to a broker that is silent end after 3 s, three times this, as
// soon as another takes its partitions: what was sent to it and not answered goes to
// the new owner then.
const linkPing = time.Second

// errRetired ends a broker that is no member any more.
var errRetired = errs.Coded(errs.Invalid, node.CodeRetired, "this broker has left the cluster, or was given up; empty its data folder before it starts again")

// owner is who a partition belongs to.
type owner struct {
	name     string
	epoch    uint64
	draining bool
}

// newRegion makes a broker's part of a cluster; links is where it listens for
// gateways, powerLost as in host.Config. It listens, and answers nobody before Run.
func newRegion(c *Config, name string, store kv.Store, sync partition.Sync, powerLost bool, links string, tlsConf *tls.Config, log *slog.Logger) (r *region, err error) {
	r = &region{name: name, log: log, owners: make([]atomic.Pointer[owner], c.Partitions), gaining: make([]atomic.Bool, c.Partitions), tell: make(chan struct{}, 1), moved: make(chan struct{}, 1), out: make(chan struct{}, 1)}
	r.mu.told, r.mu.placed, r.mu.inlets = make(map[partition.ID]bool), make(map[string]bool), make(map[string]*shard.Inlet)
	r.mesh = cluster.New(cluster.Config{Node: name, TLS: tlsConf, Receiver: r, Log: log, KeepAlive: linkPing, Compress: r.compress(&c.Cluster)})
	if r.meta, err = metadata.Open(metadata.Config{Name: name}, store, cluster.Voice{Mesh: r.mesh, Stream: cluster.Metadata}, log); err != nil {
		return nil, fmt.Errorf("metadata of the cluster: %w", err)
	}
	if r.informing, err = newInforming(r.meta, store, log); err != nil {
		return nil, err
	}
	r.routes = routes.New(routes.Config{Store: r.meta, Sink: r, Log: log})
	if r.layout, err = layout.New(layout.Config{
		Store: r.meta, Partitions: c.Partitions, Reserved: c.Cluster.Reserved, Replicas: c.Cluster.Replicas, Changed: r.cellChanged, Log: log,
	}); err != nil {
		return nil, err
	}
	if r.joins, err = newJoins(c, r, tlsConf); err != nil {
		return nil, err
	}
	if r.listener, err = node.Listen(context.Background(), c.Cluster.Listen, "broker.cluster.listen", node.PortPatience); err != nil {
		r.close()
		return nil, fmt.Errorf("listen for brokers: %w", err)
	}
	beats := later(c.Bus, beatsBucket)
	r.beats, r.table = beats, later(c.Bus, tableBucket)
	if err = comeBack(store, beats, name, shapeOf(c), log); err != nil {
		r.close()
		return nil, err
	}
	if r.members, err = member.Open(member.Config{
		Self: name, Beats: func(context.Context) (bus.Bucket, error) { return beats, nil },
		File: filepath.Join(c.Data, "members"), Log: log,
		Events: member.Events{Peers: r.mesh.SetPeers, Changed: r.joined, Told: r.told, Left: r.left, Retired: r.retired},
	}); err != nil {
		r.close()
		return nil, fmt.Errorf("members of the cluster: %w", err)
	}
	r.host, err = host.New(host.Config{
		Self: partition.Broker(name), Partitions: c.Partitions, Store: store, Sync: sync,
		Transport: cluster.Voice{Mesh: r.mesh, Stream: cluster.Replication},
		Knows: func(to string, k partition.MessageKind) bool {
			return k <= partition.Answer || r.mesh.Version(to) >= cluster.VersionTail
		},
		Table: host.NewBucketTable(r.table, log), Beats: beats,
		Zone: c.Cluster.Zone, Labels: c.Cluster.accepted(), Cluster: cmp.Or(c.Cluster.Advertise, r.listener.Addr().String()), Links: cmp.Or(c.Cluster.AdvertiseLinks, links), Version: node.Version(),
		Replicas: r.layout.Replicas, Label: r.layout.Label, Moves: r.layout.Moves, CatchUp: r.layout.CatchUp, Informed: r.informing.done,
		Cede:    func(p partition.ID, done func()) { r.shards.Cede(p, done) },
		Changed: r.changed, Seen: r.seen, Log: log,
		PowerLost: powerLost, Started: func() {
			if err := noteBoot(store, boot()); err != nil {
				log.Error("the boot of the machine cannot be noted in the store; at the next start it counts as lost power", slog.Any("error", err))
			}
		},
	})
	if err != nil {
		r.close()
		return nil, fmt.Errorf("partitions: %w", err)
	}
	return r, nil
}

// retiredEvery is how often it is looked whether the others have given this broker up.
const retiredEvery = time.Second

// Run runs the parts until ctx is done. The store may be closed when it has
// returned.
func (r *region) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.mesh.Run(ctx, r.listener) })
	g.Go(func() error {
		// The routes end before what they are written to.
		store, end := context.WithCancel(context.WithoutCancel(ctx))
		defer end()
		done := make(chan error, 1)
		go func() { done <- r.meta.Run(store) }()
		told := make(chan struct{})
		keys, stop := context.WithCancel(ctx)
		defer stop()
		go func() {
			r.routes.Run(keys)
			close(told)
		}()
		var err error
		select {
		case err = <-done: // its store cannot be read
			stop()
			<-told
			return err
		case <-told:
		}
		end()
		return <-done
	})
	g.Go(func() error { return r.joins.run(ctx) })
	g.Go(func() error { return r.members.Run(ctx) })
	g.Go(func() error { return r.host.Run(ctx) })
	g.Go(func() error { r.desk.moveTenants(ctx); return nil })
	g.Go(func() error {
		// The other members say it too, where the bus that says it first is away.
		look := time.NewTicker(retiredEvery)
		defer look.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-look.C:
				if r.meta.Stats().Retired {
					return errRetired
				}
				if err := r.informing.note(); err != nil {
					r.log.Warn("it cannot be noted that this broker knows what the others do", slog.Any("error", err))
				}
			case <-r.out:
				return errRetired
			case <-r.tell:
				r.shards.Tell(r.update())
			}
		}
	})
	return g.Wait()
}

func (r *region) close() {
	if r.listener != nil {
		_ = r.listener.Close()
	}
	r.joins.close()
}

// changed takes another role of this broker in a partition.
func (r *region) changed(c host.Change) {
	switch c.Role {
	case partition.Serving:
		r.shards.Serve(c.Partition, c.Epoch)
	case partition.Handing:
		// What is appended waits, and goes on or fails.
	case partition.Following, partition.Claiming, partition.Alarmed:
		r.shards.Lose(c.Partition)
	}
}

// seen takes an entry of the partition table.
func (r *region) seen(p partition.ID, t partition.Table) {
	o := &owner{name: string(t.Owner), epoch: t.Epoch, draining: t.Draining}
	if t.Revision == 0 {
		o = nil
	}
	if old := r.owners[p].Swap(o); old == o || old != nil && o != nil && *old == *o {
		return
	}
	r.mu.Lock()
	r.mu.told[p] = true
	r.mu.Unlock()
	r.signal()
}

func (r *region) signal() {
	select {
	case r.tell <- struct{}{}:
	default:
	}
}

// joined takes a member that is new, or has changed.
func (r *region) joined(m member.Member) {
	if m.Name != r.name {
		if err := r.meta.Join(m.Name); err != nil {
			r.log.Error("a broker cannot become a member of the metadata", slog.String("broker", m.Name), slog.Any("error", err))
		}
	}
	r.splits.look(r.members.Snapshot().Members)
	r.judge()
	r.signal()
}

// told takes that all members have been told.
func (r *region) told() {
	if err := r.meta.Told(); err != nil {
		r.log.Error("the metadata cannot be told who the members are", slog.Any("error", err))
	}
}

// left takes a broker that has left for good.
func (r *region) left(name string) {
	r.speaks.Delete(name)
	if err := r.meta.Leave(name); err != nil {
		r.log.Error("a broker that has left cannot leave the metadata", slog.String("broker", name), slog.Any("error", err))
	}
	r.splits.look(r.members.Snapshot().Members)
	r.judge()
	r.signal()
}

// retired takes that the others have given this broker up.
func (r *region) retired() {
	r.log.Warn("this broker is no member of the cluster any more, as it has left or was given up: its process ends")
	select {
	case r.out <- struct{}{}:
	default:
	}
}

// compress is cluster.Config.Compress as the configuration has it. Between zones bytes cost
// more than what it takes of the processors (docs/adr/0029).
func (r *region) compress(c *ClusterConfig) func(string) bool {
	return func(name string) bool {
		switch c.CompressLinks {
		case "on":
			return true
		case "auto":
			return slices.ContainsFunc(r.members.Snapshot().Members, func(m member.Member) bool {
				return m.Name == name && m.Zone != "" && c.Zone != "" && m.Zone != c.Zone
			})
		default:
			return false
		}
	}
}

// update is what gateways have not been told of the table.
func (r *region) update() *link.TableUpdate {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.tableLocked()
	for p := range r.mu.told {
		u.Owners = append(u.Owners, r.ownerOf(p))
	}
	clear(r.mu.told)
	for tenant := range r.mu.placed {
		if c, ok := r.layout.Cell(tenant); ok {
			u.Cells = append(u.Cells, tableCell(tenant, c))
		}
	}
	clear(r.mu.placed)
	return u
}

func tableCell(tenant string, c layout.Cell) link.TableCell {
	x := link.TableCell{Tenant: tenant, Revision: c.Revision}
	for _, p := range c.Partitions {
		x.Partitions = append(x.Partitions, uint16(p))
	}
	return x
}

// Table is all that gateways are told of the partition table.
func (r *region) Table() *link.TableUpdate {
	r.mu.Lock()
	u := r.tableLocked()
	r.mu.Unlock()
	for p := range r.owners {
		u.Owners = append(u.Owners, r.ownerOf(partition.ID(p)))
	}
	r.layout.Cells(func(tenant string, c layout.Cell) {
		if c.Placed() {
			u.Cells = append(u.Cells, tableCell(tenant, c))
		}
	})
	return u
}

func (r *region) tableLocked() *link.TableUpdate {
	u := &link.TableUpdate{Partitions: len(r.owners), Shared: r.layout.Shared()}
	for _, m := range r.members.Snapshot().Members {
		if m.Links != "" {
			u.Brokers = append(u.Brokers, link.TableBroker{Name: m.Name, Address: m.Links})
		}
	}
	return u
}

func (r *region) ownerOf(p partition.ID) link.TableOwner {
	o := link.TableOwner{Partition: uint16(p)}
	if x := r.owners[p].Load(); x != nil {
		o.Epoch, o.Broker, o.Draining = x.epoch, x.name, x.draining
	}
	return o
}
