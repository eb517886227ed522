// SPDX-License-Identifier: Apache-2.0

// Package route is the subscription table: for each tenant an immutable trie
// from topic filters to the partitions that hold matching subscriptions, and to
// the groups of shared subscriptions. Publishers read a snapshot without locks;
// a change copies one path.
//
// The subscriptions of one filter in one partition are a List, owned by the
// partition's shard: only that shard reads or changes it, though everyone
// carries the pointer. The package owns no goroutine and must not know what a
// session is: it is the parameter S.
package route

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route/share"
)

// Sub is one subscription of one session.
type Sub[S comparable] struct {
	Session S
	Options mqtt.Subscription
	Durable bool
}

// List are the subscriptions of one filter in one partition, in the order in
// which they came. It is owned by the partition's shard.
type List[S comparable] struct {
	Subs    []Sub[S]
	durable int
}

// Part says that a partition holds subscriptions.
type Part[S comparable] struct {
	ID   partition.ID
	List *List[S]
	// Durable says that one of them outlives its connection, so that a message
	// of QoS 1 or 2 may have to be stored there.
	Durable bool
}

// Entry is what one filter leads to. It is immutable.
type Entry[S comparable] struct {
	Parts  []Part[S]
	Groups []*share.Group[S]
}

// Tenant is the subscription table of one tenant. Match may be called
// concurrently with everything; the rest by the shard that owns the partition.
type Tenant[S comparable] struct {
	snapshot atomic.Pointer[topic.Snapshot[*Entry[S]]]
	// mu is held while a new snapshot is made.
	mu sync.Mutex
}

// AppendMatches appends the entries of all filters that match name.
func (t *Tenant[S]) AppendMatches(dst []*Entry[S], name []byte) []*Entry[S] {
	return t.snapshot.Load().AppendMatches(dst, name)
}

// Len is the number of different filters.
func (t *Tenant[S]) Len() int { return t.snapshot.Load().Len() }

// Subscribe adds a subscription, or replaces the session's options of that
// filter.
func (t *Tenant[S]) Subscribe(p partition.ID, s Sub[S]) {
	e, _ := t.snapshot.Load().Get(s.Options.Filter)
	l := e.list(p)
	if l == nil {
		l = &List[S]{}
		l.put(s)
		t.update(s.Options.Filter, func(e *Entry[S]) {
			e.Parts = append(slices.Clone(e.Parts), Part[S]{ID: p, List: l, Durable: s.Durable})
		})
		return
	}
	l.put(s)
	t.mark(s.Options.Filter, p, l)
}

// Unsubscribe removes the session's subscription to filter.
func (t *Tenant[S]) Unsubscribe(p partition.ID, session S, filter string) {
	e, _ := t.snapshot.Load().Get(filter)
	l := e.list(p)
	if l == nil {
		return
	}
	l.remove(session)
	if len(l.Subs) > 0 {
		t.mark(filter, p, l)
		return
	}
	t.update(filter, func(e *Entry[S]) {
		e.Parts = slices.DeleteFunc(slices.Clone(e.Parts), func(x Part[S]) bool { return x.ID == p })
	})
}

// mark corrects the Durable of a part.
func (t *Tenant[S]) mark(filter string, p partition.ID, l *List[S]) {
	e, _ := t.snapshot.Load().Get(filter)
	for _, x := range e.Parts {
		if x.ID == p && x.Durable == (l.durable > 0) {
			return
		}
	}
	t.update(filter, func(e *Entry[S]) {
		e.Parts = slices.Clone(e.Parts)
		for i := range e.Parts {
			if e.Parts[i].ID == p {
				e.Parts[i].Durable = l.durable > 0
			}
		}
	})
}

// Join adds a member to a shared subscription, $share/name/filter = key.
func (t *Tenant[S]) Join(key, filter string, m share.Member[S], online bool) *share.Group[S] {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.group(key, filter); g != nil {
		g.Join(m, online)
		return g
	}
	g := share.NewGroup[S](key)
	g.Join(m, online)
	t.updateLocked(filter, func(e *Entry[S]) { e.Groups = append(slices.Clone(e.Groups), g) })
	return g
}

// Leave removes a member from a shared subscription.
func (t *Tenant[S]) Leave(key, filter string, session S) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.group(key, filter)
	if g == nil || !g.Leave(session) {
		return
	}
	t.updateLocked(filter, func(e *Entry[S]) {
		e.Groups = slices.DeleteFunc(slices.Clone(e.Groups), func(x *share.Group[S]) bool { return x == g })
	})
}

// Group returns the shared subscription, or nil.
func (t *Tenant[S]) Group(key, filter string) *share.Group[S] { return t.group(key, filter) }

func (t *Tenant[S]) group(key, filter string) *share.Group[S] {
	e, _ := t.snapshot.Load().Get(filter)
	if e == nil {
		return nil
	}
	for _, g := range e.Groups {
		if g.Key == key {
			return g
		}
	}
	return nil
}

// update replaces the entry of filter by a changed copy.
func (t *Tenant[S]) update(filter string, change func(e *Entry[S])) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.updateLocked(filter, change)
}

func (t *Tenant[S]) updateLocked(filter string, change func(e *Entry[S])) {
	old := t.snapshot.Load()
	e := &Entry[S]{}
	if was, ok := old.Get(filter); ok {
		*e = *was
	}
	change(e)
	if len(e.Parts) == 0 && len(e.Groups) == 0 {
		t.snapshot.Store(old.Without(filter))
		return
	}
	t.snapshot.Store(old.With(filter, e))
}

func (e *Entry[S]) list(p partition.ID) *List[S] {
	if e == nil {
		return nil
	}
	for _, x := range e.Parts {
		if x.ID == p {
			return x.List
		}
	}
	return nil
}

func (l *List[S]) put(s Sub[S]) {
	for i := range l.Subs {
		if l.Subs[i].Session == s.Session {
			l.Subs[i].Options = s.Options
			return
		}
	}
	l.Subs = append(l.Subs, s)
	if s.Durable {
		l.durable++
	}
}

func (l *List[S]) remove(session S) {
	for i := range l.Subs {
		if l.Subs[i].Session == session {
			if l.Subs[i].Durable {
				l.durable--
			}
			l.Subs = slices.Delete(l.Subs, i, i+1)
			return
		}
	}
}
