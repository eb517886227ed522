// SPDX-License-Identifier: Apache-2.0

package swc_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/manormq/manor/services/broker/swc"
)

// codec is one encoding: it reads b, writes what it has read, and returns what
// stood behind it.
type codec func(b []byte) (again, rest []byte, err error)

var codecs = map[string]codec{
	"dot": func(b []byte) ([]byte, []byte, error) {
		d, rest, err := swc.DecodeDot(b)
		return swc.AppendDot(nil, d), rest, err
	},
	"vector": func(b []byte) ([]byte, []byte, error) {
		v, rest, err := swc.DecodeVector(b)
		return v.Append(nil), rest, err
	},
	"clock": func(b []byte) ([]byte, []byte, error) {
		c, rest, err := swc.DecodeClock(b)
		return c.Append(nil), rest, err
	},
	"container": func(b []byte) ([]byte, []byte, error) {
		c, rest, err := swc.DecodeContainer(b)
		return c.Append(nil), rest, err
	},
	"watermark": func(b []byte) ([]byte, []byte, error) {
		w, rest, err := swc.DecodeWatermark(b)
		return w.Append(nil), rest, err
	},
}

func encoded(r *rand.Rand) map[string][]byte {
	c := clockOf(r, someDots(r))
	o, _ := someObject(r)
	w := someWatermark(r)
	return map[string][]byte{
		"dot":       swc.AppendDot(nil, swc.Dot{Actor: swc.Actor(r.Uint64() | 1), N: r.Uint64()>>3 | 1}),
		"vector":    someVector(r).Append(nil),
		"clock":     c.Append(nil),
		"container": o.Append(nil),
		"watermark": w.Append(nil),
	}
}

func TestEncodings(t *testing.T) {
	laws(t, 200, func(t *testing.T, r *rand.Rand) {
		for name, b := range encoded(r) {
			again, rest, err := codecs[name](append(bytes.Clone(b), "rest"...))
			if err != nil || !bytes.Equal(again, b) || string(rest) != "rest" {
				t.Errorf("%s: %x is read as %x, rest %q, error %v", name, b, again, rest, err)
			}
			for n := range b {
				if _, _, err := codecs[name](b[:n]); !errors.Is(err, swc.ErrCorrupt) {
					t.Fatalf("%s: %d of %d bytes: %v, want ErrCorrupt", name, n, len(b), err)
				}
			}
		}
	})
}

func TestAppendDot_SortsAsDots(t *testing.T) {
	laws(t, 200, func(t *testing.T, r *rand.Rand) {
		d := swc.Dot{Actor: swc.Actor(r.Uint64N(1<<r.IntN(64))) + 1, N: r.Uint64N(1<<r.IntN(60)) + 1}
		e := swc.Dot{Actor: d.Actor, N: r.Uint64N(1<<r.IntN(60)) + 1}
		if r.IntN(2) == 0 {
			e.Actor = swc.Actor(r.Uint64() | 1)
		}
		if got, want := bytes.Compare(swc.AppendDot(nil, d), swc.AppendDot(nil, e)), d.Compare(e); got != want {
			t.Errorf("%v and %v sort as %d, want %d", d, e, got, want)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for seed := range uint64(4) {
		for _, b := range encoded(rand.New(rand.NewPCG(seed, 0))) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, c := range codecs {
			once, _, err := c(b)
			if err != nil {
				if !errors.Is(err, swc.ErrCorrupt) {
					t.Fatalf("%s: %v does not wrap ErrCorrupt", name, err)
				}
				continue
			}
			twice, rest, err := c(once)
			if err != nil || len(rest) > 0 || !bytes.Equal(once, twice) {
				t.Fatalf("%s: %x is read as %x, then as %x, rest %x, error %v", name, b, once, twice, rest, err)
			}
		}
		// What was read can be worked with, whatever it is.
		if c, _, err := swc.DecodeClock(b); err == nil {
			var o swc.Clock
			o.Join(&c)
			if !o.Equal(&c) {
				t.Fatal("a clock that was read is not in its one form")
			}
		}
	})
}
