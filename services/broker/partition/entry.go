// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"encoding/binary"
	"errors"
	"slices"
)

// Broker is the name of a broker: 1 to 255 bytes.
type Broker string

// Entry is what the partition table says of one partition. An Entry is never
// changed: its slices are shared.
type Entry struct {
	// Epoch grows by one with every change. Epoch 1 is that of an entry that a
	// controller made: nothing was ever written under it.
	Epoch uint64
	// Owner is one of InSync.
	Owner Broker
	// InSync is the ISR in the order of rank. A commit needs all of them.
	InSync []Broker
	// Others are followers that are being caught up.
	Others []Broker
	// Draining says that the owner is about to hand over, so that gateways need
	// not open anything that can wait.
	Draining bool
	// Abandoned says that an operator gave up what other replicas may hold: what
	// the owner has is the partition from now on.
	Abandoned bool
}

// Table is an entry as it was read, with the revision to change it at.
type Table struct {
	Entry
	// Revision is the bucket's, 0 for an entry that is not there.
	Revision uint64
}

// ErrBadEntry is returned for bytes that are no entry.
var ErrBadEntry = errors.New("partition: entry of the table is not readable")

// Holds reports whether b is a replica.
func (e *Entry) Holds(b Broker) bool { return e.IsInSync(b) || slices.Contains(e.Others, b) }

// IsInSync reports whether b belongs to the ISR.
func (e *Entry) IsInSync(b Broker) bool { return slices.Contains(e.InSync, b) }

// Replicas is how many brokers hold the partition.
func (e *Entry) Replicas() int { return len(e.InSync) + len(e.Others) }

// rank is the place of b among those that may follow the owner, 0 the first.
func (e *Entry) rank(b Broker) int {
	rank := 0
	for _, m := range e.InSync {
		switch m {
		case b:
			return rank
		case e.Owner:
		default:
			rank++
		}
	}
	return rank
}

// Abandon is the entry that follows e when an operator gives up what all replicas but
// that of to hold: to becomes the owner and alone in sync, and others follow it.
func Abandon(e *Entry, to Broker, others []Broker) Entry {
	out := Entry{Epoch: e.Epoch + 1, Owner: to, InSync: []Broker{to}, Abandoned: true}
	for _, b := range others {
		if !out.Holds(b) {
			out.Others = append(out.Others, b)
		}
	}
	return out
}

// same reports whether the two say the same, whatever their epochs.
func (e *Entry) same(o *Entry) bool {
	return e.Owner == o.Owner && e.Draining == o.Draining && e.Abandoned == o.Abandoned &&
		slices.Equal(e.InSync, o.InSync) && slices.Equal(e.Others, o.Others)
}

const (
	entryVersion   = 1
	entryDraining  = 1 << 0
	entryAbandoned = 1 << 1
)

// Append encodes e: version u8, flags u8, epoch u64, the place of the owner in
// the ISR u8, then the names of the ISR and of the others, each list with its
// length in front (u8), each name too.
func (e *Entry) Append(dst []byte) []byte {
	var flags byte
	if e.Draining {
		flags |= entryDraining
	}
	if e.Abandoned {
		flags |= entryAbandoned
	}
	dst = binary.BigEndian.AppendUint64(append(dst, entryVersion, flags), e.Epoch)
	dst = append(dst, byte(slices.Index(e.InSync, e.Owner)))
	for _, list := range [2][]Broker{e.InSync, e.Others} {
		dst = append(dst, byte(len(list)))
		for _, b := range list {
			dst = append(append(dst, byte(len(b))), b...)
		}
	}
	return dst
}

// ParseEntry decodes what Append wrote. It copies.
func ParseEntry(b []byte) (Entry, error) {
	var e Entry
	if len(b) < 11 || b[0] != entryVersion || b[1] > entryDraining|entryAbandoned {
		return e, ErrBadEntry
	}
	e.Draining, e.Abandoned = b[1]&entryDraining != 0, b[1]&entryAbandoned != 0
	e.Epoch = binary.BigEndian.Uint64(b[2:])
	owner := int(b[10])
	b = b[11:]
	for _, list := range [2]*[]Broker{&e.InSync, &e.Others} {
		if len(b) == 0 {
			return Entry{}, ErrBadEntry
		}
		n := int(b[0])
		b = b[1:]
		for range n {
			if len(b) == 0 || b[0] == 0 || len(b) < 1+int(b[0]) {
				return Entry{}, ErrBadEntry
			}
			name := Broker(b[1 : 1+int(b[0])])
			if e.Holds(name) {
				return Entry{}, ErrBadEntry
			}
			*list = append(*list, name)
			b = b[1+len(name):]
		}
	}
	if len(b) != 0 || owner >= len(e.InSync) || e.Epoch == 0 {
		return Entry{}, ErrBadEntry
	}
	e.Owner = e.InSync[owner]
	return e, nil
}
