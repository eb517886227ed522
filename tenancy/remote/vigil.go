// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"log/slog"
	"time"
)

const (
	// vigilEvery is how often it is looked how the control plane does.
	vigilEvery = time.Second
	// vigilAgain is how often it is said that it is still away.
	vigilAgain = time.Hour
)

// vigil says in the log how the control plane does, when that changes and each hour
// while it is away.
type vigil struct {
	log   *slog.Logger
	keep  time.Duration
	state State     // the last that was said
	since time.Time // the contact before it was away
	next  time.Time // when it is said again
}

func newVigil(log *slog.Logger, keep time.Duration) *vigil {
	return &vigil{log: log, keep: keep, state: StateReached}
}

// look says what there is to say at a time, with that contact and so many known
// credentials.
func (v *vigil) look(now, contact time.Time, credentials int) {
	state := stateOf(now, contact, v.keep)
	if state == v.state && (state == StateReached || now.Before(v.next)) {
		return
	}
	was := v.state
	v.state, v.next = state, now.Add(vigilAgain)
	if state != StateReached && was == StateReached {
		v.since = contact
	}
	about := []any{"last_heard_at", contact.UTC().Format(time.RFC3339)}
	switch state {
	case StateReached:
		if !v.since.IsZero() {
			about = append(about, "away_for", contact.Sub(v.since).Round(time.Second))
		}
		v.log.Info("the control plane is back; all that was changed meanwhile is known", about...)
	case StateAway:
		v.log.Warn("the control plane is away: known clients are let in by what was heard last, unknown ones are refused",
			append(about, "until", contact.Add(v.keep).UTC().Format(time.RFC3339), "credentials_known", credentials)...)
	case StateGone:
		v.log.Error("the control plane is away for too long: nobody is let in until it is back; who is connected stays", append(about, "limit", v.keep)...)
	case StateNever:
		v.log.Error("the control plane was never reached, and there is no snapshot: nobody is let in until it is there")
	}
}

// runVigil looks until ctx is done. At first it waits: what a control plane that is there
// has to tell may take a while.
func (d *Directory) runVigil(ctx context.Context) {
	v := newVigil(d.log, d.cfg.Keep)
	if !pause(ctx, awayAfter) {
		return
	}
	for {
		v.look(d.now(), d.Contact(), d.Kept())
		if !pause(ctx, vigilEvery) {
			return
		}
	}
}
