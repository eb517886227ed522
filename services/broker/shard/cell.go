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

// cell never changes.
type cell struct {
	list     []partition.ID
	revision uint64
	// known says that the list is a record's; else it is what there is to choose from
	// before somebody of the tenant has come.
	known bool
}

// settle takes a newer record of the cell. Without a list it is what the plan has, which
// who comes next says.
func (t *Tenant) settle(list []partition.ID, revision uint64) {
	for {
		old := t.cell.Load()
		if revision < old.revision || revision == old.revision && (old.known || list == nil) {
			return
		}
		now := &cell{list: list, revision: revision, known: list != nil}
		if list == nil {
			now.list = old.list
		}
		if t.cell.CompareAndSwap(old, now) {
			return
		}
	}
}

// SetCell takes a record of a tenant's cell; see Cluster.Cell. An older one than what is
// known says nothing.
func (st *Set) SetCell(tenant string, list []partition.ID, revision uint64) {
	st.mu.RLock()
	t := st.mu.tenants[tenant]
	st.mu.RUnlock()
	if t != nil { // else it is asked for when it is made
		t.settle(list, revision)
	}
}

// closure says until when nobody of a tenant is let in, in Unix milliseconds, and for whom.
type closure struct {
	by    string
	until int64
}

func (t *Tenant) isHeld(now int64) bool {
	h := t.held.Load()
	return h != nil && now < h.until
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
	c := t.cell.Load()
	if st.cluster != nil && !c.known && o.Partitions > 0 {
		if list, revision := st.cluster.Place(t.id, int(o.Partitions)); revision > 0 {
			t.settle(list, revision)
			c = t.cell.Load()
		}
	}
	return c.list
}

// mislaid reports whether who comes by ch belongs elsewhere, or cannot be told where,
// and has the gateway hear of it.
func (s *Shard) mislaid(ch *Channel, o *link.Open) bool {
	if s.set.cluster == nil || o.Labels.Listener == link.ListenerAPI && o.SessionExpiry == 0 {
		return false
	}
	t := ch.tenant
	part := s.set.partOf(t, o)
	if o.Placement > t.cell.Load().revision || t.isHeld(s.now) {
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
	value := binary.BigEndian.AppendUint64(nil, c.revision)
	for _, id := range c.list {
		value = binary.BigEndian.AppendUint16(value, uint16(id))
	}
	s.batch(p).Put(partition.KeyNamed(nil, p.id, partition.KindCell, t.id, ""), value)
}

// restoreCells reads what keepCell wrote.
func (s *Shard) restoreCells(p *space) error {
	if s.set.cluster == nil {
		return nil
	}
	return s.scan(p, partition.KindCell, func(key, value []byte) error {
		tenant, _, err := partition.SplitNamed(key)
		if err != nil || len(value) < 10 || len(value)%2 != 0 {
			return partition.ErrBadKey
		}
		var list []partition.ID
		for b := value[8:]; len(b) > 0; b = b[2:] {
			list = append(list, partition.ID(binary.BigEndian.Uint16(b)))
		}
		t, revision := s.set.Tenant(tenant), binary.BigEndian.Uint64(value)
		t.settle(list, revision)
		if p.cells == nil {
			p.cells = make(map[*Tenant]uint64)
		}
		p.cells[t] = revision
		return nil
	})
}

// astray reports whether a session that a partition has is a guest's, which belongs to
// another. One that outlives its connection never is.
func astray(t *Tenant, p partition.ID, client string, durable bool) bool {
	return !durable && partition.Choose(t.parts(), client) != p
}
