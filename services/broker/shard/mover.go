// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"maps"
	"slices"

	"github.com/manormq/manor/services/broker/partition"
)

// Mover decides when a tenant that moves may go on, from what all brokers say (Relocate). It
// keeps nothing that must last: each broker may have one, or two at a time have one of the same
// tenant, as what they say is the same. It is not safe for concurrent use.
type Mover struct {
	revision uint64
	flown    map[string]int64
	stable   bool
	// unequal counts the looks at which nothing was awaited but that all know the same routes;
	// gaveUp says that they did not.
	unequal int
	gaveUp  bool
}

// unequalMost is for how many looks, about a second, that is awaited: its clients wait, and one
// broker may have a route too many.
const unequalMost = 100

// Next takes what the brokers have said after the last Next, by name. members are all of the
// cluster, since one that is not reached may still take publishes for partitions that it has
// lost, and bring them to others: of one that does not answer nothing is known. It reports
// whether they are to hand over what belongs to others, and whether the tenant's record is
// to be the next one.
func (m *Mover) Next(c Cell, members []string, said map[string]Relocation) (hand, advance bool) {
	if m.revision != c.Revision {
		*m = Mover{revision: c.Revision}
	}
	var stopped, empty []partition.ID
	flown := make(map[string]int64)
	for _, name := range members {
		r, ok := said[name]
		if !ok || r.Revision != c.Revision || !r.Quiet || r.Behind {
			m.flown = nil
			return false, false
		}
		flown[name] = r.Flown
		stopped, empty = append(stopped, r.Stopped...), append(empty, r.Empty...)
	}
	if !covers(stopped, c.List) || !covers(stopped, c.To) {
		m.flown = nil
		return false, false
	}
	if c.Stage == Arriving {
		// Who is let in may publish at any broker, to any session.
		same := sameRoutes(said)
		if !same && m.unequal < unequalMost {
			m.unequal++
			return false, false
		}
		m.gaveUp = !same
		return false, true
	}
	// Between two looks at which a broker was quiet and that found the same it was quiet, so
	// all were at once, between the last look and this one. Nothing begins anew after that.
	m.stable = m.stable || m.flown != nil && maps.Equal(m.flown, flown)
	m.flown = flown
	return m.stable, m.stable && covers(empty, c.List)
}

// Unequal reports whether the tenant is to arrive though brokers know different routes to it.
func (m *Mover) Unequal() bool { return m.gaveUp }

func sameRoutes(said map[string]Relocation) bool {
	var first *uint64
	for _, r := range said {
		if first == nil {
			first = &r.Routes
		} else if *first != r.Routes {
			return false
		}
	}
	return true
}

// covers reports whether all of list are in all.
func covers(all, list []partition.ID) bool {
	return !slices.ContainsFunc(list, func(p partition.ID) bool { return !slices.Contains(all, p) })
}
