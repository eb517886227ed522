// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
)

// What becomes of an append that is not committed.
var (
	// ErrNotOwner says that this broker does not serve the partition: nothing was
	// appended.
	ErrNotOwner = errors.New("host: this broker does not serve the partition")
	// ErrLost says that the ownership ended before the commit: the next owner may
	// have the record, or not.
	ErrLost = errors.New("host: the partition was lost before the commit")
	// ErrClosed says that the Host has ended: what was on its way may be on the disk,
	// or not.
	ErrClosed = errors.New("host: closed")
)

// Transport carries messages to other brokers. What cannot be sent at once is
// dropped: replicas say again what was not answered. cluster.Voice is one.
type Transport interface {
	// Peers are the names of the brokers to which there is a link now.
	Peers() []string
	// Send sends b, which is not used afterwards by the caller.
	Send(to string, b []byte)
}

// Change is another role of a replica.
type Change struct {
	Partition partition.ID
	// Role is the new one. With Serving the store has all that was committed; with
	// Handing appends wait until it is Serving again, or the partition is elsewhere.
	Role partition.Role
	// Epoch is that under which it serves.
	Epoch uint64
	// Planned says that it was handed over, so channels may move silently.
	Planned bool
}

// Config is what a Host is made of.
type Config struct {
	Self       partition.Broker
	Partitions int
	// Store is that of the broker. Nobody else writes keys of partitions.
	Store kv.Store
	Sync  partition.Sync
	// PowerLost says that writes that were done may be gone from the Store: the
	// machine was started anew since. It must be said at every start until Started
	// was called in one where it was.
	PowerLost bool
	// Started is called by a goroutine of the Host once what was found at the start
	// is on the disk. It may be nil.
	Started func()
	// Run is a higher number at each start, below 2^40, also when the disk was lost.
	// 0 takes it from the clock, or what the Store has of the last start, if that is
	// higher.
	Run uint64

	Transport Transport
	// Knows reports whether a broker that runs other software knows a kind of message;
	// one that it does not know is not sent. nil is always.
	Knows func(to string, k partition.MessageKind) bool
	Table Table
	// Beats holds the heartbeats.
	Beats bus.Bucket

	// Zone, Labels, Weight, the addresses for links of brokers and of gateways, and
	// the Version are told to the others in the heartbeat.
	Zone           string
	Labels         []string
	Weight         uint8
	Cluster, Links string
	Version        string
	// Replicas and Label are those of a partition, the same on every broker: 2 and
	// none without.
	Replicas func(partition.ID) int
	Label    func(partition.ID) string
	// Settle is for how long a broker must be there before it gets partitions, Moves
	// how many of this owner may be on the move at once: 2 s and 4 by default. Moves is
	// asked again and again.
	Settle time.Duration
	Moves  func() int
	// LogKept is as in partition.Config.
	LogKept int
	// CatchUp is how much is read for followers that lack something, in bytes per
	// second: 64 MiB by default. It is asked again and again.
	CatchUp func() int

	// Informed is as in partition.Config. It is asked again and again until it says yes, and
	// must not wait; until then the heartbeat says that this broker is to own nothing.
	Informed func() bool

	// Cede is called before a partition is handed over as planned: the caller stops
	// serving it and calls done, at most some seconds later. Until then appends are
	// taken, and none is expected afterwards. If the hand-over comes to nothing, Changed
	// is called with Serving. It is called by the loop and must not wait; nil is nothing
	// to do.
	Cede func(p partition.ID, done func())
	// Changed hears of other roles, and Seen of entries of the table that are new. They
	// are called by the loop and must not wait; they may be nil.
	Changed func(Change)
	Seen    func(partition.ID, partition.Table)
	Log     *slog.Logger
}

// Host holds one broker's replicas of all partitions.
type Host struct {
	config  Config
	log     *slog.Logger
	began   time.Time
	counted counters
	// draining, stopping and informed are told in the heartbeat; beatNow is sent to when
	// they change.
	draining, stopping atomic.Bool
	informed           atomic.Bool
	beatNow            chan struct{}

	mu struct {
		sync.Mutex
		mailbox []func()
		closed  bool
		rows    []placement.Row
		roles   []partition.Role
	}
	wake   chan struct{}
	disk   *disk
	loader loader
	calls  calls

	// All below belongs to the loop.
	replicas  []*replica
	watch     placement.Watch
	control   placement.Controller
	fx        partition.Effects
	ops       []op
	ended     bool
	cedes     int  // partitions that are being ceded, or were and are not elsewhere yet
	tableSeen bool // the watch of the table has told what there is
	aroundAt  int64
	decideAt  int64
	pingAt    int64
}

// New makes a Host of what the store has. Nothing happens before Run.
func New(c Config) (*Host, error) {
	if c.Replicas == nil {
		c.Replicas = func(partition.ID) int { return 2 }
	}
	if c.Label == nil {
		c.Label = func(partition.ID) string { return "" }
	}
	if c.Settle == 0 {
		c.Settle = 2 * time.Second
	}
	if c.Moves == nil {
		c.Moves = func() int { return 4 }
	}
	if c.CatchUp == nil {
		c.CatchUp = func() int { return 64 << 20 }
	}
	if c.Informed == nil {
		c.Informed = func() bool { return true }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Run == 0 {
		var err error
		if c.Run, err = nextRun(c.Store, time.Now()); err != nil {
			return nil, fmt.Errorf("number of this start: %w", err)
		}
	}
	h := &Host{config: c, log: c.Log.With(slog.String("broker", string(c.Self))), began: time.Now(), wake: make(chan struct{}, 1), beatNow: make(chan struct{}, 1)}
	h.disk = newDisk(h)
	h.loader = loader{host: h, wake: make(chan struct{}, 1), open: make(map[snapshotKey]*snapshot)}
	h.calls = calls{host: h, wake: make(chan struct{}, 1), speaking: make(chan struct{}, callsMost)}
	h.control = placement.Controller{Config: placement.Config{
		Self: c.Self, Replicas: c.Replicas, Label: c.Label, Settle: c.Settle.Milliseconds(),
	}}
	for p := range partition.ID(c.Partitions) {
		stored, err := partition.Restore(c.Store, p)
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", p, err)
		}
		stored.PowerLost = c.PowerLost
		h.replicas = append(h.replicas, &replica{stored: stored, id: p, lost: true, Replica: partition.New(partition.Config{
			ID: p, Self: c.Self, Run: c.Run, Peers: &h.watch, LogKept: c.LogKept, Informed: h.informed.Load,
		})})
		h.mu.rows, h.mu.roles = append(h.mu.rows, placement.Row{ID: p}), append(h.mu.roles, partition.Following)
	}
	return h, nil
}

// Run runs the replicas until ctx is done. What was not written then is dropped:
// nothing of it was acknowledged. It is called once. The store may be closed when
// it has returned.
func (h *Host) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		if failed = h.disk.run(ctx); failed != nil {
			cancel() // of a store that is closed there is nothing to hope for
		}
	})
	wg.Go(func() { h.loader.run(ctx) })
	wg.Go(func() { h.calls.read(ctx) })
	wg.Go(func() { h.watchTable(ctx) })
	wg.Go(func() { h.watchBeats(ctx) })
	wg.Go(func() { h.beat(ctx) })
	h.calls.begin(ctx)
	h.loop(ctx)
	wg.Wait()
	h.calls.wg.Wait()
	return failed
}

// Drain gives all partitions away, as far as others take them, and returns when
// this broker is the owner of none, or with ctx.
func (h *Host) Drain(ctx context.Context) error {
	h.SetDraining(true)
	t := time.NewTicker(tick)
	defer t.Stop()
	for owned, _ := h.Holds(h.config.Self); owned > 0; owned, _ = h.Holds(h.config.Self) {
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Entry is what this broker knows of a partition's entry, and Serving whether it
// serves it: the zero Row if there is no such partition.
func (h *Host) Entry(p partition.ID) placement.Row {
	h.mu.Lock()
	defer h.mu.Unlock()
	if int(p) >= len(h.mu.rows) {
		return placement.Row{}
	}
	return h.mu.rows[p]
}

// Told takes what a broker sent by its Transport, or anything else of it, as nil:
// what counts then is that it was heard. b is copied.
func (h *Host) Told(from string, b []byte) {
	own := append([]byte(nil), b...)
	h.post(func() {
		h.heard(partition.Broker(from))
		if len(own) > 0 {
			h.received(partition.Broker(from), own)
		}
	})
}

// Linked takes that what is sent to a broker reaches it, over a new link, or does
// not any more.
func (h *Host) Linked(to string, up bool) {
	if !up {
		return // the silence tells
	}
	h.post(func() {
		for _, r := range h.replicas {
			h.step(r, &partition.Event{Kind: partition.Linked, Peer: partition.Broker(to)})
		}
	})
}

// post has do run in the loop. It reports whether it will.
func (h *Host) post(do func()) bool {
	h.mu.Lock()
	if h.mu.closed {
		h.mu.Unlock()
		return false
	}
	h.mu.mailbox = append(h.mu.mailbox, do)
	first := len(h.mu.mailbox) == 1
	h.mu.Unlock()
	if first {
		signal(h.wake)
	}
	return true
}

// signal wakes the goroutine that waits for c, now or when it waits next.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
