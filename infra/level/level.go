// SPDX-License-Identifier: Apache-2.0

// Package level tells when so much of a limit is used that somebody should hear of it: at 80%,
// and when all is used. It owns no goroutine and reads no clock.
package level

import "time"

// Level is how much of a limit is used.
type Level uint8

// The levels.
const (
	Below Level = iota
	Near        // 80% and more
	Reached
)

const (
	nearAt   = 0.8
	nearOver = 0.7 // below it Near may come again
	// reachedAt counts while clients wait: held to a rate they use about all of it.
	reachedAt   = 0.9
	reachedOver = 0.85
	// Quiet is for how long one level of one limit is not told again.
	Quiet = 5 * time.Minute
	// tiny is by how much what is used may be less than all of the limit and count as that: it
	// was added up.
	tiny = 1e-6
)

// Told remembers which levels of which limits were told. The zero Told is ready. It is not safe
// for concurrent use.
type Told[K comparable] struct{ all map[K]*told }

type told struct {
	level Level
	at    [Reached + 1]time.Time
}

// Look notes that used, a part of the limit k, is used now, and returns the level that is to be
// told; Below is none. waits says that somebody waits for more of a rate.
func (x *Told[K]) Look(now time.Time, k K, used float64, waits bool) Level {
	c := x.all[k]
	level := Below
	switch {
	case used >= 1-tiny, waits && used >= reachedAt:
		level = Reached
	case used >= nearAt:
		level = Near
	}
	if c == nil {
		if level == Below {
			return Below
		}
		c = &told{}
		if x.all == nil {
			x.all = map[K]*told{}
		}
		x.all[k] = c
	}
	if level <= c.level {
		if c.level == Reached && used < reachedOver {
			c.level = Near
		}
		if c.level == Near && used < nearOver {
			c.level = Below
		}
		return Below
	}
	c.level = level
	if at := c.at[level]; !at.IsZero() && now.Sub(at) < Quiet {
		return Below
	}
	for l := Near; l <= level; l++ {
		c.at[l] = now
	}
	return level
}

// Forget drops what is over.
func (x *Told[K]) Forget(now time.Time) {
	for k, c := range x.all {
		if c.level == Below && now.Sub(c.at[Near]) > Quiet && now.Sub(c.at[Reached]) > Quiet {
			delete(x.all, k)
		}
	}
}

// Crossed is the level to which what is used of a limit has come that was before and is now; Below
// if it has come to none. A limit below 1 has no levels.
func Crossed(before, now, most int64) Level {
	of := func(n int64) Level {
		switch {
		case most < 1:
			return Below
		case n >= most:
			return Reached
		case float64(n) >= nearAt*float64(most):
			return Near
		}
		return Below
	}
	if l := of(now); l > of(before) {
		return l
	}
	return Below
}
