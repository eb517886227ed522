// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"context"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// A file whose tenant is deleted is not tried each minute; others are, also those whose tenant
// may be made after its folder.
func TestFail_Deleted(t *testing.T) {
	t.Parallel()
	records, err := store.New(t.Context(), store.Config{Bus: mem.New(), Log: telemetry.Discard(), Region: "local"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), Config{Store: records, Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := records.EnsureTenant(t.Context(), "gone", store.EnsureOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := records.UpdateTenant(t.Context(), "gone", 0, func(r *tenancy.TenantRecord) error {
		r.State = tenancy.StateDeleted
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	apply := func(tenant string) error {
		_, err := s.apply(context.Background(), &change{tenant: tenant, kind: tenancy.SourcePasswd}, &store.Source{})
		return err
	}
	for _, c := range []struct {
		tenant string
		why    error
		want   time.Duration
	}{
		{"gone", apply("gone"), deletedAgain},
		{"never-made", apply("never-made"), againAfter},
		{"never-made", errs.New(errs.Invalid, "line 1: expected user:hash"), againAfter},
		{"never-made", errs.New(errs.Unavailable, "away"), soonAfter},
	} {
		f := &file{tenant: c.tenant, kind: tenancy.SourcePasswd}
		s.fail(t.Context(), f, c.why)
		if in := time.Until(f.again); in > c.want || in < c.want-5*time.Second {
			t.Errorf("%v: tried again in %s, want %s", c.why, in, c.want)
		}
	}
}
