// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// TenantPlan is the body of PUT …/plan.
type TenantPlan struct {
	Plan string `json:"plan" doc:"Another plan. The overrides stay." example:"starter"`
}

// TenantCell is how far a tenant's cell has grown to what its plan has.
type TenantCell struct {
	Wanted int `json:"wanted" doc:"In how many partitions the plan has the tenant's sessions spread."`
	Has    int `json:"has" doc:"In how many they are, as it was seen last; 0 is not known yet."`
	// Waits is empty if there is nothing to wait for.
	Waits string     `json:"waits,omitempty" doc:"Why it has not grown yet; it is tried again by itself."`
	Since *time.Time `json:"since,omitempty" doc:"Since when that is so."`
}

type planInput struct {
	InTenant
	Change
	Body TenantPlan
}

func (s *Server) planRoutes() {
	register(s, operation("replace-plan", http.MethodPut, "/v1/tenants/{tenant}/plan", "Tenants",
		"Change the plan of a tenant; its limits hold within 2 s, and its sessions are spread over as many partitions by themselves"), s.replacePlan)
}

func (s *Server) replacePlan(ctx context.Context, in *planInput) (*tenantOutput, error) {
	if len(callerOf(ctx).principal.Access.Tenants) > 0 {
		return nil, errs.Coded(errs.Denied, "scope_insufficient", "a plan has quotas of the whole organization: a key or member that is limited to tenants cannot change it")
	}
	t, err := s.replacePart(ctx, in.Change, "plan", func(t *tenancy.TenantRecord) any { return TenantPlan{t.Plan} }, s.choosePlan(in.Body.Plan))
	if err != nil {
		return nil, err
	}
	out := &tenantOutput{ETag: etag(t.Revision), Body: s.tenantDetail(t)}
	out.Body.Cell = s.cellOf(ctx, t)
	return out, nil
}

// cellOf says how far the cell of a tenant has grown; nil if its plan has it grow by nothing,
// or if that is not known now.
func (s *Server) cellOf(ctx context.Context, t *tenancy.TenantRecord) *TenantCell {
	wanted := t.Grows()
	if wanted == 0 {
		return nil
	}
	c, err := s.store.Cell(ctx, t.ID)
	if err != nil {
		s.log.Warn("it is not known how far the cell of a tenant has grown", "tenant", t.ID, "error", err)
		return nil
	}
	if c == nil {
		return &TenantCell{Wanted: wanted, Waits: "it is looked at in a moment"}
	}
	return &TenantCell{Wanted: c.Wanted, Has: c.Has, Waits: c.Waits, Since: &c.Since}
}
