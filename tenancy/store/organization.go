// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Organization is who pays. It is a plain value.
type Organization struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
	// Tenants are the ids of its tenants, in order of their making.
	Tenants []string `json:"tenants,omitempty"`
	// Owners are the ids of its members with the role owner, of which the last
	// one stays.
	Owners    []string  `json:"owners,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// Restoring are the deleted tenants that are being restored, each with the time up to
	// which it counts as a tenant because of that.
	Restoring map[string]time.Time `json:"restoring,omitempty"`
	// Closed says that it is being deleted: it gets no tenant any more.
	Closed bool `json:"closed,omitempty"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

// organizationPrefix is what ids of organizations begin with.
const organizationPrefix = "org_"

// NewOrganizationID returns an id that no organization has.
func NewOrganizationID() string { return newID(organizationPrefix) }

// Organization returns the organization of that id, or an error NotFound.
func (s *Store) Organization(ctx context.Context, id string) (*Organization, error) {
	e, err := s.organizations.Get(ctx, id)
	if err != nil {
		return nil, named(err, "organization_not_found", "there is no organization %q", id)
	}
	o := &Organization{Revision: uint64(e.Revision)}
	if err := json.Unmarshal(e.Value, o); err != nil {
		return nil, errs.New(errs.Internal, "stored organization: %w", err)
	}
	return o, nil
}

// ChangeOrganization changes an organization: change gets the present record and
// may alter it, or return an error that ends it; see UpdateTenant for
// ifRevision. It returns the record as it was and is.
func (s *Store) ChangeOrganization(ctx context.Context, id string, ifRevision uint64, change func(*Organization) error) (was, now *Organization, err error) {
	for {
		o, err := s.Organization(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if ifRevision != 0 && o.Revision != ifRevision {
			return nil, nil, errs.Coded(errs.Conflict, "revision_mismatch", "the organization is at revision %d, not %d", o.Revision, ifRevision)
		}
		old := *o
		old.Tenants, old.Owners, old.Restoring = slices.Clone(o.Tenants), slices.Clone(o.Owners), maps.Clone(o.Restoring)
		if err := change(o); err != nil {
			return nil, nil, err
		}
		o.Revision, err = put(ctx, s.organizations, id, o, bus.Revision(old.Revision))
		if err == nil || !errs.Is(err, errs.Conflict) {
			return &old, o, err
		}
	}
}

// organizationQuotas are the quotas that hold for an organization rather than a
// tenant.
var organizationQuotas = []string{"tenants", "members", "api_keys", "audit_days"}

// OrganizationQuotas are the quotas that hold for an organization rather than a tenant.
func OrganizationQuotas() []string { return slices.Clone(organizationQuotas) }

// OrganizationLimit returns the organization's limit of one of the quotas
// tenants, members, api_keys and audit_days: the widest that one of its tenants
// has. One without tenants has plan free's.
func (s *Store) OrganizationLimit(ctx context.Context, id, quota string) (int64, error) {
	if !slices.Contains(organizationQuotas, quota) {
		return 0, errs.New(errs.Internal, "the quota %q is not of organizations", quota)
	}
	return s.WidestLimit(ctx, id, quota)
}

// WidestLimit is the widest limit of a quota that one of an organization's tenants
// has; of one without tenants plan free's.
func (s *Store) WidestLimit(ctx context.Context, id, quota string) (int64, error) {
	o, err := s.Organization(ctx, id)
	if errs.Is(err, errs.NotFound) {
		o, err = &Organization{}, nil
	}
	if err != nil {
		return 0, err
	}
	widest, has := int64(0), false
	for _, t := range o.Tenants {
		r, err := s.tenant(ctx, t)
		if errs.Is(err, errs.NotFound) || err == nil && (r.Organization != id || r.State == tenancy.StateDeleted) {
			continue // it was never made, or is no tenant that widens anything any more
		}
		if err != nil {
			return 0, err
		}
		limits, err := r.Limits()
		if err != nil {
			return 0, err
		}
		n, _ := limits.Get(quota)
		if n == tenancy.Unlimited {
			return n, nil
		}
		widest, has = max(widest, n), true
	}
	if has {
		return widest, nil
	}
	plan, err := tenancy.PlanByName(tenancy.PlanFree)
	if err != nil {
		return 0, err
	}
	widest, _ = plan.Limits.Get(quota)
	return widest, nil
}

// AuditDays is for how many days an organization's audit log is kept; negative is
// for ever. One that is gone has plan free's.
func (s *Store) AuditDays(ctx context.Context, id string) (int64, error) {
	return s.OrganizationLimit(ctx, id, "audit_days")
}

// checkQuota returns a tenancy.ExceededError if an organization that has n may
// have no more.
func (s *Store) checkQuota(ctx context.Context, organization, quota string, n int64) error {
	limit, err := s.OrganizationLimit(ctx, organization, quota)
	if err != nil || limit == tenancy.Unlimited || n < limit {
		return err
	}
	return &tenancy.ExceededError{Quota: quota, Limit: limit, Usage: n}
}
