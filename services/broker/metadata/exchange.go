// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"slices"
	"time"

	"github.com/manormq/manor/services/broker/swc"
)

// exchange is what a group is asking another broker for. There is one at a time in
// each group: first a Compare, which the other answers with what was missed, again
// as long as there is more; or, if that cannot be told any more, a Fetch of page
// after page. The zero exchange is none.
type exchange struct {
	peer string
	id   uint64
	sent time.Time

	fetching bool
	tries    int
	cursor   string    // of the next page
	start    swc.Clock // of the peer, at the first page
	started  bool
}

func (x *exchange) busy() bool { return x.peer != "" }

// maxTries is how often a page is asked for before the exchange is given up.
const maxTries = 5

// tick begins, repeats and ends exchanges, and clears away what is settled. back
// are members that could not be reached before.
func (g *group) tick(now time.Time, back []string, fx *Effects) {
	if x := &g.exchange; x.busy() && now.Sub(x.sent) >= g.m.cfg.Answer {
		g.m.stats.Unanswered++
		if x.tries++; x.fetching && x.tries < maxTries {
			g.askPage(now, fx)
		} else {
			g.giveUp()
		}
	}
	if g.due.IsZero() {
		// The groups begin one after the other.
		g.due = now.Add(g.m.cfg.Exchange * time.Duration(g.n) / time.Duration(g.m.cfg.Groups))
	}
	g.returned = slices.DeleteFunc(append(g.returned, back...), func(name string) bool { return !slices.Contains(g.m.reachable, name) })
	peers, urgent := g.m.reachable, false
	if wanted := append(g.meet(), g.returned...); len(wanted) > 0 {
		peers, urgent = wanted, true
	}
	if len(peers) > 0 && !g.exchange.busy() && (urgent || !now.Before(g.due)) {
		to := peers[(g.turn+int(g.n))%len(peers)]
		g.turn++
		g.due = now.Add(g.m.cfg.Exchange)
		g.compare(now, to, fx)
	}
	g.strip(fx)
	g.clear()
	g.closeGaps()
}

// meet notes whether all have been met that can be reached, and returns those that have
// not, until all have once.
func (g *group) meet() (unmet []string) {
	if g.synced {
		return nil
	}
	for _, name := range g.m.reachable {
		if !g.met[name] {
			unmet = append(unmet, name)
		}
	}
	g.synced = len(g.m.reachable) > 0 && len(unmet) == 0
	return unmet
}

// metAll reports whether all members have been met, also those that cannot be reached now.
func (g *group) metAll() bool {
	return !slices.ContainsFunc(g.m.roster, func(m member) bool { return m.live && m.name != g.m.cfg.Name && !g.met[m.name] })
}

// compare begins or continues an exchange.
func (g *group) compare(now time.Time, to string, fx *Effects) {
	// A later process has other numbers, so that no answer of before is meant for it.
	g.m.exchanges = max(g.m.exchanges+1, uint64(now.UnixNano()))
	g.exchange = exchange{peer: to, id: g.m.exchanges, sent: now}
	g.m.stats.Exchanges++
	p := g.report(g.exchange.id)
	w := g.m.head(kindCompare, g).writer()
	p.append(w)
	g.m.reveals = true
	g.m.send(to, w, fx)
}

func (g *group) report(id uint64) report {
	g.marks.Update(g.m.self, g.clock.Base())
	return report{id: id, roster: g.m.roster, clock: g.clock, sum: g.sum, marks: g.marks}
}

// heed takes what another broker reports of itself and of others. It is false if
// the rest of the message is not to be taken.
func (g *group) heed(from string, p *report) bool {
	if g.rolledBack(p.clock.Max(g.m.self)) {
		return false
	}
	g.m.hear(p.roster)
	i, ok := g.m.roster.find(from)
	if !ok || g.m.retired {
		return false
	}
	if g.marks.Update(g.m.roster[i].actor, p.clock.Base()) {
		g.newMarks = true
	}
	if g.marks.Join(&p.marks) {
		g.newMarks = true
	}
	if same(p.roster, g.m.roster) {
		g.reports[from] = &p.clock
	} else {
		delete(g.reports, from)
	}
	g.seenBy(from, p.clock.Base().Get(g.m.self))
	return true
}

func same(a, b roster) bool {
	var x, y writer
	a.append(&x)
	b.append(&y)
	return bytes.Equal(x.b, y.b)
}

// onCompare answers with what the other has missed. What it knows and we do not is
// asked for in turn.
func (g *group) onCompare(now time.Time, from string, p *report, fx *Effects) {
	if !g.heed(from, p) {
		return
	}
	a := g.answer(p)
	w := g.m.head(kindAnswer, g).writer()
	a.append(w)
	g.m.reveals = true
	g.m.send(from, w, fx)
	if !g.exchange.busy() {
		for range p.clock.Missing(&g.clock) {
			g.compare(now, from, fx)
			break
		}
	}
}

// answer tells of dots that are not in the clock of p, each actor's in order, as
// many as a message holds.
func (g *group) answer(p *report) answer {
	a := answer{report: g.report(p.id)}
	at := map[string]int{} // of a path in entries
	dots, size := 0, 0
	for d := range g.clock.Missing(&p.clock) {
		if dots >= g.m.cfg.MessageDots || size >= g.m.cfg.MessageBytes {
			a.more = true
			break
		}
		dots++
		b := g.m.view.get(g.dotKey(d))
		if b == nil {
			a.pruned = true
			break
		}
		path := string(b)
		if path == "" {
			a.lost = append(a.lost, d)
			continue
		}
		i, ok := at[path]
		if !ok {
			i, at[path] = len(a.entries), len(a.entries)
			a.entries = append(a.entries, entry{path: path, object: g.object(path)})
			size += sizeOf(a.entries[i])
		}
		a.entries[i].dots = append(a.entries[i].dots, d)
	}
	return a
}

// doubt is that another broker knows the same dots and has other values.
type doubt struct {
	since time.Time
	clock swc.Clock
	sum   uint64
}

// differs reports whether a broker that knows the same dots has other values, and
// it has been so for a while. One may have given a dot up that the other has (see
// closeGaps): each fetches everything from the other and drops what the other has
// not. For a moment it means nothing: an object may come from an answer that has
// more, and be ahead of the clock.
func (g *group) differs(now time.Time, a *answer) bool {
	if a.more || a.sum == g.sum || !g.clock.Equal(&a.clock) {
		return false
	}
	if g.doubt.sum != g.sum || !g.doubt.clock.Equal(&g.clock) {
		g.doubt = doubt{now, g.clock.Clone(), g.sum}
	}
	if now.Sub(g.doubt.since) < g.m.cfg.Exchange {
		return false
	}
	g.m.stats.Differed++
	g.doubt = doubt{}
	return true
}

// onAnswer takes what was missed. An answer that nobody waits for any more is as
// true as another.
func (g *group) onAnswer(now time.Time, from string, a *answer, fx *Effects) {
	if !g.heed(from, &a.report) {
		return
	}
	before := g.clock.Clone()
	g.merge(a.entries, a.clock.Base(), fx)
	for _, d := range a.lost {
		if !g.far(d) {
			g.learn("", d)
		}
	}
	if x := &g.exchange; x.peer != from || x.id != a.id || x.fetching {
		return
	}
	switch {
	case a.pruned, g.differs(now, a):
		g.exchange.fetching = true
		g.askPage(now, fx)
	case a.more && !g.clock.Equal(&before):
		g.compare(now, from, fx)
	default:
		g.exchange = exchange{}
		if !a.more {
			g.returned = slices.DeleteFunc(g.returned, func(name string) bool { return name == from })
			g.met[from] = true
			g.meet()
		}
	}
}
