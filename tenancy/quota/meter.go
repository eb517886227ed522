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
	headroom = 1.03
	// more is what a gateway wants at least on top while its clients wait.
	more = 1.0 / 8
	// A gateway that has used something for steady samples and has to wait may lack a
	// little only, which takes two samples to come: for patient of them it wants little
	// more.
	steady  = 8
	patient = 2
	little  = 1.1
	// fade is what is left of a want when nobody waits any more, at each sample.
	fade = 0.5
	// quiescent is the rate below which nothing is used.
	quiescent = 0.01
	// wakeGrowth is from what growth on those that wait for a rate are woken.
	wakeGrowth = 1.1
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
	// age is for how many samples something has been used; waited is for how many at a
	// stretch somebody had to wait.
	age, waited int
	// woken is the least part from which those that wait may have computed for how long
	// they must.
	woken float64
}

// Rate is what was used lately, in a second.
func (m *Meter) Rate() float64 { return m.rate }

// Idle reports whether there is nothing left to follow.
func (m *Meter) Idle() bool { return m.rate < quiescent && m.want < tiny }

// Sample notes what was used in the time past, and whether somebody waited, or does still,
// when the part lent was lent. limit is in a second, and above 0.
func (m *Meter) Sample(past time.Duration, n uint64, waits bool, limit int64, lent float64) Need {
	m.Count(past, n)
	used := min(m.rate/float64(limit), most)
	if !waits || m.woken == 0 || lent < m.woken {
		m.woken = lent
	}
	m.waited++
	switch {
	case !waits:
		m.waited = 0
		m.want *= fade
	case m.age >= steady && m.waited <= patient:
		m.want = max(m.want, min(1, little*lent))
	default:
		// What is wanted cannot be known of clients that are held back: more than is lent.
		m.want = max(m.want, min(1, 2*lent+more))
	}
	m.want = min(max(m.want, headroom*used), most)
	return Need{Used: used, Want: m.want, Waits: waits}
}

// Grown reports whether the part lent is clearly more than the one from which those that
// wait have computed for how long. They are to be woken then: Grown takes it that they
// compute it anew.
func (m *Meter) Grown(lent float64) bool {
	if m.woken == 0 || lent < m.woken*wakeGrowth {
		return false
	}
	m.woken = lent
	return true
}

// Count is Sample for what has no limit.
func (m *Meter) Count(past time.Duration, n uint64) {
	seconds := max(past.Seconds(), 1e-3)
	weight := max(1-math.Exp(-seconds/smooth.Seconds()), 1/float64(m.age+1)) // at first the plain average
	m.rate += (float64(n)/seconds - m.rate) * weight
	if m.age++; m.rate < quiescent {
		m.age = 0
	}
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
