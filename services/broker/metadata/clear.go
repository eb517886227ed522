// SPDX-License-Identifier: Apache-2.0

package metadata

import "github.com/manormq/manor/services/broker/swc"

// clearSome is how much of a kind is cleared away in one step of a group, so that
// no turn takes long.
const clearSome = 256

// strip takes from objects with a context what the clock says by now. An object
// without value, whose delete everything known reflects, goes with it.
func (g *group) strip(fx *Effects) {
	s := &g.stripping
	if s.at == "" {
		if g.m.stats.Contexts == 0 || !g.newContext && !g.newBases {
			return
		}
		g.newContext, g.newBases = false, false
	}
	n := 0
	from := s.at
	s.at = ""
	g.m.view.scan(g.key(kindContext, from), g.key(kindContext+1, ""), func(key, _ []byte) bool {
		path := string(storeRest(key)[1:])
		if n++; n > clearSome {
			s.at = path
			return false
		}
		old := g.object(path)
		g.store(path, old, old, fx)
		for _, d := range old.Context.Without(g.clock.Base()) {
			if !g.m.roster.writes(d.Actor) {
				s.gaps = s.gaps.Raise(d)
			}
		}
		return true
	})
	if s.at == "" {
		g.gaps, s.gaps = s.gaps, nil
	}
}

// stripping is how far a walk over the objects with a context has come.
type stripping struct {
	at   string     // the path to go on with; empty between two walks
	gaps swc.Vector // up to where contexts ask for dots of those that write no more
}

// clear takes dots out of the key map that every member knows: nobody will ask
// for them.
func (g *group) clear() {
	if g.m.roster.unheard() {
		return
	}
	for _, a := range g.clock.Actors() {
		from, to := g.cleared[a], g.marks.Min(a)
		if from >= to {
			continue
		}
		n := 0
		g.cleared[a] = to
		first, last := swc.Dot{Actor: a, N: from + 1}, swc.Dot{Actor: a, N: to + 1}
		g.m.view.scan(g.dotKey(first), g.dotKey(last), func(key, _ []byte) bool {
			if n++; n > clearSome {
				// The next walk begins here: a store is slow to walk over what is gone.
				if d, _, err := swc.DecodeDot(storeRest(key)[1:]); err == nil {
					g.cleared[a] = d.N - 1
				}
				return false
			}
			g.m.view.delete(key)
			g.m.stats.Dots--
			return true
		})
	}
}

func (g *group) dotKey(d swc.Dot) []byte { return g.key(kindDot, string(swc.AppendDot(nil, d))) }

// closeGaps makes known the dots that nobody can ever tell of: of an actor that
// writes no more, and that no member has. Every member must have said so while it
// had the same roster as this broker has: it does not hear that actor any more, so
// the first member to get such a dot could have it from nobody, but for one that
// joins later and is not empty. Then, or where an object is ahead of the clock by a
// delete, values differ: see differs. Without this one message that was lost with
// its sender would hold back deletes for ever.
func (g *group) closeGaps() {
	for _, x := range g.m.roster {
		if x.live && x.name != g.m.cfg.Name && g.reports[x.name] == nil {
			return
		}
	}
	asked := g.clock.Actors()
	for _, d := range g.gaps {
		asked = append(asked, d.Actor)
	}
	for _, a := range asked {
		if g.m.roster.writes(a) {
			continue
		}
		top := max(g.clock.Max(a), min(g.gaps.Get(a), g.clock.Base().Get(a)+maxAhead))
		var lost []swc.Dot
		for d := range g.clock.Holes(a, top) {
			if !g.reported(d) {
				lost = append(lost, d)
			}
			if len(lost) >= clearSome {
				break
			}
		}
		g.learn("", lost...)
		g.m.stats.Lost += uint64(len(lost))
	}
}

func (g *group) reported(d swc.Dot) bool {
	for _, c := range g.reports {
		if c.Contains(d) {
			return true
		}
	}
	return false
}
