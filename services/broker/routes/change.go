// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
)

// change is what is to become of one key.
type change struct {
	epoch   uint64
	kind    kind
	state   GroupState // of put, for a group
	delayed bool       // it stands in later
	waiters []*waiter
}

type kind uint8

const (
	put kind = iota
	remove
	// check tells the sink again what the space has.
	check
)

// Add says that partition p, owned under epoch, has a first subscription to filter.
// reached, which may be nil, is called once, by any goroutine and perhaps within
// Add: when every broker that is reachable knows, after 250 ms, or when it was not
// written after all. It must not block.
func (r *Routes) Add(tenant, filter string, p partition.ID, epoch uint64, reached func()) {
	k := Key{Tenant: tenant, Filter: filter, Partition: p}
	c := change{epoch: epoch, kind: put}
	var w *waiter
	if reached != nil {
		w = &waiter{deadline: time.Now().Add(reachMost), f: reached}
		c.waiters = []*waiter{w}
	}
	r.mu.Lock()
	ok := !r.mu.stopped && k.valid()
	if ok {
		r.queue(k.Name(), c)
		if w != nil {
			r.mu.waiting = append(r.mu.waiting, w)
		}
	}
	r.mu.Unlock()
	if !ok {
		w.call()
		return
	}
	r.poke()
}

// Remove says that partition p, owned under epoch, has no subscription to filter any
// more.
func (r *Routes) Remove(tenant, filter string, p partition.ID, epoch uint64) {
	r.note(Key{Tenant: tenant, Filter: filter, Partition: p}, change{epoch: epoch, kind: remove})
}

// SetGroup says what members the group key, $share/NAME/FILTER, has in partition p,
// owned under epoch. The first and the last that is there, connected or durable is
// written at once, other numbers every 50 ms at most.
func (r *Routes) SetGroup(tenant, key string, p partition.ID, epoch uint64, g GroupState) {
	k := Key{Tenant: tenant, Filter: key, Partition: p}
	if !k.Group() || !g.valid() {
		r.Log.Warn("the numbers of a group make no sense", slog.String("tenant", tenant), slog.String("filter", key), slog.Any("state", g))
		return
	}
	c := change{epoch: epoch, kind: put, state: g}
	if g.Members == 0 {
		c.kind = remove
	}
	r.note(k, c)
}

// Recheck has the sink told of one key as the space has it, whether or not it is
// there: for a part of a partition that was ceded, and that the new owner may have
// removed before it was far here.
func (r *Routes) Recheck(tenant, filter string, p partition.ID) {
	r.note(Key{Tenant: tenant, Filter: filter, Partition: p}, change{kind: check})
}

func (r *Routes) note(k Key, c change) {
	r.mu.Lock()
	if !r.mu.stopped && k.valid() {
		r.queue(k.Name(), c)
	}
	r.mu.Unlock()
	r.poke()
}

// queue notes a change; mu is held. It takes the place of one that waits: the queue
// holds a key once. What waits stands in its place even if nothing is left of it but
// a check.
func (r *Routes) queue(name string, c change) {
	old := r.mu.pending[name]
	if old != nil {
		r.coalesced.Add(1)
		c.waiters = append(old.waiters, c.waiters...)
		// A write has the sink told anyway; a lower epoch would be refused.
		if c.kind == check || old.kind != check && c.epoch < old.epoch {
			old.waiters = c.waiters
			return
		}
	}
	if c.kind != check {
		c.delayed = r.noteGroup(name, &c)
	}
	switch {
	case old == nil && c.delayed:
		r.mu.later = append(r.mu.later, name)
	case old == nil:
		r.mu.ready = append(r.mu.ready, name)
	case old.delayed && !c.delayed:
		r.mu.later = slices.DeleteFunc(r.mu.later, func(n string) bool { return n == name })
		r.mu.ready = append(r.mu.ready, name)
	default:
		c.delayed = old.delayed
	}
	if old == nil {
		r.mu.pending[name] = &c
	} else {
		*old = c
	}
}

// noteGroup notes the numbers of a group, and reports whether their change can wait.
func (r *Routes) noteGroup(name string, c *change) (delay bool) {
	if !(Key{Filter: name[keyHead+int(name[3]):]}).Group() {
		return false
	}
	g := r.mu.groups[name]
	if g == nil {
		g = &told{}
		r.mu.groups[name] = g
	}
	g.state = c.state
	return !g.state.urgent(g.sent) && time.Since(g.at) < groupPause
}

// flush writes a batch, if none is under way.
func (r *Routes) flush(now time.Time) {
	r.mu.Lock()
	if r.mu.writing || now.Before(r.mu.retryAt) {
		r.mu.Unlock()
		return
	}
	r.ripen(now)
	n := min(len(r.mu.ready), batchKeys)
	if n == 0 {
		r.mu.Unlock()
		return
	}
	names := r.mu.ready[:n:n]
	if r.mu.ready = r.mu.ready[n:]; len(r.mu.ready) == 0 {
		r.mu.ready = nil
	}
	b := &batch{names: make([]string, 0, n), changes: make([]*change, 0, n)}
	checks := &batch{}
	var mutations []metadata.Mutation
	for _, name := range names {
		c := r.mu.pending[name]
		delete(r.mu.pending, name)
		if c.kind == check {
			checks.names, checks.changes = append(checks.names, name), append(checks.changes, c)
			continue
		}
		b.names, b.changes = append(b.names, name), append(b.changes, c)
		mutations = append(mutations, r.mutation(name, c, now))
	}
	r.mu.writing = len(mutations) > 0
	if len(r.mu.pending) == 0 { // a map never shrinks
		r.mu.pending = map[string]*change{}
	}
	r.mu.Unlock()
	for _, name := range checks.names {
		r.recheck(name)
	}
	checks.reached() // who waited for a write that is not made any more
	if len(mutations) > 0 {
		r.Store.Write(mutations, func(err error) { r.written(b, err) }, b.reached)
		return
	}
	r.poke()
}

// ripen moves the numbers of groups that have waited for long enough.
func (r *Routes) ripen(now time.Time) {
	r.mu.later = slices.DeleteFunc(r.mu.later, func(name string) bool {
		if g := r.mu.groups[name]; g != nil && now.Sub(g.at) < groupPause {
			return false
		}
		r.mu.pending[name].delayed = false
		r.mu.ready = append(r.mu.ready, name)
		return true
	})
}

func (r *Routes) mutation(name string, c *change, now time.Time) metadata.Mutation {
	m := metadata.Mutation{Key: metadata.Key{Space: Space, Name: name}, Delete: c.kind == remove, Rank: c.epoch}
	if g := r.mu.groups[name]; g != nil {
		g.sent, g.at = c.state, now
		if c.kind == put {
			m.Value = c.state.append(nil)
		} else if g.state == c.state {
			delete(r.mu.groups, name)
		}
	}
	return m
}

// batch is a write that is under way.
type batch struct {
	names   []string
	changes []*change
}

func (b *batch) reached() {
	for _, c := range b.changes {
		for _, w := range c.waiters {
			w.call()
		}
	}
}

// written goes on after a batch; the store's goroutine, or flush, calls it.
func (r *Routes) written(b *batch, err error) {
	retry := errors.Is(err, metadata.ErrBusy) || errors.Is(err, metadata.ErrRetired)
	r.mu.Lock()
	r.mu.writing = false
	if retry {
		r.mu.retryAt = time.Now().Add(retryPause)
		r.again(b)
	}
	r.mu.Unlock()
	switch {
	case retry:
		r.retried.Add(uint64(len(b.names)))
	case errors.Is(err, metadata.ErrStale):
		r.countStale(b)
		b.reached()
	case err != nil:
		if !errors.Is(err, metadata.ErrStopped) {
			r.Log.Error("routes are not written", slog.Int("keys", len(b.names)), slog.Any("err", err))
		}
		b.reached()
	}
	if !retry && err == nil {
		r.writes.Add(uint64(len(b.names)))
	}
	r.poke()
}

// again puts a batch back, before what has come since; mu is held. A key that was
// changed since keeps its later change, which waits already.
func (r *Routes) again(b *batch) {
	front := make([]string, 0, len(b.names)+len(r.mu.ready))
	for i, name := range b.names {
		c := b.changes[i]
		if later := r.mu.pending[name]; later != nil && later.kind != check {
			later.waiters = append(c.waiters, later.waiters...)
			continue
		} else if later != nil {
			c.waiters, c.delayed = append(c.waiters, later.waiters...), later.delayed
			*later = *c
			continue
		}
		c.delayed = false
		r.mu.pending[name] = c
		front = append(front, name)
	}
	r.mu.ready = append(front, r.mu.ready...)
}

// countStale counts what of a batch lost to a higher epoch.
func (r *Routes) countStale(b *batch) {
	n := 0
	for i, name := range b.names {
		v, ok, err := r.Store.Get(metadata.Key{Space: Space, Name: name})
		if err == nil && ok && v.Rank > b.changes[i].epoch {
			n++
		}
	}
	r.writes.Add(uint64(len(b.names) - n))
	r.stale.Add(uint64(n))
	r.Log.Info("routes of partitions that have another owner now are not written", slog.Int("keys", n))
}
