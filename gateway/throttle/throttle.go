// SPDX-License-Identifier: Apache-2.0

// Package throttle holds clients and tenants to their rates with token buckets.
// It is told the time and waits for nothing: who is over a rate is read, or
// written to, later. All types are safe for concurrent use.
package throttle

import (
	"math"
	"sync/atomic"
	"time"
)

// Rate is what passes in a second. A negative figure is no limit.
type Rate struct {
	Messages, Bytes int64
	// Burst is how many seconds' worth may pass at once; 0 is 1. Of bytes it is
	// leastBytes at least.
	Burst int64
	// MessagesShare and BytesShare are the parts of it that may pass here; 0 is all.
	MessagesShare, BytesShare float64
}

// Limited reports whether r limits anything.
func (r Rate) Limited() bool { return r.Messages >= 0 || r.Bytes >= 0 }

// Budget is what may pass now.
type Budget struct{ Messages, Bytes int64 }

// Spent reports whether nothing may pass.
func (b Budget) Spent() bool { return b.Messages <= 0 || b.Bytes <= 0 }

// Throttle is a bucket of messages and one of bytes. What has begun within a budget may end beyond it: the bucket is then in
// debt, and fills up from there. The zero value has no limits.
type Throttle struct {
	messages, bytes bucket
	// slow is since when nobody has found the buckets half full, from the first
	// Slow on, in Unix nanoseconds; 0 before.
	slow atomic.Int64
}

// leastBytes is what a bucket of bytes holds at least: a batch of small packets passes at
// a low rate, too.
const leastBytes = 64 << 10

// longest bounds Wait: somebody looks again then, after a change of the rate.
const longest = time.Minute

// Set changes the rate. What was spent before counts on.
func (t *Throttle) Set(now time.Time, r Rate) {
	t.messages.set(now, r.Messages, r.MessagesShare, r.Burst, 1) // a rate of 0 lets one pass, and then none
	t.bytes.set(now, r.Bytes, r.BytesShare, r.Burst, leastBytes)
}

// Budget is what may pass now.
func (t *Throttle) Budget(now time.Time) Budget {
	m, fm := t.messages.has(now)
	b, fb := t.bytes.has(now)
	if t.slow.Load() != 0 && halfFull(m, fm) && halfFull(b, fb) {
		t.slow.Store(0)
	}
	return Budget{int64(math.Floor(m)), int64(math.Floor(b))}
}

func halfFull(tokens float64, f *fill) bool { return f == nil || tokens >= f.burst/2 }

// Spend takes what has passed.
func (t *Throttle) Spend(now time.Time, messages, bytes int) {
	t.messages.spend(now, messages)
	t.bytes.spend(now, bytes)
}

// Give takes back what was spent and has not passed.
func (t *Throttle) Give(now time.Time, messages, bytes int) {
	t.messages.give(now, messages)
	t.bytes.give(now, bytes)
}

// Limited reports whether there is a rate.
func (t *Throttle) Limited() bool { return t.messages.p.Load() != nil || t.bytes.p.Load() != nil }

// Wait is how long until the budget is not spent, a minute at the most; 0 if it
// is not. byBytes says that it is for the bytes.
func (t *Throttle) Wait(now time.Time) (d time.Duration, byBytes bool) {
	m, b := t.messages.wait(now), t.bytes.wait(now)
	return max(m, b), b > m
}

// Slowed is for how long Slow has been said without such a time; 0 if it is not.
func (t *Throttle) Slowed(now time.Time) time.Duration {
	if since := t.slow.Load(); since != 0 {
		return time.Duration(now.UnixNano() - since)
	}
	return 0
}

// Slow notes that somebody has to wait, and returns for how long that has been
// so without a time in which the buckets were half full.
func (t *Throttle) Slow(now time.Time) time.Duration {
	n := now.UnixNano()
	if t.slow.CompareAndSwap(0, n) {
		return 0
	}
	return time.Duration(n - t.slow.Load())
}
