// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"fmt"
	"math"
)

// FrameHeader is the size of what stands before each frame's body:
//
//	type u8 | flags u8 | id u32 | length u32
const FrameHeader = 10

// Frame is one frame of a batch. What its numbers mean is up to those who speak:
// the ID is a client's channel between gateway and broker, and a request's number
// between brokers. The Body is a view of the batch.
type Frame struct {
	Kind, Flags byte
	ID          uint32
	Body        []byte
}

// OpenFrame appends a frame header without its length and returns where the body
// begins.
func OpenFrame(dst []byte, kind, flags byte, id uint32) (out []byte, body int) {
	dst = append(dst, kind, flags)
	dst = binary.BigEndian.AppendUint32(dst, id)
	dst = append(dst, 0, 0, 0, 0)
	return dst, len(dst)
}

// ShutFrame writes the length of the frame whose body begins at body and ends with
// dst.
func ShutFrame(dst []byte, body int) []byte {
	binary.BigEndian.PutUint32(dst[body-4:], uint32(len(dst)-body))
	return dst
}

// EachFrame calls f for each of the count frames of a batch, up to the first error.
// What is no batch of so many frames gives ErrMalformed.
func EachFrame(batch []byte, count int, f func(Frame) error) error {
	for n := range count {
		if len(batch) < FrameHeader {
			return fmt.Errorf("%w: ends in the header of frame %d of %d", ErrMalformed, n+1, count)
		}
		size := uint64(binary.BigEndian.Uint32(batch[6:]))
		if size > uint64(len(batch)-FrameHeader) {
			return fmt.Errorf("%w: ends in frame %d of %d, type %#02x, of %d bytes", ErrMalformed, n+1, count, batch[0], size)
		}
		end := FrameHeader + int(size)
		fr := Frame{batch[0], batch[1], binary.BigEndian.Uint32(batch[2:]), batch[FrameHeader:end:end]}
		if err := f(fr); err != nil {
			return err
		}
		batch = batch[end:]
	}
	if len(batch) > 0 {
		return fmt.Errorf("%w: %d bytes behind the last of %d frames", ErrMalformed, len(batch), count)
	}
	return nil
}

// Malformed is the error of a frame whose body does not parse.
func (f Frame) Malformed(what string) error {
	return fmt.Errorf("%w: frame type %#02x of %d bytes: %s", ErrMalformed, f.Kind, len(f.Body), what)
}

// Check returns an error if r did not take the whole body, or if f has other flags
// than allowed.
func (f Frame) Check(r *Reader, allowed byte) error {
	switch {
	case r.Bad:
		return f.Malformed("a field is missing, too long or out of range")
	case len(r.Data) > 0:
		return f.Malformed("bytes are left over")
	case f.Flags&^allowed != 0:
		return f.Malformed("unknown flags")
	}
	return nil
}

// Reader takes values off a body. After the first that is not there, all are zero
// and Bad is set. Slices are views of the body.
type Reader struct {
	Data []byte
	Bad  bool
}

// Take is the next n bytes.
func (r *Reader) Take(n int) []byte {
	if r.Bad || n < 0 || n > len(r.Data) {
		r.Bad = true
		return nil
	}
	out := r.Data[:n:n]
	r.Data = r.Data[n:]
	return out
}

// U8 is a byte.
func (r *Reader) U8() byte {
	if b := r.Take(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 is a number of two bytes.
func (r *Reader) U16() uint16 {
	if b := r.Take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// U32 is a number of four bytes.
func (r *Reader) U32() uint32 {
	if b := r.Take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// U64 is a number of eight bytes.
func (r *Reader) U64() uint64 {
	if b := r.Take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// I64 is a number of eight bytes with a sign.
func (r *Reader) I64() int64 { return int64(r.U64()) }

// Length is a uvarint that counts things of at least least bytes each that
// follow, so that it cannot promise more than there is.
func (r *Reader) Length(least int) int {
	n, w := binary.Uvarint(r.Data)
	if r.Bad || w <= 0 || n > uint64(len(r.Data)-w)/uint64(least) || w > 1 && r.Data[w-1] == 0 {
		r.Bad = true
		return 0
	}
	r.Data = r.Data[w:]
	return int(n)
}

// Uvarint is a uvarint of at most 32 bits, in its shortest form.
func (r *Reader) Uvarint() uint32 {
	n, w := binary.Uvarint(r.Data)
	if r.Bad || w <= 0 || n > math.MaxUint32 || w > 1 && r.Data[w-1] == 0 {
		r.Bad = true
		return 0
	}
	r.Data = r.Data[w:]
	return uint32(n)
}

// Bytes is what AppendBytes wrote.
func (r *Reader) Bytes() []byte { return r.Take(r.Length(1)) }

// String is Bytes in memory of its own.
func (r *Reader) String() string { return string(r.Bytes()) }

// Rest is what is left.
func (r *Reader) Rest() []byte { return r.Take(len(r.Data)) }

// AppendBytes appends a uvarint length and s.
func AppendBytes[T ~string | ~[]byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
