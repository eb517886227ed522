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

// Tenant returns the record of a tenant whose sign-up has ended, or an error
// NotFound.
func (s *Store) Tenant(ctx context.Context, id string) (*tenancy.TenantRecord, error) {
	r, err := s.tenant(ctx, id)
	if err == nil && r.State == tenancy.StateReserved {
		err = errs.Coded(errs.NotFound, "tenant_not_found", "there is no tenant %q", id)
	}
	return r, err
}

func (s *Store) tenant(ctx context.Context, id string) (*tenancy.TenantRecord, error) {
	e, err := s.tenants.Get(ctx, id)
	if err != nil {
		return nil, named(err, "tenant_not_found", "there is no tenant %q", id)
	}
	return tenancy.DecodeTenant(e.Value, uint64(e.Revision))
}

// UpdateTenant changes a tenant: change gets the present record and may alter
// it, or return an error that ends the update. With ifRevision other than 0
// the tenant must be at that revision, else the error is Conflict with Code
// "revision_mismatch". Without it the change is tried again when somebody else
// was faster.
func (s *Store) UpdateTenant(ctx context.Context, id string, ifRevision uint64, change func(*tenancy.TenantRecord) error) (*tenancy.TenantRecord, error) {
	_, r, err := s.ChangeTenant(ctx, id, ifRevision, change)
	return r, err
}

// ChangeTenant is UpdateTenant, and returns the tenant as it was too.
func (s *Store) ChangeTenant(ctx context.Context, id string, ifRevision uint64, change func(*tenancy.TenantRecord) error) (was, now *tenancy.TenantRecord, err error) {
	for {
		r, err := s.Tenant(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if ifRevision != 0 && r.Revision != ifRevision {
			return nil, nil, errs.Coded(errs.Conflict, "revision_mismatch", "tenant %s is at revision %d, not %d", id, r.Revision, ifRevision)
		}
		old := r.Clone()
		if err := change(r); err != nil {
			return nil, nil, err
		}
		if err := s.limit(ctx, old, r); err != nil {
			return nil, nil, err
		}
		rev, err := put(ctx, s.tenants, id, r, bus.Revision(r.Revision))
		switch {
		case err == nil:
			r.Revision = rev
			return old, r, nil
		case !errs.Is(err, errs.Conflict):
			return nil, nil, err
		}
	}
}

// SetOverrides replaces the overrides of a tenant's limits; see UpdateTenant
// for ifRevision.
func (s *Store) SetOverrides(ctx context.Context, id string, ifRevision uint64, overrides map[string]int64) (*tenancy.TenantRecord, error) {
	return s.UpdateTenant(ctx, id, ifRevision, Overrides(overrides))
}

// Overrides is a change of a tenant for ChangeTenant: other overrides of its
// limits.
func Overrides(overrides map[string]int64) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		for name, v := range overrides {
			if err := tenancy.ValidLimit(name, v); err != nil {
				return err
			}
		}
		r.Overrides = maps.Clone(overrides)
		return nil
	}
}

// SetSettings replaces the settings of a tenant that differ from the defaults;
// see UpdateTenant for ifRevision.
func (s *Store) SetSettings(ctx context.Context, id string, ifRevision uint64, settings *tenancy.SettingsOverride) (*tenancy.TenantRecord, error) {
	return s.UpdateTenant(ctx, id, ifRevision, Settings(settings))
}

// Settings is a change of a tenant for ChangeTenant: other settings.
func Settings(settings *tenancy.SettingsOverride) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		if err := settings.Valid(); err != nil {
			return err
		}
		r.Settings = settings
		return nil
	}
}

// SetClientCAs replaces a tenant's CAs of client certificates; nil takes them
// away. They get a new Revision. The error is tenancy.ExceededError beyond the
// quota client_cas; see UpdateTenant for ifRevision.
func (s *Store) SetClientCAs(ctx context.Context, id string, ifRevision uint64, cas *tenancy.ClientCAs) (*tenancy.TenantRecord, error) {
	return s.UpdateTenant(ctx, id, ifRevision, ClientCAs(cas))
}

// ClientCAs is a change of a tenant for ChangeTenant: other CAs of client
// certificates, or none.
func ClientCAs(cas *tenancy.ClientCAs) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		if cas == nil {
			r.ClientCAs = nil
			return nil
		}
		if err := CheckClientCAs(r, cas); err != nil {
			return err
		}
		own := *cas
		own.Revision = r.Revision // each change has another one to replace
		r.ClientCAs = &own
		return nil
	}
}

// CheckClientCAs returns the error that SetClientCAs of the tenant would.
func CheckClientCAs(r *tenancy.TenantRecord, cas *tenancy.ClientCAs) error {
	trust, err := cas.Trust()
	if err != nil {
		return err
	}
	limits, err := r.Limits()
	if err != nil {
		return err
	}
	if n := int64(len(trust.Authorities())); limits.ClientCAs >= 0 && n > limits.ClientCAs {
		return &tenancy.ExceededError{Quota: "client_cas", Limit: limits.ClientCAs, Usage: n}
	}
	return nil
}

// SetState moves a tenant to another state.
func (s *Store) SetState(ctx context.Context, id string, state tenancy.State) (*tenancy.TenantRecord, error) {
	return s.UpdateTenant(ctx, id, 0, func(r *tenancy.TenantRecord) error {
		r.State = state
		return nil
	})
}

// EnsureOptions are for EnsureTenant.
type EnsureOptions struct {
	// Organization is the name of the one that is made with the tenant; empty
	// means the tenant's id.
	Organization string
	// Plan is the tenant's; empty means tenancy.PlanNone, which limits
	// nothing.
	Plan string
}

// EnsureTenant returns the tenant of that id, and makes it, active and without
// any credential, if it is missing. It is for an operator's own tenants, such
// as that of "manor dev --anonymous".
func (s *Store) EnsureTenant(ctx context.Context, id string, o EnsureOptions) (*tenancy.TenantRecord, error) {
	if err := tenancy.ValidTenantID(id); err != nil {
		return nil, err
	}
	if o.Plan == "" {
		o.Plan = tenancy.PlanNone
	}
	if o.Organization == "" {
		o.Organization = id
	}
	plan, err := tenancy.PlanByName(o.Plan)
	if err != nil {
		return nil, err
	}
	for {
		r, err := s.tenant(ctx, id)
		if err == nil && r.State == tenancy.StateReserved {
			return nil, errs.Coded(errs.Conflict, "tenant_taken", "somebody is signing up for the tenant %q right now", id)
		}
		if err == nil || !errs.Is(err, errs.NotFound) {
			return r, err
		}
		org := Organization{ID: NewOrganizationID(), Name: o.Organization, Tenants: []string{id}, CreatedAt: s.now().UTC()}
		r = &tenancy.TenantRecord{
			ID: id, Organization: org.ID, Region: s.cfg.Region, Plan: o.Plan,
			State: tenancy.StateActive, CreatedAt: org.CreatedAt, Partitions: plan.Partitions,
		}
		// An organization without a tenant is harmless, the reverse is not.
		if _, err := put(ctx, s.organizations, org.ID, org, bus.Absent); err != nil {
			return nil, err
		}
		if err := s.limitAs(ctx, nil, r, org.Name); err != nil {
			return nil, err
		}
		r.Revision, err = put(ctx, s.tenants, id, r, bus.Absent)
		if errs.Is(err, errs.Conflict) {
			continue
		}
		return r, err
	}
}

// AddTenant makes another tenant of an organization, with no credential yet. The error
// is Conflict with Code "tenant_taken" if the id is not free, and a
// tenancy.ExceededError if the organization has as many tenants as it may.
func (s *Store) AddTenant(ctx context.Context, organization, id, plan string) (*tenancy.TenantRecord, error) {
	if err := tenancy.ValidTenantID(id); err != nil {
		return nil, err
	}
	p, err := tenancy.PlanByName(plan)
	if err != nil {
		return nil, err
	}
	if err := s.CheckTenantFreeFor(ctx, id, organization); err != nil {
		return nil, err
	}
	// The id is the organization's before the tenant is there, so that none is beyond the
	// quota. Who dies in between leaves an id that counts until it is asked for again, or
	// is somebody else's.
	if _, _, err := s.ChangeOrganization(ctx, organization, 0, func(o *Organization) error {
		if err := o.open(); err != nil {
			return err
		}
		if err := s.mayAddTenant(ctx, o, id); err != nil || slices.Contains(o.Tenants, id) {
			return err
		}
		o.Tenants = append(o.Tenants, id)
		return nil
	}); err != nil {
		return nil, err
	}
	r := &tenancy.TenantRecord{
		ID: id, Organization: organization, Region: s.cfg.Region, Plan: plan, State: tenancy.StateActive, CreatedAt: s.now().UTC(), Partitions: p.Partitions,
	}
	if err := s.limit(ctx, nil, r); err != nil {
		return nil, err
	}
	return r, s.reserve(ctx, r)
}

// MayAddTenant returns a tenancy.ExceededError if AddTenant would now.
func (s *Store) MayAddTenant(ctx context.Context, organization, id string) error {
	o, err := s.Organization(ctx, organization)
	if err != nil {
		return err
	}
	return s.mayAddTenant(ctx, o, id)
}

func (s *Store) mayAddTenant(ctx context.Context, o *Organization, id string) error {
	if slices.Contains(o.Tenants, id) {
		return nil // it was counted
	}
	n, deleted, err := s.countTenants(ctx, o)
	if err != nil {
		return err
	}
	if err := s.checkQuota(ctx, o.ID, "tenants", n); err != nil {
		return err
	}
	if most, err := s.OrganizationLimit(ctx, o.ID, "tenants"); err != nil || most < 0 || deleted < deletedOf*max(most, 1) {
		return err
	}
	return errs.Coded(errs.Conflict, "tenants_deleted", "%d deleted tenants of the organization are kept until their grace is over, as many as may be: purge one (manor tenant purge) before another one is made", deleted)
}

// deletedOf is how many times as many deleted tenants, which are kept with their data until their
// grace is over, an organization may have as tenants before it makes another one.
const deletedOf = 3

// MayRestoreTenant returns a tenancy.ExceededError if the organization of a deleted tenant may
// not have another one.
func (s *Store) MayRestoreTenant(ctx context.Context, organization string) error {
	n, err := s.CountTenants(ctx, organization)
	if err != nil {
		return err
	}
	return s.checkQuota(ctx, organization, "tenants", n)
}

// restoreTime is for how long a restore that has begun counts as a tenant: longer than one takes.
const restoreTime = time.Minute

// BeginRestore has a deleted tenant count as one of its organization's from now on, for as long
// as a restore takes, or until end is called: of several at once none is beyond the quota. The
// error is that of MayRestoreTenant.
func (s *Store) BeginRestore(ctx context.Context, organization, id string) (end func(), err error) {
	var until time.Time
	if _, _, err := s.ChangeOrganization(ctx, organization, 0, func(o *Organization) error {
		now := s.now().UTC()
		maps.DeleteFunc(o.Restoring, func(other string, until time.Time) bool { return other == id || !until.After(now) })
		n, _, err := s.countTenants(ctx, o)
		if err != nil {
			return err
		}
		if err := s.checkQuota(ctx, o.ID, "tenants", n); err != nil {
			return err
		}
		if o.Restoring == nil {
			o.Restoring = map[string]time.Time{}
		}
		until = now.Add(restoreTime)
		o.Restoring[id] = until
		return nil
	}); err != nil {
		return nil, err
	}
	return func() {
		if _, _, err := s.ChangeOrganization(context.WithoutCancel(ctx), organization, 0, func(o *Organization) error {
			if o.Restoring[id].Equal(until) { // else another restore of it has begun since
				delete(o.Restoring, id)
			}
			return nil
		}); err != nil {
			s.log.Warn("a tenant counts as one that is being restored for a minute", "tenant", id, "error", err)
		}
	}, nil
}

// CountTenants is how many tenants an organization has.
func (s *Store) CountTenants(ctx context.Context, organization string) (int64, error) {
	o, err := s.Organization(ctx, organization)
	if err != nil {
		return 0, err
	}
	n, _, err := s.countTenants(ctx, o)
	return n, err
}

// countTenants counts the tenants of an organization, with those that are being made, and those that
// are deleted and not purged.
func (s *Store) countTenants(ctx context.Context, o *Organization) (n, deleted int64, err error) {
	for _, t := range o.Tenants {
		r, err := s.tenant(ctx, t)
		switch {
		case errs.Is(err, errs.NotFound):
		case err != nil:
			return 0, 0, err
		case r.Organization != o.ID:
			continue
		case r.State == tenancy.StateDeleted && !o.Restoring[t].After(s.now()):
			deleted++
			continue
		}
		n++
	}
	return n, deleted, nil
}

// EventDays says of each tenant for how many days the events of its clients are kept;
// negative is for ever. Tenants whose record cannot be read are logged and left out.
func (s *Store) EventDays(ctx context.Context) (map[string]int64, error) {
	entries, _, err := bus.List(ctx, s.tenants, "", 1<<30)
	if err != nil {
		return nil, err
	}
	days := make(map[string]int64, len(entries))
	for _, e := range entries {
		n, err := eventDays(e.Value)
		if err != nil {
			s.log.Warn("the record of a tenant cannot be read: the events of its clients are kept", "tenant", e.Key, "error", err)
			continue
		}
		days[e.Key] = n
	}
	return days, nil
}

func eventDays(record []byte) (int64, error) {
	var r tenancy.TenantRecord
	if err := json.Unmarshal(record, &r); err != nil {
		return 0, errs.New(errs.Internal, "expected the record of a tenant: %w", err)
	}
	limits, err := r.Limits()
	if err != nil {
		return 0, err
	}
	return limits.EventDays, nil
}
