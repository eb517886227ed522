// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"

	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/store"
)

// uses has the history of a tenant say so if it has come to 80% of a quota, or to all of it, with
// what was made. count is asked how many there are now, made of which were made.
func (s *Server) uses(ctx context.Context, t *tenancy.TenantRecord, quota string, made int64, count func(context.Context, string) (int64, error)) {
	limits, err := t.Limits()
	if err != nil || made <= 0 || s.cfg.Happened == nil {
		return
	}
	most, ok := limits.Get(quota)
	if !ok || most < 1 {
		return
	}
	now, err := count(ctx, t.ID)
	if err != nil {
		s.log.Warn("it is not known whether a tenant has come to its quota", "tenant", t.ID, "quota", quota, "error", err)
		return
	}
	if at := level.Crossed(now-made, now, most); at != level.Below {
		s.cfg.Happened(t.ID, events.OfQuota(s.now(), quota, at, float64(now)/float64(most)))
	}
}

// usesTenants has the history of each tenant of an organization say so if it has come to a level of
// the quota tenants with the one that was made: the quota is the organization's, which has no
// history of its own.
func (s *Server) usesTenants(ctx context.Context, organization string) {
	if s.cfg.Happened == nil {
		return
	}
	most, err := s.store.OrganizationLimit(ctx, organization, "tenants")
	var now int64
	var o *store.Organization
	if err == nil {
		now, err = s.store.CountTenants(ctx, organization)
	}
	if err == nil {
		o, err = s.store.Organization(ctx, organization)
	}
	if err != nil {
		s.log.Warn("it is not known whether an organization has come to its quota", "organization", organization, "quota", "tenants", "error", err)
		return
	}
	if at := level.Crossed(now-1, now, most); at != level.Below {
		for _, t := range o.Tenants {
			s.cfg.Happened(t, events.OfQuota(s.now(), "tenants", at, float64(now)/float64(most)))
		}
	}
}
