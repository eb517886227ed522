// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/session"
)

// Config is what a Set is made of.
type Config struct {
	// Store holds everything that lasts. The Set does not close it.
	Store kv.Store
	// Partitions is how many partitions the region has, 1 to 65,535. It never
	// changes for a store.
	Partitions int
	// Reserved is how many of them, the last ones, a tenant has only by a record of its
	// cell, 0 or more and fewer than there are. It never changes for a store.
	Reserved int
	// Shards is how many turns may run at once, 1 to 64; 0 is one for each
	// processor.
	Shards int
	// Sync says when commits are synced to disk.
	Sync partition.Sync
	// WriteDelay is for how long a QoS 1 message to a stored session that has a
	// connection stays unwritten, since the session may acknowledge it; 0 writes
	// at once. It is kept up to twice as long.
	WriteDelay time.Duration
	// Now is the clock, in Unix milliseconds; nil is the system's.
	Now func() int64
	// Cluster is what a broker that is not alone has of the others. The Set then
	// serves no partition before it is told to, and its Store is written by Cluster.
	Cluster Cluster
	// Cell answers a link.QueryCell or QueryForget of the API; nil is of a broker that has no cells. It may
	// wait, and is called concurrently.
	Cell func(q *link.Query) *link.Answer
	// Stepped says that Step is called, and not Run.
	Stepped bool
	Log     *slog.Logger
}

// Set is all shards of a broker. Its methods may be called concurrently.
type Set struct {
	store     kv.Store
	shards    []*Shard
	committer *partition.Committer
	// cluster is nil where the broker is alone; serving are then the tenures of
	// the partitions, and held says that a shard has flights to send again.
	cluster Cluster
	serving []atomic.Uint64
	// farGroup is held while it is decided, by what is served, whether what is said of a group
	// counts, and while a partition ceases to be served: the far members that its loss leaves are
	// not taken away again by who saw it served.
	farGroup sync.Mutex
	// closing, guarded by arriving, are the partitions that take nothing more from
	// others, because they are about to move.
	arriving sync.RWMutex
	closing  map[partition.ID]bool
	held     atomic.Bool
	// handedOff are the bytes that are handed off, of all tenants; handOffs are how many
	// may be, of one and of all, and handOffAfter.
	handedOff atomic.Int64
	handOffs  struct{ tenant, all, after int64 }
	keepsWait time.Duration
	// hands are handBytes and pieceBytes.
	hands    struct{ most, piece int }
	guests   guests
	settling settling
	walks    walks
	// asks are the tenants of which other brokers were asked in a second: those far from a
	// limit, and those near one; retainAsks those that set retained messages.
	asks       [2]asks
	retainAsks asks
	moved      moved
	watching   watching
	// noteEvery is noteEvery, but in tests.
	noteEvery time.Duration
	// retains counts the publishes with RETAIN, each before it is matched.
	retains atomic.Uint64
	// load is the load.Level of the node.
	load atomic.Uint32
	// announced has Announce go through the shards in turn.
	announced atomic.Uint32
	now       func() int64
	// writeDelay is Config.WriteDelay.
	writeDelay time.Duration
	// inside: see SetInside.
	inside atomic.Bool
	// timers are what Tick does later; only a stepped Set has any.
	timers []timer
	// stepped is Config.Stepped; turnTime is from what time on, in nanoseconds, a turn
	// leaves the rest to another.
	stepped  bool
	turnTime int64
	log      *slog.Logger
	// cell are the partitions that are not reserved.
	cell []partition.ID
	// askCell is Config.Cell.
	askCell func(q *link.Query) *link.Answer
	links   atomic.Int64

	mu struct {
		sync.RWMutex
		tenants map[string]*Tenant
		// links hear of the load.
		links map[*Link]struct{}
	}
}

// unlimited are the limits of what no tenant's quota bounds any more.
var unlimited = link.Limits{
	QueueMessages: -1, QueueBytes: -1, Subscriptions: -1, ReceiveMaximum: 65535,
	Retained: -1, RetainedBytes: -1, Sessions: -1,
}

// SetInside says whether the record of a delivery may hold its message, which all who may
// own the partitions next must be able to read. A broker of a cluster begins without. It
// may be called at any time.
func (st *Set) SetInside(on bool) { st.inside.Store(on) }

// Inside is what SetInside said last.
func (st *Set) Inside() bool { return st.inside.Load() }

// New makes the shards and restores what the store holds. Sessions that had a
// connection when the last run ended lose it now: their wills go out.
func New(c Config) (*Set, error) {
	if c.Partitions < 1 || c.Partitions > 65535 {
		return nil, fmt.Errorf("partitions: %d is not between 1 and 65535", c.Partitions)
	}
	if c.Reserved < 0 || c.Reserved >= c.Partitions {
		return nil, fmt.Errorf("reserved: %d is not between 0 and %d", c.Reserved, c.Partitions-1)
	}
	if c.Shards == 0 {
		c.Shards = min(runtime.GOMAXPROCS(0), 64)
	}
	if c.Shards < 1 || c.Shards > 64 {
		return nil, fmt.Errorf("shards: %d is not between 1 and 64", c.Shards)
	}
	if c.Now == nil {
		c.Now = func() int64 { return time.Now().UnixMilli() }
	}
	st := &Set{
		store: c.Store, now: c.Now, writeDelay: c.WriteDelay, stepped: c.Stepped, turnTime: turnBound(c.Stepped), log: c.Log,
		cluster: c.Cluster, askCell: c.Cell, serving: make([]atomic.Uint64, c.Partitions), closing: make(map[partition.ID]bool),
		committer: partition.NewCommitter(c.Store, c.Sync, c.Log),
	}
	st.inside.Store(c.Cluster == nil)
	st.moved.at = make([]atomic.Int64, c.Partitions)
	st.handOffs.tenant, st.handOffs.all, st.handOffs.after = handOffTenant, handOffMost, handOffAfter
	st.keepsWait, st.noteEvery, st.walks.most = keepsWait, noteEvery, walkMost
	st.hands.most, st.hands.piece = handBytes, pieceBytes
	st.mu.tenants, st.mu.links = make(map[string]*Tenant), make(map[*Link]struct{})
	for i := range c.Partitions - c.Reserved {
		st.cell = append(st.cell, partition.ID(i))
	}
	for i := range c.Shards {
		s := &Shard{
			set: st, index: i,
			wake: make(chan struct{}, 1), handover: make(chan struct{}, 1),
			spaces: make(map[partition.ID]*space), ceded: make(map[partition.ID]*space), sessions: make(map[*Tenant]map[mqtt.ClientID]*sess),
			limits: make(map[link.Limits]*link.Limits), origins: make(map[link.Labels]*link.Labels),
			now:  c.Now(),
			fans: make([]fan, c.Shards), packing: make([]int, c.Shards), streams: make(map[streamKey]*stream), taking: make(map[partition.ID]uint64), refused: make(map[arrival]bool),
		}
		s.mail.lanes.Quantum = laneQuantum
		s.ledger = newLedger(s, nil)
		st.shards = append(st.shards, s)
	}
	if st.cluster != nil {
		return st, nil
	}
	for id := range partition.ID(c.Partitions) {
		s := st.shardOf(id)
		s.newSpace(id, s.ledger)
	}
	if err := st.restore(); err != nil {
		return nil, err
	}
	return st, nil
}

// Run runs the committer, the workers and the ticker until ctx is done. What
// was submitted by then is committed.
func (st *Set) Run(ctx context.Context) error {
	// The committer outlives the workers: their last turns still commit.
	commits, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	committed := make(chan error, 1)
	go func() { committed <- st.committer.Run(commits) }()
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range st.shards {
		g.Go(func() error { return s.work(ctx) })
	}
	g.Go(func() error { return st.ticks(ctx) })
	for _, s := range st.shards {
		s.wakeUp() // what restoring left in the mailboxes
	}
	err := g.Wait()
	st.rest()
	stop()
	if cerr := <-committed; err == nil {
		err = cerr
	}
	return err
}

// rest does what is left in the mailboxes when the workers have ended, such as
// the closes of the links. It goes round a bounded number of times: nobody
// feeds the shards any more but they themselves.
func (st *Set) rest() {
	for range 64 {
		r := runs.Get().(*run)
		for _, s := range st.shards {
			select {
			case <-s.handover:
				if s.acquireResting() {
					s.turn(nil, nil, r)
				}
			default:
			}
			if s.mailBytes.Load() > 0 {
				r.noted |= 1 << s.index
			}
		}
		done := r.noted == 0
		st.finish(r)
		if done {
			return
		}
	}
}

// tickEvery is how late a delayed will or the end of a session may come.
const tickEvery = 50 * time.Millisecond

// ticks wakes shards that have something due, and those whose windows stood
// still because another shard was full.
func (st *Set) ticks(ctx context.Context) error {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		st.Tick()
	}
}

func (st *Set) shardOf(p partition.ID) *Shard { return st.shards[int(p)%len(st.shards)] }

// backlog is the most that waits for one shard, or for its commits, in bytes.
func (st *Set) backlog() (most int64) {
	for _, s := range st.shards {
		most = max(most, s.mailBytes.Load(), s.unsaved.Load())
	}
	return most
}

// Tenant returns the tenant, made when first asked for.
func (st *Set) Tenant(id string) *Tenant {
	st.mu.RLock()
	t := st.mu.tenants[id]
	st.mu.RUnlock()
	if t != nil {
		return t
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if t = st.mu.tenants[id]; t == nil {
		t = &Tenant{id: id, flows: make([]flow, len(st.shards)), lanes: make([]lane, len(st.shards))}
		t.routes.Digests = st.cluster != nil
		t.cell.Store(&cell{list: st.cell})
		if st.cluster != nil {
			t.settle(st.cluster.Cell(id))
		}
		st.mu.tenants[id] = t
	}
	return t
}

// Listens reports whether the tenant has a subscription, at any broker, to messages of the
// server, which no wildcard at the first level matches [MQTT-4.7.2-1]. Any goroutine may
// call it.
func (t *Tenant) Listens() bool { return t.routes.Begins("$SYS") }

// Announce gives messages of the server, on $SYS, to a tenant's subscribers, at QoS 0. It
// does not wait for that.
func (st *Set) Announce(tenant string, messages []mqtt.Message) {
	t := st.Tenant(tenant)
	if !t.Listens() {
		return
	}
	s := st.shards[st.announced.Add(1)%uint32(len(st.shards))]
	s.call(func() {
		server := &sess{tenant: t, limits: &unlimited}
		for i := range messages {
			count(&t.flows[s.index].own)
			s.route(server, &messages[i], &session.Publication{})
		}
	})
}

// Tenants calls f for each tenant that has had a session or a message here.
func (st *Set) Tenants(f func(id string, t *Tenant)) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	for id, t := range st.mu.tenants {
		f(id, t)
	}
}

// Stats calls f for the counters of each shard.
func (st *Set) Stats(f func(*Stats)) {
	for _, s := range st.shards {
		f(&s.stats)
	}
}

// Commits returns how many groups were committed and how many batches they
// held.
func (st *Set) Commits() (groups, batches uint64) { return st.committer.Stats() }

// CommitLatency is the longest that a commit took since it was asked last.
func (st *Set) CommitLatency() time.Duration { return st.committer.Latency() }

// SetLoad has the shards do what is right at a level, and the gateways hear of it.
func (st *Set) SetLoad(l load.Level) {
	if load.Level(st.load.Swap(uint32(l))) == l {
		return
	}
	st.mu.RLock()
	links := slices.Collect(maps.Keys(st.mu.links))
	st.mu.RUnlock()
	for _, link := range links {
		link.tellLoad(l)
	}
}

// Tell has all gateways hear of a change of the partition table.
func (st *Set) Tell(u *link.TableUpdate) {
	for i := range u.Owners {
		st.moves(partition.ID(u.Owners[i].Partition))
	}
	st.mu.RLock()
	links := slices.Collect(maps.Keys(st.mu.links))
	st.mu.RUnlock()
	for _, l := range links {
		l.tell(link.DownFrame{Kind: link.DownTable, Table: u})
	}
}

// Load is the level that was set.
func (st *Set) Load() load.Level { return load.Level(st.load.Load()) }

// Failing reports whether the store refuses writes: nothing that must be
// durable is acknowledged then.
func (st *Set) Failing() bool { return st.committer.Failing() }
