// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"maps"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Limiter says what limits tenants have, over what their plans and overrides say. It is
// safe for concurrent use.
type Limiter interface {
	// Limits returns the limits that differ, by quota name. With an error the tenant
	// keeps those that it has.
	Limits(ctx context.Context, t *tenancy.TenantRecord, organization string) (map[string]int64, error)
}

// limit fills in what the limiter says of a tenant that is about to be written; was is
// nil for a new one. The error is that the tenant's organization cannot be read.
func (s *Store) limit(ctx context.Context, was, now *tenancy.TenantRecord) error {
	if s.cfg.Limiter == nil {
		now.Effective, now.Held = nil, false
		return nil
	}
	name := ""
	switch o, err := s.Organization(ctx, now.Organization); {
	case err == nil:
		name = o.Name
	case !errs.Is(err, errs.NotFound): // that of a sign-up is made after its tenant
		return err
	}
	return s.limitAs(ctx, was, now, name)
}

// limitAs is limit where the name of the organization is known.
func (s *Store) limitAs(ctx context.Context, was, now *tenancy.TenantRecord, organization string) error {
	if s.cfg.Limiter == nil {
		now.Effective, now.Held = nil, false
		return nil
	}
	limits, err := s.cfg.Limiter.Limits(ctx, now, organization)
	if err == nil {
		now.Effective, now.Held = limits, false
		return nil
	}
	// Whatever has changed, what the tenant may use does not: a policy that fails opens
	// nothing. A new tenant has what its plan says.
	before := was
	if before == nil {
		before = &tenancy.TenantRecord{Plan: now.Plan}
	}
	held, err := before.Limits()
	if err != nil {
		return err
	}
	now.Effective, now.Held = held.All(), true
	return nil
}

// Limited is the tenant as it would be stored: with what the installation's policy says
// of it after a change from was.
func (s *Store) Limited(ctx context.Context, was, now *tenancy.TenantRecord) (*tenancy.TenantRecord, error) {
	now = now.Clone()
	return now, s.limit(ctx, was, now)
}

// limitersAtOnce is how many tenants are looked at at once by LimitAll.
const limitersAtOnce = 8

// LimitAll has the limiter say again what each tenant may use, and returns how many
// tenants that has changed. Any number of processes may do it at once.
func (s *Store) LimitAll(ctx context.Context) (changed int, err error) {
	entries, _, err := bus.List(ctx, s.tenants, "", 1<<30)
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	names := map[string]string{} // of organizations
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(limitersAtOnce)
	for _, e := range entries {
		was, err := tenancy.DecodeTenant(e.Value, uint64(e.Revision))
		if err != nil {
			s.log.Warn("the record of a tenant cannot be read: its limits stay", "tenant", e.Key, "error", err)
			continue
		}
		if was.State == tenancy.StateReserved || was.State == tenancy.StateDeleted {
			continue
		}
		work.Go(func() error {
			mu.Lock()
			name, ok := names[was.Organization]
			mu.Unlock()
			if !ok && s.cfg.Limiter != nil {
				var o struct{ Name string }
				e, err := s.organizations.Get(ctx, was.Organization)
				if err == nil {
					err = json.Unmarshal(e.Value, &o)
				}
				if errs.Is(err, errs.Unavailable) {
					return err
				}
				name = o.Name
				mu.Lock()
				names[was.Organization] = name
				mu.Unlock()
			}
			now := was.Clone()
			if err := s.limitAs(ctx, was, now, name); err != nil {
				s.log.Warn("the limits of a tenant stay", "tenant", was.ID, "error", err)
				return nil
			}
			if now.Held == was.Held && maps.Equal(now.Effective, was.Effective) {
				return nil
			}
			_, err := s.UpdateTenant(ctx, was.ID, 0, func(*tenancy.TenantRecord) error { return nil })
			switch {
			case errs.Is(err, errs.NotFound):
				return nil
			case err == nil:
				mu.Lock()
				changed++
				mu.Unlock()
			}
			return err
		})
	}
	err = work.Wait()
	return changed, err
}
