// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"slices"

	"github.com/manormq/manor/services/broker/swc"
)

// becomes sets the actor under which this broker writes from now on.
func (m *Machine) becomes(a swc.Actor) {
	m.self = max(a, m.self+1, m.resetFloor+1)
	m.roster.at(m.cfg.Name).actor = m.self
	m.rosterChanged()
}

// rosterChanged makes the groups follow the roster.
func (m *Machine) rosterChanged() {
	m.newRoster = true
	m.reachable = m.roster.live(m.reachable, m.cfg.Name)
	for _, g := range m.groups {
		g.setColumns()
		if g.exchange.busy() && !slices.Contains(m.reachable, g.exchange.peer) {
			g.giveUp()
		}
	}
}

func (m *Machine) join(name string) {
	if x := m.roster.at(name); !x.live {
		x.live = true
		m.rosterChanged()
	}
}

func (m *Machine) leave(name string) {
	i, ok := m.roster.find(name)
	if !ok || name == m.cfg.Name || !m.roster[i].live {
		return
	}
	x := &m.roster[i]
	x.live = false
	if x.actor != 0 {
		x.actor++ // its present store is below that, and will be refused
	}
	for _, g := range m.groups {
		delete(g.seen, name)
	}
	m.rosterChanged()
}

// admit reports whether a message of from, which writes under actor, is taken. A
// member with a later actor than before has lost its data, and begins again.
func (m *Machine) admit(g *group, from string, actor swc.Actor, fx *Effects) bool {
	i, ok := m.roster.find(from)
	if !ok || from == m.cfg.Name {
		return false
	}
	x := &m.roster[i]
	switch {
	case actor == m.self: // two stores have one actor: both look for another
		m.becomes(m.cfg.Mint())
		return false
	case actor < x.actor:
		w := m.head(kindRefused, g).writer()
		w.u64(uint64(x.actor))
		m.send(from, w, fx)
		return false
	case !x.live:
		return false
	case actor > x.actor:
		x.actor = actor
		for _, g := range m.groups {
			delete(g.seen, from)
		}
		m.rosterChanged()
	}
	return true
}

// hear takes the later actors that another broker knows of. Who the members are
// each broker is told by its own.
func (m *Machine) hear(other roster) {
	changed := false
	for _, x := range other {
		if x.name == m.cfg.Name {
			m.refused(x.name, x.actor)
			continue
		}
		if mine := m.roster.at(x.name); mine.actor < x.actor {
			mine.actor, changed = x.actor, true
		}
	}
	if changed {
		m.rosterChanged()
	}
}

// refused takes that a member knows of a later store of this broker, or that this
// one has left.
func (m *Machine) refused(from string, floor swc.Actor) {
	i, ok := m.roster.find(from)
	if ok && m.roster[i].live && floor > m.self {
		m.retired = true
		m.resetFloor = max(m.resetFloor, floor)
	}
}

// rolledBack reports whether another broker knows a dot of this one's actor that it
// does not know itself; known is the highest. Then the store has lost its last writes, and the next dots
// are taken: it goes on under a new actor, and gets what it lost like any other.
func (g *group) rolledBack(known uint64) bool {
	m := g.m
	if known <= g.clock.Max(m.self) {
		return false
	}
	m.stats.RolledBack++
	m.becomes(m.cfg.Mint())
	return true
}

// reset gives up what is stored.
func (m *Machine) reset(fx *Effects) {
	for i, g := range m.groups {
		g.wipe(fx)
		m.groups[i] = &group{
			m: m, n: g.n, met: map[string]bool{}, cleared: map[swc.Actor]uint64{}, reports: map[string]*swc.Clock{},
			seen: map[string]uint64{}, wrote: map[string][]swc.Dot{},
		}
	}
	for _, w := range m.waits {
		w.reached(m, fx)
	}
	m.waits = nil
	m.stats.Objects, m.stats.Tombstones, m.stats.Contexts, m.stats.Dots = 0, 0, 0, 0
	m.retired = false
	m.becomes(m.cfg.Mint())
}
