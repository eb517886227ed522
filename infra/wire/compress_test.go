// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
)

// payload is like what devices send, or noise.
func payload(r *rand.Rand, noise bool, size int) []byte {
	p := make([]byte, 0, size)
	for len(p) < size {
		if noise {
			p = binary.BigEndian.AppendUint64(p, r.Uint64())
			continue
		}
		p = fmt.Appendf(p, `{"device":"pump-%d","ts":%d,"value":%d.%d,"unit":"bar"}`, r.IntN(97), 1_790_000_000+r.IntN(5000), r.IntN(50), r.IntN(100))
	}
	return p[:size]
}

// What is compressed comes as it was, in its order and with its count, whatever its size;
// it takes fewer bytes where it can, and no more where it cannot.
func TestConn_Compresses(t *testing.T) {
	yes, no := func(string) bool { return true }, func(string) bool { return false }
	for name, c := range map[string]struct {
		a, b    func(string) bool
		noise   bool
		at, end float64 // of the bytes
	}{
		"text":                {yes, yes, false, 0.1, 0.5},
		"noise":               {yes, yes, true, 1, 1.01},
		"not to this one":     {no, yes, false, 1, 1.01},
		"it does not take it": {yes, nil, false, 1, 1.01},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t, Config{Node: "a", Compress: c.a, Features: 1}, Config{Node: "b", Compress: c.b, Features: 3})
			if a.Features() != 1 || b.Features() != 1 {
				t.Errorf("features are %#x and %#x, expected 1", a.Features(), b.Features())
			}
			r := rand.New(rand.NewPCG(1, 2))
			var want [][]byte
			total := 0
			for _, size := range []int{1, 100, shrinkLeast - 1, shrinkLeast, 9000, 256 << 10, shrinkMost, shrinkMost + 1, 3 << 20} {
				for range 3 {
					want = append(want, payload(r, c.noise, size))
					total += size + HeaderSize
				}
			}
			go func() {
				for i, p := range want {
					if err := a.Append(func(dst []byte) ([]byte, int) { return append(dst, p...), i + 1 }); err != nil {
						t.Error(err)
					}
					a.Flush()
				}
			}()
			i := 0
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			go func() { _ = a.Run(ctx, Receiver{Batch: func([]byte, int) error { return nil }}) }()
			err := b.Run(ctx, Receiver{Batch: func(frames []byte, count int) error {
				if i >= len(want) || !bytes.Equal(frames, want[i]) || count != i+1 {
					t.Errorf("batch %d of %d bytes and %d frames is another", i, len(frames), count)
				}
				if i++; i == len(want) {
					return io.EOF
				}
				return nil
			}})
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			_, heard := b.Traffic()
			// What is above shrinkMost goes as it is.
			if share := float64(heard) / float64(total); c.at == 1 && (share < 0.99 || share > c.end) || c.at < 1 && share > 0.85 {
				t.Errorf("%d bytes for %d", heard, total)
			}
		})
	}
}

// A batch that says to be of more than is kept is refused before anything is made of it,
// and so is one of a node that was not asked for any.
func TestConn_CompressedBombs(t *testing.T) {
	if _, err := expand(nil, s2.Encode(nil, make([]byte, shrinkMost))); err != nil {
		t.Errorf("of %d bytes: %v", shrinkMost, err)
	}
	bomb := s2.Encode(nil, make([]byte, 64<<20))
	allocs := testing.AllocsPerRun(10, func() {
		if _, err := expand(nil, bomb); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes that become 64 MiB: %v", len(bomb), err)
		}
	})
	if allocs > 10 {
		t.Errorf("%v allocations", allocs)
	}
	na, nb := Pipe()
	go func() {
		_, _ = nb.Write(preface("b", Versions{}, featureS2))
		z := s2.Encode(nil, []byte("hello"))
		head := make([]byte, HeaderSize)
		putHeader(head, len(z), 1, flagS2)
		_, _ = nb.Write(slices.Concat(head, z))
	}()
	go func() { _, _ = io.Copy(io.Discard, nb) }()
	a, err := New(t.Context(), na, Config{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context(), Receiver{Batch: func([]byte, int) error { return nil }}); !errors.Is(err, ErrMalformed) {
		t.Errorf("Run: %v, want ErrMalformed", err)
	}
}

// FuzzExpand has any bytes expanded: never more than shrinkMost, and what was squeezed is
// what it was.
func FuzzExpand(f *testing.F) {
	f.Add([]byte("hello"))
	f.Add(s2.Encode(nil, bytes.Repeat([]byte("ab"), 5000)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := expand(nil, b); err == nil && len(out) > shrinkMost {
			t.Errorf("%d bytes", len(out))
		}
		if z, ok := squeeze(nil, b); ok {
			if out, err := expand(nil, z); err != nil || !bytes.Equal(out, b) {
				t.Errorf("%v", err)
			}
		}
	})
}

// BenchmarkShrink says what a batch of 32 KiB of messages of 1 KiB costs to compress and to
// expand, and what is left of it.
func BenchmarkShrink(b *testing.B) {
	for name, noise := range map[string]bool{"json": false, "noise": true} {
		r := rand.New(rand.NewPCG(1, 2))
		var body []byte
		for i := range uint32(32) {
			dst, at := OpenFrame(body, 1, 1, i)
			body = ShutFrame(append(AppendBytes(dst, "acme"), payload(r, noise, 1000)...), at)
		}
		z := s2.Encode(nil, body)
		b.Run(name+"/squeeze", func(b *testing.B) {
			dst := make([]byte, 0, s2.MaxEncodedLen(len(body)))
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				_, _ = squeeze(dst, body)
			}
			b.ReportMetric(100*float64(len(z))/float64(len(body)), "%left")
		})
		b.Run(name+"/expand", func(b *testing.B) {
			into := make([]byte, len(body))
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, err := expand(into, z); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
