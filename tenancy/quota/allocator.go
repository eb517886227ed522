// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"slices"
	"time"

	"github.com/manormq/manor/infra/level"
)

const (
	// Interval is how often Tick is to be called.
	Interval = 250 * time.Millisecond
	// lease is how long a gateway that is not heard of keeps its parts.
	lease = 2 * time.Second
	// joining is how long a gateway listens, from when its own reports come back, before
	// it takes its part of what nobody has spoken of: all the others have spoken by then,
	// also those to which the bus has come back later.
	joining = 4 * Interval
	// hearing is how long one that has just started, and has almost nothing, listens
	// before it takes what the others leave: each has spoken once, and its clients wait.
	hearing = 2 * Interval
	// cooling is for how long a resource is spoken of after nobody wanted much of it.
	cooling = 5 * time.Second
	// repeated is how often a claim is told again that has not changed.
	repeated = time.Second
	// floor is what all gateways together may use that hold nothing, so that their
	// first client need not wait: the error that is always there.
	floor = 0.04
	// alone is the part of a gateway that has never heard of the others, nor of itself:
	// the bus is away.
	alone = 1.0 / 3
)

// Allocator has the parts of one gateway.
//
// A resource of which no gateway wants more than half of its part is never spoken of:
// each of n gateways has 1/n of it. Of the others a gateway holds a part that goes down
// to its share as soon as that is known, and up to it as far as what all say they hold
// leaves room: that is what keeps the sum at 1 while reports are under way. A share is
// computed from what was heard, also of itself, so that nobody uses more before the
// others know that it wants it.
type Allocator struct {
	self string
	// single: there are no others.
	single bool
	start  time.Time            // of the first Tick
	echo   time.Time            // when an own report was heard last
	since  time.Time            // since when those are heard: at first, or after the bus was away
	late   bool                 // the bus was away before since, for longer than it takes to join
	heard  map[string]time.Time // of each gateway, also this one
	loans  map[Resource]*loan
	cross  level.Told[Resource]
	// cold is the part of what nobody speaks of; n is of the last Tick.
	cold float64
	n    int
}

// loan is a resource that is spoken of.
type loan struct {
	held float64
	// next is what is told to be held, and is at the next Tick, if nobody else has told
	// the same meanwhile: two that do so at once both see it. Who connects stays, so
	// that a mistake would last; a rate is held at once.
	next   float64
	claims map[string]Claim // as heard, by gateway
	hot    time.Time        // when somebody wanted much of it last
	told   time.Time
	last   Claim // that was told
}

// New returns the allocator of a gateway. self is a name that no other process has, nor
// this one after a restart.
func New(self string) *Allocator {
	return &Allocator{self: self, heard: map[string]time.Time{}, loans: map[Resource]*loan{}, cold: floor, n: 1}
}

// NewSingle returns the allocator of a gateway that has no others, which has all from
// the beginning. It is to hear its own reports.
func NewSingle(self string) *Allocator {
	a := New(self)
	a.single, a.cold = true, 1
	return a
}

// Lent is the part of a resource that this gateway may use. Of rates it is never 0; of
// connections it may be below what there are already.
func (a *Allocator) Lent(r Resource) float64 {
	held := a.cold
	if l := a.loans[r]; l != nil {
		held = l.held
	}
	if r.Kind != Connections {
		held = max(held, floor/float64(a.n))
	}
	return held
}

// Gateways is how many there are, as far as is known.
func (a *Allocator) Gateways() int { return a.n }

// Hear takes a report, also one of this gateway's own: that it has come back shows that
// the others have it, and that the bus is there.
func (a *Allocator) Hear(now time.Time, r *Report) {
	if r.Leaving {
		if r.From != a.self {
			a.drop(r.From)
		}
		return
	}
	if r.From == a.self {
		if now.Sub(a.echo) > lease/2 {
			// The bus was away, and nobody could be heard: that says nothing of them.
			for id := range a.heard {
				a.heard[id] = now
			}
			a.meet(now)
		}
		a.echo = now
	}
	a.heard[r.From] = now
	for _, c := range r.Claims {
		l := a.loans[c.Resource]
		if l == nil {
			l = a.lend(now, c.Resource)
		}
		l.claims[r.From] = c
		if a.much(&c.Need) {
			l.hot = now
		}
	}
}

// meet begins to listen to the others: the bus is there, at first or again.
func (a *Allocator) meet(now time.Time) {
	a.since, a.late = now, now.Sub(a.start) >= joining
	if !a.echo.IsZero() || !a.late {
		return
	}
	// It had a part that the others do not know of. Who is connected stays; more must be
	// left by them first.
	for r, l := range a.loans {
		if r.Kind == Connections {
			l.held, l.next = 0, 0
		}
	}
}

// joins reports whether this gateway may not have heard all the others yet.
func (a *Allocator) joins(now time.Time) bool { return !a.single && now.Sub(a.since) < joining }

// grows reports whether this gateway has heard enough of the others to raise its parts.
func (a *Allocator) grows(now time.Time) bool {
	return !a.joins(now) || !a.late && now.Sub(a.since) >= hearing
}

func (a *Allocator) lend(now time.Time, r Resource) *loan {
	held := a.cold
	if !a.single && now.Sub(a.start) < joining || a.joins(now) && (!a.late || r.Kind == Connections) {
		held = 0
	}
	l := &loan{held: held, next: held, claims: map[string]Claim{}, hot: now}
	a.loans[r] = l
	return l
}

// much reports whether a need is one that others are to know of.
func (a *Allocator) much(d *Need) bool { return d.Waits || d.Want >= 0.5/float64(a.n) }

func (a *Allocator) drop(id string) {
	delete(a.heard, id)
	for _, l := range a.loans {
		delete(l.claims, id)
	}
}

// Step is what Tick leads to.
type Step struct {
	Report Report
	// Changed are the resources of which another part is lent; All says that it may be
	// any.
	Changed []Resource
	All     bool
	// Crossed is to be told by this gateway.
	Crossed []Crossing
}

// Tick is called once in an Interval with what this gateway's clients need. What is not
// in needs is not used.
func (a *Allocator) Tick(now time.Time, needs map[Resource]Need) Step {
	var s Step
	if a.start.IsZero() {
		a.start = now
	}
	s.All = a.count(now)
	for r, d := range needs {
		if l := a.loans[r]; l != nil {
			if a.much(&d) {
				l.hot = now
			}
		} else if a.much(&d) {
			a.lend(now, r)
		}
	}
	// What was heard is stale while the bus is away: everybody keeps what it has.
	fresh := now.Sub(a.echo) < lease/2
	leader := a.leads()
	for r, l := range a.loans {
		if fresh && now.Sub(l.hot) > cooling {
			delete(a.loans, r)
			a.cross.Look(now, r, 0, false)
			s.Changed = append(s.Changed, r)
			continue
		}
		d, before := needs[r], l.held
		if fresh {
			a.move(r.Kind, l, &d, a.grows(now))
			used, waits := l.sum()
			if at := a.cross.Look(now, r, used, waits); at != level.Below && leader {
				s.Crossed = append(s.Crossed, Crossing{r, at, used})
			}
		}
		if a.echo.IsZero() && now.Sub(a.start) > lease && l.held < a.cold {
			l.held, l.next = a.cold, a.cold // nobody has ever been heard
		}
		if l.held != before {
			s.Changed = append(s.Changed, r)
		}
		c := Claim{r, d, l.next}
		if d.Want > 0 || c != l.last || now.Sub(l.told) >= repeated {
			s.Report.Claims = append(s.Report.Claims, c)
			l.last, l.told = c, now
		}
	}
	a.cross.Forget(now)
	s.Report.From = a.self
	return s
}

// count looks who is there, and reports whether that has changed what is lent of all.
func (a *Allocator) count(now time.Time) (changed bool) {
	for id, at := range a.heard {
		// By the clock of the own reports: while the bus is away it stands still.
		if id != a.self && a.echo.Sub(at) > lease {
			a.drop(id)
		}
	}
	n, cold := len(a.heard), a.cold
	if _, ok := a.heard[a.self]; !ok {
		n++
	}
	switch {
	case a.single:
	case a.echo.IsZero() && now.Sub(a.start) > lease:
		cold = min(alone, 1/float64(n))
	case a.echo.IsZero():
		cold = floor
	case a.joins(now):
		cold = min(cold, 1/float64(n))
	default:
		cold = 1 / float64(n)
	}
	changed = cold != a.cold || n != a.n
	a.n, a.cold = n, cold
	return changed
}

// move brings what is held nearer to the share; up only if it may grow.
func (a *Allocator) move(k Kind, l *loan, d *Need, grow bool) {
	ids := make([]string, 0, len(l.claims)+1)
	for id := range l.claims {
		ids = append(ids, id)
	}
	if _, ok := l.claims[a.self]; !ok {
		ids = append(ids, a.self)
	}
	slices.Sort(ids) // all must compute the same
	wants := make([]float64, len(ids))
	others := float64(a.n-len(ids)) / float64(a.n) // who has not spoken of it has its part
	for i, id := range ids {
		c := l.claims[id]
		wants[i] = c.Want
		if id != a.self {
			others += c.Held
		}
	}
	own := slices.Index(ids, a.self)
	of := shares(wants, a.n, d.Unit)
	share, least := of[own], of[own]
	if d.Want > wants[own] {
		// The others do not know that yet: what is held stays as far as that will be the
		// share.
		wants[own] = d.Want
		of = shares(wants, a.n, d.Unit)
		least = max(share, of[own])
	}
	room := 1 - others
	if !grow {
		room = min(room, l.held)
	}
	if k == Connections {
		least = max(least, d.Used) // who is connected stays
		l.held = max(l.held, min(l.next, room), d.Used)
	}
	l.held = min(l.held, least)
	l.next = max(l.held, min(share, room))
	if k != Connections {
		l.held = l.next
		return
	}
	// What is less than a connection others may have.
	l.held, l.next = whole(l.held, d.Unit), whole(l.next, d.Unit)
}

// sum is what all gateways use, and whether clients wait at one.
func (l *loan) sum() (used float64, waits bool) {
	for _, c := range l.claims {
		used += c.Used
		waits = waits || c.Waits
	}
	return used, waits
}

// Full reports whether all gateways together use all of a resource, by what they have told
// last: it may be an Interval old.
func (a *Allocator) Full(r Resource) bool {
	l := a.loans[r]
	if l == nil {
		return false
	}
	used, _ := l.sum()
	return used >= 1-tiny
}

// leads reports whether this gateway tells of crossings: the first of all.
func (a *Allocator) leads() bool {
	for id := range a.heard {
		if id < a.self {
			return false
		}
	}
	return true
}

// Heeds reports whether a need is one that Tick must have: nobody speaks of the others.
func (a *Allocator) Heeds(r Resource, d Need) bool { return a.loans[r] != nil || a.much(&d) }

// Calm reports whether a need may double before Tick must have it.
func (a *Allocator) Calm(r Resource, d Need) bool {
	d.Want *= 2
	return !a.Heeds(r, d)
}

// Spoken calls f for every resource that is spoken of.
func (a *Allocator) Spoken(f func(Resource)) {
	for r := range a.loans {
		f(r)
	}
}

// Loans is how many those are.
func (a *Allocator) Loans() int { return len(a.loans) }
