// SPDX-License-Identifier: Apache-2.0

package partition

import "slices"

// tableCopy is the replica's copy of its entry, and what it proposed.
type tableCopy struct {
	Table
	// fresh says that the entry was read since Start; floor is the revision that
	// was found then. What this process did not see become so may be followed by
	// proposals of an earlier run that are still on their way.
	fresh bool
	floor uint64
	// kept says that the copy is what an earlier run kept on the disk; silent, that
	// the newest read had no answer; asFound, that this replica serves under an entry
	// that an earlier run left behind, and whose successor may be on its way (kept.go).
	kept, silent, asFound bool
	// pending are the changes proposed at Revision. One stays until the revision
	// has moved: without an answer it may be carried out at any time.
	pending []Entry
	// inFlight says that the newest proposal has no outcome; first, that it is the
	// first of its kind in pending, where it is the last.
	inFlight   bool
	first      bool
	proposedAt int64
	// wanted says that something is to be read, and not yet asked for; asked is the
	// highest epoch known when the read under way was.
	wanted  bool
	reading bool
	asked   uint64
	askedAt int64
}

// epoch is the highest that the replica knows. A broker that is no replica keeps
// what it sees in the table only in its copy.
func (r *Replica) epoch() uint64 { return max(r.state.Epoch, r.table.Epoch) }

// readTable asks for the entry as it is now: at once, or when the read under way
// is answered and reread has passed.
func (r *Replica) readTable(fx *Effects) {
	t := &r.table
	t.wanted = true
	if t.reading {
		return
	}
	if wait := t.askedAt + reread - r.clock; t.askedAt != 0 && wait > 0 {
		fx.wakeIn(wait)
		return
	}
	t.wanted, t.reading, t.asked, t.askedAt = false, true, r.state.Epoch, max(r.clock, 1)
	fx.ReadTable = true
}

// seen takes what the watch tells. It may be late: only what was asked for can
// show that the table went back.
func (r *Replica) seen(t Table, fx *Effects) {
	switch {
	case t.Revision == 0 || t.Revision > r.table.Revision && t.Epoch <= r.table.Epoch:
		r.readTable(fx)
	case t.Revision > r.table.Revision && !r.table.awaits(t):
		r.adopt(t, fx)
	}
	if t.Epoch < r.state.Epoch {
		r.readTable(fx)
	}
}

// read takes the answer to readTable.
func (r *Replica) read(t Table, failed bool, fx *Effects) {
	c := &r.table
	if !c.reading {
		return
	}
	c.reading = false
	if c.silent = failed; failed {
		r.readTable(fx)
		return
	}
	if t.Epoch < c.asked {
		r.alarm("the partition table went back below an epoch that this broker has stored", fx)
		return
	}
	if r.role == Alarmed {
		r.role = Following
	}
	if !c.fresh {
		c.fresh, c.floor = true, t.Revision
	}
	if t.Epoch > c.Epoch && !c.awaits(t) || c.kept && t.Epoch < c.Epoch {
		r.adopt(t, fx) // a broker that is no replica may have kept what was undone since
	}
	c.kept = false
}

// awaits reports whether t may be what was proposed a moment ago, whose outcome says
// whether it is this run's, or an earlier one's that said the same.
func (c *tableCopy) awaits(t Table) bool {
	return c.asFound && c.inFlight && t.Epoch == c.Epoch+1 && slices.ContainsFunc(c.pending, func(e Entry) bool { return e.same(&t.Entry) })
}

func (r *Replica) alarm(what string, fx *Effects) {
	if r.role != Alarmed {
		r.stepDown()
		r.role = Alarmed
		fx.Alarm = what
	}
}

// adopt takes a newer entry.
func (r *Replica) adopt(t Table, fx *Effects) {
	c := &r.table
	fx.Planned = r.role == Handing && slices.ContainsFunc(c.pending, func(e Entry) bool {
		return e.Owner != r.self && e.Owner == t.Owner && e.Epoch == t.Epoch
	})
	if r.role != Alarmed && t.Epoch != c.Epoch+1 {
		r.stepDown() // somebody else may have been the owner in between
	}
	if c.asFound {
		// An earlier run may have written under this epoch too: it takes another.
		r.stepDown()
		c.floor = t.Revision
	}
	before := c.Replicas()
	c.Table, c.pending, c.inFlight = t, c.pending[:0], false
	c.kept, c.asFound = false, false
	r.write(Write{Kind: PutTable, Table: t}, fx)
	member := t.Holds(r.self)
	if member || r.state.Copy != Empty {
		r.raise(t.Epoch, fx)
	}
	if !member && r.state.Copy != Empty && t.Epoch == r.state.Epoch {
		r.wipe(Empty, fx)
	}
	switch {
	case r.role == Alarmed || r.role == Following:
	case t.Owner == r.self:
		r.setPeers(fx)
	default:
		r.stepDown()
		r.answer(fx) // the new owner may have asked already
	}
	if t.Owner != r.self {
		return
	}
	if t.Replicas() == 1 && before != 1 {
		r.log.Trim(0, r.log.last.N)
		r.write(Write{Kind: TrimLog, To: r.log.last.N + 1}, fx)
	}
}

// wipe throws the copy away.
func (r *Replica) wipe(c Copy, fx *Effects) {
	r.from.part = 0
	r.setCopy(c, fx)
	r.log = NewLog(Last{})
	r.write(Write{Kind: Wipe}, fx)
}

// mayPropose reports whether a change can be proposed now; if not, it asks to be
// woken.
func (r *Replica) mayPropose(fx *Effects) bool {
	c := &r.table
	switch {
	case !c.fresh || c.Epoch < r.state.Epoch:
		r.readTable(fx)
		return false
	case c.inFlight || c.reading:
		return false
	case r.durable.state.Epoch < r.state.Epoch:
		// What follows an entry must not be there before the disk knows of the entry:
		// a start without the table counts on it (kept.go). Written says when it does.
		return false
	case r.peers.BusUp() < 0:
		fx.wakeIn(reread)
		return false
	}
	if wait := c.proposedAt + repropose - r.clock; c.proposedAt != 0 && wait > 0 {
		fx.wakeIn(wait)
		return false
	}
	return true
}

// propose asks for a change of the entry at the revision of the copy. From here
// on a commit needs the ISR of e too.
func (r *Replica) propose(e Entry, fx *Effects) {
	c := &r.table
	e.Epoch = c.Epoch + 1
	if c.first = !slices.ContainsFunc(c.pending, func(p Entry) bool { return p.same(&e) }); c.first {
		c.pending = append(c.pending, e)
	}
	c.inFlight, c.proposedAt = true, max(r.clock, 1)
	fx.Propose = &Proposal{At: c.Revision, Entry: e}
}

// proposed takes the outcome of a proposal. Whatever is not won is read back.
func (r *Replica) proposed(e *Event, fx *Effects) {
	c := &r.table
	if e.At != c.Revision {
		return // the entry has moved on, whoever moved it
	}
	c.inFlight = false
	if e.Outcome == Won {
		c.asFound = false // it is this run's
		r.adopt(e.Table, fx)
		return
	}
	if e.Outcome == Untaken && c.first && len(c.pending) > 0 {
		// An earlier one that said the same may yet be carried out; this one not.
		c.pending = c.pending[:len(c.pending)-1]
		r.retain()
		r.commit(fx)
	}
	c.askedAt = 0
	r.readTable(fx)
}
