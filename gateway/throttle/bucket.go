// SPDX-License-Identifier: Apache-2.0

package throttle

import (
	"math"
	"runtime"
	"sync/atomic"
	"time"
)

// bucket is a token bucket in the form of the generic cell rate algorithm (ITU-T I.371,
// Annex A): it keeps the time from which it is full, in one word, instead of the tokens and
// when they were counted, and is in debt when that time is further away than a burst. nil is
// no limit.
type bucket struct{ p atomic.Pointer[fill] }

// fill is a bucket at one rate. All but full is immutable.
type fill struct {
	// full is when the bucket is full, in ticks after base, in 0..fullMax; sealed when
	// another fill has taken over what was in it.
	full atomic.Int64
	base time.Time
	rate float64 // tokens in a second
	// burst is what the bucket holds, in whole tokens.
	burst float64
	// ticks are those of a token.
	ticks float64
	// still: no time passes, because a burst takes half a year or longer to fill, or for ever.
	still bool
}

const (
	// tick is what full is counted in: a sixteenth of a nanosecond, so that the rounding of
	// what is taken is below 1% for 10 bytes at 1 GB a second.
	tick = 16
	// ticksStill are those of a token where no time passes.
	ticksStill = 1 << 20
	// fullMax is about 9 years; a debt beyond is not counted. The difference of two times
	// of which each is at most as far from base is still an int64.
	fullMax = 1<<62 - 1
	// stillFrom is about half a year: what needs longer to fill a bucket has no room left
	// below fullMax for its debts.
	stillFrom = 1 << 58
	// sealed is no time.
	sealed = -1
)

// newFill is an empty bucket that fills from now on.
func newFill(now time.Time, perSecond int64, share float64, seconds, least int64) *fill {
	rate := float64(perSecond)
	if share > 0 && rate > 0 {
		rate = min(rate*share, math.MaxInt64)
	}
	f := &fill{
		base: now, rate: rate, ticks: tick * float64(time.Second) / rate,
		burst: math.Floor(min(max(rate*float64(max(seconds, 1)), float64(least)), math.MaxInt32)),
	}
	if f.ticks > stillFrom || f.burst*f.ticks > stillFrom { // +Inf at the rate 0
		f.still, f.ticks = true, ticksStill
	}
	return f
}

// set changes the rate; a bucket that had none is full. What was spent before counts on.
func (b *bucket) set(now time.Time, perSecond int64, share float64, seconds, least int64) {
	var next *fill
	if perSecond >= 0 {
		next = newFill(now, perSecond, share, seconds, least)
	}
	for {
		f := b.p.Load()
		switch {
		case f == nil && next == nil, f != nil && next != nil && f.rate == next.rate && f.burst == next.burst:
			return
		case f == nil:
			if b.p.CompareAndSwap(nil, next) {
				return
			}
			continue
		}
		// Who spends meanwhile waits for the next fill: what is spent is in exactly one.
		full := f.full.Swap(sealed)
		if full == sealed { // by another set
			runtime.Gosched()
			continue
		}
		if next != nil {
			next.full.Store(next.after(0, max(next.burst-f.tokens(now, full), 0)))
		}
		b.p.Store(next)
		return
	}
}

// at is a time in ticks, at most fullMax from base.
func (f *fill) at(now time.Time) int64 {
	if f.still {
		return 0
	}
	const most = fullMax / tick
	return min(max(int64(now.Sub(f.base)), -most), most) * tick
}

// after is when a bucket that is full at that time, in 0..fullMax, is full if n >= 0 are
// taken.
func (f *fill) after(full int64, n float64) int64 {
	more := n*f.ticks + 0.5
	if more >= float64(fullMax-full) {
		return fullMax
	}
	return full + int64(more)
}

// before is the reverse of after.
func (f *fill) before(full int64, n float64) int64 {
	less := n*f.ticks + 0.5
	if less >= float64(full) {
		return 0
	}
	return full - int64(less)
}

// tokens is how much is in a bucket that is full at that time.
func (f *fill) tokens(now time.Time, full int64) float64 {
	if missing := full - f.at(now); missing > 0 {
		return max(f.burst-float64(missing)/f.ticks, math.MinInt64/2)
	}
	return f.burst
}

// has is how much is in the bucket, negative in debt.
func (b *bucket) has(now time.Time) (tokens float64, f *fill) {
	for {
		if f = b.p.Load(); f == nil {
			return math.MaxInt64 / 2, nil
		}
		if full := f.full.Load(); full != sealed {
			return f.tokens(now, full), f
		}
		runtime.Gosched()
	}
}

func (b *bucket) spend(now time.Time, n int) {
	if n > 0 {
		b.move(func(f *fill, full int64) int64 { return f.after(max(full, f.at(now)), float64(n)) })
	}
}

// give is the reverse of spend; a bucket that is full stays as it is.
func (b *bucket) give(now time.Time, n int) {
	if n > 0 {
		b.move(func(f *fill, full int64) int64 { return f.before(max(full, f.at(now)), float64(n)) })
	}
}

// move changes when the bucket is full; to may be called several times.
func (b *bucket) move(to func(f *fill, full int64) int64) {
	for {
		f := b.p.Load()
		if f == nil {
			return
		}
		full := f.full.Load()
		if full == sealed {
			runtime.Gosched()
			continue
		}
		if f.full.CompareAndSwap(full, to(f, full)) {
			return
		}
	}
}

// wait is how long until the bucket has one.
func (b *bucket) wait(now time.Time) time.Duration {
	tokens, f := b.has(now)
	if f == nil || tokens >= 1 {
		return 0
	}
	seconds := (1 - tokens) / f.rate // +Inf at the rate 0
	if f.still || seconds > longest.Seconds() {
		return longest
	}
	return time.Duration(seconds*float64(time.Second)) + 1 // never 0 for what is not there
}
