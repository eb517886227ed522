// SPDX-License-Identifier: Apache-2.0

package link

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// Table is who owns which partitions, put together from what several brokers
// tell. Without an update there is one broker, which owns everything and has no
// name. The zero Table is ready.
//
// Apply and Moved must not be called concurrently; all others may be, also with
// them, and take no lock.
type Table struct {
	now atomic.Pointer[snapshot]
}

// snapshot never changes.
type snapshot struct {
	all     []uint16 // all partitions
	shared  int      // how many of them, the first ones, are drawn from
	brokers []TableBroker
	owners  []TableOwner // by partition
	// placed are the cells that were told, by tenant, and placements counts how often
	// some were.
	placed     map[string]TableCell
	placements uint64
	// drawn is what was drawn from all and shared: a cell to its list.
	drawn *sync.Map
}

// drawnCell is the key of drawn.
type drawnCell struct {
	tenant string
	m      int
}

// load returns the present state, which is empty before the first update.
func (t *Table) load() (s snapshot) {
	if now := t.now.Load(); now != nil {
		s = *now
	}
	return s
}

// Apply takes what a broker told and reports whether anything is different now.
// Of a partition the higher epoch holds, whoever told it, and of equal ones the
// later. The brokers are always those that were told last. Of a tenant's cell the higher
// revision holds; a broker that knows no cells says nothing of them.
func (t *Table) Apply(u *TableUpdate) (changed bool) {
	if u.Partitions <= 0 || u.Partitions > MaxPartitions {
		return false
	}
	old, copied := t.load(), false
	next := &old
	if len(old.all) != u.Partitions {
		changed = true
		owners := make([]TableOwner, u.Partitions)
		next.all, next.shared, next.drawn = make([]uint16, u.Partitions), u.Partitions, &sync.Map{}
		for i := range next.all {
			next.all[i], owners[i].Partition = uint16(i), uint16(i)
		}
		copy(owners, next.owners)
		next.owners, copied = owners, true
	}
	if u.Shared > 0 && u.Shared <= u.Partitions && u.Shared != next.shared {
		next.shared, next.drawn, changed = u.Shared, &sync.Map{}, true
	}
	if next.place(u.Cells) {
		changed = true
	}
	if !slices.Equal(old.brokers, u.Brokers) {
		changed = true
		next.brokers = slices.Clone(u.Brokers)
	}
	for _, o := range u.Owners {
		if int(o.Partition) >= u.Partitions || o.Epoch < next.owners[o.Partition].Epoch || o == next.owners[o.Partition] {
			continue
		}
		if !copied {
			next.owners, copied = slices.Clone(next.owners), true
		}
		next.owners[o.Partition], changed = o, true
	}
	if changed {
		t.now.Store(next)
	}
	return changed
}

// place takes the cells that were told, and reports whether any is new.
func (s *snapshot) place(cells []TableCell) (changed bool) {
	for _, c := range cells {
		if c.Revision <= s.placed[c.Tenant].Revision {
			continue
		}
		if !changed {
			placed := make(map[string]TableCell, len(s.placed)+1)
			maps.Copy(placed, s.placed)
			s.placed, changed = placed, true
			s.placements++
		}
		s.placed[c.Tenant] = c
	}
	return changed
}

// Cell returns the partitions of a tenant whose plan gave it m, 0 for all, and the
// revision of what was told of it, 0 if nothing was. Before the first update there are
// none. The list is not changed.
func (t *Table) Cell(tenant string, m int) (list []uint16, revision uint64) {
	s := t.load()
	return s.cell(tenant, m)
}

// Placements counts how often newer cells were told: as long as it is the same, so is what
// Cell returns of every tenant that was told of.
func (t *Table) Placements() uint64 {
	if now := t.now.Load(); now != nil {
		return now.placements
	}
	return 0
}

func (s *snapshot) cell(tenant string, m int) (list []uint16, revision uint64) {
	placed := s.placed[tenant]
	if n := len(placed.Partitions); n > 0 && int(placed.Partitions[n-1]) < len(s.all) {
		return placed.Partitions, placed.Revision
	}
	if m <= 0 || m >= s.shared {
		return s.all[:s.shared], placed.Revision
	}
	key := drawnCell{tenant, m}
	if list, ok := s.drawn.Load(key); ok {
		return list.([]uint16), placed.Revision
	}
	list = Cell(tenant, m, s.all[:s.shared])
	s.drawn.Store(key, list)
	return list, placed.Revision
}

// Moved takes what a broker answered that does not serve a partition, and reports
// whether the table had an older entry of it. An entry of the same epoch stays: the
// owner may not have begun to serve, and only its own table says more.
func (t *Table) Moved(m *Moved) (changed bool) {
	old := t.load()
	if int(m.Partition) >= len(old.owners) || m.Epoch <= old.owners[m.Partition].Epoch {
		return false
	}
	next := &old
	next.owners = slices.Clone(old.owners)
	next.owners[m.Partition] = TableOwner{Partition: m.Partition, Epoch: m.Epoch, Broker: m.Broker}
	t.now.Store(next)
	return true
}

// Owner returns the broker that owns the partition of a client, with that and the
// epoch of its entry; m is as for Cell. ok is false if nobody does, as far as is known. Before the
// first update it is the broker without a name.
func (t *Table) Owner(tenant string, m int, clientID string) (broker string, partition uint16, epoch uint64, ok bool) {
	s := t.load()
	if len(s.all) == 0 {
		return "", 0, 0, true
	}
	list, _ := s.cell(tenant, m)
	partition = Choose(list, clientID)
	broker, epoch, ok = s.owner(partition)
	return broker, partition, epoch, ok
}

// OwnerOf is Owner for a partition.
func (t *Table) OwnerOf(partition uint16) (broker string, epoch uint64, ok bool) {
	s := t.load()
	if len(s.all) == 0 {
		return "", 0, true
	}
	return s.owner(partition)
}

func (s *snapshot) owner(partition uint16) (broker string, epoch uint64, ok bool) {
	if int(partition) >= len(s.owners) {
		return "", 0, false
	}
	o := &s.owners[partition]
	return o.Broker, o.Epoch, o.Broker != ""
}

// Owns reports whether the broker of that name owns a partition.
func (t *Table) Owns(broker string) bool {
	return slices.ContainsFunc(t.load().owners, func(o TableOwner) bool { return o.Broker == broker && broker != "" })
}

// Keeps reports whether the broker of that name owns a partition that it is not about to
// give up because it drains.
func (t *Table) Keeps(broker string) bool {
	return slices.ContainsFunc(t.load().owners, func(o TableOwner) bool { return o.Broker == broker && broker != "" && !o.Draining })
}

// Partitions is how many there are, 0 before the first update.
func (t *Table) Partitions() int { return len(t.load().all) }

// Address returns where the broker of that name accepts links; ok is false if it
// does not.
func (t *Table) Address(broker string) (address string, ok bool) {
	for _, b := range t.load().brokers {
		if b.Name == broker {
			return b.Address, true
		}
	}
	return "", false
}

// Brokers returns those that accept links from gateways. It must not be changed.
func (t *Table) Brokers() []TableBroker { return t.load().brokers }
