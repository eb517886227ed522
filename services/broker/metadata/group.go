// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/swc"
)

// group is a part of the keys with a clock of its own. It belongs to its Machine.
type group struct {
	m *Machine
	n byte

	clock swc.Clock
	sum   uint64 // over the dots of all values
	// marks has a column for the actor of each live member that was heard. That of
	// this broker is its clock; it is not stored.
	marks                swc.Watermark
	newClock, newMarks   bool // since the last Flush
	newContext, newBases bool // there is something to strip, since it was last tried

	news  []string             // paths that were written here in this turn, in order
	wrote map[string][]swc.Dot // their dots
	owes  []string             // who sent news in this turn

	exchange exchange
	doubt    doubt
	due      time.Time
	turn     int             // counts exchanges, to take the peers in turn
	met      map[string]bool // members that it missed nothing of, at one time since the start
	synced   bool            // those are all that could be reached
	returned []string        // members that could not be reached, can, and have not answered since

	cleared map[swc.Actor]uint64  // up to which dot the key map is empty
	reports map[string]*swc.Clock // of members with the same roster as this one
	gaps    swc.Vector            // up to where contexts ask for dots of those that write no more

	stripping stripping

	seen  map[string]uint64 // by member: up to which dot it has our news
	queue []queued          // writes that not all have seen
}

func (g *group) key(kind byte, rest string) []byte { return storeKey(g.n, kind, rest) }

// load reads the group and counts what it holds.
func (g *group) load() error {
	v := &g.m.view
	g.met = map[string]bool{}
	g.cleared, g.reports, g.seen, g.wrote = map[swc.Actor]uint64{}, map[string]*swc.Clock{}, map[string]uint64{}, map[string][]swc.Dot{}
	var err error
	if b := v.get(g.key(kindClock, "")); b != nil {
		if g.clock, _, err = swc.DecodeClock(b); err != nil {
			return fmt.Errorf("clock: %w", err)
		}
	}
	if b := v.get(g.key(kindMarks, "")); b != nil {
		if g.marks, _, err = swc.DecodeWatermark(b); err != nil {
			return fmt.Errorf("watermark: %w", err)
		}
	}
	g.setColumns()
	v.scan(g.key(kindDot, ""), g.key(kindMarks, ""), func(key, value []byte) bool {
		switch storeRest(key)[0] {
		case kindDot:
			if g.known(key) {
				g.m.stats.Dots++
			} else {
				v.delete(key) // of a fetch that did not come to its end
			}
		case kindObject:
			var c swc.Container
			if c, _, err = swc.DecodeContainer(value); err != nil {
				return false
			}
			g.count(string(storeRest(key)[1:]), c, 1)
		case kindContext:
			g.m.stats.Contexts++
		}
		return true
	})
	g.newContext = true
	if v.err != nil {
		return v.err
	}
	return err
}

// setColumns makes the columns of the watermark those of the roster.
func (g *group) setColumns() {
	for _, a := range g.marks.Members() {
		if !g.m.roster.writes(a) {
			g.marks.Leave(a)
			g.newMarks = true
		}
	}
	for _, x := range g.m.roster {
		if x.live && x.actor != 0 {
			g.marks.Enter(x.actor)
		}
	}
	g.marks.Update(g.m.self, g.clock.Base())
	clear(g.reports)
}

// count adds n objects like c to the statistics, and their dots to the sum. The
// sum depends on the dots alone, so brokers that know the same have the same one.
func (g *group) count(path string, c swc.Container, n int) {
	if len(c.Versions) > 0 {
		h := hash(path)
		for _, v := range c.Versions {
			g.sum += uint64(n) * mix(h^mix(uint64(v.Dot.Actor)^mix(v.Dot.N)))
		}
	}
	switch {
	case len(c.Versions) > 0:
		g.m.stats.Objects += n
	case !c.Empty():
		g.m.stats.Tombstones += n
	}
}

// object is what stands under path, stripped by the clock or an earlier one.
func (g *group) object(path string) swc.Container {
	b := g.m.view.get(g.key(kindObject, path))
	if b == nil {
		return swc.Container{}
	}
	c, _, err := swc.DecodeContainer(b)
	if err != nil {
		g.m.view.fail(fmt.Errorf("object: %w", err))
	}
	return c
}

// store puts c, which is filled, in the place of old, and notes the change. The
// dots of c that the clock is to tell of must be in it.
func (g *group) store(path string, old, c swc.Container, fx *Effects) {
	c = c.Strip(g.clock.Base())
	if c.Equal(old) {
		return
	}
	v := &g.m.view
	g.count(path, old, -1)
	g.count(path, c, 1)
	if c.Empty() {
		v.delete(g.key(kindObject, path))
	} else {
		v.put(g.key(kindObject, path), c.Append(nil))
	}
	// Those with a context are to be stripped when the clock has come further.
	switch had, has := len(old.Context) > 0, len(c.Context) > 0; {
	case has && !had:
		v.put(g.key(kindContext, path), nil)
		g.m.stats.Contexts++
		g.newContext = true
	case had && !has:
		v.delete(g.key(kindContext, path))
		g.m.stats.Contexts--
	}
	g.change(path, old, c, fx)
}

func (g *group) change(path string, old, c swc.Container, fx *Effects) {
	before, had := seen(old)
	after, has := seen(c)
	if had == has && before.equal(after) {
		return
	}
	key, err := parsePath(path)
	if err != nil {
		return // no broker of ours wrote it
	}
	change := Change{Key: key}
	if had {
		change.Old = &before
	}
	if has {
		change.New = &after
	}
	fx.Changes = append(fx.Changes, change)
}

// learn adds dots, which wrote path, to the clock and to the key map. It reports
// whether any is new.
func (g *group) learn(path string, dots ...swc.Dot) (news bool) {
	for _, d := range dots {
		if g.clock.Add(d) {
			g.putDot(d, path)
			news = true
		}
	}
	g.newClock = g.newClock || news
	return news
}

// putDot adds a dot to the key map. Only a fetch can have brought it before.
func (g *group) putDot(d swc.Dot, path string) {
	key := g.dotKey(d)
	if !g.exchange.fetching || g.m.view.get(key) == nil {
		g.m.stats.Dots++
	}
	g.m.view.put(key, []byte(path))
}

// flush writes the clock and tells the others what was written here.
func (g *group) flush(fx *Effects) {
	if g.newClock {
		g.newClock, g.newBases = false, true
		g.marks.Update(g.m.self, g.clock.Base())
		g.m.view.put(g.key(kindClock, ""), g.clock.Append(nil))
	}
	if g.newMarks {
		g.newMarks = false
		g.m.view.put(g.key(kindMarks, ""), g.marks.Append(nil))
	}
	g.sendNews(fx)
	for _, to := range g.owes {
		g.sendSeen(to, fx)
	}
	g.owes = g.owes[:0]
}

// wipe deletes all that is stored of the group.
func (g *group) wipe(fx *Effects) {
	v := &g.m.view
	start := storeKey(g.n, 0, "")
	v.scan(start[:len(start)-1], kv.PrefixEnd(nil, start[:len(start)-1]), func(key, value []byte) bool {
		if rest := storeRest(key); rest[0] == kindObject {
			if c, _, err := swc.DecodeContainer(value); err == nil {
				g.change(string(rest[1:]), c, swc.Container{}, fx)
			}
		}
		v.delete(key)
		return true
	})
}
