// SPDX-License-Identifier: Apache-2.0

package swc

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
)

// Actor is who writes: one life of the store of one broker. A store that has lost
// data goes on under a new actor, since the old one's next dots may be taken.
//
// It is a number of 64 bits and not a name, because it stands in every dot. Who
// makes one puts the time before random bits, so that of two actors of one broker
// the later is the greater; the algebra asks only that no two are equal. 0 is
// nobody.
type Actor uint64

// Dot is the n-th write of an actor. N is 1 or above and below maxN.
type Dot struct {
	Actor Actor
	N     uint64
}

// maxN is above every counter: no actor writes 2^62 times, and sums of two
// counters do not overflow.
const maxN = 1 << 62

// Compare orders dots by actor, then by counter.
func (d Dot) Compare(e Dot) int {
	return cmp.Or(cmp.Compare(d.Actor, e.Actor), cmp.Compare(d.N, e.N))
}

// ErrCorrupt says that bytes are not the encoding of what they should be. Test
// with errors.Is.
var ErrCorrupt = errors.New("swc: corrupt encoding")

// dotSize is the length of what AppendDot writes, in bytes.
const dotSize = 16

// AppendDot encodes d in 16 bytes that sort as Compare does.
func AppendDot(dst []byte, d Dot) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, uint64(d.Actor)), d.N)
}

// DecodeDot takes a dot of AppendDot off b.
func DecodeDot(b []byte) (d Dot, rest []byte, err error) {
	if len(b) < dotSize {
		return Dot{}, nil, fmt.Errorf("%w: a dot of %d bytes, want %d", ErrCorrupt, len(b), dotSize)
	}
	d = Dot{Actor(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:])}
	if d.Actor == 0 || d.N == 0 || d.N >= maxN {
		return Dot{}, nil, fmt.Errorf("%w: dot (%d, %d) is out of range", ErrCorrupt, d.Actor, d.N)
	}
	return d, b[dotSize:], nil
}

// number takes a uvarint of at most limit off b.
func number(b []byte, limit uint64) (n uint64, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > limit {
		return 0, nil, fmt.Errorf("%w: a number is cut off or above %d", ErrCorrupt, limit)
	}
	return n, b[w:], nil
}

// appendShortDot encodes d without order, in 8 bytes and those that N needs.
func appendShortDot(dst []byte, d Dot) []byte {
	return binary.AppendUvarint(binary.BigEndian.AppendUint64(dst, uint64(d.Actor)), d.N)
}

// minShortDot is the least length of what appendShortDot writes, in bytes.
const minShortDot = 9

// shortDot takes a dot of appendShortDot off b.
func shortDot(b []byte) (d Dot, rest []byte, err error) {
	if len(b) < minShortDot {
		return Dot{}, nil, fmt.Errorf("%w: a dot is cut off", ErrCorrupt)
	}
	d.Actor = Actor(binary.BigEndian.Uint64(b))
	if d.N, rest, err = number(b[8:], maxN-1); err != nil {
		return Dot{}, nil, err
	}
	if d.Actor == 0 || d.N == 0 {
		return Dot{}, nil, fmt.Errorf("%w: dot (%d, %d) is out of range", ErrCorrupt, d.Actor, d.N)
	}
	return d, rest, nil
}
