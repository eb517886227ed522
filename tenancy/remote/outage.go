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

// outage is whether the bus has failed to answer lately. Then one question a second
// finds out whether it does again, and the others fail at once: a bus may be connected
// and not answer, and clients that nobody knows would then keep the gateway's turns for
// CONNECTs from those that it knows. It is safe for concurrent use.
type outage struct {
	mu   sync.Mutex
	on   bool      // guarded by mu
	next time.Time // guarded by mu; when somebody may ask again
}

// tryEvery is how often a bus is asked that did not answer.
const tryEvery = time.Second

// may reports whether the bus may be asked now.
func (o *outage) may(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.on {
		return true
	}
	if now.Before(o.next) {
		return false
	}
	o.next = now.Add(tryEvery)
	return true
}

// told notes whether it has answered.
func (o *outage) told(now time.Time, answered bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.on = !answered; o.on {
		o.next = now.Add(tryEvery)
	}
}

func (o *outage) is() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.on
}

// What clients are refused for because the control plane cannot be asked.
const (
	aboutTenant = iota
	aboutCredential
	aboutDevice
	aboutGrants
	aboutPolicy
	aboutKeys
	aboutAll // everybody is: it is away for too long
	abouts
)

var aboutNames = [abouts]string{
	aboutTenant: "tenant", aboutCredential: "credential", aboutDevice: "device", aboutGrants: "grants", aboutPolicy: "policy", aboutKeys: "keys", aboutAll: "all",
}

// unanswered counts a refusal, and is its error.
func (d *Directory) unanswered(about int, what string, err error) error {
	d.refusals[about].Add(1)
	return errs.Coded(errs.Unavailable, tenancy.CodeControlPlaneAway, "%s, and the control plane cannot be asked: %w", what, err)
}

// ask gets an entry of a bucket while a client waits. what says what is not known, if the
// bus does not answer; then the error is Unavailable.
func (d *Directory) ask(ctx context.Context, about int, what string, from func(*buckets) bus.Bucket, key string) (bus.Entry, error) {
	if !d.outage.may(time.Now()) {
		return bus.Entry{}, d.unanswered(about, what, errs.New(errs.Unavailable, "it did not answer a moment ago"))
	}
	e, err := d.get(ctx, from, key)
	if ctx.Err() == nil { // else the client has not waited
		d.outage.told(time.Now(), !errs.Is(err, errs.Unavailable))
	}
	if err != nil && !errs.Is(err, errs.NotFound) {
		return e, d.unanswered(about, what, err)
	}
	return e, err
}

func (d *Directory) get(ctx context.Context, from func(*buckets) bus.Bucket, key string) (bus.Entry, error) {
	b, err := d.open(ctx)
	if err != nil {
		return bus.Entry{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return from(&b).Get(ctx, key)
}
