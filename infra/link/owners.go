// SPDX-License-Identifier: Apache-2.0

package link

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/wire"
)

// TableUpdate is what a broker tells of the partition table.
type TableUpdate struct {
	// Partitions is how many the region has, at most 32,768; each partition of
	// Owners is below it. 0 is of a broker that does not know yet.
	Partitions int
	// Brokers are all that accept links from gateways, not only what changed. They
	// and the other owners are fewer than 32,767.
	Brokers []TableBroker
	// Owners may be those only that have changed.
	Owners []TableOwner
	// Shared is how many of the partitions, the first ones, a tenant may have of whom
	// nothing else is said, 1 to Partitions; 0 is of a broker that knows no cells.
	Shared int
	// Cells are those that were not drawn (see Cell): all, or those that have changed.
	// Without Shared there are none.
	Cells []TableCell
}

// TableCell says which partitions a tenant has.
type TableCell struct {
	Tenant string
	// Revision orders what is said of a tenant: the higher one holds.
	Revision uint64
	// Partitions are in order, each below that of the update; none has the tenant be drawn
	// again.
	Partitions []uint16
}

// MaxPartitions is the most that a table may have.
const MaxPartitions = 1 << 15

// TableBroker is a broker that accepts links from gateways.
type TableBroker struct {
	Name    string // the node's, as in its certificate; never empty
	Address string // host:port of its listener for links
}

// TableOwner says who owns a partition.
type TableOwner struct {
	Partition uint16
	// Epoch is that of the partition's entry in the table: of two that were told
	// the higher one holds, and of equal ones the later.
	Epoch uint64
	// Broker owns it; empty is nobody.
	Broker string
	// Draining says that the owner is about to hand it over.
	Draining bool
}

// Moved says that a broker does not serve a client's partition, or no longer.
type Moved struct {
	Partition uint16
	// Epoch and Broker are the entry of the partition as far as the broker knows:
	// epoch 0 is none, and an empty name nobody.
	Epoch  uint64
	Broker string
}

// The owner of a partition on the wire is an index with this bit for draining;
// nobody has the index that is left.
const (
	ownerDraining = 1 << 15
	ownerNobody   = ownerDraining - 1
)

// tableEntry is the size of a partition on the wire.
const tableEntry = 2 + 2 + 8

// appendTable appends
//
//	partitions u16 | brokers: count uvarint, (name, address) | others: count uvarint, name |
//	[shared u16 | cells: count uvarint, (tenant, revision u64, partitions: count uvarint, u16)] |
//	owners: (partition u16 | owner u16 | epoch u64)
//
// where others are the owners that are not among the brokers, and owner is an
// index into brokers and then others.
func appendTable(dst []byte, t *TableUpdate) []byte {
	var flags byte
	if t.Shared > 0 {
		flags = flagYes
	}
	dst, body := open(dst, wireTable, flags, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(t.Partitions))
	index := make(map[string]uint16, len(t.Brokers))
	dst = binary.AppendUvarint(dst, uint64(len(t.Brokers)))
	for i, b := range t.Brokers {
		if _, twice := index[b.Name]; !twice {
			index[b.Name] = uint16(i)
		}
		dst = wire.AppendBytes(wire.AppendBytes(dst, b.Name), b.Address)
	}
	var others []string
	for i := range t.Owners {
		name := t.Owners[i].Broker
		if _, known := index[name]; !known && name != "" {
			index[name] = uint16(len(t.Brokers) + len(others))
			others = append(others, name)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(others)))
	for _, name := range others {
		dst = wire.AppendBytes(dst, name)
	}
	if t.Shared > 0 {
		dst = appendCells(dst, t)
	}
	for i := range t.Owners {
		o := &t.Owners[i]
		owner := uint16(ownerNobody)
		if o.Broker != "" {
			owner = index[o.Broker]
		}
		if o.Draining {
			owner |= ownerDraining
		}
		dst = binary.BigEndian.AppendUint16(dst, o.Partition)
		dst = binary.BigEndian.AppendUint16(dst, owner)
		dst = binary.BigEndian.AppendUint64(dst, o.Epoch)
	}
	return wire.ShutFrame(dst, body)
}

func appendCells(dst []byte, t *TableUpdate) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(t.Shared))
	dst = binary.AppendUvarint(dst, uint64(len(t.Cells)))
	for i := range t.Cells {
		c := &t.Cells[i]
		dst = wire.AppendBytes(dst, c.Tenant)
		dst = binary.BigEndian.AppendUint64(dst, c.Revision)
		dst = binary.AppendUvarint(dst, uint64(len(c.Partitions)))
		for _, p := range c.Partitions {
			dst = binary.BigEndian.AppendUint16(dst, p)
		}
	}
	return dst
}

// cells reads what appendCells wrote.
func (r *reader) cells(t *TableUpdate) {
	t.Shared = int(r.U16())
	r.Bad = r.Bad || t.Shared == 0 || t.Shared > t.Partitions
	for range r.Length(cellLeast) {
		c := TableCell{Tenant: r.String(), Revision: r.U64()}
		for range r.Length(2) {
			p := r.U16()
			r.Bad = r.Bad || int(p) >= t.Partitions
			c.Partitions = append(c.Partitions, p)
		}
		t.Cells = append(t.Cells, c)
	}
}

// cellLeast is the least that a cell takes on the wire.
const cellLeast = 1 + 8 + 1

// table reads what appendTable wrote.
func (r *reader) table(flags byte) *TableUpdate {
	t := &TableUpdate{Partitions: int(r.U16())}
	var names []string
	for range r.Length(2) {
		b := TableBroker{Name: r.String(), Address: r.String()}
		r.Bad = r.Bad || b.Name == ""
		t.Brokers, names = append(t.Brokers, b), append(names, b.Name)
	}
	for range r.Length(1) {
		name := r.String()
		r.Bad = r.Bad || name == ""
		names = append(names, name)
	}
	if flags&flagYes != 0 {
		r.cells(t)
	}
	r.Bad = r.Bad || len(r.Data)%tableEntry != 0 || len(names) >= ownerNobody || t.Partitions > MaxPartitions
	if r.Bad || len(r.Data) == 0 {
		return t
	}
	t.Owners = make([]TableOwner, 0, len(r.Data)/tableEntry)
	for len(r.Data) > 0 {
		o := TableOwner{Partition: r.U16()}
		owner := r.U16()
		o.Draining, o.Epoch = owner&ownerDraining != 0, r.U64()
		switch at := int(owner &^ ownerDraining); {
		case at < len(names):
			o.Broker = names[at]
		case at != ownerNobody:
			r.Bad = true
		}
		r.Bad = r.Bad || int(o.Partition) >= t.Partitions
		t.Owners = append(t.Owners, o)
	}
	return t
}
