// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route"
)

// Subscriptions have no order by which a page could begin where the one before ended, and one
// filter may have a million. So the first page of who gets what is published to a topic walks them
// all, a partition in a turn, and keeps who they are of; the pages behind it go on there.

const (
	// walkMost is how many clients a walk keeps, in order; what is behind them another one finds.
	walkMost = 1 << 16
	// walkLife is for how long a walk is gone on with: who subscribes meanwhile is not in it.
	walkLife = time.Minute
	// walksMost is how many walks are kept: 1.5 MiB each at most, beside the client ids.
	walksMost = 8
)

// walks are the newest walks of a broker. They are safe for concurrent use.
type walks struct {
	most int // walkMost, but in tests

	mu    sync.Mutex
	kept  []*walk // guarded by mu; the newest last
	steps int     // guarded by mu: the subscriptions that all walks have looked at
}

// walk is who had subscriptions that match a topic, after a cursor. It does not change.
type walk struct {
	tenant *Tenant
	name   string
	from   string
	at     time.Time
	// found are in order of their ids. whole says that nobody is behind them.
	found []matched
	whole bool
}

// matched is a client by its id, and the shard that has its session.
type matched struct {
	id    string
	shard *Shard
}

func compareMatched(a, b matched) int { return strings.Compare(a.id, b.id) }

// find is a kept walk that can be gone on with behind the cursor.
func (w *walks) find(t *Tenant, name, cursor string) *walk {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.kept {
		if time.Since(x.at) < walkLife && x.tenant == t && x.name == name && x.from <= cursor {
			return x
		}
	}
	return nil
}

// keep keeps a walk in the place of others of the same topic, or of the oldest.
func (w *walks) keep(x *walk, steps int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps += steps
	w.kept = slices.DeleteFunc(w.kept, func(o *walk) bool { return o.tenant == x.tenant && o.name == x.name })
	if len(x.found) == 0 {
		return
	}
	w.kept = append(w.kept, x)
	time.AfterFunc(walkLife, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.kept = slices.DeleteFunc(w.kept, func(o *walk) bool { return o == x })
	})
	if n := len(w.kept) - walksMost; n > 0 {
		w.kept = slices.Delete(w.kept, 0, n)
	}
}

// match adds the first limit+1 clients after the cursor of q that have subscriptions which match
// the topic, with those subscriptions.
func (st *Set) match(t *Tenant, q *link.Query, limit int, a *link.Answer) {
	cursor := q.Cursor
	var w *walk
	if cursor != "" {
		w = st.walks.find(t, q.Filter, cursor)
	}
	for {
		if w == nil {
			w = st.walk(t, q.Filter, cursor)
		}
		for {
			from, _ := slices.BinarySearchFunc(w.found, matched{id: cursor + "\x00"}, compareMatched)
			next := w.found[from:min(len(w.found), from+limit+1-len(a.Clients))]
			if len(next) == 0 {
				break
			}
			for s, ids := range byShard(next) {
				s.ask(func() { s.matching(t, q.Filter, ids, a) })
			}
			if cursor = next[len(next)-1].id; len(a.Clients) > limit {
				return
			}
		}
		if w.whole {
			return
		}
		w = nil
	}
}

func byShard(all []matched) map[*Shard][]string {
	ids := map[*Shard][]string{}
	for _, m := range all {
		ids[m.shard] = append(ids[m.shard], m.id)
	}
	return ids
}

// walk looks at all subscriptions that match name, and keeps the clients after cursor that have
// them, the first walkMost.
func (st *Set) walk(t *Tenant, name, cursor string) *walk {
	x := &walk{tenant: t, name: name, from: cursor, at: time.Now(), whole: true}
	steps, last := 0, ""
	add := func(id string, s *Shard) {
		steps++
		if id > cursor && (last == "" || id <= last) {
			x.found = append(x.found, matched{id, s})
		}
	}
	// tidy has no more in memory than is kept, and as much again.
	tidy := func(most int) {
		if len(x.found) <= most {
			return
		}
		slices.SortFunc(x.found, compareMatched)
		x.found = slices.Compact(x.found)
		if len(x.found) > st.walks.most {
			clear(x.found[st.walks.most:])
			x.found, x.whole = x.found[:st.walks.most], false
			last = x.found[st.walks.most-1].id
		}
	}
	entries := t.routes.AppendMatches(nil, []byte(name))
	here := map[partition.ID]bool{}
	for _, e := range entries {
		for _, p := range e.Parts() {
			if !p.Far() { // else another broker reads that list
				here[p.ID] = true
			}
		}
	}
	for id := range here {
		s := st.shardOf(id)
		s.ask(func() {
			for _, e := range t.routes.AppendMatches(nil, []byte(name)) {
				s.walkPart(e, id, func(se *sess) { add(string(se.ClientID), s) })
			}
		})
		tidy(2 * st.walks.most)
	}
	for _, e := range entries {
		for _, g := range e.Groups() {
			for _, m := range g.All() {
				add(string(m.Session.ClientID), st.shardOf(partition.ID(m.Part)))
			}
			tidy(2 * st.walks.most)
		}
	}
	tidy(0)
	x.found = slices.Clone(x.found) // without what a longer list has left behind
	st.walks.keep(x, steps)
	return x
}

// walkPart calls f for the sessions of a list of subscriptions that is here.
func (s *Shard) walkPart(e *route.Entry[*sess], id partition.ID, f func(*sess)) {
	for _, p := range e.Parts() {
		if p.ID != id || p.Far() || s.spaces[id] == nil {
			continue
		}
		for i := range p.List.Subs {
			f(p.List.Subs[i].Session)
		}
	}
}

// matching adds those of the clients that have subscriptions to filters which match name still,
// with those subscriptions.
func (s *Shard) matching(t *Tenant, name string, ids []string, a *link.Answer) {
	for _, id := range ids {
		se := s.session(t, mqtt.ClientID(id))
		if se == nil {
			continue
		}
		info := se.info()
		for _, m := range se.all() {
			for _, sub := range m.Subscriptions() {
				_, filter, _ := topic.CutShare(sub.Filter)
				if topic.Match(filter, []byte(name)) && !slices.ContainsFunc(info.Subscriptions, func(x mqtt.Subscription) bool { return x.Filter == sub.Filter }) {
					info.Subscriptions = append(info.Subscriptions, sub)
				}
			}
		}
		if len(info.Subscriptions) > 0 {
			a.Clients = append(a.Clients, info)
		}
	}
}
