// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// inbox cuts batches out of a stream. A batch that fits into the reader's
// buffer is a view of it; a larger one is gathered in a buffer that grows with
// what has come, never with what a header promises.
type inbox struct {
	r     *bufio.Reader
	big   []byte
	taken int // bytes of the reader's buffer that the last batch is a view of
}

// ready reports whether the next batch has been read whole.
func (in *inbox) ready() bool {
	n := in.r.Buffered()
	if n < HeaderSize {
		return false
	}
	head, _ := in.r.Peek(HeaderSize)
	return n >= HeaderSize+int(binary.BigEndian.Uint32(head))
}

// next waits for a batch of at most limit bytes with its header. The body is
// valid until release.
func (in *inbox) next(limit int) (body []byte, count int, flags uint16, err error) {
	head, err := in.r.Peek(HeaderSize)
	if err != nil {
		return nil, 0, 0, err
	}
	length := int(binary.BigEndian.Uint32(head))
	count, flags = int(binary.BigEndian.Uint16(head[4:])), binary.BigEndian.Uint16(head[6:])
	if length > limit-HeaderSize {
		return nil, 0, 0, fmt.Errorf("%w: %d bytes announced, at most %d allowed", ErrMalformed, length, limit-HeaderSize)
	}
	if size := HeaderSize + length; size <= in.r.Size() {
		whole, err := in.r.Peek(size)
		if err != nil {
			return nil, 0, 0, err
		}
		in.taken = size
		return whole[HeaderSize:], count, flags, nil
	}
	if _, err := in.r.Discard(HeaderSize); err != nil {
		return nil, 0, 0, err
	}
	for len(in.big) < length {
		step := min(length-len(in.big), max(keepBuffer, len(in.big)))
		start := len(in.big)
		in.big = append(in.big, make([]byte, step)...)
		if _, err := io.ReadFull(in.r, in.big[start:]); err != nil {
			return nil, 0, 0, err
		}
	}
	return in.big, count, flags, nil
}

// release ends the use of the last batch's body.
func (in *inbox) release() {
	_, _ = in.r.Discard(in.taken) // it is buffered
	in.taken = 0
	if in.big = in.big[:0]; cap(in.big) > keepBuffer {
		in.big = nil
	}
}
