// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
)

// Shared is the name of the label of partitions of which nobody has said one, and
// which in a Class is empty.
const Shared = "shared"

// Class is what is wanted of the brokers that hold a partition.
type Class struct {
	// Label must be among those that a broker accepts; empty is Shared.
	Label string
	// Replicas is how many brokers hold it, 1 to MostReplicas; 0 is the cluster's.
	Replicas int
}

// MostReplicas is the most that a partition may have, and MostLabel the longest label,
// in bytes.
const (
	MostReplicas = 5
	MostLabel    = 255
)

// Cell is the list of a tenant's partitions.
type Cell struct {
	// Partitions are in order; none is of a tenant that an operator has given back to
	// its plan.
	Partitions []partition.ID
	// Revision is 1 if it was drawn, and higher with each time that an operator has
	// said it.
	Revision uint64
	// Stage is how far the tenant is on its way to another list, To the list where it goes
	// while it is Leaving.
	Stage Stage
	To    []partition.ID
	// Purged says that the tenant was purged, and has nothing anywhere. If it was made again it
	// lives as its plan has it. Partitions is empty then.
	Purged bool
}

// Stage is how far a tenant is that moves with what it has (docs/adr/0037).
type Stage uint8

// The stages, in their order. Nobody of a tenant that is not Settled is let in.
const (
	// Settled: it does not move.
	Settled Stage = iota
	// Leaving: what does not belong to Partitions any more is handed to those of To.
	Leaving
	// Arriving: Partitions have all that was handed to them, and take it up.
	Arriving
)

// next is the record that follows one of a tenant that moves.
func (c *Cell) next() Cell {
	n := Cell{Partitions: c.Partitions, Revision: c.Revision + 1}
	if c.Stage == Leaving {
		n.Partitions, n.Stage = c.To, Arriving
	}
	return n
}

// Placed reports whether an operator, or a purge, has said it: gateways must hear of that.
func (c *Cell) Placed() bool { return c.Revision > drawn }

// drawn is the Revision of a cell that was drawn.
const drawn = 1

// Normal returns the label as a Class has it. The error is Invalid.
func Normal(label string) (string, error) {
	if label == Shared {
		return "", nil
	}
	if label == "" || len(label) > MostLabel || strings.Contains(label, ",") {
		return "", errs.New(errs.Invalid, "expected a label of 1 to %d bytes without commas, found %q", MostLabel, label)
	}
	return label, nil
}

// Name returns a label of a Class for people.
func Name(label string) string {
	if label == "" {
		return Shared
	}
	return label
}

// The first byte of a value; another one is of a later version. A cell that moves is of
// movingVersion, and that of a purged tenant of purgedVersion, so that a broker that knows
// neither leaves it out.
const (
	valueVersion  = 1
	movingVersion = 2
	purgedVersion = 3
)

var errValue = errors.New("layout: value is not readable; it may be of a later version")

// classCodec writes version u8, replicas u8, label.
var classCodec = metadata.Codec[Class]{
	Encode: func(dst []byte, c Class) []byte {
		return append(append(dst, valueVersion, byte(c.Replicas)), c.Label...)
	},
	Decode: func(b []byte) (Class, error) {
		if len(b) < 2 || b[0] != valueVersion || b[1] > MostReplicas || len(b) > 2+MostLabel {
			return Class{}, errValue
		}
		return Class{Label: string(b[2:]), Replicas: int(b[1])}, nil
	},
}

// AppendCell appends the partitions of a cell, u16 each, behind a version u8. Of a tenant
// that moves the stage u8 and the list To stand before them, the length of that a u16. Of one
// that was purged there is the version only.
func AppendCell(dst []byte, c Cell) []byte {
	if c.Purged {
		return append(dst, purgedVersion)
	}
	if c.Stage == Settled {
		return appendList(append(dst, valueVersion), c.Partitions)
	}
	dst = append(dst, movingVersion, byte(c.Stage))
	dst = appendList(binary.BigEndian.AppendUint16(dst, uint16(len(c.To))), c.To)
	return appendList(dst, c.Partitions)
}

func appendList(dst []byte, list []partition.ID) []byte {
	for _, p := range list {
		dst = binary.BigEndian.AppendUint16(dst, uint16(p))
	}
	return dst
}

// ParseCell reads what AppendCell wrote, all but the Revision. It copies.
func ParseCell(b []byte) (c Cell, err error) {
	switch {
	case len(b) > 0 && b[0] == valueVersion:
		c.Partitions, err = parseList(b[1:])
	case len(b) >= 4 && b[0] == movingVersion:
		c.Stage = Stage(b[1])
		n := 2 * int(binary.BigEndian.Uint16(b[2:]))
		if b = b[4:]; c.Stage < Leaving || c.Stage > Arriving || n > len(b) || (c.Stage == Leaving) != (n > 0) || len(b) == n {
			return Cell{}, errValue
		}
		if c.To, err = parseList(b[:n]); err == nil {
			c.Partitions, err = parseList(b[n:])
		}
	case len(b) == 1 && b[0] == purgedVersion:
		c.Purged = true
	default:
		err = errValue
	}
	if err != nil {
		return Cell{}, err
	}
	return c, nil
}

func parseList(b []byte) ([]partition.ID, error) {
	if len(b)%2 != 0 {
		return nil, errValue
	}
	list := make([]partition.ID, 0, len(b)/2)
	for ; len(b) > 0; b = b[2:] {
		list = append(list, partition.ID(binary.BigEndian.Uint16(b)))
	}
	if !slices.IsSorted(list) {
		return nil, errValue
	}
	return list, nil
}

var cellCodec = metadata.Codec[Cell]{Encode: AppendCell, Decode: ParseCell}

// numberCodec writes decimal digits, for people who look.
var numberCodec = metadata.Codec[int]{
	Encode: func(dst []byte, n int) []byte { return strconv.AppendInt(dst, int64(n), 10) },
	Decode: func(b []byte) (int, error) {
		n, err := strconv.Atoi(string(b))
		if err != nil {
			return 0, errValue
		}
		return n, nil
	},
}

// partitionKey names a partition: u16, big endian.
func partitionKey(p partition.ID) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(p)))
}

func parsePartitionKey(name string) (partition.ID, bool) {
	if len(name) != 2 {
		return 0, false
	}
	return partition.ID(binary.BigEndian.Uint16([]byte(name))), true
}
