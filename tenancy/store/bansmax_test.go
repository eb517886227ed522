// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// Bans that gateways make leave half of the bans that a tenant may have to people, and one
// that is there is made again.
func TestAutomaticBansMax(t *testing.T) {
	t.Parallel()
	b := mem.New()
	s, err := store.New(t.Context(), store.Config{Bus: b, Log: telemetry.Discard(), Region: "local"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.EnsureTenant(t.Context(), "acme", store.EnsureOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.UpdateTenant(t.Context(), "acme", 0, store.Flapping(&tenancy.Flapping{Connects: 5, Window: 10, Ban: 60})); err != nil {
		t.Fatal(err)
	}
	bans, err := b.Bucket(t.Context(), bus.BucketConfig{Name: tenancy.BansBucket})
	if err != nil {
		t.Fatal(err)
	}
	for n := range tenancy.AutomaticBansMax - 1 {
		if _, err := bans.Put(t.Context(), tenancy.BanPrefix("acme")+fmt.Sprint("ban_", n), []byte("{}"), bus.Any); err != nil {
			t.Fatal(err)
		}
	}
	flapped := func(id string) error {
		_, err := s.Flapped(t.Context(), tenancy.Flap{Tenant: "acme", ClientID: id})
		return err
	}
	for range 2 {
		if err := flapped("c1"); err != nil {
			t.Error(err)
		}
	}
	var most *tenancy.ExceededError
	if err := flapped("c2"); !errors.As(err, &most) || most.Limit != tenancy.AutomaticBansMax {
		t.Errorf("one too many: %v", err)
	}
	if _, made, err := s.Ban(t.Context(), "acme", tenancy.Ban{Kind: "client_id", Value: "c2"}); err != nil || !made {
		t.Errorf("by hand: %v, %v", made, err)
	}
}
