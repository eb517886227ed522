// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"encoding/binary"
	"math"

	"github.com/manormq/manor/infra/errs"
)

// Report is what a gateway tells the others, and itself, once in an interval, also if it
// has no Claims: it is a sign of life.
type Report struct {
	// From names the process, not the machine: after a restart it is another.
	From string
	// Leaving says that it is the last.
	Leaving bool
	Claims  []Claim
}

// Claim is what a gateway has of a resource.
type Claim struct {
	Resource
	Need
	// Held is the part that the gateway may use.
	Held float64
}

// Subject is where reports are published.
const Subject = "quota.reports"

const (
	reportVersion = 1
	// reportMost is from what size in bytes on another message is begun.
	reportMost = 256 << 10
)

// Encode returns r as messages; each stands for itself.
func (r *Report) Encode() [][]byte {
	var all [][]byte
	head := func() []byte {
		b := []byte{reportVersion, 0}
		if r.Leaving {
			b[1] = 1
		}
		return appendText(b, r.From)
	}
	b := head()
	for i := range r.Claims {
		if len(b) > reportMost {
			all = append(all, b)
			b = head()
		}
		c := &r.Claims[i]
		b = appendText(b, c.Tenant)
		b = append(b, byte(c.Kind), 0)
		if c.Waits {
			b[len(b)-1] = 1
		}
		for _, f := range []float64{c.Used, c.Want, c.Unit, c.Held} {
			b = binary.BigEndian.AppendUint64(b, math.Float64bits(f))
		}
	}
	return append(all, b)
}

// Sender is who has sent a message of Encode, and whether it says that it was the last;
// empty if b is none.
func Sender(b []byte) (from string, leaving bool) {
	if len(b) < 2 || b[0] != reportVersion {
		return "", false
	}
	from, _, _ = cutText(b[2:])
	return from, b[1] == 1
}

// Decode reads a message of Encode. Figures that cannot be are bounded; claims of kinds
// that are not known here are left out.
func Decode(b []byte) (*Report, error) {
	bad := errs.New(errs.Invalid, "expected a report of version %d", reportVersion)
	if len(b) < 2 || b[0] != reportVersion {
		return nil, bad
	}
	r := &Report{Leaving: b[1] == 1}
	var ok bool
	if r.From, b, ok = cutText(b[2:]); !ok || r.From == "" {
		return nil, bad
	}
	for len(b) > 0 {
		var c Claim
		if c.Tenant, b, ok = cutText(b); !ok || len(b) < 2+4*8 {
			return nil, bad
		}
		c.Kind, c.Waits = Kind(b[0]), b[1] == 1
		for i, f := range []*float64{&c.Used, &c.Want, &c.Unit, &c.Held} {
			v := math.Float64frombits(binary.BigEndian.Uint64(b[2+8*i:]))
			if !(v > 0) { // nor is NaN
				v = 0
			}
			*f = min(v, most)
		}
		if b = b[2+4*8:]; c.Kind < Kinds {
			r.Claims = append(r.Claims, c)
		}
	}
	return r, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func cutText(b []byte) (s string, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return "", nil, false
	}
	b = b[used:]
	return string(b[:n]), b[n:], true
}
