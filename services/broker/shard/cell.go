// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// A tenant lives in a cell, a list of partitions (docs/adr/0031). A client belongs to one
// of them by its id, a retained message by its topic. Whoever serves a partition looks
// itself, in the turn in which a client comes, whether that is the right one.

// Stage is how far a tenant is on its way to other partitions, with what it has
// (docs/adr/0037).
type Stage uint8

// The stages. Nobody of a tenant that is not Settled is let in.
const (
	// Settled: it does not move.
	Settled Stage = iota
	// Leaving: its partitions hand what does not belong to them any more to others.
	Leaving
	// Arriving: all is handed over, and is taken up.
	Arriving
)

// Cell is the record of a tenant's partitions. It is not changed.
type Cell struct {
	// List are the partitions, nil for those that the plan has. While the tenant is
	// Leaving they are those that it leaves, and To where it goes.
	List, To []partition.ID
	Stage    Stage
	// Revision tells which of two records is the newer one; 0 is no record.
	Revision uint64
}

// cell never changes.
type cell struct {
	list, to []partition.ID
	stage    Stage
	revision uint64
	// known says that the list is a record's; else it is what there is to choose from
	// before somebody of the tenant has come. renewed: it was another record's before.
	known, renewed bool
}

// settle takes a newer record of the cell, and returns the one before it, or nil if it
// is not newer. Without a list it is what the plan has, which who comes next says.
func (t *Tenant) settle(r Cell) (was *cell) {
	for {
		old := t.cell.Load()
		if r.Revision < old.revision || r.Revision == old.revision && (old.known || r.List == nil) {
			return nil
		}
		now := &cell{list: r.List, to: r.To, stage: r.Stage, revision: r.Revision, known: r.List != nil, renewed: old.known}
		if r.List == nil {
			now.list = old.list
		}
		if t.cell.CompareAndSwap(old, now) {
			return old
		}
	}
}

// SetCell takes a record of a tenant's cell; see Cluster.Cell. An older one than what is
// known says nothing.
func (st *Set) SetCell(tenant string, c Cell) {
	st.mu.RLock()
	t := st.mu.tenants[tenant]
	st.mu.RUnlock()
	if t != nil { // else it is asked for when it is made
		st.settled(t, c)
	}
}

// settled takes a record of a tenant's cell, and has the shards do what follows of it.
func (st *Set) settled(t *Tenant, c Cell) {
	was := t.settle(c)
	if was == nil || c.Stage == Leaving {
		return
	}
	for _, s := range st.shards {
		s.call(func() {
			s.arrive(t)
			if was.stage != Settled {
				s.resumeTenant(t)
			}
			s.makeSure(t)
		})
	}
}

// makeSure has nobody of a tenant that is Settled be let in by partitions that have not taken part
// in its arrival, until they have committed its record: they may be another broker's by now, which
// this one has not heard, and lack what was handed to that. Who is about to let somebody in calls
// it first: the record is known to all shards at once, in the middle of their turns.
func (s *Shard) makeSure(t *Tenant) {
	c := t.cell.Load()
	if c.stage != Settled || c.revision <= 1 || !c.renewed || s.sure[t] == c.revision {
		return
	}
	if s.sure == nil {
		s.sure = make(map[*Tenant]uint64)
	}
	s.sure[t] = c.revision
	for _, id := range s.both(c) {
		p := s.spaces[id]
		if p == nil || p.ceding != nil || p.stopped[t]+1 >= c.revision || p.unsure[t] == c.revision {
			continue
		}
		if p.unsure == nil {
			p.unsure = make(map[*Tenant]uint64)
		}
		p.unsure[t] = c.revision
		s.keepCell(t, p)
		s.wait(p.ledger, waiter{after: func() {
			if p.unsure[t] == c.revision {
				delete(p.unsure, t)
			}
		}})
	}
}

// moves reports whether nobody of the tenant is let in because it goes to other partitions.
func (t *Tenant) moves() bool { return t.cell.Load().stage != Settled }

// closure says until when nobody of a tenant is let in, in Unix milliseconds, and for whom.
type closure struct {
	by    string
	until int64
}

func (t *Tenant) isHeld(now int64) bool {
	h := t.held.Load()
	return h != nil && now < h.until || t.moves()
}

// Hold lets nobody of a tenant in for a time: who comes is sent to the partition again,
// and waits at its gateway. It reports false if that is so already for another than by.
func (st *Set) Hold(tenant, by string, d time.Duration) bool {
	t, now := st.Tenant(tenant), st.now()
	for {
		old := t.held.Load()
		if old != nil && old.by != by && now < old.until {
			return false
		}
		if t.held.CompareAndSwap(old, &closure{by, now + d.Milliseconds()}) {
			return true
		}
	}
}

// Release ends what Hold has begun for by.
func (st *Set) Release(tenant, by string) {
	t := st.Tenant(tenant)
	if old := t.held.Load(); old != nil && old.by == by {
		t.held.CompareAndSwap(old, nil)
	}
}

// cellFor is the cell of a tenant of whom somebody comes.
func (st *Set) cellFor(t *Tenant, o *link.Open) []partition.ID {
	if plan := int64(o.Partitions) + 1; t.plan.Load() != plan {
		t.plan.Store(plan)
	}
	c := t.cell.Load()
	if st.cluster != nil && !c.known && o.Partitions > 0 {
		if r := st.cluster.Place(t.id, int(o.Partitions)); r.Revision > 0 {
			st.settled(t, r)
			c = t.cell.Load()
		}
	}
	return c.list
}

// mislaid reports whether who comes by ch belongs elsewhere, or cannot be told where,
// and has the gateway hear of it.
func (s *Shard) mislaid(ch *Channel, o *link.Open) bool {
	if s.set.cluster == nil {
		return false
	}
	t := ch.tenant
	api := o.Labels.Listener == link.ListenerAPI && o.SessionExpiry == 0
	part := ch.part
	if !api {
		part = s.set.partOf(t, o)
	}
	s.makeSure(t)
	p := s.spaces[part]
	if !api && (o.Placement > t.cell.Load().revision || p != nil && p.unsure[t] != 0) || t.isHeld(s.now) {
		owner, _ := s.set.cluster.Owner(part)
		ch.part = part
		s.movedTo(ch, owner)
		return true
	}
	if part != ch.part {
		ch.part = part
		s.elsewhere(ch)
		return true
	}
	return false
}

// elsewhere tells a gateway where a client belongs that is not connected yet. One that
// knows no cells would bring it here again and again: it is refused.
func (s *Shard) elsewhere(ch *Channel) {
	if ch.link.features&link.FeatureCells != 0 || !ch.tenant.cell.Load().known {
		s.moved(ch)
		return
	}
	s.stats.Refused.Add(1)
	ch.link.forget(ch)
	s.tell(ch, link.DownFrame{Kind: link.DownRefused, Reason: mqtt.ServerUnavailable, Text: "this tenant has partitions of its own, which this gateway is too old to find: update it"})
}

// keepCell has a partition keep the cell of a tenant that has something in it, so that
// its next owner knows it whatever else that has heard.
func (s *Shard) keepCell(t *Tenant, p *space) {
	c := t.cell.Load()
	if s.set.cluster == nil || !c.known || p.cells[t] == c.revision {
		return
	}
	if p.cells == nil {
		p.cells = make(map[*Tenant]uint64)
	}
	p.cells[t] = c.revision
	s.batch(p).Put(partition.KeyNamed(nil, p.id, partition.KindCell, t.id, ""), c.append(nil))
}

// movingBits are those of the revision in a stored cell that hold its stage.
const movingBits = 62

// append encodes the cell: revision u64, whose highest two bits are the stage; for one
// that is Leaving the length of the list To, u16, and that; then the list, u16 each.
func (c *cell) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, c.revision|uint64(c.stage)<<movingBits)
	if c.stage == Leaving {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(c.to)))
		for _, id := range c.to {
			dst = binary.BigEndian.AppendUint16(dst, uint16(id))
		}
	}
	for _, id := range c.list {
		dst = binary.BigEndian.AppendUint16(dst, uint16(id))
	}
	return dst
}

// parseCell reads what append wrote.
func parseCell(b []byte) (c Cell, err error) {
	if len(b) < 10 || len(b)%2 != 0 {
		return c, partition.ErrBadKey
	}
	c.Revision = binary.BigEndian.Uint64(b)
	c.Stage = Stage(c.Revision >> movingBits)
	c.Revision &= 1<<movingBits - 1
	b = b[8:]
	list := func(b []byte) (out []partition.ID) {
		for ; len(b) > 0; b = b[2:] {
			out = append(out, partition.ID(binary.BigEndian.Uint16(b)))
		}
		return out
	}
	if c.Stage == Leaving {
		n := 2 * int(binary.BigEndian.Uint16(b))
		if b = b[2:]; n == 0 || n >= len(b) {
			return c, partition.ErrBadKey
		}
		c.To, b = list(b[:n]), b[n:]
	}
	if c.Stage > Arriving {
		return c, partition.ErrBadKey
	}
	c.List = list(b)
	return c, nil
}

// restoreCells reads what keepCell wrote.
func (s *Shard) restoreCells(p *space) error {
	if s.set.cluster == nil {
		return nil
	}
	return s.scan(p, partition.KindCell, func(key, value []byte) error {
		tenant, _, err := partition.SplitNamed(key)
		var c Cell
		if err == nil {
			c, err = parseCell(value)
		}
		if err != nil {
			return err
		}
		t := s.set.Tenant(tenant)
		s.set.settled(t, c)
		if c.Stage != Arriving { // else when it has taken up all: its last owner may have written the record before
			p.stop(t, c.Revision)
		}
		if p.cells == nil {
			p.cells = make(map[*Tenant]uint64)
		}
		p.cells[t] = c.Revision
		return nil
	})
}

// astray reports whether a session that a partition has is a guest's, which belongs to
// another. One that outlives its connection never is.
func astray(t *Tenant, p partition.ID, client string, durable bool) bool {
	return !durable && partition.Choose(t.parts(), client) != p
}
