// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/link"
)

// BrokersConfig is what Brokers need.
type BrokersConfig[T any] struct {
	// Seeds lead to a broker of the region each, which one is not known.
	Seeds []Dialer
	// Dial makes a link to a broker of the table. ctx bounds the dialling, not the
	// life of the link. If it is nil the seeds lead to everything that a table has.
	Dial func(ctx context.Context, b link.TableBroker, gw link.Gateway) (link.Broker, error)
	// Links is how many are kept to each broker; 0 means 1.
	Links   int
	Handler Handler[T]
	// Changed, if set, is called when a channel may find a link that found none
	// before: the table has changed, or a link is up. It must neither block nor call a
	// broker.
	Changed func()
	Log     *slog.Logger
}

// Brokers are the links to all brokers of a region. It begins with the seeds. As
// soon as one of them has told a table, there is a Pool for each of its brokers,
// and the seeds go when one of those has a link; they come back when none has had
// one for a while. Without a table the first seed that has a link is the broker of
// everything.
//
// A pool that is not wanted any more, because its broker has left the table or is
// at another address, stays until its links have no channels.
//
// All methods but Run may be called concurrently.
type Brokers[T any] struct {
	config BrokersConfig[T]
	table  link.Table
	mu     sync.Mutex // for what writes to table
	wake   chan struct{}
	view   atomic.Pointer[view[T]]

	// Of the goroutine of Run.
	pools   sync.WaitGroup
	retired []*Pool[T]
	lonely  time.Time // since when no broker of the table has a link
}

// view is the pools; it never changes.
type view[T any] struct {
	seeds []*Pool[T]
	named map[string]*Pool[T]
	all   []*Pool[T] // with those that are retired
}

const (
	// lookEvery is how often Run looks at what has no event: links that have no
	// channels any more, or no table for long.
	lookEvery = time.Second
	// seedsAfter is after how long without a link to a broker of the table the seeds
	// are asked again.
	seedsAfter = 5 * time.Second
)

// NewBrokers returns Brokers without a link, before Run.
func NewBrokers[T any](c BrokersConfig[T]) *Brokers[T] {
	b := &Brokers[T]{config: c, wake: make(chan struct{}, 1)}
	b.view.Store(&view[T]{seeds: b.seeds()})
	v := b.view.Load()
	v.all = v.seeds
	return b
}

func (b *Brokers[T]) seeds() []*Pool[T] {
	var out []*Pool[T]
	for _, d := range b.config.Seeds {
		out = append(out, b.pool(link.TableBroker{}, d))
	}
	return out
}

func (b *Brokers[T]) pool(to link.TableBroker, d Dialer) *Pool[T] {
	log := b.config.Log
	if to.Name != "" {
		log = log.With(slog.String("broker", to.Name), slog.String("address", to.Address))
	}
	p := NewPool(b.config.Links, d, b.config.Handler, log)
	p.broker, p.tell, p.up = to, b.tell, b.linked
	return p
}

// tell takes a table from one of the links.
func (b *Brokers[T]) tell(u *link.TableUpdate) {
	b.mu.Lock()
	changed := b.table.Apply(u)
	b.mu.Unlock()
	if changed {
		b.linked()
	}
}

// Moved takes what a broker has answered that does not serve a partition, and
// reports whether the table has a newer entry of it now.
func (b *Brokers[T]) Moved(m *link.Moved) (changed bool) {
	b.mu.Lock()
	changed = b.table.Moved(m)
	b.mu.Unlock()
	if changed {
		b.linked()
	}
	return changed
}

// linked has Run look, and says that something has changed.
func (b *Brokers[T]) linked() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
	if b.config.Changed != nil {
		b.config.Changed()
	}
}

// Table is put together from what the brokers told.
func (b *Brokers[T]) Table() *link.Table { return &b.table }

// Pick returns a link to the owner of a partition, for a new channel of a client; nil if
// there is none now: the owner is not known, or has no link. It has the promise of
// Pool.Pick.
func (b *Brokers[T]) Pick(partition uint16, tenant, clientID string) *Link[T] {
	if p := b.Owner(partition); p != nil {
		return p.Pick(tenant + "/" + clientID)
	}
	return nil
}

// Partition returns the partition of a client of a tenant whose plan gave it m, and the
// revision of what is told of the tenant, as Table.Cell does. It is 0 before the first
// update.
func (b *Brokers[T]) Partition(tenant string, m int, clientID string) (partition uint16, placement uint64) {
	list, placement := b.table.Cell(tenant, m)
	if len(list) == 0 {
		return 0, placement
	}
	return link.Choose(list, clientID), placement
}

// Owner returns the links to the owner of a partition, nil if none of them takes new
// channels, or it is not known.
func (b *Brokers[T]) Owner(partition uint16) *Pool[T] {
	v := b.view.Load()
	if b.config.Dial != nil && b.table.Partitions() > 0 {
		name, _, ok := b.table.OwnerOf(partition)
		if p := v.named[name]; ok && p != nil && p.Opens() {
			return p
		}
		return nil
	}
	if _, _, ok := b.table.OwnerOf(partition); !ok {
		return nil
	}
	for _, p := range v.seeds {
		if p.Opens() {
			return p
		}
	}
	return nil
}

// FlushUp sends what waits for any of the links.
func (b *Brokers[T]) FlushUp() {
	for _, p := range b.view.Load().all {
		p.FlushUp()
	}
}

// Up counts the links that are there.
func (b *Brokers[T]) Up() int {
	n := 0
	for _, p := range b.view.Load().all {
		n += p.Up()
	}
	return n
}

// Run keeps the links until ctx is done, then closes them. It must be called once.
func (b *Brokers[T]) Run(ctx context.Context) {
	defer b.pools.Wait()
	for _, p := range b.view.Load().seeds {
		b.start(ctx, p)
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		case <-tick.C:
		}
		b.look(ctx, time.Now())
	}
}

func (b *Brokers[T]) start(ctx context.Context, p *Pool[T]) {
	ctx, p.cancel = context.WithCancel(ctx)
	b.pools.Go(func() { p.Run(ctx) })
}

// look brings the pools to what the table says.
func (b *Brokers[T]) look(ctx context.Context, now time.Time) {
	if brokers := b.table.Brokers(); b.config.Dial != nil && len(brokers) > 0 {
		b.follow(ctx, brokers, now)
	}
	kept := b.retired[:0]
	for _, p := range b.retired {
		if p.end() {
			p.cancel()
			continue
		}
		kept = append(kept, p)
	}
	clear(b.retired[len(kept):])
	if len(kept) < len(b.retired) {
		b.retired = kept
		v := *b.view.Load()
		b.publish(&v)
	}
}

func (b *Brokers[T]) follow(ctx context.Context, brokers []link.TableBroker, now time.Time) {
	old := b.view.Load()
	v := &view[T]{seeds: old.seeds, named: map[string]*Pool[T]{}}
	var started, retired []*Pool[T]
	up := 0
	for _, to := range brokers {
		p := old.named[to.Name]
		if p == nil || p.broker.Address != to.Address {
			p = b.pool(to, DialerFunc(func(ctx context.Context, gw link.Gateway) (link.Broker, error) {
				return b.config.Dial(ctx, to, gw)
			}))
			started = append(started, p)
		}
		v.named[to.Name] = p
		up += p.Up()
	}
	for name, p := range old.named {
		switch {
		case v.named[name] == p:
		case v.named[name] == nil && b.table.Owns(name) && p.Opens():
			// The list is of a broker that has just started and does not know all.
			v.named[name] = p
			up += p.Up()
		default:
			retired = append(retired, p)
		}
	}
	switch {
	case up > 0:
		retired = append(retired, v.seeds...)
		v.seeds, b.lonely = nil, time.Time{}
	case b.lonely.IsZero():
		b.lonely = now
	case len(v.seeds) == 0 && now.Sub(b.lonely) >= seedsAfter:
		v.seeds = b.seeds()
		started = append(started, v.seeds...)
	}
	if len(started) == 0 && len(retired) == 0 {
		return
	}
	b.retired = append(b.retired, retired...)
	b.publish(v)
	for _, p := range retired { // which nobody picks any more, but who has already
		p.retired.Store(true)
	}
	for _, p := range started {
		b.start(ctx, p)
	}
}

// publish makes v what is picked from.
func (b *Brokers[T]) publish(v *view[T]) {
	v.all = slices.Concat(v.seeds, b.retired)
	for _, p := range v.named {
		v.all = append(v.all, p)
	}
	b.view.Store(v)
}
