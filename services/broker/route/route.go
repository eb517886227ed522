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

	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route/share"
)

// Tenant is the subscription table of one tenant. AppendMatches may be called
// concurrently with everything; the rest by the shard that owns the partition.
type Tenant[S comparable] struct {
	trie topic.Trie[Entry[S]]
	// mu is held while the trie changes.
	mu sync.Mutex
}

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
// filter.
func (t *Tenant[S]) Subscribe(p partition.ID, filter string, s Sub[S]) (first, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trie.Update(filter, func(e *Entry[S]) *Entry[S] {
		i := e.part(p)
		if i < 0 {
			first = true
			return e.withPart(p, s)
		}
		x := e.Parts()[i]
		if x.List == nil {
			first, known = true, true
			return e.served(i, s)
		}
		x.List.put(s)
		return e.marked(i, x.Durable || s.Durable)
	})
	return first, known
}

// Unsubscribe removes the session's subscription to filter.
func (t *Tenant[S]) Unsubscribe(p partition.ID, session S, filter string) (last bool) {
	return t.remove(p, session, filter, false)
}

func (t *Tenant[S]) remove(p partition.ID, session S, filter string, keep bool) (last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trie.Update(filter, func(e *Entry[S]) *Entry[S] {
		i := e.part(p)
		if i < 0 || e.Parts()[i].List == nil {
			return e
		}
		l := e.Parts()[i].List
		if l.remove(session); len(l.Subs) == 0 {
			last = true
			if keep {
				return e.far(p)
			}
			return e.with(slices.Delete(slices.Clone(e.Parts()), i, i+1), e.Groups())
		}
		return e.marked(i, slices.ContainsFunc(l.Subs, func(s Sub[S]) bool { return s.Durable }))
	})
	return last
}

// GiveUp is Unsubscribe for a partition that another broker serves from now on: the
// filter leads there still.
func (t *Tenant[S]) GiveUp(p partition.ID, session S, filter string) { t.remove(p, session, filter, true) }

// Has reports whether a partition that is served here has subscriptions to filter.
func (t *Tenant[S]) Has(filter string, p partition.ID) bool {
	e := t.trie.Get(filter)
	i := e.part(p)
	return i >= 0 && e.Parts()[i].List != nil
}

// Far says whether a partition of another broker has subscriptions to filter. It does
// nothing to one that is served here.
func (t *Tenant[S]) Far(filter string, p partition.ID, present bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trie.Update(filter, func(e *Entry[S]) *Entry[S] {
		i := e.part(p)
		switch {
		case i < 0 && present:
			return e.far(p)
		case i >= 0 && !present && e.Parts()[i].List == nil:
			return e.with(slices.Delete(slices.Clone(e.Parts()), i, i+1), e.Groups())
		}
		return e
	})
}


// Join adds a member to a shared subscription, $share/name/filter = key.
func (t *Tenant[S]) Join(key, filter string, m share.Member[S], online bool) *share.Group[S] {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.Group(key, filter)
	if g != nil {
		g.Join(m, online)
		return g
	}
	g = share.NewGroup[S](key)
	g.Join(m, online)
	t.trie.Update(filter, func(e *Entry[S]) *Entry[S] { return e.with(e.Parts(), append(slices.Clone(e.Groups()), g)) })
	return g
}

// Leave removes a member from a shared subscription.
func (t *Tenant[S]) Leave(key, filter string, session S) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.Group(key, filter)
	if g == nil || !g.Leave(session) {
		return
	}
	t.trie.Update(filter, func(e *Entry[S]) *Entry[S] {
		return e.with(e.Parts(), slices.DeleteFunc(slices.Clone(e.Groups()), func(x *share.Group[S]) bool { return x == g }))
	})
}

// Group returns the shared subscription, or nil.
func (t *Tenant[S]) Group(key, filter string) *share.Group[S] {
	for _, g := range t.trie.Get(filter).Groups() {
		if g.Key == key {
			return g
		}
	}
	return nil
}
