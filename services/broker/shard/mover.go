// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"maps"
	"slices"
	"time"

	"github.com/manormq/manor/services/broker/partition"
)

// Mover decides when a tenant that moves may go on, from what the brokers say (Relocate). It
// keeps nothing that must last: each broker may have one, or two at a time have one of the same
// tenant, as what they say is the same. What must be said once, whether the tenant goes on or
// stays, is a Course. It is not safe for concurrent use.
type Mover struct {
	revision uint64
	flown    map[string]int64
	// taken says that all is taken up, since when Look.Waited was takenAt.
	taken   bool
	takenAt time.Duration
	gaveUp  bool
}

// Look is what a broker that sees to a tenant that moves knows of all at a time.
type Look struct {
	// Members are all of the cluster, also those that are away: one may still take publishes
	// for partitions that it has lost, and bring them to others. Alive are those of them that
	// membership calls so.
	Members, Alive []string
	// Said is what members have said after the last Look, by name.
	Said map[string]Relocation
	// Waited is for how long the tenant's record has been what it is.
	Waited time.Duration
	// MayTurn says that all Members, also those that are away, know of courses.
	MayTurn bool
	// Owner is who owns a partition by the table: what others say that they have done there counts
	// for nothing, as they may have lost it. nil has everybody believed.
	Owner func(p partition.ID) string
}

// Order is what follows of a Look.
type Order struct {
	// Decide is what the owner of the first partition of the list is to decide (Set.Decide),
	// if it has not decided yet.
	Decide Course
	// Hand: the brokers are to hand over what belongs to others.
	Hand bool
	// Advance: the tenant's record is to be the next one. Return: it is to be Settled, with
	// the list that it had.
	Advance, Return bool
}

// The times of a Mover: clients wait at their gateways for 10 s.
const (
	// turnMost is for how long a tenant may be Leaving without a Course before it stays where
	// it is.
	turnMost = 6 * time.Second
	// unequalMost is for how long is waited, when nothing else is, until all brokers know the
	// same routes: one may have a route too many. silentMost is that for brokers which are
	// alive and do not answer, do not have the record, or serve what is another's by the table.
	unequalMost = time.Second
	silentMost  = 3 * time.Second
)

// Next takes a Look at a tenant that moves.
func (m *Mover) Next(c Cell, l *Look) (out Order) {
	if m.revision != c.Revision {
		*m = Mover{revision: c.Revision}
	}
	if c.Stage == Arriving {
		return Order{Advance: m.arrives(c, l)}
	}
	switch course := l.course(c); {
	case course == Back:
		return Order{Return: true}
	case course == Onward:
		// All were quiet at one time with the record, so that nothing of the tenant has begun
		// anywhere since, whoever is away now.
		stopped, empty, fault := l.served(c)
		out.Hand = fault == whole && covers(stopped, c.List) && covers(stopped, c.To)
		out.Advance = out.Hand && covers(empty, c.List)
	case m.stable(c, l):
		out.Decide = Onward
	case l.MayTurn && (len(l.Alive) < len(l.Members) || l.Waited >= turnMost):
		out.Decide = Back
	}
	return out
}

// stable reports whether all members, with all partitions of both lists, were quiet at this
// look and at the one before, and have sent nothing between the two: then all were at one time
// between them. Nothing begins anew after that.
func (m *Mover) stable(c Cell, l *Look) bool {
	was := m.flown
	m.flown = nil
	stopped, _, fault := l.served(c)
	if fault != whole || !covers(stopped, c.List) || !covers(stopped, c.To) {
		return false
	}
	flown := make(map[string]int64)
	for _, name := range l.Members {
		r, ok := l.Said[name]
		if !ok {
			return false // of one that does not answer nothing is known
		}
		flown[name] = r.Flown
	}
	m.flown = flown
	return was != nil && maps.Equal(was, flown)
}

// arrives reports whether all that was handed over is taken up, and the tenant's clients may
// come. Who is let in may publish at any broker, to any session: so all brokers are to know
// the routes. One that is away lets nobody in before it has heard of the record.
func (m *Mover) arrives(c Cell, l *Look) bool {
	stopped, _, fault := l.served(c)
	if fault == unquiet || fault == astern && l.Waited < silentMost || !covers(stopped, c.List) {
		return false
	}
	if !m.taken {
		m.taken, m.takenAt = true, l.Waited
	}
	same := sameRoutes(l.Said)
	for _, name := range l.Alive {
		if _, ok := l.Said[name]; !ok {
			if l.Waited < silentMost {
				return false
			}
			same = false
		}
	}
	if !same && l.Waited-m.takenAt < unequalMost {
		return false
	}
	m.gaveUp = !same || fault != whole
	return true
}

// Unequal reports whether the tenant is to arrive though brokers know different routes to it.
func (m *Mover) Unequal() bool { return m.gaveUp }

// fault is the worst of what is not as it is to be at the brokers that have said something.
type fault uint8

const (
	// whole: all have the record, are quiet, and serve nothing that is not Stopped.
	whole fault = iota
	// astern: one lacks the record, or is Behind. It may be Behind in what is another's by the table
	// alone: if it is in what is its own, that lacks among what is stopped.
	astern
	// unquiet: one has the record, and something of the tenant is under way there.
	unquiet
)

// served are the partitions that are stopped, and those that are empty, at their owners, and what is
// not as it is to be.
func (l *Look) served(c Cell) (stopped, empty []partition.ID, worst fault) {
	for name, r := range l.Said {
		if r.Revision != c.Revision || !r.Quiet || r.Behind {
			worst = max(worst, astern)
			if r.Revision == c.Revision && !r.Quiet {
				worst = unquiet
			}
		}
		if r.Revision != c.Revision {
			continue
		}
		for _, p := range r.Stopped {
			if l.Owner == nil || l.Owner(p) == name {
				stopped = append(stopped, p)
			}
		}
		for _, p := range r.Empty {
			if l.Owner == nil || l.Owner(p) == name {
				empty = append(empty, p)
			}
		}
	}
	return stopped, empty, worst
}

// course is the Course of which a broker has said that it is decided: Onward if two say different
// ones, as something may have been handed over.
func (l *Look) course(c Cell) (course Course) {
	for _, r := range l.Said {
		if r.Revision == c.Revision && r.Course != Undecided && course != Onward {
			course = r.Course
		}
	}
	return course
}

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
