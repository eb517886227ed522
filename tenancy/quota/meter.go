// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"math"
	"time"
)

const (
	// smooth is the time over which a rate is averaged.
	smooth = 500 * time.Millisecond
	// headroom is how much more than it uses a gateway wants, so that it need not wait
	// when it uses a little more.
	headroom = 1.02
	// more is what a gateway wants at least on top while its clients wait.
	more = 1.0 / 8
	// fade is what is left of a want when nobody waits any more, at each sample.
	fade = 0.5
	// most bounds what is said to be used and wanted, in limits.
	most = 4
)

// Need is what the clients of one gateway use of a resource, and what they would, as
// parts of the limit.
type Need struct {
	Used, Want float64
	// Waits says that a client had to wait, or was refused, for want of more.
	Waits bool
	// Unit is what one connection is; 0 for rates.
	Unit float64
}

// Meter follows one resource at one gateway.
type Meter struct {
	rate float64 // of Sample, a second, averaged
	want float64
}

// Rate is what was used lately, in a second.
func (m *Meter) Rate() float64 { return m.rate }

// Idle reports whether there is nothing left to follow.
func (m *Meter) Idle() bool { return m.rate < 0.01 && m.want < 0.001 }

// Sample notes what was used in the time past, and whether somebody waited. limit is in
// a second, and above 0.
func (m *Meter) Sample(past time.Duration, n uint64, waits bool, limit int64) Need {
	m.Count(past, n)
	used := min(m.rate/float64(limit), most)
	if waits {
		// What is wanted cannot be known of clients that are held back: more and more.
		m.want = min(1, max(2*m.want, m.want+more))
	} else {
		m.want *= fade
	}
	m.want = min(max(m.want, headroom*used), most)
	return Need{Used: used, Want: m.want, Waits: waits}
}

// Count is Sample for what has no limit.
func (m *Meter) Count(past time.Duration, n uint64) {
	seconds := max(past.Seconds(), 1e-3)
	m.rate += (float64(n)/seconds - m.rate) * (1 - math.Exp(-seconds/smooth.Seconds()))
}

// SampleCount is Sample of what is counted, not measured: n of limit are used now.
func (m *Meter) SampleCount(n int64, waits bool, limit int64) Need {
	unit := 1 / float64(limit)
	used := min(float64(n)*unit, most)
	m.rate = float64(n)
	if waits {
		m.want = min(1, max(2*m.want, m.want+more, used+unit))
	} else {
		m.want = 0
	}
	m.want = max(m.want, used)
	return Need{Used: used, Want: m.want, Waits: waits, Unit: unit}
}
