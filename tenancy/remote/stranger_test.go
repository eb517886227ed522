// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// countingBus counts the questions about credentials.
type countingBus struct {
	bus.Bus
	asked atomic.Int64
}

func (b *countingBus) Bucket(ctx context.Context, cfg bus.BucketConfig) (bus.Bucket, error) {
	k, err := b.Bus.Bucket(ctx, cfg)
	if err != nil || cfg.Name != tenancy.CredentialsBucket {
		return k, err
	}
	return &slowBucket{Bucket: k, before: func() { b.asked.Add(1) }}, nil
}

// quick is a Verifier that takes no time and counts.
type quick struct{ verified, refused atomic.Int64 }

func (q *quick) Verify(context.Context, string, string, uint64, string, []byte) (bool, error) {
	q.verified.Add(1)
	return false, nil
}

func (q *quick) Refuse(context.Context, string, string, []byte) error {
	q.refused.Add(1)
	return nil
}

// TestStrangers holds that guessing costs who guesses a password check each
// time, whether tenant and name exist or not, and costs the bus nothing when the
// tenant's credentials are here.
func TestStrangers(t *testing.T) {
	ctx, b, v := t.Context(), &countingBus{Bus: mem.New()}, &quick{}
	s, err := store.New(ctx, store.Config{Bus: b.Bus, Log: telemetry.Discard(), Region: "local"})
	if err != nil {
		t.Fatal(err)
	}
	acme, err := s.EnsureTenant(ctx, "acme", store.EnsureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateCredential(ctx, acme, "device", "$sha256$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	d, err := New(Config{Bus: b, Verifier: v, Domain: "test", Log: telemetry.Discard(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	run, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(run); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	if err := d.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	try := func(tenant, username string, kind errs.Kind) {
		t.Helper()
		before := v.verified.Load() + v.refused.Load()
		_, err := d.Authenticate(ctx, tenancy.Attempt{
			Tenant: &tenancy.Tenant{ID: tenant}, Username: username, HasUsername: true, Password: []byte("guess"), HasPassword: true,
		})
		if !errs.Is(err, kind) {
			t.Fatalf("%s:%s: %v, want %v", tenant, username, err, kind)
		}
		if n := v.verified.Load() + v.refused.Load() - before; n != 1 {
			t.Fatalf("%s:%s: %d password checks, want 1", tenant, username, n)
		}
	}
	try("acme", "device", errs.Denied)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, _, whole := d.cache.find("acme", "device"); whole {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the tenant was not read whole")
		}
	}
	b.asked.Store(0)
	for i := range 1000 {
		try("acme", fmt.Sprint("guess-", i), errs.NotFound)
	}
	if n := b.asked.Load(); n == 0 || n > doubtsAtOnce {
		t.Errorf("1000 guesses at once asked the bus %d times, want at most %d", n, doubtsAtOnce)
	}
	for i := range 100 {
		try(fmt.Sprint("nobody-", i), "device", errs.NotFound)
	}
	try("acme", "bad\x00name", errs.NotFound)
	try("acme", "device", errs.Denied)
}
