// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// Plan is a plan of the installation.
type Plan struct {
	Name       string           `json:"name" example:"starter"`
	Default    bool             `json:"default" doc:"It is that of a sign-up, or a tenant, that names none."`
	Choosable  bool             `json:"choosable" doc:"Sign-ups, and owners for their tenants, may choose it; others are given by the operator."`
	Partitions int              `json:"partitions" doc:"Over how many partitions of the region the sessions of a tenant are spread; 0 is all."`
	Quotas     map[string]int64 `json:"quotas" doc:"The limits by quota name; -1 means that there is no limit."`
}

// PlanList is the answer to GET /v1/plans.
type PlanList struct {
	Items []Plan `json:"items"`
	// OverridesBeyondPlan is the same for all of them.
	OverridesBeyondPlan bool `json:"overrides_beyond_plan" doc:"Whether owners may override a quota beyond what the plan has; else the operator does."`
}

// ValidatePlans checks the names of plans that may be chosen. The error is Invalid.
func ValidatePlans(names []string) error {
	for _, name := range names {
		if !slices.Contains(tenancy.PlanNames(), name) {
			return errs.New(errs.Invalid, "plans: expected some of %s, found %q", strings.Join(tenancy.PlanNames(), ", "), name)
		}
	}
	return nil
}

type plansOutput struct{ Body PlanList }

func (s *Server) choiceRoutes() {
	register(s, operation("list-plans", http.MethodGet, "/v1/plans", "Tenants", "List the plans, their quotas, and which of them may be chosen"), s.listPlans)
}

func (s *Server) listPlans(context.Context, *struct{}) (*plansOutput, error) {
	out := &plansOutput{Body: PlanList{Items: []Plan{}, OverridesBeyondPlan: s.cfg.OverridesBeyondPlan}}
	for _, name := range tenancy.PlanNames() {
		p, err := tenancy.PlanByName(name)
		if err != nil {
			return nil, err
		}
		out.Body.Items = append(out.Body.Items, Plan{
			Name: name, Default: name == s.cfg.DefaultPlan, Choosable: s.choosable(name), Partitions: p.Partitions, Quotas: p.Limits.All(),
		})
	}
	return out, nil
}

func (s *Server) choosable(plan string) bool {
	return plan == s.cfg.DefaultPlan || slices.Contains(s.cfg.Plans, plan)
}

// mayChoose checks a plan that somebody has chosen for themselves. The error is Invalid with
// Code "plan_unknown", or Denied with Code "plan_not_offered".
func (s *Server) mayChoose(plan string) error {
	if plans := tenancy.PlanNames(); !slices.Contains(plans, plan) {
		return errs.Coded(errs.Invalid, "plan_unknown", "expected one of the plans %s, found %q", strings.Join(s.offered(), ", "), plan)
	}
	if !s.choosable(plan) {
		return errs.Coded(errs.Denied, "plan_not_offered", "the plan %s is given by the operator of this installation; expected one of %s", plan, strings.Join(s.offered(), ", "))
	}
	return nil
}

// offered are the plans that may be chosen.
func (s *Server) offered() []string {
	return slices.DeleteFunc(tenancy.PlanNames(), func(name string) bool { return !s.choosable(name) })
}

// choosePlan is a change of a tenant: the plan that an owner has chosen. Overrides within the
// plan of now may not be more than the new one has, by which somebody who has chosen a large
// plan for a moment would keep it; those beyond it the operator has given, and they stay.
func (s *Server) choosePlan(plan string) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		if r.Plan == plan {
			return nil
		}
		if err := s.mayChoose(plan); err != nil {
			return err
		}
		was, err := tenancy.PlanByName(r.Plan)
		if err != nil {
			return err
		}
		next, err := tenancy.PlanByName(plan)
		if err != nil {
			return err
		}
		var beyond []string
		for name, v := range r.Overrides {
			if !s.cfg.OverridesBeyondPlan && next.Exceeds(name, v) && !was.Exceeds(name, v) {
				beyond = append(beyond, name)
			}
		}
		if slices.Sort(beyond); len(beyond) > 0 {
			return errs.Coded(errs.Conflict, "overrides_exceed_plan", "the overrides of %s are more than the plan %s has: take them away first", strings.Join(beyond, ", "), plan)
		}
		return store.Plan(plan)(r)
	}
}

// chooseOverrides is a change of a tenant: the overrides that somebody with quotas:write has
// chosen. Those that give more than the plan are the operator's, who may have set them before:
// they may stay as they are, or go.
func (s *Server) chooseOverrides(overrides map[string]int64) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		if s.cfg.OverridesBeyondPlan {
			return store.Overrides(overrides)(r)
		}
		plan, err := tenancy.PlanByName(r.Plan)
		if err != nil {
			return err
		}
		for _, name := range tenancy.QuotaNames() {
			v, has := overrides[name]
			old, had := r.Overrides[name]
			if has && plan.Exceeds(name, v) && (!had || old != v) {
				least, _ := plan.Limits.Get(name)
				return errs.Coded(errs.Denied, "override_exceeds_plan", "%s: the plan %s has %d; more than that, %d, is given by the operator of this installation", name, r.Plan, least, v)
			}
		}
		return store.Overrides(overrides)(r)
	}
}
