// SPDX-License-Identifier: Apache-2.0

// Package jointrate is a token bucket that several processes of a region take from
// without asking each other: each tells from time to time what it took, and the others
// take that off what they have. Over a time it holds as exactly as one bucket: what was
// taken twice is owed, and nothing more is given until it has come in again. The package
// does no I/O, owns no goroutine and is told the time.
package jointrate

import (
	"math"
	"sync"
	"time"
)

// Rate is a bucket as one of the processes knows it. The zero Rate is full. It is safe
// for concurrent use.
//
// Between two exchanges a process takes no more than a part of what there is: of n that
// have said nothing lately each 1/n, so that all together do not take more at once than
// one bucket has; later what the others have left.
type Rate struct {
	mu sync.Mutex
	// limit is per second, burst what may be taken at once; tokens are below 0 when
	// something is owed. All guarded by mu, as the rest.
	limit         int64
	burst, tokens float64
	// spilled is what came in while the bucket was full, since the last exchange: what
	// others took meanwhile was of that.
	spilled float64
	at      time.Time
	// taken since the last exchange, and between the two before, of which the others may
	// not have said yet what they took meanwhile.
	taken, before int64
	// part is of what there is that may be taken until the next exchange, from 0 to 1;
	// 1/n if it is less.
	part float64
}

// Take takes one, if there is one: of limit per second, 0 or more, of which those of burst
// seconds may be taken at once, and at least one. The process is one of n. If there is
// none, wait is when there may be one.
func (r *Rate) Take(now time.Time, limit int64, burst float64, n int) (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fill(now, limit, burst)
	switch {
	case limit <= 0:
		return time.Hour, false
	case r.tokens < 1:
		return seconds((1 - r.tokens) / float64(limit)), false
	case r.lately() > 0 && float64(r.lately()+1) > r.share(n)*(r.tokens+float64(r.lately())):
		return seconds(1 / float64(limit)), false
	}
	r.tokens--
	r.taken++
	return 0, true
}

// Left is how many could be taken now, 0 or more, for who is told; nothing is taken.
func (r *Rate) Left(now time.Time) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.IsZero() {
		return 0
	}
	r.fill(now, r.limit, 0)
	return int64(max(r.tokens, 0))
}

// Exchange is called from time to time, over after the last call: others is what the
// other n-1 processes have said they took in about that time. It returns what this one
// took since the last call, which the others are to be told.
func (r *Rate) Exchange(now time.Time, others int64, n int, over time.Duration) (taken int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken, r.taken = r.taken, 0
	if r.at.IsZero() {
		return taken // nothing was taken yet, and the limit is not known
	}
	r.fill(now, r.limit, 0)
	in := float64(r.limit) * over.Seconds()
	late := max(float64(others)-min(r.spilled, in), 0)
	// More than all buckets together had cannot have been taken, whatever they say.
	r.tokens = max(r.tokens-late, -float64(n)*r.burst)
	r.spilled, r.part = 0, 0
	// Who began when this one did has said so by the second exchange, not by the first.
	if taken > 0 && r.before > 0 && in > 0 {
		r.part = 1 - min(float64(others)/in, 1)
	}
	r.before = taken
	return taken
}

// Limited has the bucket be known to a process that did not take from it yet, but has
// heard that others do. It changes nothing if one has been taken.
func (r *Rate) Limited(now time.Time, limit int64, burst float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.IsZero() && limit > 0 {
		r.fill(now, limit, burst)
	}
}

func (r *Rate) lately() int64 { return r.taken + r.before }

// share is the part that may be taken until the next exchange.
func (r *Rate) share(n int) float64 { return max(r.part, 1/float64(max(n, 1))) }

// fill has come in what did since the last call. Another limit begins with a full bucket;
// a burst of 0 is the one there was.
func (r *Rate) fill(now time.Time, limit int64, burst float64) {
	most := r.burst
	if burst > 0 {
		most = max(float64(limit)*burst, 1)
	}
	if r.at.IsZero() || limit != r.limit || most != r.burst {
		r.limit, r.burst, r.tokens, r.spilled, r.at, r.taken, r.before = limit, most, most, 0, now, 0, 0
		return
	}
	if past := now.Sub(r.at); past > 0 {
		r.tokens += past.Seconds() * float64(limit)
		r.at = now
	}
	if over := r.tokens - most; over > 0 {
		r.tokens = most
		r.spilled += over
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(math.Ceil(s * float64(time.Second)))
}
