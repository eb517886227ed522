// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"slices"

	"github.com/manormq/manor/services/broker/partition"
)

// Gone is for how many ms a broker's heartbeat stands still before its replicas are
// made anew elsewhere.
const Gone = 60_000

// settled is for how long the bus must be back before heartbeats say anything.
const settled = 5000

// Config is what a Controller decides by.
type Config struct {
	// Self is the broker that it runs on.
	Self partition.Broker
	// Replicas and Label are those of a partition: how many brokers should hold
	// it, and which. They must be the same on every broker.
	Replicas func(partition.ID) int
	Label    func(partition.ID) string
	// Settle is for how many ms a broker must be there before it gets partitions.
	Settle int64
	// Moves is how many partitions of this owner may be on the move at once.
	Moves int
}

// Controller decides where partitions should be. It is owned by one goroutine.
type Controller struct{ Config }

// Row is what the broker knows of one partition.
type Row struct {
	ID partition.ID
	// Table is the zero Table if there is no entry.
	Table partition.Table
	// Serving says that this broker is its owner and serves it.
	Serving bool
}

// Decision is one thing to do: make the entry, if Create is set, else tell the
// replica the plan.
type Decision struct {
	ID       partition.ID
	Create   *partition.Entry
	Wanted   []partition.Broker
	Draining bool
}

// Decide returns what this broker should do now about the rows: all partitions for
// which it is the owner, or nobody. It is asked each second or so. An entry that is
// missing is made by the broker that should own the partition; if that one cannot,
// its heartbeat will stand still, and another should.
func (c *Controller) Decide(w *Watch, rows []Row) []Decision {
	if up := w.BusUp(); up < 0 || up < settled && up < c.Settle {
		return nil
	}
	brokers := w.Brokers(c.Settle)
	drains := slices.ContainsFunc(brokers, func(b Candidate) bool { return b.Name == c.Self && (b.Draining || b.Stopping) })
	var out []Decision
	var moves []move
	for i := range rows {
		row := &rows[i]
		n := c.Replicas(row.ID)
		switch wanted := c.wanted(brokers, row); {
		case len(wanted) == 0:
		case row.Table.Revision == 0 && wanted[0] != c.Self:
		case row.Table.Revision == 0:
			out = append(out, Decision{ID: row.ID, Create: &partition.Entry{
				Epoch: 1, Owner: wanted[0], InSync: wanted[:1], Others: wanted[1:],
			}})
		case !row.Serving:
		case drains && inSync(&row.Table.Entry, wanted):
			// Nothing is copied, so that all may go at once.
			out = append(out, Decision{ID: row.ID, Wanted: wanted, Draining: true})
		default:
			d := Decision{ID: row.ID, Wanted: wanted, Draining: drains}
			moves = append(moves, move{d, kind(&row.Table.Entry, wanted, n)})
		}
	}
	return append(out, c.throttle(moves)...)
}

// Wanted returns the brokers that should hold a partition as w sees them, the owner
// first: fewer than there should be where there are fewer, none while no broker is
// known.
func (c *Controller) Wanted(w *Watch, row *Row) []partition.Broker {
	return c.wanted(w.Brokers(c.Settle), row)
}

// wanted is as Wanted of the package, but that one that stops follows only.
func (c *Controller) wanted(brokers []Candidate, row *Row) []partition.Broker {
	e := &row.Table.Entry
	brokers = willing(brokers, e)
	stops := func(b partition.Broker) bool {
		return slices.ContainsFunc(brokers, func(x Candidate) bool { return x.Name == b && x.Stopping })
	}
	n, label := c.Replicas(row.ID), c.Label(row.ID)
	out := Wanted(row.ID, n, label, brokers)
	owner := slices.IndexFunc(out, func(b partition.Broker) bool { return !stops(b) })
	if owner < 0 {
		stay := slices.DeleteFunc(slices.Clone(brokers), func(x Candidate) bool { return x.Stopping })
		return Wanted(row.ID, n, label, stay)
	}
	first := out[owner]
	return slices.Insert(slices.Delete(out, owner, owner+1), 0, first)
}

// inSync reports whether all of wanted are in the ISR.
func inSync(e *partition.Entry, wanted []partition.Broker) bool {
	return !slices.ContainsFunc(wanted, func(b partition.Broker) bool { return !e.IsInSync(b) })
}

// willing leaves out those that want no more partitions, except where they hold it.
func willing(brokers []Candidate, e *partition.Entry) []Candidate {
	unwilling := func(b Candidate) bool { return (b.Busy || b.Stopping) && !e.Holds(b.Name) }
	if !slices.ContainsFunc(brokers, unwilling) {
		return brokers
	}
	return slices.DeleteFunc(slices.Clone(brokers), unwilling)
}

// urgency is why a partition is to be moved; the lower goes first.
type urgency int

const (
	still   urgency = iota // it is where it should be
	begun                  // a new replica is being made
	lacking                // it has fewer replicas in sync than it should
	uneven                 // it should be elsewhere
)

type move struct {
	Decision
	urgency
}

func kind(e *partition.Entry, wanted []partition.Broker, n int) urgency {
	here, held := e.Owner == wanted[0] && e.Replicas() == len(wanted), true
	for _, b := range wanted {
		here, held = here && e.IsInSync(b), held && e.Holds(b)
	}
	switch {
	case here:
		return still
	case held:
		return begun
	case len(e.InSync) < n:
		return lacking
	default:
		return uneven
	}
}

// throttle lets Moves partitions move. The others keep what they have: they get no
// plan, or none but that the broker drains.
func (c *Controller) throttle(moves []move) []Decision {
	slices.SortStableFunc(moves, func(a, b move) int { return cmp.Compare(a.urgency, b.urgency) })
	out := make([]Decision, 0, len(moves))
	left := c.Moves
	for _, m := range moves {
		if m.urgency != still {
			if left == 0 {
				m.Wanted = nil
			} else {
				left--
			}
		}
		out = append(out, m.Decision)
	}
	slices.SortFunc(out, func(a, b Decision) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
