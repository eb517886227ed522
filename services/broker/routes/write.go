// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/manormq/manor/services/broker/metadata"
)

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
	checks, over := &batch{}, []*waiter(nil)
	var mutations []metadata.Mutation
	for _, name := range names {
		c := r.mu.pending[name]
		delete(r.mu.pending, name)
		if c.kind == check {
			checks.names = append(checks.names, name)
			over = append(over, c.waiters...) // for a write that is not made any more
			continue
		}
		b.names, b.changes = append(b.names, name), append(b.changes, c)
		c.prev, r.mu.flying[name] = r.mu.flying[name], c
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
	for _, w := range over {
		w.call()
	}
	if len(mutations) > 0 {
		r.Store.Write(mutations, func(err error) { r.written(b, err) }, func() { r.reached(b) })
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

// reached calls who waited for a batch, unless an earlier write of the key is still
// on its way.
func (r *Routes) reached(b *batch) {
	var all []*waiter
	r.mu.Lock()
	for i, name := range b.names {
		c := b.changes[i]
		waiters, prev := c.waiters, r.land(name, c)
		c.out, c.waiters = true, nil
		if prev != nil {
			prev.waiters = append(prev.waiters, waiters...)
		} else {
			all = append(all, waiters...)
		}
	}
	r.mu.Unlock()
	for _, w := range all {
		w.call()
	}
}

// land forgets that c is on its way, and returns the write before if that still is.
func (r *Routes) land(name string, c *change) (prev *change) {
	if prev = c.prev; prev != nil && prev.out {
		prev = nil
	}
	c.prev = nil
	switch {
	case r.mu.flying[name] != c:
	case prev != nil:
		r.mu.flying[name] = prev
	default:
		delete(r.mu.flying, name)
		if len(r.mu.flying) == 0 { // a map never shrinks
			r.mu.flying = map[string]*change{}
		}
	}
	return prev
}

// written goes on after a batch; the store's goroutine, or flush, calls it.
func (r *Routes) written(b *batch, err error) {
	retry := errors.Is(err, metadata.ErrBusy) || errors.Is(err, metadata.ErrRetired)
	r.mu.Lock()
	r.mu.writing = false
	if retry {
		r.mu.retryAt = r.Now().Add(retryPause)
		r.again(b)
	}
	r.mu.Unlock()
	switch {
	case retry:
		r.retried.Add(uint64(len(b.names)))
	case errors.Is(err, metadata.ErrStale):
		r.countStale(b)
		r.reached(b)
	case err != nil:
		if !errors.Is(err, metadata.ErrStopped) {
			r.Log.Error("routes are not written", slog.Int("keys", len(b.names)), slog.Any("err", err))
		}
		r.reached(b)
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
		r.land(name, c)
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
