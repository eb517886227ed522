// SPDX-License-Identifier: Apache-2.0

package swc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// Vector says of each actor up to which dot something is known: one Dot for each,
// in the order of the actors; an actor that is not there counts as 0. The nil
// Vector knows nothing. Join and Without leave their operands as they are.
type Vector []Dot

func (v Vector) find(a Actor) (int, bool) {
	return slices.BinarySearchFunc(v, a, func(d Dot, a Actor) int { return cmp.Compare(d.Actor, a) })
}

// Get is the last dot of a that is known, 0 if none is.
func (v Vector) Get(a Actor) uint64 {
	if i, ok := v.find(a); ok {
		return v[i].N
	}
	return 0
}

// Covers reports whether d is known.
func (v Vector) Covers(d Dot) bool { return d.N <= v.Get(d.Actor) }

// Raise makes v cover d. As append does, it may change v and returns the result.
func (v Vector) Raise(d Dot) Vector {
	i, ok := v.find(d.Actor)
	if !ok {
		return slices.Insert(v, i, d)
	}
	v[i].N = max(v[i].N, d.N)
	return v
}

// Join covers what v or w covers, and no more.
func (v Vector) Join(w Vector) Vector {
	if len(v) == 0 && len(w) == 0 {
		return nil
	}
	out := make(Vector, 0, max(len(v), len(w)))
	for len(v) > 0 && len(w) > 0 {
		switch a, b := v[0], w[0]; cmp.Compare(a.Actor, b.Actor) {
		case -1:
			out, v = append(out, a), v[1:]
		case 1:
			out, w = append(out, b), w[1:]
		default:
			out, v, w = append(out, Dot{a.Actor, max(a.N, b.N)}), v[1:], w[1:]
		}
	}
	return append(append(out, v...), w...)
}

// Without is v without the entries that w covers.
func (v Vector) Without(w Vector) Vector {
	var out Vector
	for _, d := range v {
		if !w.Covers(d) {
			out = append(out, d)
		}
	}
	return out
}

// Append encodes v:
//
//	count uvarint | count x (actor u64 | n uvarint)
func (v Vector) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	for _, d := range v {
		dst = appendShortDot(dst, d)
	}
	return dst
}

// DecodeVector takes what Append wrote off b; the error wraps ErrCorrupt.
func DecodeVector(b []byte) (v Vector, rest []byte, err error) {
	count, rest, err := number(b, uint64(len(b)/minShortDot))
	if err != nil || count == 0 {
		return nil, rest, err
	}
	v = make(Vector, count)
	for i := range v {
		if v[i], rest, err = shortDot(rest); err != nil {
			return nil, nil, err
		}
		if i > 0 && v[i-1].Actor >= v[i].Actor {
			return nil, nil, fmt.Errorf("%w: the actors of a vector are not in order", ErrCorrupt)
		}
	}
	return v, rest, nil
}
