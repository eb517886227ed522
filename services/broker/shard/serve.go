// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"log/slog"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/retain"
	"github.com/manormq/manor/services/broker/route/share"
	"github.com/manormq/manor/services/broker/session"
)

// Serve has a partition served here from now on under an epoch: what the store has
// of it is restored. The store has all of it, and no other broker serves it.
func (st *Set) Serve(p partition.ID, epoch uint64) {
	st.moves(p)
	s := st.shardOf(p)
	s.call(func() { s.takeOn(p, epoch) })
}

// Lose says that a partition is not served here any more: it has another owner, or
// none.
func (st *Set) Lose(p partition.ID) {
	st.moves(p)
	s := st.shardOf(p)
	s.call(func() {
		delete(s.taking, p)
		if sp := s.spaces[p]; sp != nil {
			s.lose(sp)
		} else if sp := s.ceded[p]; sp != nil {
			s.lose(sp)
		}
	})
}

// Serves reports whether a partition is served here.
func (st *Set) Serves(p partition.ID) bool {
	return st.cluster == nil || st.tenure(p)&1 != 0
}

// unserve notes that a partition is not served here any more.
func (st *Set) unserve(p partition.ID) {
	st.farGroup.Lock()
	defer st.farGroup.Unlock()
	st.serving[p].Add(1)
}

// tenure counts when a partition came and went: it is odd while it is served here.
func (st *Set) tenure(p partition.ID) uint64 {
	if int(p) >= len(st.serving) {
		return 0
	}
	return st.serving[p].Load()
}

// partOf is the partition of a client. One of the API, whose session ends with its
// channel, is taken by any that is served here.
func (st *Set) partOf(t *Tenant, o *link.Open) partition.ID {
	if o.Guest && st.cluster != nil {
		st.cellFor(t, o)
		return st.guestPart(t, o.ClientID)
	}
	part := partition.Choose(st.cellFor(t, o), string(o.ClientID))
	if st.cluster == nil || o.Labels.Listener != link.ListenerAPI || o.SessionExpiry > 0 || st.Serves(part) {
		return part
	}
	for i := range st.serving {
		if p := (int(part) + i) % len(st.serving); st.Serves(partition.ID(p)) {
			return partition.ID(p)
		}
	}
	return part
}

func (s *Shard) newSpace(id partition.ID, l *ledger) *space {
	p := &space{
		id: id, owner: s, ledger: l,
		queues: queue.NewSpace(s.set.store, id), retain: retain.New(id),
		applied: make(map[partition.ID]uint64),
	}
	if l == nil {
		p.ledger = newLedger(s, p)
	}
	s.spaces[id] = p
	return p
}

func (s *Shard) takeOn(id partition.ID, epoch uint64) {
	if p := s.spaces[id]; p != nil {
		p.epoch = epoch
		return
	}
	if p := s.ceded[id]; p != nil {
		s.lose(p) // it has not been left in time
	}
	// The end of what the last owner wrote may stand here and not be committed: it may
	// still be lost, and its numbers given again. Nothing may come of it before it is
	// certain, and it is when a record of this epoch is committed behind it.
	s.taking[id] = epoch
	began := s.now
	s.set.cluster.Append(id, epoch, new(kv.Batch).Encoded(), func(err error) {
		if err == nil {
			s.call(func() { s.takeUp(id, epoch, began) })
		}
	})
}

// takeUp restores a partition whose records are all committed.
func (s *Shard) takeUp(id partition.ID, epoch uint64, began int64) {
	if s.taking[id] != epoch {
		return // it was lost meanwhile
	}
	delete(s.taking, id)
	s.endGuests(id)
	s.set.cluster.Gaining(id, epoch)
	p := s.newSpace(id, nil)
	p.epoch = epoch
	bySid, err := s.restoreSpace(p)
	p.number = max(p.number, epoch<<numberBits)
	if err == nil {
		err = s.restoreMoving(p, bySid)
	}
	if err == nil {
		err = s.resendOutbox(p)
	}
	if err != nil {
		s.set.log.Error("a partition cannot be read from the store, and is not served", slog.Int("partition", int(id)), slog.Any("error", err))
		s.lose(p)
		return
	}
	s.restoreRetained(p)
	s.arriveAll(p)
	p.taken = true // before wills are sent: what others say of it is a leftover for them too
	for _, se := range s.orderedSessions(bySid) {
		if !se.gone && se.head() && se.awaited == nil && !se.tenant.moves() {
			s.loseConnection(se)
		}
	}
	s.set.serving[id].Add(1)
	s.set.cluster.Gained(id, epoch, func(tenant, filter string) bool { return s.set.has(tenant, filter, id) })
	s.set.log.Debug("a partition is taken up", slog.Int("partition", int(id)), slog.Int("sessions", len(bySid)),
		slog.Int64("committed_ms", s.now-began), slog.Int64("restored_ms", s.set.now()-s.now))
}

// has reports whether a partition that is served here has subscriptions to filter, or
// members of a group.
func (st *Set) has(tenant, filter string, p partition.ID) bool {
	t := st.Tenant(tenant)
	_, rest, shared := topic.CutShare(filter)
	if !shared {
		return t.routes.Has(filter, p)
	}
	if g := t.routes.Group(filter, rest); g != nil {
		n, _, _ := g.Count(uint16(p))
		return n > 0
	}
	return false
}

// lose forgets all that is in memory of a partition, and has its clients come back
// at the owner.
func (s *Shard) lose(p *space) {
	switch p {
	case s.spaces[p.id]:
		delete(s.spaces, p.id)
		if s.set.Serves(p.id) { // else it could not be restored
			s.set.unserve(p.id)
		}
	case s.ceded[p.id]: // it is sealed
		delete(s.ceded, p.id)
	default:
		return
	}
	s.set.cluster.Lost(p.id, p.epoch)
	l := p.ledger
	l.lost = true
	var gone []*sess
	for _, se := range p.heads {
		gone = append(gone, se.all()...)
	}
	s.orderSessions(gone)
	groups := s.farGroups(p, gone)
	for _, se := range gone {
		s.abandon(se)
	}
	for _, g := range groups {
		s.set.cluster.Recheck(g.tenant.id, g.key, p.id)
	}
	s.cedeRetained(p)
	s.set.Tenants(func(id string, t *Tenant) {
		p.retain.Each(id, func(r *retain.Retained) {
			t.retained.Add(-1)
			t.retainedBytes.Add(-int64(r.Message.Size()))
		})
	})
	for _, w := range l.waiters[l.first:] {
		s.forfeit(&w)
	}
	l.waiters, l.first, l.commits, l.touched = nil, 0, nil, nil
	s.forgetKeeps(p.id)
	for key, st := range s.streams {
		if key.origin == p.id {
			s.endStream(st)
		}
	}
	for slot := range s.pending {
		if q := &s.pending[slot]; q.part == p {
			*q = pending{gen: q.gen + 1}
			s.free = append(s.free, uint32(slot))
		}
	}
	if c := p.ceding; c != nil {
		s.set.arriving.Lock()
		delete(s.set.closing, p.id)
		s.set.arriving.Unlock()
		for _, done := range c.done {
			done()
		}
	}
}

// farGroups has the stored members of a partition that is lost here count as far ones, until the
// next owner tells more, and returns their groups. That is before they leave: a publish of
// another shard must find a member in between, too.
func (s *Shard) farGroups(p *space, gone []*sess) []groupOf {
	left := make(map[groupOf]int)
	for _, se := range gone {
		s.eachGroup(se, func(_ *share.Group[*sess], key string) {
			// A connection that goes on takes its session with it.
			if g := (groupOf{se.tenant, key}); se.Durable() || se.awaited != nil || se.ch != nil && se.ch.carried {
				left[g]++
			}
		})
	}
	groups := s.orderedGroups(left)
	for _, g := range groups {
		g.tenant.routes.FarGroup(g.key, shareRest(g.key), p.id, 0, left[g])
	}
	return groups
}

// groupOf is a shared subscription of a tenant.
type groupOf struct {
	tenant *Tenant
	key    string
}

// abandon forgets a session that lives on at another broker.
func (s *Shard) abandon(se *sess) {
	if se.ch != nil {
		s.farewell(se)
		s.unbind(se)
	}
	if a := se.awaited; a != nil {
		s.dropLate(se, a)
	}
	for _, u := range se.byOrder() {
		delete(se.unwritten, u.entry.Seq)
		s.overtake(u)
	}
	for _, sub := range se.Subscriptions() {
		s.forgetRoute(se, sub.Filter)
	}
	se.gone = true
	se.tenant.all.Add(-1)
	se.uncount()
	s.remove(se)
	s.due(se)
}

// forfeit goes on with what waits for a commit that will not come from here.
func (s *Shard) forfeit(w *waiter) {
	switch {
	case w.lost != nil:
		w.lost()
	case w.se != nil, w.after != nil:
		// The session is gone, and comes back elsewhere with what was committed.
	case w.parcel != nil:
		s.refuse(w.parcel)
		s.arrived(w.parcel)
	case w.deferred != nil:
		s.overtake(w.deferred)
	case w.flight != nil:
		s.sendElsewhere(w.flight)
	default:
		// It is the partition of the publisher itself.
	}
}

// overtake has the new owner of its partition get an unwritten delivery.
func (s *Shard) overtake(u *unwritten) {
	u.over = true
	if u.parcel != nil {
		s.refuse(u.parcel)
		s.arrived(u.parcel)
		return
	}
	if u.flight != nil {
		s.sendElsewhere(u.flight)
	}
}

// sendElsewhere has the new owner of a partition get what was not written here. Of
// several that wait for that, one goes on to wait.
func (s *Shard) sendElsewhere(f *flight) {
	if f.stream != nil {
		s.answered(f.slot, f.gen, mqtt.Success, false)
		return
	}
	s.holdBack(f)
}

// loseConnection ends the connections that the sessions of a client id had when
// they were served last.
func (s *Shard) loseConnection(se *sess) {
	se = s.loseKin(se)
	if se.Attached() {
		se.disconnectedAt = s.now
		s.step(se, &session.Event{Kind: session.Detach, Cause: session.Lost}, nil)
	}
	s.watch(se)
	s.due(se)
}

// moved tells a gateway that the partition of a client is served elsewhere.
func (s *Shard) moved(ch *Channel) {
	owner, _ := s.set.cluster.Owner(ch.part)
	if owner == s.set.cluster.Self() {
		owner = "" // not yet, or not any more
	}
	s.movedTo(ch, owner)
}

// movedTo is moved with the owner that the gateway hears of.
func (s *Shard) movedTo(ch *Channel, owner string) {
	_, epoch := s.set.cluster.Owner(ch.part)
	ch.link.forget(ch)
	s.tell(ch, link.DownFrame{Kind: link.DownMoved, Moved: &link.Moved{Partition: uint16(ch.part), Epoch: epoch, Broker: owner}})
}

// tellRoute has the other brokers know of a subscription, if it is the first to its
// filter in the partition, and the SUBACK wait until they do.
func (s *Shard) tellRoute(se *sess, filter string, first bool) {
	if s.set.cluster == nil {
		return
	}
	reached := s.onRoutes()
	switch {
	case first:
		s.set.cluster.AddRoute(se.tenant.id, filter, se.space.id, se.space.epoch, reached)
	case reached != nil:
		s.set.cluster.AwaitRoute(se.tenant.id, filter, se.space.id, reached)
	}
}

// onRoutes is what the SUBACK that is being made waits for, nil without one.
func (s *Shard) onRoutes() func() {
	h := s.holding
	if h == nil {
		return nil
	}
	h.left++
	return func() { s.call(func() { s.reached(h) }) }
}

// FarRoute says whether a partition has subscriptions to a filter, wherever it is
// served.
func (st *Set) FarRoute(tenant, filter string, p partition.ID, present bool) {
	if int(p) < len(st.serving) {
		st.Tenant(tenant).routes.Far(filter, p, present)
	}
}

// FarGroup says how many members of a shared subscription a partition has, wherever
// it is served.
func (st *Set) FarGroup(tenant, key string, p partition.ID, online, durable int) {
	if int(p) >= len(st.serving) {
		return
	}
	st.farGroup.Lock()
	defer st.farGroup.Unlock()
	if st.Serves(p) {
		online, durable = 0, 0 // what is here counts, and nothing from before
	}
	st.Tenant(tenant).routes.FarGroup(key, shareRest(key), p, online, durable)
}

// hold is a SUBACK that waits until the other brokers know of its routes.
type hold struct {
	left int
	w    *waiter // once it is committed
}

func (s *Shard) reached(h *hold) {
	if h.left--; h.left == 0 && h.w != nil {
		s.resume(h.w)
	}
}

// tellGroup has the other brokers know what members a partition has of a group.
func (s *Shard) tellGroup(se *sess, key string) {
	if s.set.cluster == nil || se.space.ledger.lost {
		return
	}
	_, rest, _ := topic.CutShare(key)
	members, online, durable := 0, 0, 0
	if g := se.tenant.routes.Group(key, rest); g != nil {
		members, online, durable = g.Count(uint16(se.space.id))
	}
	s.set.cluster.SetGroup(se.tenant.id, key, se.space.id, se.space.epoch, members, online, durable)
	if reached := s.onRoutes(); reached != nil {
		s.set.cluster.AwaitRoute(se.tenant.id, key, se.space.id, reached)
	}
}
