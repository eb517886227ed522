// SPDX-License-Identifier: Apache-2.0

package quota

import "time"

// Level is how much of a quota is used.
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
	// quiet is for how long one level of one resource is not told again.
	quiet = 5 * time.Minute
)

// Crossing is a resource that has come to a level.
type Crossing struct {
	Resource
	Level Level
	Used  float64 // part of the limit, of all gateways
}

// crossings remembers which levels were told.
type crossings struct{ all map[Resource]*crossed }

type crossed struct {
	level Level
	told  [Reached + 1]time.Time
}

// look notes how much of a resource is used, and returns the level that is to be told;
// Below is none.
func (x *crossings) look(now time.Time, r Resource, used float64, waits bool) Level {
	c := x.all[r]
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
		c = &crossed{}
		if x.all == nil {
			x.all = map[Resource]*crossed{}
		}
		x.all[r] = c
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
	if at := c.told[level]; !at.IsZero() && now.Sub(at) < quiet {
		return Below
	}
	for l := Near; l <= level; l++ {
		c.told[l] = now
	}
	return level
}

// forget drops what is over.
func (x *crossings) forget(now time.Time) {
	for r, c := range x.all {
		if c.level == Below && now.Sub(c.told[Near]) > quiet && now.Sub(c.told[Reached]) > quiet {
			delete(x.all, r)
		}
	}
}
