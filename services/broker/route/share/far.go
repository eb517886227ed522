// SPDX-License-Identifier: Apache-2.0

package share

import (
	"math"
	"slices"
)

// far is a partition that another broker serves: how many of its members are
// connected, and how many outlive their connection.
type far struct {
	part            uint16
	online, durable int
}

// weight is how many members of f may be chosen.
func (f *far) weight(online, durable bool) int {
	switch {
	case online && durable: // which of them are both is not known here
		return min(f.online, f.durable)
	case online:
		return f.online
	}
	return f.durable
}

// SetFar says how many members in partition part, which another broker serves, are
// connected, and how many outlive their connection; 0 and 0 remove it. It reports
// whether the group is empty now.
func (g *Group[S]) SetFar(part uint16, online, durable int) (empty bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.setFar(part, max(online, 0), max(durable, 0))
	return len(g.mu.members) == 0 && len(g.mu.far) == 0
}

func (g *Group[S]) setFar(part uint16, online, durable int) {
	i := slices.IndexFunc(g.mu.far, func(f far) bool { return f.part == part })
	if i >= 0 {
		g.mu.farOnline -= g.mu.far[i].online
		g.mu.farDurable -= g.mu.far[i].durable
		g.mu.far = slices.Delete(g.mu.far, i, i+1)
	}
	if online > 0 || durable > 0 {
		g.mu.farOnline += online
		g.mu.farDurable += durable
		g.mu.far = append(g.mu.far, far{part, online, durable})
	}
}

// between chooses between the members here, as pick does, and the far partitions,
// each as often as it has members. Round robin (random is 0) takes turns. Where
// the one side has nobody, or here nobody with room, it is the other.
func (g *Group[S]) between(online, durable bool, random uint64, pick func() (Member[S], bool)) (m Member[S], ok bool) {
	there := g.mu.farDurable
	if online && durable {
		there = 0
		for i := range g.mu.far {
			there += g.mu.far[i].weight(true, true)
		}
	} else if online {
		there = g.mu.farOnline
	}
	if there == 0 {
		return pick()
	}
	here := g.mu.durable // of those who have no connection
	if online {
		here = g.mu.online
	}
	n := uint64(here + there)
	place := random % n
	if random == 0 {
		g.mu.spread++
		place = uint64(g.mu.spread) % n
	}
	if place < uint64(here) {
		if m, ok = pick(); ok && (!online || !m.busy()) {
			return m, true
		}
		place += uint64(here) // the same turn, there
	}
	place = (place - uint64(here)) % uint64(there)
	for i := range g.mu.far {
		w := uint64(g.mu.far[i].weight(online, durable || !online))
		if place < w {
			return Member[S]{Part: g.mu.far[i].part, Far: true}, true
		}
		place -= w
	}
	return pick()
}

// stick chooses the partition for a key and then, if it is served here, the
// member. Every broker that has the same counts chooses the same one; a partition
// that comes, goes, grows or shrinks takes keys from the others or gives them some,
// and moves none between them (rendezvous; of w equal chances the best is u^(1/w)).
func (g *Group[S]) stick(online bool, how How) (m Member[S], ok bool) {
	g.split()
	best, high := far{}, math.Inf(-1)
	consider := func(f far) {
		w := f.weight(online, false)
		if w == 0 {
			return
		}
		u := (float64(Mix(how.Key^Mix(uint64(f.part)+1))>>11) + 0.5) / (1 << 53)
		if h := math.Log(u) / float64(w); h > high || h == high && f.part > best.part {
			best, high = f, h
		}
	}
	for _, f := range g.mu.far {
		consider(f)
	}
	for part, in := range g.mu.in {
		_, on, durable := in.count()
		consider(far{part, on, durable})
	}
	if math.IsInf(high, -1) {
		return m, false
	}
	if in := g.mu.in[best.part]; in != nil {
		m, _, ok = in.PickBy(how)
		return m, ok
	}
	return Member[S]{Part: best.part, Far: true}, true
}

// In is the group of the members here that are in partition part, or nil. It is for
// a message that another broker has sent to "the group in that partition": choose
// with Pick, PickDurable or PickBy. Members come and go by the whole group alone.
func (g *Group[S]) In(part uint16) *Group[S] {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.split()
	return g.mu.in[part]
}

// Holds reports whether partition part has members, wherever it is served.
func (g *Group[S]) Holds(part uint16) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.ContainsFunc(g.mu.far, func(f far) bool { return f.part == part }) {
		return true
	}
	g.split()
	return g.mu.in[part] != nil
}

// Count is how many members here are in partition part, how many of them are
// connected, and how many outlive their connection: what others are to be told.
func (g *Group[S]) Count(part uint16) (members, online, durable int) {
	if in := g.In(part); in != nil {
		return in.count()
	}
	return 0, 0, 0
}

func (g *Group[S]) count() (members, online, durable int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.mu.members), g.mu.online, g.mu.durable
}

// split begins to keep the members by partition.
func (g *Group[S]) split() {
	if g.mu.in != nil {
		return
	}
	g.mu.in = map[uint16]*Group[S]{}
	for i, m := range g.mu.members {
		g.joinIn(m, i < g.mu.online)
	}
}

func (g *Group[S]) joinIn(m Member[S], online bool) {
	in := g.mu.in[m.Part]
	if in == nil {
		in = NewGroup[S](g.Key)
		g.mu.in[m.Part] = in
	}
	in.Join(m, online)
}
