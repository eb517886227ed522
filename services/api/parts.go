// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"

	"github.com/manormq/manor/tenancy"
)

// replacePart replaces a part of the tenant: what names it, of returns it as it is
// shown in the audit log, and edit writes and checks it.
func (s *Server) replacePart(ctx context.Context, c Change, what string, of func(*tenancy.TenantRecord) any, edit func(*tenancy.TenantRecord) error) (*tenancy.TenantRecord, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(c.IfMatch, "tenant "+t.ID)
	if err != nil {
		return nil, err
	}
	tried := t.Clone()
	if err := edit(tried); err != nil {
		return nil, err
	}
	if c.DryRun {
		unchanged(ctx)
		return tried, matches(rev, t.Revision, "tenant "+t.ID)
	}
	if err := change(ctx, t.Organization, t.ID, what, of(t)); err != nil {
		return nil, err
	}
	was, now, err := s.store.ChangeTenant(ctx, t.ID, rev, edit)
	if err != nil {
		return nil, err
	}
	s.log.Info("a part of a tenant replaced", "tenant", t.ID, "part", what)
	return now, changed(ctx, of(was), of(now))
}
