// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// reservationLife is how long a sign-up may take before its tenant id is free
// again.
const reservationLife = 5 * time.Minute

// SignUp is what a sign-up asks for. All of it was checked.
type SignUp struct {
	// ID is of NewOrganizationID; empty makes one.
	ID           string
	Organization string // the name
	Email        string
	PasswordHash string // of the person
	Tenant       string
	Plan         string
	// Username and CredentialHash make the first credential.
	Username       string
	CredentialHash string
	// CredentialSCRAM may be nil.
	CredentialSCRAM *tenancy.SCRAM
}

// SignedUp is what a sign-up made.
type SignedUp struct {
	Organization *Organization
	Tenant       *tenancy.TenantRecord
	Owner        *Member
	APIKey       *APIKey
	Secret       string // of the API key
	Credential   *tenancy.Credential
}

// CheckTenantFree returns an error Conflict with Code "tenant_taken" if a
// sign-up for that id would fail now.
func (s *Store) CheckTenantFree(ctx context.Context, id string) error {
	return s.CheckTenantFreeFor(ctx, id, "")
}

// CheckTenantFreeFor is CheckTenantFree for AddTenant of an organization.
func (s *Store) CheckTenantFreeFor(ctx context.Context, id, organization string) error {
	if err := s.mayTake(ctx, id, organization); err != nil {
		return err
	}
	r, err := s.tenant(ctx, id)
	switch {
	case errs.Is(err, errs.NotFound):
		return nil
	case err != nil:
		return err
	case s.mayRemove(ctx, r):
		return nil
	}
	return tenantTaken(id)
}

func tenantTaken(id string) error {
	return errs.Coded(errs.Conflict, "tenant_taken", "the tenant id %q is taken", id)
}

// stale reports whether r is a reservation whose sign-up will not end any more.
func (s *Store) stale(r *tenancy.TenantRecord) bool {
	return r.State == tenancy.StateReserved && s.now().Sub(r.CreatedAt) > reservationLife
}

// mayRemove reports whether r is a reservation in nobody's way: a stale one, or one that
// the request of ctx has made before its process died.
func (s *Store) mayRemove(ctx context.Context, r *tenancy.TenantRecord) bool {
	return s.stale(r) || r.State == tenancy.StateReserved && madeBefore(ctx, r.Request)
}

// SignUp makes an organization with a tenant, an API key and a credential. It
// reserves the tenant id first, then makes the rest, then activates the tenant:
// until then none of it can be used, and if it does not come to that, it is
// removed here or by Reap. The error is Conflict with Code "tenant_taken" if
// the id is not free.
func (s *Store) SignUp(ctx context.Context, in SignUp) (*SignedUp, error) {
	now := s.now().UTC()
	plan, err := tenancy.PlanByName(in.Plan)
	if err != nil {
		return nil, err
	}
	if in.ID == "" {
		in.ID = NewOrganizationID()
	}
	owner := &Member{
		ID: MemberID(in.ID, in.Email), Organization: in.ID, Email: in.Email, Access: tenancy.Access{Role: tenancy.RoleOwner},
		State: MemberActive, PasswordHash: in.PasswordHash, CreatedAt: now,
	}
	org := &Organization{ID: in.ID, Name: in.Organization, Email: in.Email, Tenants: []string{in.Tenant}, Owners: []string{owner.ID}, CreatedAt: now}
	key, secret := s.newAPIKey(org.ID, NewKey{Name: "sign-up", Access: owner.Access})
	t := &tenancy.TenantRecord{
		ID: in.Tenant, Organization: org.ID, Region: s.cfg.Region, Plan: in.Plan,
		State: tenancy.StateReserved, CreatedAt: now, APIKey: key.ID, Partitions: plan.Partitions,
		Request: requestOf(ctx),
	}
	if err := s.mayTake(ctx, t.ID, ""); err != nil {
		return nil, err
	}
	if err := s.reserve(ctx, t); err != nil {
		return nil, err
	}
	out := &SignedUp{Organization: org, Tenant: t, Owner: owner, APIKey: &key, Secret: secret}
	if err := s.furnish(ctx, in, out); err != nil {
		// The caller may be gone; what is half made must go all the same.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if undo := s.remove(clean, t); undo != nil {
			s.log.Warn("unfinished sign-up left to the reaper", "tenant", t.ID, "error", undo)
		}
		return nil, err
	}
	return out, nil
}

func (s *Store) reserve(ctx context.Context, t *tenancy.TenantRecord) error {
	for {
		rev, err := put(ctx, s.tenants, t.ID, t, bus.Absent)
		if err == nil {
			t.Revision = rev
			return nil
		}
		if !errs.Is(err, errs.Conflict) {
			return err
		}
		old, err := s.tenant(ctx, t.ID)
		switch {
		case errs.Is(err, errs.NotFound):
			continue
		case err != nil:
			return err
		case !s.mayRemove(ctx, old):
			return tenantTaken(t.ID)
		}
		if err := s.remove(ctx, old); err != nil && !errs.Is(err, errs.Conflict) {
			return err
		}
	}
}

// furnish makes what belongs to a reserved tenant and activates it.
func (s *Store) furnish(ctx context.Context, in SignUp, out *SignedUp) error {
	var err error
	if out.Organization.Revision, err = put(ctx, s.organizations, out.Organization.ID, out.Organization, bus.Absent); err != nil {
		return err
	}
	if out.Owner.Revision, err = put(ctx, s.members, memberKey(out.Owner.Organization, out.Owner.ID), out.Owner, bus.Absent); err != nil {
		return err
	}
	if err := s.putAPIKey(ctx, out.APIKey); err != nil {
		return err
	}
	if out.Credential, err = s.createCredential(ctx, in.Tenant, tenancy.Credential{Username: in.Username, Hash: in.CredentialHash, SCRAM: in.CredentialSCRAM}); err != nil {
		return err
	}
	active := out.Tenant.Clone()
	active.State, active.APIKey, active.Request = tenancy.StateActive, "", ""
	if err := s.limitAs(ctx, nil, active, out.Organization.Name); err != nil {
		return err
	}
	rev, err := put(ctx, s.tenants, active.ID, active, bus.Revision(out.Tenant.Revision))
	if errs.Is(err, errs.Conflict) {
		return errs.New(errs.Unavailable, "the sign-up took too long; try again")
	}
	active.Revision = rev
	out.Tenant = active
	return err
}

// remove removes a reservation with all that was made for it, itself last and
// only if nobody has changed it.
func (s *Store) remove(ctx context.Context, t *tenancy.TenantRecord) error {
	// Whoever activates it now must fail: claim it first.
	claimed := t.Clone()
	rev, err := put(ctx, s.tenants, t.ID, claimed, bus.Revision(t.Revision))
	if err != nil {
		return err
	}
	keys, err := s.credentials.Keys(ctx, tenancy.CredentialPrefix(t.ID))
	if err != nil {
		return err
	}
	var all error
	for _, key := range keys {
		all = errors.Join(all, s.credentials.Delete(ctx, key, bus.Any))
	}
	if t.APIKey != "" {
		all = errors.Join(all, s.apiKeys.Delete(ctx, t.APIKey, bus.Any), s.apiKeys.Delete(ctx, keyIndex(t.Organization, t.APIKey), bus.Any))
	}
	members, err := s.members.Keys(ctx, t.Organization+".")
	if err != nil {
		return err
	}
	for _, key := range members {
		all = errors.Join(all, s.members.Delete(ctx, key, bus.Any))
	}
	all = errors.Join(all, s.organizations.Delete(ctx, t.Organization, bus.Any))
	if all != nil {
		return all
	}
	return s.tenants.Delete(ctx, t.ID, bus.Revision(rev))
}

// Reap removes reservations that are older than five minutes, and returns how
// many. Any number of processes may do it, each about once a minute.
func (s *Store) Reap(ctx context.Context) (int, error) {
	entries, _, err := bus.List(ctx, s.tenants, "", 1<<30)
	if err != nil {
		return 0, err
	}
	n := 0
	var all error
	for _, e := range entries {
		t := &tenancy.TenantRecord{}
		if err := json.Unmarshal(e.Value, t); err != nil {
			all = errors.Join(all, errs.New(errs.Internal, "stored tenant %s: %w", e.Key, err))
			continue
		}
		t.Revision = uint64(e.Revision)
		if !s.stale(t) {
			continue
		}
		switch err := s.remove(ctx, t); {
		case err == nil:
			n++
			s.log.Info("unfinished sign-up removed", "tenant", t.ID)
		case !errs.Is(err, errs.Conflict): // else somebody else does it
			all = errors.Join(all, err)
		}
	}
	return n, all
}

// RunReaper reaps every minute until ctx is done.
func (s *Store) RunReaper(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := s.Reap(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("unfinished sign-ups not looked for", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
