// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"math"
	"slices"
	"time"

	"github.com/manormq/manor/services/broker/swc"
)

// wait is a write that not every reachable member has seen yet.
type wait struct {
	id       uint64
	left     int // groups in which it waits
	deadline time.Time
	told     bool
}

func (w *wait) reached(m *Machine, fx *Effects) {
	if !w.told {
		w.told = true
		fx.Reached = append(fx.Reached, w.id)
		if w.left > 0 {
			m.stats.Unreached++
		}
	}
}

// queued says that a wait ends, in one group, with dot n.
type queued struct {
	n    uint64
	wait *wait
}

// write takes the mutations of e. They are told to the others with Flush, so that
// the writes of a turn travel together.
func (m *Machine) write(now time.Time, e Write, fx *Effects) {
	m.reveals = true
	res := Result{ID: e.ID}
	if m.retired {
		res.Err = ErrRetired
	} else {
		w := &wait{id: e.ID, deadline: now.Add(m.cfg.Reach)}
		touched := map[*group]bool{}
		for _, x := range e.Mutations {
			if n := len(x.Key.Space); n == 0 || n > MaxSpace || len(x.Key.Name) > MaxName {
				res.Err = ErrInvalid
				continue
			}
			path := x.Key.path()
			g := m.groups[groupOf(path, len(m.groups))]
			wrote, err := g.write(path, x, fx)
			if err != nil {
				res.Err = err
				m.stats.Stale++
			}
			if wrote {
				touched[g] = true
			}
		}
		for g := range touched { // each has a queue of its own: the order does not show
			g.queue = append(g.queue, queued{g.clock.Base().Get(m.self), w})
			w.left++
		}
		if w.left > 0 {
			m.waits = append(m.waits, w)
		} else {
			w.reached(m, fx)
		}
	}
	fx.Done = append(fx.Done, res)
}

// write makes one mutation. wrote is false if all is as it asks for.
func (g *group) write(path string, x Mutation, fx *Effects) (wrote bool, err error) {
	old := g.object(path)
	current, exists := seen(old)
	value := Value{x.Rank, x.Value}
	switch {
	case x.Rank == 0 && exists && len(old.Versions) == 1 && bytes.Equal(x.Value, current.Bytes):
		value.Rank = current.Rank
	case x.Rank == 0:
		value.Rank = current.Rank + 1
	case exists && x.Rank < current.Rank:
		return false, ErrStale
	}
	if x.Delete && len(old.Versions) == 0 || !x.Delete && len(old.Versions) == 1 && value.equal(current) {
		return false, nil
	}
	full := old.Fill(g.clock.Base())
	d := g.clock.Next(g.m.self)
	c := full.Discard(full.Context)
	if x.Delete {
		c = c.See(d)
	} else {
		c = c.Add(d, value.append(make([]byte, 0, 8+len(x.Value))))
	}
	g.newClock = true
	g.putDot(d, path)
	g.store(path, old, c, fx)
	if g.wrote[path] == nil {
		g.news = append(g.news, path)
	}
	g.wrote[path] = append(g.wrote[path], d)
	return true, nil
}

// sendNews tells the reachable members what was written in this turn. The objects
// are read again: together with the clock they are as they are now.
func (g *group) sendNews(fx *Effects) {
	if len(g.news) == 0 {
		return
	}
	if len(g.m.reachable) > 0 {
		var list []entry
		size := 0
		for _, path := range g.news {
			e := entry{path, g.wrote[path], g.object(path)}
			list = append(list, e)
			if size += sizeOf(e); size >= g.m.cfg.MessageBytes {
				g.sendEntries(list, fx)
				list, size = list[:0], 0
			}
		}
		g.sendEntries(list, fx)
	}
	g.news = g.news[:0]
	clear(g.wrote)
}

func (g *group) sendEntries(list []entry, fx *Effects) {
	if len(list) == 0 {
		return
	}
	// Of our own dots no more than this message tells of, or the receiver would have
	// to keep a context until the rest has come. The objects have seen at least that.
	base := g.clock.Base().Without(swc.Vector{{Actor: g.m.self, N: g.clock.Max(g.m.self)}})
	for _, e := range list {
		for _, d := range e.dots {
			base = base.Raise(d)
		}
	}
	w := g.m.head(kindNews, g).writer()
	news{base: base, entries: list}.append(w)
	g.m.reveals = true
	for _, to := range g.m.reachable {
		g.m.send(to, w, fx)
	}
}

// sizeOf is about how many bytes e takes.
func sizeOf(e entry) int {
	n := len(e.path) + 16*(len(e.dots)+len(e.object.Context)) + 8
	for _, v := range e.object.Versions {
		n += len(v.Value) + 16
	}
	return n
}

// maxAhead is how far above what is known of an actor without gaps a dot is taken:
// it bounds the bitmap, at 8 KiB. What is further comes with an exchange, in order.
const maxAhead = 1 << 16

func (g *group) far(d swc.Dot) bool { return d.N > g.clock.Base().Get(d.Actor)+maxAhead }

// merge takes objects of another broker, stripped by a clock with this base, and
// reports how many it did not take, because their dots are too far ahead. An object
// of whose dots all are known is no news. The dots are learned first, so that what
// is stored is stripped by all of them; what is here was true before.
func (g *group) merge(list []entry, base swc.Vector, fx *Effects) (skipped int) {
	before := slices.Clone(g.clock.Base())
	var fresh []entry
	for _, e := range list {
		switch {
		case slices.ContainsFunc(e.dots, g.far):
			skipped++
		case g.learn(e.path, e.dots...):
			fresh = append(fresh, e)
			g.learnValues(e.path, e.object)
		}
	}
	for _, e := range fresh {
		old := g.object(e.path)
		g.store(e.path, old, swc.Sync(old.Fill(before), e.object.Fill(base)), fx)
	}
	return skipped
}

// learnValues learns the dots of the values that come with others: they may be in a
// part of the answer that never comes, and then nobody else may give them up.
func (g *group) learnValues(path string, c swc.Container) {
	for _, v := range c.Versions {
		if !g.far(v.Dot) {
			g.learn(path, v.Dot)
		}
	}
}

// onNews takes what another broker has written, as actor. If something that it
// wrote before is missing, it is asked for that.
func (g *group) onNews(now time.Time, from string, actor swc.Actor, n news, fx *Effects) {
	if g.rolledBack(n.base.Get(g.m.self)) {
		return
	}
	g.m.stats.News++
	skipped := g.merge(n.entries, n.base, fx)
	gap := g.clock.Max(actor) > g.clock.Base().Get(actor)
	if (skipped > 0 || gap) && !g.exchange.busy() {
		g.compare(now, from, fx)
	}
	if !slices.Contains(g.owes, from) {
		g.owes = append(g.owes, from)
	}
}

// sendSeen tells to how much of its news this broker routes by. It is sent when the
// turn is written, which need not survive a power cut, so the watermark does not
// count it.
func (g *group) sendSeen(to string, fx *Effects) {
	if i, ok := g.m.roster.find(to); ok {
		w := g.m.head(kindSeen, g).writer()
		w.number(g.clock.Base().Get(g.m.roster[i].actor))
		g.m.send(to, w, fx)
	}
}

// seenBy notes that a member has our dots up to n.
func (g *group) seenBy(from string, n uint64) { g.seen[from] = max(g.seen[from], n) }

// release ends the waits of what all reachable members have seen.
func (g *group) release(fx *Effects) {
	if len(g.queue) == 0 {
		return
	}
	all := uint64(math.MaxUint64)
	for _, name := range g.m.reachable {
		all = min(all, g.seen[name])
	}
	for len(g.queue) > 0 && (g.queue[0].n <= all || g.queue[0].wait.told) {
		w := g.queue[0].wait
		g.queue = g.queue[1:]
		if w.left--; w.left == 0 {
			w.reached(g.m, fx)
		}
	}
}
