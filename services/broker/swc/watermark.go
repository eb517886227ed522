// SPDX-License-Identifier: Apache-2.0

package swc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// Watermark is a matrix of actors by members: up to which dot of each actor each
// member is known to know all. It may be behind the truth, never before it. A
// member is the actor under which it now writes; actors that write no more have a
// row and no column. The zero Watermark has no members.
type Watermark struct {
	columns []column // in the order of the members
}

type column struct {
	member Actor
	known  Vector
}

func (w *Watermark) find(member Actor) (int, bool) {
	return slices.BinarySearchFunc(w.columns, member, func(c column, a Actor) int { return cmp.Compare(c.member, a) })
}

// Enter adds a member that is known to know nothing. One that is there stays as
// it is.
func (w *Watermark) Enter(member Actor) {
	if i, ok := w.find(member); !ok {
		w.columns = slices.Insert(w.columns, i, column{member: member})
	}
}

// Leave removes a member: from now on nothing waits for it.
func (w *Watermark) Leave(member Actor) {
	if i, ok := w.find(member); ok {
		w.columns = slices.Delete(w.columns, i, i+1)
	}
}

// Members are the members, in order.
func (w *Watermark) Members() []Actor {
	out := make([]Actor, len(w.columns))
	for i, c := range w.columns {
		out[i] = c.member
	}
	return out
}

// Update notes that member knows all that base, of its clock, covers. It reports
// whether that is news. Who is no member is passed over.
func (w *Watermark) Update(member Actor, base Vector) bool {
	i, ok := w.find(member)
	if !ok || len(base.Without(w.columns[i].known)) == 0 {
		return false
	}
	w.columns[i].known = w.columns[i].known.Join(base)
	return true
}

// Join takes what o knows of the members of w. It reports whether anything is news.
func (w *Watermark) Join(o *Watermark) bool {
	news := false
	for _, c := range o.columns {
		news = w.Update(c.member, c.known) || news
	}
	return news
}

// Known is up to which dot of actor the member is known to know all.
func (w *Watermark) Known(actor, member Actor) uint64 {
	if i, ok := w.find(member); ok {
		return w.columns[i].known.Get(actor)
	}
	return 0
}

// Min is the last dot of actor up to which every member knows all; 0 if there are
// no members.
func (w *Watermark) Min(actor Actor) uint64 {
	if len(w.columns) == 0 {
		return 0
	}
	least := w.columns[0].known.Get(actor)
	for _, c := range w.columns[1:] {
		least = min(least, c.known.Get(actor))
	}
	return least
}

// Settled reports whether every member knows d.
func (w *Watermark) Settled(d Dot) bool { return d.N <= w.Min(d.Actor) }

// Equal reports whether both have the same members, with the same knowledge.
func (w *Watermark) Equal(o *Watermark) bool {
	return slices.EqualFunc(w.columns, o.columns, func(a, b column) bool {
		return a.member == b.member && slices.Equal(a.known, b.known)
	})
}

// Append encodes w:
//
//	count uvarint | count x (member u64 | known vector)
func (w *Watermark) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(w.columns)))
	for _, c := range w.columns {
		dst = c.known.Append(binary.BigEndian.AppendUint64(dst, uint64(c.member)))
	}
	return dst
}

// DecodeWatermark takes what Append wrote off b; the error wraps ErrCorrupt.
func DecodeWatermark(b []byte) (w Watermark, rest []byte, err error) {
	count, rest, err := number(b, uint64(len(b)/9))
	if err != nil {
		return Watermark{}, nil, err
	}
	for i := range count {
		if len(rest) < 8 {
			return Watermark{}, nil, fmt.Errorf("%w: a watermark is cut off", ErrCorrupt)
		}
		c := column{member: Actor(binary.BigEndian.Uint64(rest))}
		if c.known, rest, err = DecodeVector(rest[8:]); err != nil {
			return Watermark{}, nil, err
		}
		if c.member == 0 || i > 0 && w.columns[i-1].member >= c.member {
			return Watermark{}, nil, fmt.Errorf("%w: the members of a watermark are not in order", ErrCorrupt)
		}
		w.columns = append(w.columns, c)
	}
	return w, rest, nil
}
