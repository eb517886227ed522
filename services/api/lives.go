// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

// TenantUpdate is the body of PATCH /v1/tenants/{tenant}.
type TenantUpdate struct {
	DisplayName        *string `json:"display_name,omitempty" doc:"A name for people, of up to 128 characters; empty takes it away." example:"Acme, production"`
	DeletionProtection *bool   `json:"deletion_protection,omitempty" doc:"Whether the tenant cannot be deleted. To take it away needs the permission tenants:delete."`
}

// TenantSuspension is the body of POST …:suspend.
type TenantSuspension struct {
	Reason string `json:"reason,omitempty" doc:"Up to 200 characters, which the tenant's clients are told too." example:"the invoice of May is not paid"`
}

type (
	updateTenantInput struct {
		InTenant
		Change
		Body TenantUpdate
	}
	// MoveTenant is a change of a tenant's state. Its name is exported because only
	// then huma sees what is embedded.
	MoveTenant struct {
		InTenant
		Post
		IfMatch string `header:"If-Match" doc:"An ETag; the request fails with 412 if the tenant has changed since."`
	}
	moveTenantInput    struct{ MoveTenant }
	suspendTenantInput struct {
		MoveTenant
		Body *TenantSuspension `required:"false"`
	}
	deleteTenantInput struct {
		InTenant
		Change
	}
)

// ofDeleted are the operations that a deleted tenant has still.
var ofDeleted = map[string]bool{"restore-tenant": true, "purge-tenant": true}

func (s *Server) lifeRoutes() {
	const base, tag = "/v1/tenants/{tenant}", "Tenants"
	register(s, operation("update-tenant", http.MethodPatch, base, tag, "Change what is given of a tenant"), s.updateTenant)
	verb := func(id, verb, summary string, f func(context.Context, *moveTenantInput) (*tenantOutput, error)) {
		op := operation(id, http.MethodPost, base+":"+verb, tag, summary)
		op.DefaultStatus = http.StatusOK
		register(s, op, f)
	}
	op := operation("suspend-tenant", http.MethodPost, base+":suspend", tag,
		"Let no client of a tenant in, and end the connections of those that are there, within 2 s; everything is kept")
	op.DefaultStatus = http.StatusOK
	register(s, op, s.suspendTenant)
	verb("resume-tenant", "resume", "Let the clients of a suspended tenant in again", s.resumeTenant)
	register(s, operation("delete-tenant", http.MethodDelete, base, tag,
		"Delete a tenant: as suspended, and its API answers 410; what it has is removed when the grace time of the installation is over, and until then it can be restored"), s.deleteTenant)
	verb("restore-tenant", "restore", "Bring a deleted tenant back, as it was", s.restoreTenant)
	verb("purge-tenant", "purge", "Remove all that a deleted tenant has now, and for ever; it is answered when that is noted, and the audit log says when it is done", s.purgeTenant)
}

// grace is for how long a deleted tenant can be restored.
func (s *Server) grace() time.Duration {
	if s.cfg.DeletionGrace > 0 {
		return s.cfg.DeletionGrace
	}
	return tenancy.DefaultDeletionGrace
}

// gone is what the caller is told of a tenant of its organization that is deleted.
func gone(t *tenancy.TenantRecord) error {
	text := "the tenant " + t.ID + " is deleted"
	if at, ok := t.PurgeDue(); ok && t.Life.Purging {
		text += ": what it has is being removed"
	} else if ok {
		text += ": until " + at.Format(time.RFC3339) + " POST …:restore brings it back"
	}
	return newProblem(http.StatusGone, "tenant_deleted", text)
}

// apply checks the update and returns what does it.
func (u *TenantUpdate) apply() (func(*tenancy.TenantRecord) error, error) {
	if u.DisplayName == nil && u.DeletionProtection == nil {
		return nil, errs.Coded(errs.Invalid, "request_invalid", "expected display_name or deletion_protection")
	}
	if u.DisplayName != nil {
		if err := tenancy.ValidDisplayName(*u.DisplayName); err != nil {
			return nil, err
		}
	}
	return func(t *tenancy.TenantRecord) error {
		if u.DisplayName != nil {
			t.DisplayName = *u.DisplayName
		}
		if u.DeletionProtection != nil {
			t.DeletionProtection = *u.DeletionProtection
		}
		return nil
	}, nil
}

func (s *Server) updateTenant(ctx context.Context, in *updateTenantInput) (*tenantOutput, error) {
	apply, err := in.Body.apply()
	if err != nil {
		return nil, err
	}
	if p := in.Body.DeletionProtection; p != nil && !*p {
		if err := s.may(ctx, tenancy.MayDeleteTenants, tenantOf(ctx)); err != nil {
			return nil, err
		}
	}
	return s.changeTenant(ctx, in.Change, apply)
}

// may returns an error Denied unless the caller has another permission for the tenant than
// the operation's.
func (s *Server) may(ctx context.Context, permission string, t *tenancy.TenantRecord) error {
	d, err := s.cfg.RBAC.Allow(ctx, callerOf(ctx).principal, permission, policy.Resource{Organization: t.Organization, Tenant: t.ID})
	if err == nil && d != policy.Allowed {
		err = forbidden(permission)
	}
	return err
}

// tenantState is what the audit log has of a tenant.
type tenantState struct {
	State              tenancy.State `json:"state"`
	Reason             string        `json:"reason,omitempty"`
	PurgeAt            *time.Time    `json:"purge_at,omitempty"`
	DisplayName        string        `json:"display_name,omitempty"`
	DeletionProtection bool          `json:"deletion_protection"`
}

func stateOf(t *tenancy.TenantRecord) any {
	out := tenantState{State: t.State, DisplayName: t.DisplayName, DeletionProtection: t.DeletionProtection}
	if t.Life != nil {
		out.Reason = t.Life.Reason
	}
	if at, ok := t.PurgeDue(); ok {
		out.PurgeAt = &at
	}
	return out
}

func (s *Server) changeTenant(ctx context.Context, c Change, edit func(*tenancy.TenantRecord) error) (*tenantOutput, error) {
	t, err := s.replacePart(ctx, c, "tenant", stateOf, edit)
	if err != nil {
		return nil, err
	}
	return &tenantOutput{ETag: etag(t.Revision), Body: s.tenantDetail(t)}, nil
}

// move is a change of the tenant's state.
func (s *Server) move(ctx context.Context, in *MoveTenant, edit func(*tenancy.TenantRecord) error) (*tenantOutput, error) {
	return s.changeTenant(ctx, Change{Write: in.Write, IfMatch: in.IfMatch}, edit)
}

func (s *Server) suspendTenant(ctx context.Context, in *suspendTenantInput) (*tenantOutput, error) {
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	if err := tenancy.ValidReason(reason); err != nil {
		return nil, err
	}
	return s.move(ctx, &in.MoveTenant, func(t *tenancy.TenantRecord) error { return t.Suspend(tenancy.ByOwner, reason, s.now()) })
}

func (s *Server) resumeTenant(ctx context.Context, in *moveTenantInput) (*tenantOutput, error) {
	return s.move(ctx, &in.MoveTenant, func(t *tenancy.TenantRecord) error { return t.Resume(tenancy.ByOwner, s.now()) })
}

func (s *Server) deleteTenant(ctx context.Context, in *deleteTenantInput) (*struct{}, error) {
	_, err := s.changeTenant(ctx, in.Change, func(t *tenancy.TenantRecord) error { return t.Delete(s.now(), s.grace()) })
	if err == nil && !in.DryRun {
		s.usesTenants(ctx, tenantOf(ctx).Organization)
	}
	return nil, err
}

func (s *Server) restoreTenant(ctx context.Context, in *moveTenantInput) (*tenantOutput, error) {
	t := tenantOf(ctx)
	if t.State == tenancy.StateDeleted {
		if in.DryRun {
			if err := s.store.MayRestoreTenant(ctx, t.Organization); err != nil {
				return nil, err
			}
		} else {
			end, err := s.store.BeginRestore(ctx, t.Organization, t.ID)
			if err != nil {
				return nil, err
			}
			defer end()
		}
	}
	out, err := s.move(ctx, &in.MoveTenant, func(t *tenancy.TenantRecord) error { return t.Restore(s.now()) })
	if err == nil && !in.DryRun {
		s.usesTenants(ctx, t.Organization)
	}
	return out, err
}

func (s *Server) purgeTenant(ctx context.Context, in *moveTenantInput) (*tenantOutput, error) {
	return s.move(ctx, &in.MoveTenant, func(t *tenancy.TenantRecord) error { return t.Purge(s.now()) })
}
