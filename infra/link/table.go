// SPDX-License-Identifier: Apache-2.0

package link

import (
	"slices"
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
	cell    []uint16 // all partitions: for now every tenant's
	brokers []TableBroker
	owners  []TableOwner // by partition
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
// later. The brokers are always those that were told last.
func (t *Table) Apply(u *TableUpdate) (changed bool) {
	if u.Partitions <= 0 || u.Partitions > MaxPartitions {
		return false
	}
	old := t.load()
	next := &snapshot{cell: old.cell, brokers: old.brokers, owners: old.owners}
	if len(old.cell) != u.Partitions {
		changed = true
		next.cell, next.owners = make([]uint16, u.Partitions), make([]TableOwner, u.Partitions)
		for i := range next.cell {
			next.cell[i], next.owners[i].Partition = uint16(i), uint16(i)
		}
		copy(next.owners, old.owners)
	}
	if !slices.Equal(old.brokers, u.Brokers) {
		changed = true
		next.brokers = slices.Clone(u.Brokers)
	}
	copied := len(old.cell) != u.Partitions
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

// Moved takes what a broker answered that does not serve a partition, and reports
// whether the table had an older entry of it. An entry of the same epoch stays: the
// owner may not have begun to serve, and only its own table says more.
func (t *Table) Moved(m *Moved) (changed bool) {
	old := t.load()
	if int(m.Partition) >= len(old.owners) || m.Epoch <= old.owners[m.Partition].Epoch {
		return false
	}
	next := &snapshot{cell: old.cell, brokers: old.brokers, owners: slices.Clone(old.owners)}
	next.owners[m.Partition] = TableOwner{Partition: m.Partition, Epoch: m.Epoch, Broker: m.Broker}
	t.now.Store(next)
	return true
}

// Owner returns the broker that owns the partition of a client, with that and the
// epoch of its entry. ok is false if nobody does, as far as is known. Before the
// first update it is the broker without a name.
func (t *Table) Owner(clientID string) (broker string, partition uint16, epoch uint64, ok bool) {
	s := t.load()
	if len(s.cell) == 0 {
		return "", 0, 0, true
	}
	partition = Choose(s.cell, clientID)
	broker, epoch, ok = s.owner(partition)
	return broker, partition, epoch, ok
}

// OwnerOf is Owner for a partition.
func (t *Table) OwnerOf(partition uint16) (broker string, epoch uint64, ok bool) {
	s := t.load()
	if len(s.cell) == 0 {
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
func (t *Table) Partitions() int { return len(t.load().cell) }

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
