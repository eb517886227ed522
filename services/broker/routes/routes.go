// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
)

const (
	// batchKeys is how many keys are written together.
	batchKeys = 4096
	// reachMost is the longest that a SUBACK waits for a route.
	reachMost = 250 * time.Millisecond
	// groupPause is the pause between two writes of the numbers of a group that
	// change nobody's choice much.
	groupPause = 50 * time.Millisecond
	// gainPause is for how long other gained partitions are waited for before the
	// space is read for them.
	gainPause = 200 * time.Millisecond
	// retryPause follows a write that was refused, or a failure to read.
	retryPause = 50 * time.Millisecond
)

// Sink is who is told of the routes: the shards. Its methods are called by one
// goroutine at a time, in order for each key, for all that is there when Run
// begins and for every change, also of keys that this broker wrote: it ignores
// those of partitions that it serves. They must not block, and not call Routes.
// What is told may be told twice.
type Sink interface {
	// FarRoute says whether partition p has subscriptions to filter.
	FarRoute(tenant, filter string, p partition.ID, present bool)
	// FarGroup says what members the group key, $share/NAME/FILTER, has in partition
	// p; the zero GroupState if none.
	FarGroup(tenant, key string, p partition.ID, g GroupState)
}

// Store is where the key space is: a *metadata.Store, and its methods are described there.
type Store interface {
	Get(metadata.Key) (metadata.Value, bool, error)
	Range(space string, f func(metadata.Key, metadata.Value) bool) error
	RangePrefix(space, prefix string, f func(metadata.Key, metadata.Value) bool) error
	Watch(space string, f func([]metadata.Change), failed func(error)) (stop func())
	Write(mutations []metadata.Mutation, done func(error), reached func())
}

// Config is what Routes is made of. All but Now are needed.
type Config struct {
	Store Store
	Sink  Sink
	Log   *slog.Logger
	// Now is the time, which never goes back: time.Now by default. It may be another clock
	// only where Step is called and not Run.
	Now func() time.Time
}

// Routes is the key space of routes. Its methods may be called concurrently and do
// not block; nothing is written or told before Run.
type Routes struct {
	Config

	// tell is held while the sink is told.
	tell sync.Mutex
	// mu is held while an owner is asked (Gained), so that what it says and what it
	// then has written are in one order. It is never held while the sink is told.
	mu struct {
		sync.Mutex
		pending map[string]*change
		flying  map[string]*change // written, perhaps not yet at the others
		ready   []string           // names of pending changes to be written, in order
		later   []string           // names of those that wait for their time
		groups  map[string]*told   // groups that this broker has members of
		owned   map[partition.ID]owner
		gained  map[partition.ID]bool // to be searched for leftovers
		gainAt  time.Time             // when that is
		ceded   map[partition.ID]bool // lost, whose groups are to be told again
		waiting []*waiter             // by deadline
		writing bool                  // one batch is under way
		retryAt time.Time             // nothing is written before
		stopped bool
	}
	wake    chan struct{}
	watched bool // by Step

	keys                     atomic.Int64
	writes, coalesced, stale atomic.Uint64
	retried, healed          atomic.Uint64
}

// owner is what this broker knows of a partition that it owns.
type owner struct {
	epoch uint64
	has   func(tenant, filter string) bool // nil while the partition is restored
	// deleted are names of keys that were deleted meanwhile.
	deleted map[string]bool
}

// told is what others were last told of a group here, or will be.
type told struct {
	state GroupState
	sent  GroupState
	at    time.Time // of sent
}

// waiter waits until a key has reached the others.
type waiter struct {
	deadline time.Time
	done     atomic.Bool
	f        func()
}

func (w *waiter) call() {
	if w != nil && w.done.CompareAndSwap(false, true) {
		w.f()
	}
}

// New makes Routes; Run makes them work.
func New(c Config) *Routes {
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &Routes{Config: c, wake: make(chan struct{}, 1)}
	r.mu.pending = map[string]*change{}
	r.mu.flying = map[string]*change{}
	r.mu.groups = map[string]*told{}
	r.mu.owned = map[partition.ID]owner{}
	r.mu.gained = map[partition.ID]bool{}
	r.mu.ceded = map[partition.ID]bool{}
	return r
}

// Run writes and tells until ctx is done. It is called once, and ends before the
// Store's Run does.
func (r *Routes) Run(ctx context.Context) {
	defer r.watch(func() bool { return ctx.Err() == nil })()
	defer r.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		timer.Reset(time.Until(r.turn()))
	}
}

// watch has the sink told of the space from now on, until stop is called. A failure is told while running
// says so.
func (r *Routes) watch(running func() bool) (stop func()) {
	return r.Store.Watch(Space, r.changed, func(err error) {
		if running() {
			r.Log.Error("the routes of other brokers cannot be read", slog.Any("err", err))
		}
	})
}

// Step does what there is to do, and returns when there is more if nothing else happens. It stands in
// for Run where one goroutine does everything in an order of its own, as a simulation does: it is then
// called, by the clock of Config.Now, at that time and after each call of another method and of what was
// passed to the Store. Equal calls have equal effects. What waits is not told that there are no more.
func (r *Routes) Step() (next time.Time) {
	if !r.watched {
		r.watched = true
		r.watch(func() bool { return true })
	}
	return r.turn()
}

// turn does what there is to do, and returns when there is more if nothing else happens.
func (r *Routes) turn() (next time.Time) {
	now := r.Now()
	r.expire(now)
	r.search(now)
	r.retell()
	r.flush(now)
	return r.next(now)
}

// next is when there is something to do, if nothing else happens.
func (r *Routes) next(now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := now.Add(time.Minute)
	sooner := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if len(r.mu.waiting) > 0 {
		sooner(r.mu.waiting[0].deadline)
	}
	if len(r.mu.gained) > 0 {
		sooner(r.mu.gainAt)
	}
	if len(r.mu.later) > 0 && !r.mu.writing {
		sooner(now.Add(groupPause / 5))
	}
	if len(r.mu.ready) > 0 && !r.mu.writing {
		sooner(r.mu.retryAt)
	}
	return at
}

// expire calls those who have waited for long enough.
func (r *Routes) expire(now time.Time) {
	r.mu.Lock()
	n := 0
	for n < len(r.mu.waiting) && (r.mu.waiting[n].done.Load() || !now.Before(r.mu.waiting[n].deadline)) {
		n++
	}
	over := append([]*waiter(nil), r.mu.waiting[:n]...)
	clear(r.mu.waiting[:n])
	if r.mu.waiting = r.mu.waiting[n:]; len(r.mu.waiting) == 0 {
		r.mu.waiting = nil
	}
	r.mu.Unlock()
	for _, w := range over {
		w.call()
	}
}

// stop calls everyone who waits.
func (r *Routes) stop() {
	r.mu.Lock()
	r.mu.stopped = true
	all := r.mu.waiting
	r.mu.waiting = nil
	r.mu.Unlock()
	for _, w := range all {
		w.call()
	}
}

func (r *Routes) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Stats are counters since the start, and gauges.
type Stats struct {
	// Keys is how many the space has, Pending how many wait to be written.
	Keys, Pending int
	// Writes are keys handed to the store, Coalesced changes that another of the same
	// key replaced before that, Stale those that lost to a higher epoch, Retried those
	// for which the store had no room, Healed keys that another broker had wrong.
	Writes, Coalesced, Stale, Retried, Healed uint64
}

// Stats may be called at any time.
func (r *Routes) Stats() Stats {
	r.mu.Lock()
	pending := len(r.mu.pending)
	r.mu.Unlock()
	return Stats{
		Keys: int(r.keys.Load()), Pending: pending, Writes: r.writes.Load(), Coalesced: r.coalesced.Load(),
		Stale: r.stale.Load(), Retried: r.retried.Load(), Healed: r.healed.Load(),
	}
}
