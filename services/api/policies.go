// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// policyBodyMax is the most bytes of a body with a policy: its text, escaped.
const policyBodyMax = 2 << 20

func (s *Server) policyRoutes() {
	const base = "/v1/tenants/{tenant}/policies"
	asking := func(id, path, summary string) (op huma.Operation) {
		op = operation(id, http.MethodPost, base+path, "Policies", summary)
		op.DefaultStatus, op.MaxBodyBytes = http.StatusOK, policyBodyMax
		return op
	}
	register(s, operation("list-policies", http.MethodGet, base, "Policies", "List the revisions of a tenant's own policy"), s.listPolicies)
	put := operation("put-policy", http.MethodPut, base, "Policies",
		"Make a revision of a tenant's own policy, which holds everywhere within 2 s; one that does not compile, or whose tests fail, is refused with the lines")
	put.MaxBodyBytes = policyBodyMax
	register(s, put, s.putPolicy)
	register(s, asking("import-policy", ":import", "Make a revision of the file of another broker, as Rego that can be read and edited; a line that is not understood is refused with its number"), s.importPolicy)
	register(s, operation("delete-policy", http.MethodDelete, base, "Policies", "Go back to the default: everything in the tenant is allowed. Revisions are kept"), s.deletePolicy)
	register(s, operation("get-policy", http.MethodGet, base+"/{revision}", "Policies", "Get a revision with its text"), s.getPolicy)
	rollback := asking("rollback-policy", ":rollback", "Make a revision live that is kept")
	register(s, rollback, s.rollbackPolicy)
	register(s, asking("test-policy", ":test", "Run the tests of a policy, without keeping it"), s.testPolicy)
	register(s, asking("explain-policy", ":explain", "Say what the policy decides, and which entry, rule and revision does"), s.explainPolicy)
	register(s, asking("simulate-policy", ":simulate", "Hold a policy against questions, or what gateways have decided lately"), s.simulatePolicy)
	register(s, operation("get-policy-shadow", http.MethodGet, base+":shadow", "Policies", "See what the shadow would have decided otherwise"), s.getShadow)
	register(s, operation("delete-policy-shadow", http.MethodDelete, base+":shadow", "Policies", "Look at the shadow no more"), s.deleteShadow)
}

func revisionBody(t *tenancy.TenantRecord, p *store.Policy) PolicyRevision {
	r := PolicyRevision{
		Revision: p.Revision, State: "kept", Description: p.Description, Connect: p.Connect, Dynamic: p.Dynamic, Classes: p.Classes, Grants: p.Grants,
		CreatedBy: p.CreatedBy, CreatedAt: p.CreatedAt,
	}
	if t.Policy != nil {
		switch p.Revision {
		case t.Policy.Revision:
			r.State = "live"
		case t.Policy.Shadow:
			r.State = "shadow"
		}
	}
	return r
}

func (s *Server) listPolicies(ctx context.Context, _ *tenantInput) (*policiesOutput, error) {
	t := tenantOf(ctx)
	all, err := s.store.Policies(ctx, t.ID)
	if err != nil {
		return nil, err
	}
	out := &policiesOutput{ETag: etag(t.Revision), Body: PolicyList{Items: []PolicyRevision{}, Live: t.Policy.Live()}}
	if t.Policy != nil {
		out.Body.OnRevoke = t.Policy.OnRevoke
	}
	for i := range all {
		out.Body.Items = append(out.Body.Items, revisionBody(t, &all[i]))
	}
	return out, nil
}

func (s *Server) getPolicy(ctx context.Context, in *policyInput) (*policyOutput, error) {
	t := tenantOf(ctx)
	p, err := s.store.Policy(ctx, t.ID, in.Revision)
	if err != nil {
		return nil, err
	}
	return &policyOutput{PolicyDetail{revisionBody(t, p), p.Files}}, nil
}

// maker is the id of who calls.
func maker(ctx context.Context) string { return callerOf(ctx).actor.ID }

func (s *Server) putPolicy(ctx context.Context, in *putPolicyInput) (*policyMadeOutput, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "tenant "+t.ID)
	if err != nil {
		return nil, err
	}
	if err := matches(rev, t.Revision, "tenant "+t.ID); err != nil {
		return nil, err
	}
	program, sets, err := s.cfg.Policies.Compile(ctx, t, in.Body.Files)
	if err != nil {
		return nil, err
	}
	report, err := s.cfg.Policies.Test(ctx, t, program)
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		return nil, err
	}
	like := store.Policy{Files: in.Body.Files, Description: in.Body.Description, Connect: program.Connect, Dynamic: program.Dynamic, CreatedBy: maker(ctx)}
	if in.DryRun {
		unchanged(ctx)
		like.Classes = program.Classes
		for _, set := range sets {
			like.Grants += len(set.Entries)
		}
		return &policyMadeOutput{etag(t.Revision), PolicyMade{revisionBody(&tenancy.TenantRecord{}, &like), *report}}, nil
	}
	if err := change(ctx, t.Organization, t.ID, "policy", t.Policy); err != nil {
		return nil, err
	}
	made, err := s.store.AddPolicy(ctx, t, like, sets)
	if err != nil {
		return nil, err
	}
	then := store.LivePolicy(made, in.Body.OnRevoke)
	if in.Body.Shadow {
		then = store.ShadowPolicy(made.Revision)
	}
	was, now, err := s.store.ChangeTenant(ctx, t.ID, rev, then)
	if err != nil {
		return nil, err
	}
	s.log.Info("policy made", "tenant", t.ID, "revision", made.Revision, "shadow", in.Body.Shadow)
	if err := s.store.PrunePolicies(ctx, now); err != nil {
		s.log.Warn("old revisions of a policy were not removed", "tenant", t.ID, "error", err)
	}
	if err := changed(ctx, was.Policy, now.Policy); err != nil {
		return nil, err
	}
	return &policyMadeOutput{etag(now.Revision), PolicyMade{revisionBody(now, made), *report}}, nil
}

// changePolicy changes which revisions a tenant's record names.
func (s *Server) changePolicy(ctx context.Context, in Change, then func(*tenancy.TenantRecord) error) (*tenancy.TenantRecord, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "tenant "+t.ID)
	if err != nil {
		return nil, err
	}
	if err := matches(rev, t.Revision, "tenant "+t.ID); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		t = t.Clone()
		return t, then(t)
	}
	if err := change(ctx, t.Organization, t.ID, "policy", t.Policy); err != nil {
		return nil, err
	}
	was, now, err := s.store.ChangeTenant(ctx, t.ID, rev, then)
	if err != nil {
		return nil, err
	}
	s.log.Info("policy changed", "tenant", t.ID, "live", now.Policy.Live(), "was", was.Policy.Live())
	return now, changed(ctx, was.Policy, now.Policy)
}

func (s *Server) deletePolicy(ctx context.Context, in *noPolicyInput) (*struct{}, error) {
	_, err := s.changePolicy(ctx, in.Change, store.NoPolicy)
	return nil, err
}

func (s *Server) rollbackPolicy(ctx context.Context, in *rollbackInput) (*revisionOutput, error) {
	p, err := s.store.Policy(ctx, tenantOf(ctx).ID, in.Body.Revision)
	if err != nil {
		return nil, err
	}
	for _, class := range p.Classes { // gateways need them
		if _, err := s.store.Grants(ctx, p.Tenant, p.Revision, class); err != nil {
			return nil, err
		}
	}
	now, err := s.changePolicy(ctx, in.Change, store.LivePolicy(p, ""))
	if err != nil {
		return nil, err
	}
	return &revisionOutput{etag(now.Revision), revisionBody(now, p)}, nil
}

func (s *Server) testPolicy(ctx context.Context, in *testPolicyInput) (*testPolicyOutput, error) {
	program, _, err := s.cfg.Policies.Compile(ctx, tenantOf(ctx), in.Body.Files)
	if err != nil {
		return nil, err
	}
	report, err := s.cfg.Policies.Test(ctx, tenantOf(ctx), program)
	if err != nil {
		return nil, err
	}
	return &testPolicyOutput{*report}, nil
}

func (s *Server) deleteShadow(ctx context.Context, in *noPolicyInput) (*struct{}, error) {
	_, err := s.changePolicy(ctx, in.Change, func(t *tenancy.TenantRecord) error {
		if t.Policy == nil {
			return nil
		}
		return store.ShadowPolicy(0)(t)
	})
	return nil, err
}
