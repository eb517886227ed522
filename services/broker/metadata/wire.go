// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"encoding/binary"
	"fmt"

	"github.com/manormq/manor/services/broker/swc"
)

// writer appends the parts of messages and records.
type writer struct{ b []byte }

func (w *writer) u8(v byte)       { w.b = append(w.b, v) }
func (w *writer) u64(v uint64)    { w.b = binary.BigEndian.AppendUint64(w.b, v) }
func (w *writer) number(v uint64) { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) dot(d swc.Dot)   { w.b = swc.AppendDot(w.b, d) }

func (w *writer) text(s string) {
	w.number(uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) flag(v bool) {
	if v {
		w.u8(1)
	} else {
		w.u8(0)
	}
}

// reader takes them off again. After the first failure err stays set and all that
// is read is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = fmt.Errorf("%w: a message or record does not parse", swc.ErrCorrupt)
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail()
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) flag() bool {
	v := r.u8()
	if v > 1 {
		r.fail()
	}
	return v == 1
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count is a number of things of at least size bytes each, so that what is
// allocated for them is no more than a few times what was received.
func (r *reader) count(size int) int {
	n := r.number()
	if n > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) text() string { return string(r.take(r.count(1))) }

// algebra reads what package swc encodes.
func algebra[T any](r *reader, decode func([]byte) (T, []byte, error)) (v T) {
	if r.err != nil {
		return v
	}
	got, rest, err := decode(r.b)
	if err != nil {
		r.err, r.b = err, nil
		return v
	}
	r.b = rest
	return got
}

func (r *reader) dots() []swc.Dot {
	n := r.count(16)
	if n == 0 {
		return nil
	}
	out := make([]swc.Dot, n)
	for i := range out {
		out[i] = algebra(r, swc.DecodeDot)
	}
	return out
}

func (w *writer) dots(dots []swc.Dot) {
	w.number(uint64(len(dots)))
	for _, d := range dots {
		w.dot(d)
	}
}

// end is the error, also if anything is left over.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail()
	}
	return r.err
}
