// SPDX-License-Identifier: Apache-2.0

package swc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"slices"
)

// Clock is the set of dots that a broker knows: of each actor all up to a base,
// and single ones above it, which came before those between. The zero Clock is
// empty.
type Clock struct {
	base  Vector
	ahead []ahead // in the order of the actors; those with dots above the base
}

// ahead are the dots of an actor above its base: bit i of the bitmap is dot
// base+1+i. Bit 0 is clear, or the base would be higher; the last word is not 0.
type ahead struct {
	actor  Actor
	bitmap []uint64
}

func (c *Clock) find(a Actor) (int, bool) {
	return slices.BinarySearchFunc(c.ahead, a, func(x ahead, a Actor) int { return cmp.Compare(x.actor, a) })
}

func (c *Clock) bitmap(a Actor) []uint64 {
	if i, ok := c.find(a); ok {
		return c.ahead[i].bitmap
	}
	return nil
}

// Base is, for each actor, the last dot up to which all are known. It is a view:
// valid until c is next changed, and not to be changed.
func (c *Clock) Base() Vector { return c.base }

// Contains reports whether d is known.
func (c *Clock) Contains(d Dot) bool {
	base := c.base.Get(d.Actor)
	if d.N <= base {
		return true
	}
	i, bitmap := d.N-base-1, c.bitmap(d.Actor)
	return i/64 < uint64(len(bitmap)) && bitmap[i/64]>>(i%64)&1 == 1
}

// Max is the highest known dot of a, 0 if none is.
func (c *Clock) Max(a Actor) uint64 {
	base, bitmap := c.base.Get(a), c.bitmap(a)
	if n := len(bitmap); n > 0 {
		return base + uint64(n*64-bits.LeadingZeros64(bitmap[n-1]))
	}
	return base
}

// Gaps reports whether dots above their base are known of any actor.
func (c *Clock) Gaps() bool { return len(c.ahead) > 0 }

// Actors are those of whom a dot is known, in order.
func (c *Clock) Actors() []Actor {
	out := make([]Actor, 0, len(c.base)+len(c.ahead))
	for _, d := range c.base {
		out = append(out, d.Actor)
	}
	for _, x := range c.ahead {
		out = append(out, x.actor)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Add makes d known. It reports false if it was. A dot far above the base costs
// one bit for each between: who adds what others say bounds the distance.
func (c *Clock) Add(d Dot) bool {
	if c.Contains(d) {
		return false
	}
	base := c.base.Get(d.Actor)
	if d.N == base+1 && c.bitmap(d.Actor) == nil {
		c.base = c.base.Raise(d)
		return true
	}
	at, bitmap := d.N-base-1, c.bitmap(d.Actor)
	if grow := int(at/64) + 1 - len(bitmap); grow > 0 {
		bitmap = append(bitmap, make([]uint64, grow)...)
	}
	bitmap[at/64] |= 1 << (at % 64)
	c.set(d.Actor, base, bitmap)
	return true
}

// Next makes the next dot of a and adds it.
func (c *Clock) Next(a Actor) Dot {
	d := Dot{a, c.Max(a) + 1}
	c.Add(d)
	return d
}

// set stores what is known of a, the base as high as the bitmap allows. It takes
// the bitmap over.
func (c *Clock) set(a Actor, base uint64, bitmap []uint64) {
	run := 0 // of ones at the start of the bitmap
	for _, w := range bitmap {
		ones := bits.TrailingZeros64(^w)
		run += ones
		if ones < 64 {
			break
		}
	}
	base, bitmap = base+uint64(run), shiftRight(bitmap, uint64(run))
	if base > 0 {
		c.base = c.base.Raise(Dot{a, base})
	}
	i, found := c.find(a)
	switch {
	case found && len(bitmap) == 0:
		c.ahead = slices.Delete(c.ahead, i, i+1)
	case found:
		c.ahead[i].bitmap = bitmap
	case len(bitmap) > 0:
		c.ahead = slices.Insert(c.ahead, i, ahead{a, bitmap})
	}
}

// shiftRight drops the first n bits of bitmap, in place, and trims it.
func shiftRight(bitmap []uint64, n uint64) []uint64 {
	if n/64 >= uint64(len(bitmap)) {
		return nil
	}
	copy(bitmap, bitmap[n/64:])
	bitmap = bitmap[:uint64(len(bitmap))-n/64]
	if n %= 64; n > 0 {
		for i := range bitmap {
			bitmap[i] >>= n
			if i+1 < len(bitmap) {
				bitmap[i] |= bitmap[i+1] << (64 - n)
			}
		}
	}
	return trim(bitmap)
}

func trim(bitmap []uint64) []uint64 {
	n := len(bitmap)
	for n > 0 && bitmap[n-1] == 0 {
		n--
	}
	if n == 0 {
		return nil
	}
	return bitmap[:n]
}

// Join makes c know what o knows, too.
func (c *Clock) Join(o *Clock) {
	for _, a := range o.Actors() {
		// The one with the higher base keeps its place; the other's dots move down.
		base, bitmap := c.base.Get(a), c.bitmap(a)
		otherBase, other := o.base.Get(a), slices.Clone(o.bitmap(a))
		if base < otherBase {
			base, bitmap, otherBase, other = otherBase, other, base, bitmap
		}
		other = shiftRight(other, base-otherBase)
		if len(bitmap) < len(other) {
			bitmap, other = other, bitmap
		}
		for i, w := range other {
			bitmap[i] |= w
		}
		c.set(a, base, bitmap)
	}
}

// Clone is a copy that shares nothing with c.
func (c *Clock) Clone() Clock {
	out := Clock{base: slices.Clone(c.base), ahead: slices.Clone(c.ahead)}
	for i := range out.ahead {
		out.ahead[i].bitmap = slices.Clone(out.ahead[i].bitmap)
	}
	return out
}

// Equal reports whether both know the same dots.
func (c *Clock) Equal(o *Clock) bool {
	return slices.Equal(c.base, o.base) && slices.EqualFunc(c.ahead, o.ahead, func(a, b ahead) bool {
		return a.actor == b.actor && slices.Equal(a.bitmap, b.bitmap)
	})
}

// Missing yields the dots that c knows and o does not, in order. Neither may be
// changed meanwhile.
func (c *Clock) Missing(o *Clock) iter.Seq[Dot] {
	return func(yield func(Dot) bool) {
		for _, a := range c.Actors() {
			top := c.Max(a)
			for n := o.base.Get(a) + 1; n <= top; n++ {
				if d := (Dot{a, n}); c.Contains(d) && !o.Contains(d) && !yield(d) {
					return
				}
			}
		}
	}
}

// Holes yields the dots of a up to n that are not known, in order. c must not be
// changed meanwhile.
func (c *Clock) Holes(a Actor, n uint64) iter.Seq[Dot] {
	return func(yield func(Dot) bool) {
		for i := c.base.Get(a) + 1; i <= n; i++ {
			if d := (Dot{a, i}); !c.Contains(d) && !yield(d) {
				return
			}
		}
	}
}

// Append encodes c:
//
//	base vector | count uvarint | count x (actor u64 | words uvarint | words x u64)
func (c *Clock) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(c.base.Append(dst), uint64(len(c.ahead)))
	for _, x := range c.ahead {
		dst = binary.BigEndian.AppendUint64(dst, uint64(x.actor))
		dst = binary.AppendUvarint(dst, uint64(len(x.bitmap)))
		for _, w := range x.bitmap {
			dst = binary.BigEndian.AppendUint64(dst, w)
		}
	}
	return dst
}

// DecodeClock takes what Append wrote off b; the error wraps ErrCorrupt. It
// allocates no more than a few times the length of b.
func DecodeClock(b []byte) (c Clock, rest []byte, err error) {
	if c.base, rest, err = DecodeVector(b); err != nil {
		return Clock{}, nil, err
	}
	count, rest, err := number(rest, uint64(len(rest)/17))
	if err != nil {
		return Clock{}, nil, err
	}
	for range count {
		var x ahead
		if x, rest, err = decodeAhead(rest); err != nil {
			return Clock{}, nil, err
		}
		if n := len(c.ahead); n > 0 && c.ahead[n-1].actor >= x.actor {
			return Clock{}, nil, fmt.Errorf("%w: the actors of a clock are not in order", ErrCorrupt)
		}
		c.ahead = append(c.ahead, x)
	}
	return c, rest, nil
}

func decodeAhead(b []byte) (x ahead, rest []byte, err error) {
	if len(b) < 8 {
		return ahead{}, nil, fmt.Errorf("%w: a clock is cut off", ErrCorrupt)
	}
	x.actor, b = Actor(binary.BigEndian.Uint64(b)), b[8:]
	words, b, err := number(b, uint64(len(b)/8))
	if err != nil {
		return ahead{}, nil, err
	}
	x.bitmap = make([]uint64, words)
	for i := range x.bitmap {
		if len(b) < 8 {
			return ahead{}, nil, fmt.Errorf("%w: a bitmap is cut off", ErrCorrupt)
		}
		x.bitmap[i], b = binary.BigEndian.Uint64(b), b[8:]
	}
	if x.actor == 0 || words == 0 || x.bitmap[words-1] == 0 || x.bitmap[0]&1 == 1 {
		return ahead{}, nil, fmt.Errorf("%w: a bitmap has not the form that Append writes", ErrCorrupt)
	}
	return x, b, nil
}
