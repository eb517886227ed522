// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"maps"
	"slices"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// A tenant that goes to other partitions with what it has stands still meanwhile
// (docs/adr/0037). Its connections are let go of, as where a partition moves, and are opened
// again where their sessions are then; nothing of it is due; and when no publish of it is
// under way anywhere any more, its sessions cannot change. So it does not matter how often
// one is handed over, nor that there are two of it for a while.

// stopMost is for how long a tenant that moves waits for its clients to be quiet: those that
// are not are closed with 0x9D, so that they come back.
const stopMost = 3 * time.Second

// Relocation is how far a broker is with a tenant that moves.
type Relocation struct {
	// Revision and Stage are of the record that the broker knows.
	Revision uint64
	Stage    Stage
	// Quiet: the tenant has no connections here, and nothing that it has published is under
	// way. Flown counts what it has published to other partitions since the broker was
	// started: of two looks at a quiet broker that have the same, it was quiet between them.
	Quiet bool
	Flown int64
	// Behind: a partition is served here that is not Stopped. It may be another broker's,
	// which this one has not heard: then nothing that it writes is committed.
	Behind bool
	// Stopped are the partitions of both lists that are served here and have the record
	// in their log; Empty those of them that have nothing left that belongs to another.
	// Of a tenant that is Arriving they have taken up what they were handed.
	Stopped, Empty []partition.ID
	// Routes is the digest of the routes to the list's partitions that the broker knows, of a
	// tenant that is Arriving (route.Tenant.Digest).
	Routes uint64
	// Course is what is decided of a tenant that is Leaving, if this broker knows.
	Course Course
	// Sessions and Retained count what is left to be handed.
	Sessions, Retained int
	// Plan is how many partitions the tenant's plan has, 0 for all, as the last of its clients
	// that has come said it; -1 if none has.
	Plan int
}

// Relocate has what the tenant has here stop, if it is Leaving, and says how far that is.
// It is asked again and again. If hand is the revision of the record it hands over what belongs
// to others: who says so knows that Onward is decided for that, and has seen that all partitions
// of both lists are stopped (Mover); 0 is no record's. A question that comes late, of an
// earlier record, hands over nothing. done is called once, by any goroutine, in the turn of a shard.
func (st *Set) Relocate(tenant string, hand uint64, done func(Relocation)) {
	t := st.Tenant(tenant)
	c := t.cell.Load()
	r := &Relocation{Revision: c.revision, Stage: c.stage, Quiet: true, Plan: int(t.plan.Load()) - 1}
	if st.cluster == nil {
		done(*r)
		return
	}
	var look func(at int)
	look = func(at int) {
		if at == len(st.shards) {
			r.Quiet = r.Quiet && t.flying.Load() == 0
			r.Flown = t.flown.Load()
			if c.stage == Arriving {
				r.Routes = t.routes.Digest(c.list)
			}
			slices.Sort(r.Stopped)
			slices.Sort(r.Empty)
			done(*r)
			return
		}
		s := st.shards[at]
		s.call(func() {
			s.relocate(t, hand != 0 && hand == r.Revision, r)
			look(at + 1)
		})
	}
	look(0)
}

// stopping is a tenant that is about to stand still, in a shard.
type stopping struct {
	revision uint64
	began    int64
}

func (s *Shard) relocate(t *Tenant, hand bool, r *Relocation) {
	c := t.cell.Load()
	if c.revision != r.Revision || c.stage == Settled {
		r.Quiet = false // it is asked about another record
		return
	}
	if c.stage == Leaving {
		s.sayCourse(t, c, r)
		s.stop(t, c, r)
	}
	if !r.Quiet {
		return
	}
	for _, id := range s.both(c) {
		p := s.spaces[id]
		if p == nil {
			continue
		}
		if p.ceding != nil {
			r.Behind = true
			continue
		}
		if p.stopped[t] != c.revision {
			r.Behind = true
			if c.stage == Leaving && p.stops[t] != c.revision {
				s.keepStopped(t, p, c.revision)
			}
			continue
		}
		r.Stopped = append(r.Stopped, id)
		if c.stage == Leaving && !s.leaves(t, c, p, hand, r) {
			continue
		}
		r.Empty = append(r.Empty, id)
	}
}

// both are the partitions of this shard that a tenant is in, or goes to.
func (s *Shard) both(c *cell) (out []partition.ID) {
	for _, id := range slices.Concat(c.list, c.to) {
		if s.set.shardOf(id) == s && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// keepStopped has a partition keep the record of a tenant that moves, behind all that it
// has written for it: then its next owner begins with that.
func (s *Shard) keepStopped(t *Tenant, p *space, revision uint64) {
	if p.stops == nil {
		p.stops = make(map[*Tenant]uint64)
	}
	p.stops[t] = revision
	s.keepCell(t, p)
	s.wait(p.ledger, waiter{after: func() { p.stop(t, revision) }})
}

// stop notes that the record of a tenant that moves is committed in the partition.
func (p *space) stop(t *Tenant, revision uint64) {
	if p.stopped == nil {
		p.stopped = make(map[*Tenant]uint64)
	}
	p.stopped[t] = max(p.stopped[t], revision)
}

// stop lets go of the connections of a tenant as they become quiet, and notes what is not.
func (s *Shard) stop(t *Tenant, c *cell, r *Relocation) {
	x := s.stops[t]
	if x == nil || x.revision != c.revision {
		if s.stops == nil {
			s.stops = make(map[*Tenant]*stopping)
		}
		x = &stopping{c.revision, s.now}
		s.stops[t] = x
	}
	var open []*sess
	for _, head := range s.sessions[t] {
		for _, se := range head.all() {
			if se.ch != nil {
				open = append(open, se)
			}
		}
	}
	s.orderSessions(open)
	if len(open) > 0 {
		r.Quiet = false
		s.stopSessions(open, s.now-x.began)
	}
	for i := range s.pending {
		if q := &s.pending[i]; q.tenant == t || q.se != nil && q.se.tenant == t {
			r.Quiet = false
			return
		}
	}
	for _, st := range s.streams {
		if slices.ContainsFunc(st.held, func(f *flight) bool { return f.tenant == t }) {
			r.Quiet = false
			return
		}
	}
}

// stopSessions goes on with sessions that have connections, waited milliseconds after their
// tenant began to stop.
func (s *Shard) stopSessions(open []*sess, waited int64) {
	owed := make(map[*sess]bool) // something that is said when it is committed
	for _, p := range s.spaces {
		for i := range p.ledger.waiters[p.ledger.first:] {
			if se := p.ledger.waiters[p.ledger.first+i].se; se != nil {
				owed[se] = true
			}
		}
	}
	for _, se := range open {
		ch := se.ch
		switch {
		case ch == nil || se.gone || se.space.ceding != nil: // it goes with its partition
		case se.guest:
			s.endGuest(se, guestMoves)
		case !ch.movable() || se.kin != nil || waited > stopMost.Milliseconds():
			s.stats.Unquiet.Add(1)
			s.tell(ch, link.DownFrame{Kind: link.DownClose, Reason: mqtt.ServerMoved, Text: "this tenant goes to other partitions, and the connection was not quiet for long enough to go on; connect again"})
			s.closeChannel(se, &link.Close{Cause: link.CloseLost})
		case ch.token == 0:
			s.hurry(se)
			if len(se.replays) == 0 || waited > cedeSoon.Milliseconds() {
				ch.token, ch.stopped = s.token(se.space), true
				s.tell(ch, link.DownFrame{Kind: link.DownPause, Bytes: ch.token})
			}
		case s.quiet(ch):
			if s.writeAll(se); !owed[se] {
				s.letGo(se)
			}
		}
	}
}

// letGo has a session wait for the connection that it has: its gateway opens that again,
// where the session is when its tenant has arrived.
func (s *Shard) letGo(se *sess) {
	ch := se.ch
	inMax := se.limits.ReceiveMaximum
	if inMax == 0 {
		inMax = 65535
	}
	carried := se.Carry()
	carried.InboundMaximum, carried.Window, carried.Retry = inMax, se.limits.Settings.Inflight, se.limits.Settings.Retry
	if se.Durable() {
		s.carry(se, ch.token, carried, s.now)
	}
	se.ch, ch.sess = nil, nil
	se.Suspend()
	se.tenant.connections.Add(-1)
	se.awaited = &awaited{token: ch.token, since: s.now, until: resumeUntil(s.now, s.now), carried: carried}
	owner, _ := s.set.cluster.Owner(ch.part)
	s.movedTo(ch, owner)
	s.due(se)
}

// lateTick is how often connections are looked at that are paused for a tenant that has stayed.
const lateTick = 10 * time.Millisecond

// letGoLate goes on with the connections that were paused and not let go of when it was decided
// that their tenant stays: as soon as they are quiet they are opened again.
func (s *Shard) letGoLate(t *Tenant, x *stopping) {
	var paused []*sess
	for _, head := range s.sessions[t] {
		for _, se := range head.all() {
			if se.ch != nil && se.ch.stopped {
				paused = append(paused, se)
			}
		}
	}
	if len(paused) == 0 || t.moves() { // if it moves again, that goes on with them
		return
	}
	s.orderSessions(paused)
	s.stopSessions(paused, s.now-x.began)
	s.after(lateTick, func() { s.letGoLate(t, x) })
}

// resumeTenant lets a tenant go on that has arrived.
func (s *Shard) resumeTenant(t *Tenant) {
	if x := s.stops[t]; x != nil && !t.moves() {
		s.letGoLate(t, x)
	}
	delete(s.stops, t)
	var all []*sess
	for _, head := range s.sessions[t] {
		all = append(all, head)
	}
	s.orderSessions(all)
	settled := !t.moves()
	for _, se := range all {
		switch {
		case !settled || se.gone:
		case se.awaited != nil:
			se.awaited.until = resumeUntil(se.awaited.since, s.now)
			s.due(se)
		case se.Attached() && se.ch == nil:
			s.loseConnection(se) // its last owner has died meanwhile
		default:
			s.due(se)
		}
	}
	if settled {
		s.makeSure(t)
	}
	for _, id := range slices.Sorted(maps.Keys(s.spaces)) {
		if p := s.spaces[id]; p.cells[t] != 0 && settled && p.ceding == nil {
			s.keepCell(t, p)
			s.forgetCourse(t, p)
		}
	}
}
