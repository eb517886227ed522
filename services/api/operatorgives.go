// SPDX-License-Identifier: Apache-2.0

package api

import (
	"maps"
	"net/http"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// Given is what a tenant has when an operator has changed it.
type Given struct {
	Tenant    string           `json:"tenant"`
	State     string           `json:"state"`
	Reason    string           `json:"reason,omitempty"`
	Plan      string           `json:"plan"`
	Overrides map[string]int64 `json:"overrides"`
}

// GiveQuotas is the body of POST /tenancy/v1/tenants/{tenant}/quotas: the overrides that are
// set, and the names of those that go; others stay.
type GiveQuotas struct {
	Set   map[string]int64 `json:"set,omitempty"`
	Unset []string         `json:"unset,omitempty"`
}

const giveLike = `{"set":{"connections":500},"unset":["publish_rate"]}`

func (s *Server) givePlan(r *http.Request, in *TenantPlan) (*Given, error) {
	return s.give(r, "replace-plan", "plan", func(t *tenancy.TenantRecord) error {
		was, err := tenancy.PlanByName(t.Plan)
		if err != nil {
			return err
		}
		if err := store.Plan(in.Plan)(t); err != nil {
			return err
		}
		next, err := tenancy.PlanByName(t.Plan)
		if err != nil {
			return err
		}
		// What is within the plan of before may be the owner's, who could have that much while it
		// lasted, and not beyond it; what is more an operator has given, and it stays.
		left := maps.Clone(t.Overrides)
		maps.DeleteFunc(left, func(name string, v int64) bool { return !was.Exceeds(name, v) && next.Exceeds(name, v) })
		return store.Overrides(left)(t)
	})
}

func (s *Server) giveQuotas(r *http.Request, in *GiveQuotas) (*Given, error) {
	if len(in.Set)+len(in.Unset) == 0 {
		return nil, errs.New(errs.Invalid, "expected a body like %s", giveLike)
	}
	for _, name := range in.Unset {
		if err := tenancy.ValidLimit(name, 0); errs.CodeOf(err) == "quota_unknown" {
			return nil, knownQuota(err, name)
		}
	}
	for name, v := range in.Set {
		if err := tenancy.ValidLimit(name, v); err != nil {
			return nil, knownQuota(err, name)
		}
	}
	return s.give(r, "replace-quota-overrides", "quota overrides", func(t *tenancy.TenantRecord) error {
		overrides := maps.Clone(t.Overrides)
		if overrides == nil {
			overrides = map[string]int64{}
		}
		for _, name := range in.Unset {
			delete(overrides, name)
		}
		maps.Copy(overrides, in.Set)
		return store.Overrides(overrides)(t)
	})
}

// HoldTenant is the body of POST /tenancy/v1/tenants/{tenant}/suspend.
type HoldTenant struct {
	Reason string `json:"reason"`
}

// holdTenant suspends a tenant until an operator resumes it.
func (s *Server) holdTenant(r *http.Request, in *HoldTenant) (*Given, error) {
	if err := tenancy.ValidReason(in.Reason); err != nil {
		return nil, err
	}
	return s.give(r, "suspend-tenant", "state", func(t *tenancy.TenantRecord) error { return t.Suspend(tenancy.ByOperator, in.Reason, s.now()) })
}

func (s *Server) freeTenant(r *http.Request, _ *struct{}) (*Given, error) {
	return s.give(r, "resume-tenant", "state", func(t *tenancy.TenantRecord) error { return t.Resume(tenancy.ByOperator, s.now()) })
}

// give changes the tenant of the path as an operator: neither what owners may choose nor the
// installation's admission policy is asked.
func (s *Server) give(r *http.Request, operation, target string, edit func(*tenancy.TenantRecord) error) (*Given, error) {
	ctx := r.Context()
	t, err := s.store.Tenant(ctx, r.PathValue("tenant"))
	if err != nil {
		return nil, err
	}
	if err := edit(t.Clone()); err != nil {
		return nil, err
	}
	p, err := s.operated(r, t, operation, target, given(t))
	if err != nil {
		return nil, err
	}
	was, now, err := s.store.ChangeTenant(ctx, t.ID, 0, edit)
	if err != nil {
		_ = p.Lost(ctx) // else the log finds the note
		return nil, err
	}
	if err := p.Before(given(was)); err != nil {
		return nil, err
	}
	s.log.Info("an operator has changed what a tenant may", "tenant", t.ID, "what", target)
	return given(now), p.Done(ctx, given(now))
}

func given(t *tenancy.TenantRecord) *Given {
	g := &Given{Tenant: t.ID, State: string(t.State), Plan: t.Plan, Overrides: maps.Clone(t.Overrides)}
	if t.Life != nil {
		g.Reason = t.Life.Reason
	}
	if g.Overrides == nil {
		g.Overrides = map[string]int64{}
	}
	return g
}
