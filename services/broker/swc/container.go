// SPDX-License-Identifier: Apache-2.0

package swc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// Version is a value and the dot that wrote it. A dot writes one value, so two
// Versions with one dot are equal.
type Version struct {
	Dot   Dot
	Value []byte
}

// Container is a dotted causal container, the object of one key: the values that
// no known write has replaced, in the order of their dots, and the context of
// every dot that the object has seen. More than one value are concurrent writes.
//
// The functions leave their operands as they are and share values with them.
type Container struct {
	Versions []Version
	Context  Vector
}

// Empty reports whether nothing is to be remembered: neither a value, nor a write
// that the clock does not tell of.
func (c Container) Empty() bool { return len(c.Versions) == 0 && len(c.Context) == 0 }

// Equal reports whether both have the same values, dots and context.
func (c Container) Equal(d Container) bool {
	return slices.EqualFunc(c.Versions, d.Versions, func(a, b Version) bool {
		return a.Dot == b.Dot && bytes.Equal(a.Value, b.Value)
	}) && slices.Equal(c.Context, d.Context)
}

// Add is c with the value that d wrote.
func (c Container) Add(d Dot, value []byte) Container {
	i, _ := slices.BinarySearchFunc(c.Versions, d, func(v Version, d Dot) int { return v.Dot.Compare(d) })
	return Container{
		Versions: slices.Insert(slices.Clone(c.Versions), i, Version{d, value}),
		Context:  slices.Clone(c.Context).Raise(d),
	}
}

// See is c after d, which wrote no value: a delete.
func (c Container) See(d Dot) Container {
	return Container{Versions: c.Versions, Context: slices.Clone(c.Context).Raise(d)}
}

// Fill is c with all in its context that base has: what a stored object means
// beside the clock with this base.
func (c Container) Fill(base Vector) Container {
	return Container{Versions: c.Versions, Context: c.Context.Join(base)}
}

// Strip is c without what base says anyway: what is to be stored beside the clock
// with this base, or a later one.
func (c Container) Strip(base Vector) Container {
	return Container{Versions: c.Versions, Context: c.Context.Without(base)}
}

// Discard is c without the values that context covers, having seen it.
func (c Container) Discard(context Vector) Container {
	out := Container{Context: c.Context.Join(context)}
	for _, v := range c.Versions {
		if !context.Covers(v.Dot) {
			out.Versions = append(out.Versions, v)
		}
	}
	return out
}

// Sync is what is known after both: of the values of a and b those that neither
// has seen and dropped. Both must be filled.
func Sync(a, b Container) Container {
	out := Container{Context: a.Context.Join(b.Context)}
	x, y := a.Versions, b.Versions
	for len(x) > 0 || len(y) > 0 {
		switch {
		case len(y) == 0 || len(x) > 0 && x[0].Dot.Compare(y[0].Dot) < 0:
			if !b.Context.Covers(x[0].Dot) {
				out.Versions = append(out.Versions, x[0])
			}
			x = x[1:]
		case len(x) == 0 || y[0].Dot.Compare(x[0].Dot) < 0:
			if !a.Context.Covers(y[0].Dot) {
				out.Versions = append(out.Versions, y[0])
			}
			y = y[1:]
		default:
			out.Versions = append(out.Versions, x[0])
			x, y = x[1:], y[1:]
		}
	}
	return out
}

// Append encodes c:
//
//	count uvarint | count x (actor u64 | n uvarint | len uvarint | value) | context vector
func (c Container) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c.Versions)))
	for _, v := range c.Versions {
		dst = appendShortDot(dst, v.Dot)
		dst = binary.AppendUvarint(dst, uint64(len(v.Value)))
		dst = append(dst, v.Value...)
	}
	return c.Context.Append(dst)
}

// DecodeContainer takes what Append wrote off b; the error wraps ErrCorrupt. The
// values are views of b.
func DecodeContainer(b []byte) (c Container, rest []byte, err error) {
	count, rest, err := number(b, uint64(len(b)/(minShortDot+1)))
	if err != nil {
		return Container{}, nil, err
	}
	if count > 0 {
		c.Versions = make([]Version, count)
	}
	for i := range c.Versions {
		v := &c.Versions[i]
		if v.Dot, rest, err = shortDot(rest); err != nil {
			return Container{}, nil, err
		}
		var size uint64
		if size, rest, err = number(rest, uint64(len(rest))); err != nil {
			return Container{}, nil, err
		}
		if size > uint64(len(rest)) {
			return Container{}, nil, fmt.Errorf("%w: a value is cut off", ErrCorrupt)
		}
		v.Value, rest = rest[:size:size], rest[size:]
		if i > 0 && c.Versions[i-1].Dot.Compare(v.Dot) >= 0 {
			return Container{}, nil, fmt.Errorf("%w: the dots of a container are not in order", ErrCorrupt)
		}
	}
	if c.Context, rest, err = DecodeVector(rest); err != nil {
		return Container{}, nil, err
	}
	return c, rest, nil
}
