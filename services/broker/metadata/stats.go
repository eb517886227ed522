// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"crypto/sha256"
	"slices"

	"github.com/manormq/manor/services/broker/swc"
)

// Stats are gauges and counters of a Machine; the counters begin with 0 at its
// start.
type Stats struct {
	// Gauges: objects with a value; deleted ones that must be remembered, because
	// something from before is still missing; entries of the key map, which are the
	// dots that not all members know; objects that are stored with a context.
	Objects, Tombstones, Dots, Contexts int
	// Actors is how many have a place in the clocks, counted once for each group.
	Actors int
	// Synced reports whether each group has compared itself with every member that could be
	// reached since the start, and missed nothing more; or there is no other member. So
	// this broker knows what the others had been told before it came.
	Synced bool
	// MetAll: Synced, and the members that could not be reached then have been compared with
	// since. A broker whose store is new may have met only others whose are.
	MetAll bool

	Sent       uint64 // messages
	News       uint64 // messages with writes of others that were taken
	Exchanges  uint64 // Compare messages sent
	Fetches    uint64 // groups that were fetched as a whole
	Unanswered uint64 // exchanges without an answer in time
	Unreadable uint64 // messages of another version, or broken
	Refused    uint64 // messages of who is no member, or no more
	Stale      uint64 // mutations below the rank of what was there, or invalid
	Unreached  uint64 // writes that not all reachable members had in time
	Lost       uint64 // dots of actors that write no more, given up
	Differed   uint64 // exchanges in which clocks were equal and values were not
	RolledBack uint64 // times that the store had lost its last writes
	Dropped    uint64 // messages and writes for which there was no room (Store)

	// Retired: the other members have given this store up; Failing: it cannot be
	// written now (Store).
	Retired, Failing bool
}

// Stats may be called between turns.
func (m *Machine) Stats() Stats {
	s := m.stats
	alone := m.told && m.roster.alone()
	s.Synced = alone || !slices.ContainsFunc(m.groups, func(g *group) bool { return !g.synced })
	s.MetAll = alone || s.Synced && m.told && !slices.ContainsFunc(m.groups, func(g *group) bool { return !g.metAll() })
	s.Retired = m.retired
	for _, g := range m.groups {
		s.Actors += len(g.clock.Actors())
	}
	return s
}

// Actor is under which this broker writes.
func (m *Machine) Actor() swc.Actor { return m.self }

// Members are the names of the members, in order.
func (m *Machine) Members() []string {
	var out []string
	for _, x := range m.roster {
		if x.live {
			out = append(out, x.name)
		}
	}
	return out
}

// Settled reports whether every member knows all that this broker knows, with no
// gaps, and nothing is left to clear away. It may be called between turns.
func (m *Machine) Settled() bool {
	for _, g := range m.groups {
		for _, a := range g.clock.Actors() {
			if g.clock.Gaps() || g.marks.Min(a) != g.clock.Base().Get(a) {
				return false
			}
		}
	}
	s := m.stats
	return s.Tombstones == 0 && s.Dots == 0 && s.Contexts == 0 && !m.roster.unheard()
}

// Digest is a hash over the values of all objects and the dots that wrote them, and
// over the clocks. Brokers that know the same have the same. It reads the whole
// store, and may be called between turns.
func (m *Machine) Digest() [sha256.Size]byte {
	h := sha256.New()
	for _, g := range m.groups {
		h.Write(g.clock.Append(nil))
		m.view.scan(g.key(kindObject, ""), g.key(kindObject+1, ""), func(key, value []byte) bool {
			if c, _, err := swc.DecodeContainer(value); err == nil && len(c.Versions) > 0 {
				h.Write(key)
				h.Write(swc.Container{Versions: c.Versions}.Append(nil))
			}
			return true
		})
	}
	return [sha256.Size]byte(h.Sum(nil))
}
