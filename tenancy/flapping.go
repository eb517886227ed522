// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Flapping is when a client id that connects again and again is banned, and for how
// long. A client that goes on is banned for twice as long each time, up to
// FlappingBanMax; for each FlappingDecay without a ban that goes back by one. It is
// a plain value.
type Flapping struct {
	// Connects is how many CONNECTs of one client id, that were right, a gateway
	// lets in within Window seconds; one more is too many.
	Connects int `json:"connects" minimum:"2" maximum:"10000" doc:"CONNECTs of one client id, with the right credentials, that a gateway lets in within window; one more leads to a ban."`
	Window   int `json:"window" minimum:"1" maximum:"3600" doc:"Seconds."`
	// Ban is for how many seconds the first ban holds.
	Ban int `json:"ban" minimum:"1" maximum:"86400" doc:"Seconds of the first ban. Each further one is twice as long, up to a day; an hour without one takes that back by one."`
}

// Of bans of a Flapping.
const (
	FlappingBanMax = 24 * time.Hour
	FlappingDecay  = time.Hour
)

// Valid checks f. The error is Invalid with Code "flapping_invalid".
func (f *Flapping) Valid() error {
	switch {
	case f == nil:
	case f.Connects < 2 || f.Connects > 10_000:
		return errs.Coded(errs.Invalid, "flapping_invalid", "connects: expected 2 to 10000, found %d", f.Connects)
	case f.Window < 1 || f.Window > 3600:
		return errs.Coded(errs.Invalid, "flapping_invalid", "window: expected 1 to 3600 seconds, found %d", f.Window)
	case f.Ban < 1 || f.Ban > 86400:
		return errs.Coded(errs.Invalid, "flapping_invalid", "ban: expected 1 to 86400 seconds, found %d", f.Ban)
	}
	return nil
}

// Duration is for how long the ban of that level holds; the first is 1.
func (f *Flapping) Duration(level int) time.Duration {
	d := time.Duration(f.Ban) * time.Second
	for range min(level-1, 30) {
		if d *= 2; d >= FlappingBanMax {
			return FlappingBanMax
		}
	}
	return min(d, FlappingBanMax)
}

// LevelAfter is the level of a ban that comes at that time after one of that level
// that ended at end.
func LevelAfter(level int, end, now time.Time) int {
	if quiet := now.Sub(end); quiet > 0 {
		level -= int(min(quiet/FlappingDecay, 1<<20))
	}
	return max(level, 0) + 1
}

// SubjectFlapping is where tenancyd takes a Flap.
const SubjectFlapping = "tenancy.flapping"

// Flap is a client id that a gateway has banned for flapping.
type Flap struct {
	Tenant   string `json:"tenant"`
	ClientID string `json:"client_id"`
	Connects int    `json:"connects" minimum:"2" maximum:"10000" doc:"CONNECTs of one client id, with the right credentials, that a gateway lets in within window; one more leads to a ban."`
	Gateway  string `json:"gateway"`
}
