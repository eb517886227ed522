// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/s2"
)

// featureS2 is of a node that takes batches compressed by S2 (docs/adr/0029). It is the
// highest of the 24 bits of features, and set by Config.Compress.
const featureS2 uint32 = 1 << 23

// Which batches are compressed, by the bytes behind the header. Smaller ones save little;
// larger ones hold one huge message, and what expands to more than a receiver keeps anyhow
// is not believed.
const (
	shrinkLeast = 2 << 10
	shrinkMost  = 1 << 20
)

// restAfter is how many batches go as they are after one that did not become smaller by an
// eighth at least: payloads that are compressed or encrypted come in crowds.
const restAfter = 16

// shrinker compresses batches. Its methods are called with Conn.writing held.
type shrinker struct {
	out  []byte
	rest int
}

// shrink returns batches with those compressed that get smaller; the bytes are valid until
// the next call. Each stays a batch of its own, in its place.
func (s *shrinker) shrink(batches []byte) []byte {
	if len(batches) < shrinkLeast {
		return batches
	}
	out := s.out[:0]
	for b := batches; len(b) > 0; {
		n := HeaderSize + int(binary.BigEndian.Uint32(b))
		batch := b[:n]
		b = b[n:]
		begin := len(out)
		out = append(out, batch[:HeaderSize]...)
		body := batch[HeaderSize:]
		if plain := binary.BigEndian.Uint16(batch[6:]) == 0; plain && len(body) >= shrinkLeast && len(body) <= shrinkMost {
			if s.rest > 0 {
				s.rest--
			} else if grown, ok := squeeze(out, body); ok {
				out = grown
				putHeader(out[begin:], len(out)-begin-HeaderSize, int(binary.BigEndian.Uint16(batch[4:])), flagS2)
				continue
			} else {
				s.rest = restAfter
			}
		}
		out = append(out, body...)
	}
	s.out = out
	if cap(s.out) > keepBuffer {
		s.out = nil
	}
	return out
}

// squeeze appends body compressed, if that is smaller by an eighth at least.
func squeeze(dst, body []byte) ([]byte, bool) {
	most := s2.MaxEncodedLen(len(body))
	if free := cap(dst) - len(dst); free < most {
		dst = append(make([]byte, 0, len(dst)+most), dst...)
	}
	z := s2.Encode(dst[len(dst):len(dst)+most], body)
	if len(z) > len(body)-len(body)/8 {
		return nil, false
	}
	return dst[:len(dst)+len(z)], true
}

// expand returns what a batch was before squeeze, in memory of into if there is enough.
// What says that it is of more than shrinkMost bytes gives ErrMalformed before anything is
// made of it.
func expand(into, body []byte) ([]byte, error) {
	n, err := s2.DecodedLen(body)
	if err != nil || n > shrinkMost {
		return nil, fmt.Errorf("%w: a compressed batch of %d bytes that says to be of %d, at most %d", ErrMalformed, len(body), n, shrinkMost)
	}
	if cap(into) < n {
		into = make([]byte, n)
	}
	out, err := s2.Decode(into[:n], body)
	if err != nil {
		return nil, fmt.Errorf("%w: a compressed batch: %w", ErrMalformed, err)
	}
	return out, nil
}
