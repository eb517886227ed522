// SPDX-License-Identifier: Apache-2.0

// Package route is the subscription table: for each tenant a trie from topic
// filters to the partitions that hold matching subscriptions, and to the groups
// of shared subscriptions. Publishers read it without locks while it changes.
//
// The subscriptions of one filter in one partition are a List, owned by the
// partition's shard: only that shard reads or changes it, though everyone
// carries the pointer. The package owns no goroutine and must not know what a
// session is: it is the parameter S.
package route

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route/share"
)

// Tenant is the subscription table of one tenant. AppendMatches, and
// what says so, may be called concurrently with everything; the rest by the shard
// that owns the partition.
type Tenant[S comparable] struct {
	trie topic.Trie[Entry[S]]
	// mu is held while the trie changes.
	mu     sync.Mutex
	groups atomic.Int64
	// Digests has Digest be kept: there are other brokers to compare with. It is set before
	// anything is called.
	Digests bool
	digests map[partition.ID]uint64 // by partition, guarded by mu
}

// Groups is how many shared subscriptions there are, wherever their members are. Any
// goroutine may call it.
func (t *Tenant[S]) Groups() int64 { return t.groups.Load() }

// AppendMatches appends the entries of all filters that match name.
func (t *Tenant[S]) AppendMatches(dst []*Entry[S], name []byte) []*Entry[S] {
	return t.trie.AppendMatches(dst, name)
}

// Last is what the newest match found, for a publisher that sends to one topic
// again and again. The zero Last has found nothing.
type Last[S comparable] struct {
	name    []byte
	version uint64 // of the trie, plus 1
	entries []*Entry[S]
}

// What a Last remembers is bounded, because every publisher may have one.
const (
	lastName    = 256
	lastEntries = 16
)

// AppendLast is AppendMatches, but takes what it finds from last if that is for the
// same name and no filter has changed since. One goroutine at a time has last.
func (t *Tenant[S]) AppendLast(dst []*Entry[S], name []byte, last *Last[S]) []*Entry[S] {
	version := t.trie.Version() + 1
	if last.version == version && bytes.Equal(last.name, name) {
		return append(dst, last.entries...)
	}
	begin := len(dst)
	dst = t.trie.AppendMatches(dst, name)
	if found := dst[begin:]; len(name) <= lastName && len(found) <= lastEntries {
		last.name, last.version = append(last.name[:0], name...), version
		last.entries = append(last.entries[:0], found...)
	} else {
		*last = Last[S]{}
	}
	return dst
}

// Len is the number of different filters.
func (t *Tenant[S]) Len() int { return t.trie.Len() }

// Subscribe adds a subscription, or replaces the session's options of that
// filter. first reports whether it is the first to filter in p, and known whether p
// was far before, so that the other brokers know the route.
func (t *Tenant[S]) Subscribe(p partition.ID, filter string, s Sub[S]) (first, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trie.Update(filter, func(e *Entry[S]) *Entry[S] {
		i := e.part(p)
		if i < 0 || e.Parts()[i].Far() {
			first, known = true, i >= 0
			return e.withPart(p, i, s)
		}
		x := e.Parts()[i]
		x.List.put(s)
		return e.marked(i, x.Durable || s.Durable)
	})
	if first && !known {
		t.flip(p, filter)
	}
	return first, known
}

// Unsubscribe removes the session's subscription to filter. last reports whether
// it was the last one in p.
func (t *Tenant[S]) Unsubscribe(p partition.ID, session S, filter string) (last bool) {
	return t.unsubscribe(p, session, filter, false)
}

// Cede removes the session's subscription to filter because another broker serves p
// from now on. When it is the last one, which last reports, p stays as a far part:
// whoever publishes meanwhile is not to find nothing.
func (t *Tenant[S]) Cede(p partition.ID, session S, filter string) (last bool) {
	return t.unsubscribe(p, session, filter, true)
}

func (t *Tenant[S]) unsubscribe(p partition.ID, session S, filter string, keep bool) (last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trie.Update(filter, func(e *Entry[S]) *Entry[S] {
		i := e.part(p)
		if i < 0 || e.Parts()[i].Far() {
			return e
		}
		l := e.Parts()[i].List
		switch l.remove(session); {
		case len(l.Subs) > 0:
			return e.marked(i, slices.ContainsFunc(l.Subs, func(s Sub[S]) bool { return s.Durable }))
		case keep:
			last = true
			return e.withFar(p, i)
		default:
			last = true
			return e.without(i)
		}
	})
	if last && !keep {
		t.flip(p, filter)
	}
	return last
}

// Far says whether partition p, at another broker, has subscriptions to filter. It
// does nothing to a partition that has some here. What is as it says stays, so
// that publishers need not match again. Any goroutine may call it.
func (t *Tenant[S]) Far(filter string, p partition.ID, present bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.trie.Get(filter)
	i := e.part(p)
	switch {
	case i >= 0 && !e.Parts()[i].Far(), present == (i >= 0):
	case present:
		t.trie.Update(filter, func(e *Entry[S]) *Entry[S] { return e.withFar(p, -1) })
		t.flip(p, filter)
	default:
		t.trie.Update(filter, func(e *Entry[S]) *Entry[S] { return e.without(i) })
		t.flip(p, filter)
	}
}

// Begins reports whether there is a filter, here or elsewhere, whose first level is that one,
// which is no #. Any goroutine may call it; it takes no lock.
func (t *Tenant[S]) Begins(level string) bool { return t.trie.Begins(level) }

// Has reports whether partition p has subscriptions to filter here. Any goroutine
// may call it; it takes no lock.
func (t *Tenant[S]) Has(filter string, p partition.ID) bool {
	e := t.trie.Get(filter)
	i := e.part(p)
	return i >= 0 && !e.Parts()[i].Far()
}

// Join adds a member to a shared subscription, $share/name/filter = key.
func (t *Tenant[S]) Join(key, filter string, m share.Member[S], online bool) *share.Group[S] {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.Group(key, filter)
	if g != nil {
		changed := t.flips(key, g, partition.ID(m.Part))
		g.Join(m, online)
		changed()
		return g
	}
	g = share.NewGroup[S](key)
	changed := t.flips(key, g, partition.ID(m.Part))
	g.Join(m, online)
	changed()
	t.trie.Update(filter, func(e *Entry[S]) *Entry[S] { return e.with(e.Parts(), append(slices.Clone(e.Groups()), g)) })
	t.groups.Add(1)
	return g
}

// Leave removes a member in partition p from a shared subscription.
func (t *Tenant[S]) Leave(key, filter string, p partition.ID, session S) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.Group(key, filter)
	if g == nil {
		return
	}
	changed := t.flips(key, g, p)
	if g.Leave(session) {
		t.removeGroup(filter, g)
	}
	changed()
}

// FarGroup says how many members of a shared subscription, $share/name/filter =
// key, are connected in partition p at another broker, and how many there outlive
// their connection. It must not be told of a partition that is served here. Any
// goroutine may call it.
func (t *Tenant[S]) FarGroup(key, filter string, p partition.ID, online, durable int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.Group(key, filter)
	switch {
	case g != nil:
		changed := t.flips(key, g, p)
		if g.SetFar(uint16(p), online, durable) {
			t.removeGroup(filter, g)
		}
		changed()
	case online > 0 || durable > 0:
		g = share.NewGroup[S](key)
		g.SetFar(uint16(p), online, durable)
		t.flip(p, key)
		t.trie.Update(filter, func(e *Entry[S]) *Entry[S] { return e.with(e.Parts(), append(slices.Clone(e.Groups()), g)) })
		t.groups.Add(1)
	}
}

func (t *Tenant[S]) removeGroup(filter string, g *share.Group[S]) {
	t.groups.Add(-1)
	t.trie.Update(filter, func(e *Entry[S]) *Entry[S] {
		return e.with(e.Parts(), slices.DeleteFunc(slices.Clone(e.Groups()), func(x *share.Group[S]) bool { return x == g }))
	})
}

// Parts are the partitions with subscriptions to filter. Any goroutine may call it; it
// takes no lock.
func (t *Tenant[S]) Parts(filter string) []Part[S] { return t.trie.Get(filter).Parts() }

// Group returns the shared subscription, or nil.
func (t *Tenant[S]) Group(key, filter string) *share.Group[S] {
	for _, g := range t.trie.Get(filter).Groups() {
		if g.Key == key {
			return g
		}
	}
	return nil
}
