// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// slowBucket does something before a question to the bus, and between an answer
// and its arrival.
type slowBucket struct {
	bus.Bucket
	before  func()
	between func(e bus.Entry)
}

func (b *slowBucket) Get(ctx context.Context, key string) (bus.Entry, error) {
	if b.before != nil {
		b.before()
	}
	e, err := b.Bucket.Get(ctx, key)
	if err == nil && b.between != nil {
		b.between(e)
	}
	return e, err
}

// TestTenant_GoneWhileAsked holds that a tenant which goes while the bus is
// asked about it is answered once with what was read, and not kept.
func TestTenant_GoneWhileAsked(t *testing.T) {
	ctx, b := t.Context(), mem.New()
	s, err := store.New(ctx, store.Config{Bus: b, Log: telemetry.Discard(), Region: "local"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.EnsureTenant(ctx, "acme", store.EnsureOptions{}); err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{Bus: b, Domain: "test", Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	d.contact.set(time.Now())
	known, err := d.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	tenants := &slowBucket{Bucket: known.tenants}
	tenants.between = func(e bus.Entry) {
		if err := tenants.Delete(ctx, e.Key, bus.Any); err != nil {
			t.Error(err)
		}
		d.tenantTold(e)
		d.tenantGone(e.Key)
	}
	d.mu.Lock()
	d.buckets.tenants = tenants
	d.mu.Unlock()
	if got, err := d.Tenant(ctx, "acme"); err != nil || got.State != tenancy.StateActive {
		t.Errorf("got %+v %v, want what was read", got, err)
	}
	if got, err := d.Tenant(ctx, "acme"); !errs.Is(err, errs.NotFound) {
		t.Errorf("afterwards: %+v %v, want NotFound", got, err)
	}
}
