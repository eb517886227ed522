// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/partition"
)

const (
	// elsewhereFor is how often, in milliseconds, others are asked what they have of a tenant.
	elsewhereFor = 1000
	// heardFor is for how long, in milliseconds after the question, an answer counts: what is
	// older refuses nothing and drops nothing.
	heardFor = 3000
	// movedFor is for how long, in milliseconds after a partition has changed its owner, what
	// others say may still have what came from there or went there.
	movedFor = 500
	// asksMost is of how many tenants others are asked in a second, of those near a limit and
	// of the rest each: it bounds what that costs. Where there are more, what is known of
	// them is older.
	asksMost = 1000
)

// counted is what is counted of a tenant at all brokers.
type counted uint8

const (
	ofSessions counted = iota // with an expiry
	ofSubscriptions
	ofRetained
	ofRetainedBytes
	ofStorage // bytes
	countedKinds
)

// tally is what a broker has, by kind.
type tally [countedKinds]int64

func tallyOf(u *link.Usage) tally {
	return tally{
		ofSessions: u.PersistentSessions, ofSubscriptions: u.Subscriptions,
		ofRetained: u.Retained, ofRetainedBytes: u.RetainedBytes, ofStorage: u.RetainedBytes + u.QueueBytes,
	}
}

// own is what this broker has of the tenant. Anyone may ask.
func (t *Tenant) own(what counted) int64 {
	switch what {
	case ofSessions:
		return t.sessions.Load()
	case ofSubscriptions:
		return t.subscriptions.Load()
	case ofRetained:
		return t.retained.Load()
	case ofRetainedBytes:
		return t.retainedBytes.Load()
	default:
		return t.retainedBytes.Load() + t.queueBytes.Load()
	}
}

// elsewhere is what the other brokers of a cluster have of a tenant, as they have said.
type elsewhere struct {
	// fresh adds up the answers that count; last all that there are, however old: it decides
	// nothing but how eagerly they are asked. most are the limits that were last
	// compared, and 1; 0 before that.
	fresh, last, most [countedKinds]atomic.Int64
	// until is when fresh has to be added up again, since an answer is too old then; since
	// is the time of the questions whose answers count, or later; moves is Set.moved.n and
	// cell the Tenant.cell of then.
	until, since, moves atomic.Int64
	cell                atomic.Pointer[cell]

	askedAt atomic.Int64
	watched atomic.Bool
	mu      sync.Mutex
	by      map[string]heard // guarded by mu
}

// heard is what a broker has said when it was asked at a time, and the tenant had a cell.
type heard struct {
	has  tally
	at   int64
	cell *cell
}

// everywhere returns what the tenant has here and, as far as is known, elsewhere. It does
// not wait: the others are asked for what will be right next time, and what they have said
// too long ago, or before something moved, is left out, so that nothing is refused because
// of it. Who is near the limit most is asked about from then on.
func (s *Shard) everywhere(t *Tenant, what counted, most int64) int64 {
	own := t.own(what)
	if most <= 0 {
		return own
	}
	e := &t.far
	if s.set.cluster != nil && (s.now > e.until.Load() || e.moves.Load() != s.set.moved.n.Load() || e.cell.Load() != t.cell.Load()) {
		e.put(s.set, t, s.now, nil)
	}
	if e.most[what].Load() != most+1 {
		e.most[what].Store(most + 1)
	}
	near := e.isNear(own, what)
	if near && !e.watched.Load() && !e.watched.Swap(true) {
		s.set.watch(t)
	}
	if s.set.cluster == nil {
		return own
	}
	if e.due(s.now) && s.set.mayAsk(s.now, near) {
		s.set.askOthers(t, s.now)
	}
	return own + e.fresh[what].Load()
}

// due reports whether the others should be asked.
func (e *elsewhere) due(now int64) bool {
	last, since := e.askedAt.Load(), e.since.Load()
	return now-last >= elsewhereFor || last < since && now >= since
}

// isNear reports whether, with own here, half of a limit is used.
func (e *elsewhere) isNear(own int64, what counted) bool {
	most := e.most[what].Load() - 1
	return most >= 0 && 2*(own+e.last[what].Load()) >= most
}

// askOthers asks the other brokers what they have of a tenant.
func (st *Set) askOthers(t *Tenant, now int64) {
	e := &t.far
	last := e.askedAt.Load()
	if last >= now || !e.askedAt.CompareAndSwap(last, now) {
		return // somebody does
	}
	brokers, c := st.cluster.Brokers(), t.cell.Load()
	e.put(st, t, now, func(by map[string]heard) {
		for name := range by {
			if !slices.Contains(brokers, name) {
				delete(by, name) // who owns nothing has nothing
			}
		}
	})
	for _, name := range brokers {
		// One that cannot be asked has what it had, for heardFor.
		_ = st.cluster.Ask(name, &link.Query{Kind: link.QueryUsage, Tenant: t.id}, func(a *link.Answer, err error) {
			if err != nil || a.Error != "" {
				return
			}
			e.put(st, t, st.now(), func(by map[string]heard) {
				if by[name].at <= now { // else a newer answer came first
					by[name] = heard{tallyOf(&a.Usage), now, c}
				}
			})
		})
	}
}

// mayAsk counts a question of everywhere, and reports whether it may be asked.
func (st *Set) mayAsk(now int64, near bool) bool {
	if near {
		return st.asks[1].may(now)
	}
	return st.asks[0].may(now)
}

// asks counts questions in a second.
type asks struct{ second, n atomic.Int64 }

// may counts one, and reports whether it may be asked.
func (a *asks) may(now int64) bool {
	if second := now / 1000; a.second.Swap(second) != second {
		a.n.Store(0)
	}
	return a.n.Add(1) <= asksMost
}

// put changes what is known of the brokers, and adds it up again; a nil change does only
// that.
func (e *elsewhere) put(st *Set, t *Tenant, now int64, change func(by map[string]heard)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.by == nil {
		e.by = map[string]heard{}
	}
	if change != nil {
		change(e.by)
	}
	moves, c := st.moved.n.Load(), t.cell.Load()
	since := st.movedAt(c) + movedFor
	until := int64(math.MaxInt64)
	var fresh, last tally
	for _, h := range e.by {
		counts := now-h.at <= heardFor && h.at >= since && h.cell == c && c.stage == Settled
		for what, n := range h.has {
			last[what] += n
			if counts {
				fresh[what] += n
			}
		}
		if counts {
			until = min(until, h.at+heardFor)
		}
	}
	for what := range fresh {
		e.fresh[what].Store(fresh[what])
		e.last[what].Store(last[what])
	}
	e.until.Store(until)
	e.since.Store(since)
	e.moves.Store(moves)
	e.cell.Store(c)
}

// moved is when partitions have changed their owners, as far as this broker has heard.
type moved struct {
	n  atomic.Int64   // how often one has
	at []atomic.Int64 // by partition
}

// moves notes that a partition has another owner: until others have been asked again,
// what they had of it is left out, as it may be counted here by now, or at a third.
func (st *Set) moves(p partition.ID) {
	if int(p) < len(st.moved.at) {
		st.moved.at[p].Store(st.now())
		st.moved.n.Add(1)
	}
}

// movedAt is when one of the partitions of a cell has moved last.
func (st *Set) movedAt(c *cell) (at int64) {
	for _, p := range c.list {
		if int(p) < len(st.moved.at) {
			at = max(at, st.moved.at[p].Load())
		}
	}
	return at
}

// watching are the tenants near a limit. Others are asked about them each second whether
// anything is decided or not: who comes rarely is decided on by what is known, too.
type watching struct {
	second atomic.Int64
	mu     sync.Mutex
	// told, guarded by mu, is what was told of them.
	told level.Told[levelOf]
	list []*Tenant // guarded by mu
	next int       // guarded by mu; where the next second begins
}

func (st *Set) watch(t *Tenant) {
	st.watching.mu.Lock()
	defer st.watching.mu.Unlock()
	st.watching.list = append(st.watching.list, t)
}

// askWatched asks about the tenants that are watched, has it told of those that have come to a
// level, and ends that for those that are far from their limits. It is called often, and does it
// each second.
func (st *Set) askWatched(now int64) {
	w := &st.watching
	if second := now / elsewhereFor; w.second.Swap(second) == second {
		return
	}
	var all []reached
	w.mu.Lock()
	for _, t := range w.list {
		all = t.look(all, time.UnixMilli(now), &w.told)
	}
	w.told.Forget(time.UnixMilli(now))
	w.list = slices.DeleteFunc(w.list, func(t *Tenant) bool {
		if t.nearGroups() {
			return false
		}
		for what := range countedKinds {
			if t.far.isNear(t.own(what), what) {
				return false
			}
		}
		for what := range toldKinds {
			w.told.Look(time.UnixMilli(now), levelOf{t, what}, 0, false) // it may come to it again
		}
		t.far.watched.Store(false)
		return true
	})
	n := min(len(w.list), asksMost)
	if st.cluster == nil {
		n = 0
	}
	ask := make([]*Tenant, 0, n)
	for range n {
		w.next = (w.next + 1) % len(w.list)
		ask = append(ask, w.list[w.next])
	}
	w.mu.Unlock()
	for i := range all {
		s := st.shards[0]
		s.call(func() { s.tellLevel(&all[i]) })
	}
	for _, t := range ask {
		st.askOthers(t, now)
	}
}
