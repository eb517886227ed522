// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// The watches of Run: one for each bucket that may change, whatever the number of
// tenants and connections.
const (
	ofTenants = iota
	ofCredentials
	ofTickets
	ofBans
	ofKeys
	ofDevices
	ofHosts
	watches
)

// awayAfter is how old what is known is when the control plane counts as away. Watches
// say every 2 s that they are complete, and a bucket without a leader is silent for up to
// 9 s.
const awayAfter = 15 * time.Second

// contact is up to when what is known is complete. That the bus answers is not enough:
// what it had to tell while it was away must have been told. It is safe for concurrent
// use; the zero contact has never been.
type contact struct {
	mu       sync.RWMutex
	complete [watches]time.Time // guarded by mu
	at       time.Time          // guarded by mu; the earliest of complete, or the snapshot's
}

// heard notes that a watch is complete up to a time, and reports whether that is the
// first contact.
func (c *contact) heard(of int, at time.Time) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.complete[of] = at
	for _, t := range c.complete {
		if t.Before(at) {
			at = t
		}
	}
	if at.IsZero() || !at.After(c.at) {
		return false
	}
	first = c.at.IsZero()
	c.at = at
	return first
}

func (c *contact) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

func (c *contact) last() time.Time {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.at
}

// current is Current of a watch. What the bus says of time is in its clock.
func (d *Directory) current(of int) func(at time.Time) {
	return func(at time.Time) {
		if d.contact.heard(of, d.now().Add(-time.Since(at))) {
			d.markDirty()
		}
		if !d.contact.last().IsZero() {
			d.setReady()
		}
	}
}

// watch is what is watched of a bucket.
func (d *Directory) watch(of int) bus.Watch { return bus.Watch{Current: d.current(of)} }

// Contact is up to when what is known is complete; the zero time if the bus was never
// heard of.
func (d *Directory) Contact() time.Time { return d.contact.last() }

// Ready waits until the tenants are known, from the bus or from the snapshot.
func (d *Directory) Ready(ctx context.Context) error {
	select {
	case <-d.ready:
		return nil
	case <-ctx.Done():
		return errs.New(errs.Unavailable, "the tenants are not known yet: the bus cannot be reached and there is no snapshot of the last %s", d.cfg.Keep)
	}
}

func (d *Directory) setReady() { d.once.Do(func() { close(d.ready) }) }

// State is how the control plane does, as a Directory sees it.
type State string

// The states of the control plane.
const (
	// StateReached: changes are heard of.
	StateReached State = "reached"
	// StateAway: known clients are let in, by what was heard last; unknown ones are
	// refused.
	StateAway State = "away"
	// StateGone: it is away for longer than Keep, and nobody is let in.
	StateGone State = "gone"
	// StateNever: it was never heard of, and there is no snapshot. Nobody is let in.
	StateNever State = "never"
)

// stateOf is the state at a time, after the last contact.
func stateOf(now, contact time.Time, keep time.Duration) State {
	switch age := now.Sub(contact); {
	case contact.IsZero():
		return StateNever
	case age > keep:
		return StateGone
	case age > awayAfter:
		return StateAway
	}
	return StateReached
}

// Status is how a Directory does, for operators.
type Status struct {
	State State `json:"state"`
	// Heard is up to when all changes are known, Age how many seconds ago that is. Both
	// are missing if the control plane was never heard of.
	Heard *time.Time `json:"last_heard_at,omitempty"`
	Age   *float64   `json:"age_seconds,omitempty"`
	// Until is until when known clients are let in, if the control plane is not heard
	// of again.
	Until *time.Time `json:"known_served_until,omitempty"`
	// Tenants and Credentials are how many are known.
	Tenants     int `json:"tenants_known"`
	Credentials int `json:"credentials_known"`
}

// Status returns how the directory does now.
func (d *Directory) Status() Status {
	now, contact := d.now(), d.Contact()
	s := Status{State: stateOf(now, contact, d.cfg.Keep), Tenants: d.cache.tenantCount(), Credentials: d.Kept()}
	if !contact.IsZero() {
		heard, until, age := contact.UTC(), contact.Add(d.cfg.Keep).UTC(), now.Sub(contact).Seconds()
		s.Heard, s.Until, s.Age = &heard, &until, &age
	}
	return s
}

// Check is a health check: nil while the directory may answer.
func (d *Directory) Check(context.Context) error { return d.fresh() }

// CheckContact is a health check: nil while changes are heard of.
func (d *Directory) CheckContact(context.Context) error {
	now, contact := d.now(), d.Contact()
	if stateOf(now, contact, d.cfg.Keep) != StateAway {
		return d.fresh()
	}
	return errs.New(errs.Unavailable, "the control plane was not heard of since %s; known clients are let in until %s",
		contact.UTC().Format(time.RFC3339), contact.Add(d.cfg.Keep).UTC().Format(time.RFC3339))
}

// fresh returns an error if what is known is too old to act on.
func (d *Directory) fresh() error {
	contact := d.Contact()
	switch {
	case contact.IsZero():
		return errs.Coded(errs.Unavailable, tenancy.CodeControlPlaneNever, "the control plane was never reached")
	case d.now().Sub(contact) > d.cfg.Keep:
		return errs.Coded(errs.Unavailable, tenancy.CodeControlPlaneGone, "the control plane was not heard of since %s, which is longer than %s", contact.UTC().Format(time.RFC3339), d.cfg.Keep)
	}
	return nil
}
