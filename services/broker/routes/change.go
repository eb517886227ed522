// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"log/slog"
	"slices"

	"github.com/manormq/manor/services/broker/partition"
)

// change is what is to become of one key.
type change struct {
	epoch   uint64
	kind    kind
	state   GroupState // of put, for a group
	delayed bool       // it stands in later
	waiters []*waiter
	// prev is the write of the key before this one, if it has not reached the others
	// yet: a write of what is there already has nothing to wait for of its own.
	prev *change
	out  bool // it has reached the others, or will not
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
	if reached == nil {
		r.note(k, c)
		return
	}
	w := &waiter{deadline: r.Now().Add(reachMost), f: reached}
	c.waiters = []*waiter{w}
	if !r.note(k, c, w) {
		w.call()
	}
}

// Await has reached called, once and as Add does, when what was said of a key before
// has reached the others; at once, within Await, if it has. It is for who subscribes
// second, and for groups.
func (r *Routes) Await(tenant, filter string, p partition.ID, reached func()) {
	if !r.await(Key{Tenant: tenant, Filter: filter, Partition: p}, reached) {
		reached()
	}
}

func (r *Routes) await(k Key, reached func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.stopped || len(r.mu.pending)+len(r.mu.flying) == 0 || !k.valid() {
		return false
	}
	name := k.Name()
	c := r.mu.pending[name]
	if c == nil || c.kind == check {
		c = r.mu.flying[name]
	}
	if c == nil {
		return false
	}
	w := &waiter{deadline: r.Now().Add(reachMost), f: reached}
	c.waiters = append(c.waiters, w)
	r.mu.waiting = append(r.mu.waiting, w)
	r.poke()
	return true
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

// note queues a change, for which some wait, and reports whether it does.
func (r *Routes) note(k Key, c change, waiters ...*waiter) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.stopped || !k.valid() {
		return false
	}
	r.queue(k.Name(), c)
	r.mu.waiting = append(r.mu.waiting, waiters...)
	r.poke()
	return true
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
	return !g.state.urgent(g.sent) && r.Now().Sub(g.at) < groupPause
}
