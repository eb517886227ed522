// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync/atomic"
	"time"
)

// sleeps are the two directions of a connection in which it may wait for a rate. The
// connection's mutex guards them. Only who has had to wait has them.
type sleeps struct{ in, out sleep }

// sleep is a wait for a rate. It has one timer, which is used again: who is woken early
// and has to wait again leaves none behind.
type sleep struct {
	timer *time.Timer // nil before the first wait
	// until is when it ends; zero for who does not wait.
	until time.Time
	// of counts those that wait for the same quota that gateways share, this one among
	// them; nil for another rate.
	of *atomic.Int64
}

func (s *sleep) asleep() bool { return !s.until.IsZero() }

// lent reports whether it is a wait for what gateways share, which another part ends.
func (s *sleep) lent() bool { return s.of != nil }

// begin has wake called after a time, unless end is before that. wake takes the
// connection's mutex, asks over and calls end.
func (s *sleep) begin(now time.Time, d time.Duration, of *atomic.Int64, wake func()) {
	s.end()
	s.until, s.of = now.Add(d), of
	if of != nil {
		of.Add(1)
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(d, wake)
	} else {
		s.timer.Reset(d)
	}
}

// over reports whether a wait is at its end. It is not if the timer has fired for one
// that was ended meanwhile.
func (s *sleep) over(now time.Time) bool { return s.asleep() && !now.Before(s.until) }

// end ends a wait, if there is one.
func (s *sleep) end() {
	if !s.asleep() {
		return
	}
	s.timer.Stop()
	s.until = time.Time{}
	if s.of != nil {
		s.of.Add(-1)
		s.of = nil
	}
}

// sleepsLocked returns the sleeps of c, made when first needed.
func (c *connection) sleepsLocked() *sleeps {
	if c.sleeps == nil {
		c.sleeps = &sleeps{}
	}
	return c.sleeps
}

// throttleInLocked has c not be read for a time.
func (c *connection) throttleInLocked(now time.Time, d time.Duration, of *atomic.Int64) {
	s := &c.sleepsLocked().in
	s.begin(now, d, of, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.over(time.Now()) {
			c.wakeLocked()
		}
	})
}

// throttleOutLocked has what waits for the client wait for a time.
func (c *connection) throttleOutLocked(now time.Time, d time.Duration) {
	s := &c.sleepsLocked().out
	s.begin(now, d, nil, func() {
		c.mu.Lock()
		over := s.over(time.Now())
		if over {
			c.goOnLocked()
		}
		c.mu.Unlock()
		if over {
			c.gw.flush()
		}
	})
}
