// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"time"

	"github.com/manormq/manor/services/broker/swc"
)

// A broker that has missed dots of which nobody knows the key any more, because it
// is new or its disk is, fetches everything: the key map and the objects of a
// group, page by page. Each page is as true as the clock in it. When the last has
// come, all that the peer knew at the first is reflected here, and not before.

// fetch asks for the page from cursor on.
type fetch struct {
	id     uint64
	cursor string
}

func (g *group) askPage(now time.Time, fx *Effects) {
	x := &g.exchange
	x.sent = now
	if x.cursor == "" {
		x.cursor = string(kindDot)
		g.m.stats.Fetches++
	}
	w := g.m.head(kindFetch, g).writer()
	w.number(x.id)
	w.text(x.cursor)
	g.m.send(x.peer, w, fx)
}

// pageEnd is above the keys of all that is fetched.
const pageEnd = string(kindObject + 1)

func (g *group) onFetch(from string, f fetch, fx *Effects) {
	if f.cursor < string(kindDot) || f.cursor >= pageEnd {
		g.m.stats.Unreadable++
		return
	}
	p := page{id: f.id, from: f.cursor, clock: g.clock}
	size := 0
	g.m.view.scan(g.key(f.cursor[0], f.cursor[1:]), g.key(pageEnd[0], ""), func(key, value []byte) bool {
		rest := string(storeRest(key))
		if size >= g.m.cfg.MessageBytes {
			p.next = rest
			return false
		}
		p.records = append(p.records, record{rest, append([]byte{}, value...)})
		size += len(rest) + len(value) + 4
		return true
	})
	w := g.m.head(kindPage, g).writer()
	p.append(w)
	g.m.reveals = true
	g.m.send(from, w, fx)
}

// onPage takes the page that was asked for. What is here and not there was deleted
// there, as far as the clock of the page reaches.
func (g *group) onPage(now time.Time, from string, p *page, fx *Effects) {
	x := &g.exchange
	if x.peer != from || x.id != p.id || !x.fetching || x.cursor != p.from || p.next != "" && p.next <= p.from {
		return
	}
	if g.rolledBack(p.clock.Max(g.m.self)) {
		return
	}
	if !x.started {
		x.start, x.started = p.clock.Clone(), true
	}
	for range x.start.Missing(&p.clock) {
		// The peer has lost its data since the first page: what was behind it there is not told any more.
		g.giveUp()
		return
	}
	there := map[string]swc.Container{}
	var order []string
	for _, rec := range p.records {
		switch {
		case rec.key == "" || rec.key < p.from:
			return // no broker of ours writes that
		case rec.key[0] == kindDot:
			if d, _, err := swc.DecodeDot([]byte(rec.key[1:])); err == nil && x.start.Contains(d) && !g.clock.Contains(d) {
				g.putDot(d, string(rec.value))
			}
		case rec.key[0] == kindObject:
			if c, _, err := swc.DecodeContainer(rec.value); err == nil {
				path := rec.key[1:]
				there[path] = c
				order = append(order, path)
			}
		}
	}
	base := p.clock.Base()
	g.m.view.scan(g.key(kindObject, objectsFrom(p.from)), g.objectsEnd(p.next), func(key, _ []byte) bool {
		path := string(storeRest(key)[1:])
		if _, ok := there[path]; !ok {
			old := g.object(path)
			g.store(path, old, old.Fill(g.clock.Base()).Discard(base), fx)
		}
		return true
	})
	for _, path := range order {
		old := g.object(path)
		g.store(path, old, swc.Sync(old.Fill(g.clock.Base()), there[path].Fill(base)), fx)
		for _, v := range there[path].Versions {
			if !x.start.Contains(v.Dot) && !g.far(v.Dot) {
				g.learn(path, v.Dot) // it is younger than the first page
			}
		}
	}
	if x.cursor, x.tries = p.next, 0; p.next != "" {
		g.askPage(now, fx)
		return
	}
	g.clock.Join(&x.start)
	g.newClock = true
	g.exchange = exchange{}
	g.due = now // for what came meanwhile
}

// giveUp ends an exchange that will not be answered. What a fetch has put into the
// key map ahead of the clock goes: there may be nobody left who knows those dots.
func (g *group) giveUp() {
	if g.exchange.fetching {
		g.m.view.scan(g.key(kindDot, ""), g.key(kindDot+1, ""), func(key, _ []byte) bool {
			if !g.known(key) {
				g.m.view.delete(key)
				g.m.stats.Dots--
			}
			return true
		})
	}
	g.exchange = exchange{}
}

// known reports whether the clock has the dot of an entry of the key map.
func (g *group) known(key []byte) bool {
	d, _, err := swc.DecodeDot(storeRest(key)[1:])
	return err == nil && g.clock.Contains(d)
}

// objectsFrom is the first path of a page that begins at cursor.
func objectsFrom(cursor string) string {
	if cursor[0] == kindObject {
		return cursor[1:]
	}
	return ""
}

// objectsEnd is the key behind the last object of a page that ends at next.
func (g *group) objectsEnd(next string) []byte {
	switch {
	case next == "":
		return g.key(pageEnd[0], "")
	case next[0] == kindObject:
		return g.key(kindObject, next[1:])
	}
	return g.key(kindObject, "") // not at the objects yet
}
