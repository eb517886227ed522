// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/quota"
	"github.com/manormq/manor/tenancy/store"
)

// TenantDetail is the answer to GET /v1/tenants/{tenant}.
type TenantDetail struct {
	Tenant
	Organization string    `json:"organization" doc:"The organization's id."`
	CreatedAt    time.Time `json:"created_at"`
	DisplayName  string    `json:"display_name,omitempty" doc:"A name for people."`
	// DeletionProtection refuses DELETE.
	DeletionProtection bool        `json:"deletion_protection" doc:"Whether the tenant cannot be deleted."`
	StateReason        string      `json:"state_reason,omitempty" doc:"Why the tenant is suspended."`
	StateBy            string      `json:"state_by,omitempty" doc:"operator: the operator of the installation has suspended the tenant, and resumes it."`
	StateSince         *time.Time  `json:"state_since,omitempty" doc:"Since when the tenant has its state; left out of one that never had another."`
	PurgeAt            *time.Time  `json:"purge_at,omitempty" doc:"Of a deleted tenant: when all that it has is removed. Until then it can be restored."`
	Cell               *TenantCell `json:"cell,omitempty" doc:"Of a tenant that was made with a plan of fewer partitions than it has now: how far it has grown. Not in lists."`
}

type tenantInput struct{ InTenant }

type tenantOutput struct {
	ETag string `header:"ETag"`
	Body TenantDetail
}

// Quota is one quota of a tenant.
type Quota struct {
	Name  string `json:"name" example:"connections"`
	Limit int64  `json:"limit" doc:"-1 means that there is no limit." example:"250000"`
	Usage *int64 `json:"usage" doc:"How much of it is used now; of a rate, in a second lately; null where that is not counted."`
	// Headroom is Limit less Usage.
	Headroom *int64 `json:"headroom" doc:"How much is left of it, 0 if more than the limit is used; null without a limit, and where usage is null."`
	Source   string `json:"source" enum:"plan,override,policy" doc:"Where the limit comes from: the tenant's plan, its overrides, or the policy of the installation."`
	Override *int64 `json:"override,omitempty" doc:"The tenant's override, if it has one; the policy of the installation may have replaced it."`
}

// QuotaList is the answer to GET and PUT of quotas.
type QuotaList struct {
	Items []Quota `json:"items"`
	Held  bool    `json:"held,omitempty" doc:"The installation's policy could not be followed at the last change: the limits are those of before it."`
}

type quotasOutput struct {
	ETag string `header:"ETag"`
	Body QuotaList
}

type overridesOutput struct {
	ETag        string `header:"ETag"`
	NotEnforced string `header:"Quotas-Not-Enforced" doc:"The overrides that are kept and hold nowhere yet, with a comma between them; not there if there is none."`
	Body        QuotaList
}

type overridesInput struct {
	InTenant
	Change
	Body map[string]int64 `doc:"Limits by quota name; a name that is missing goes back to the plan's limit. -1 means no limit."`
}

// UsageMeter is one meter of a tenant.
type UsageMeter struct {
	Meter  string       `json:"meter" example:"connections"`
	Points []UsagePoint `json:"points" doc:"In order of time."`
}

// UsagePoint is what a meter showed at a time.
type UsagePoint struct {
	At    time.Time `json:"at"`
	Value int64     `json:"value"`
}

// UsageList is the answer to GET …/usage.
type UsageList struct {
	Items []UsageMeter `json:"items"`
	Next  *string      `json:"next" doc:"The cursor of the next page; null at the end."`
}

type usageInput struct {
	InTenant
	Meter string    `query:"meter" doc:"One meter; all if left out."`
	From  time.Time `query:"from" doc:"Leave out what is earlier."`
	To    time.Time `query:"to" doc:"Leave out what is later."`
	Step  string    `query:"step" doc:"The time between two points, such as 1m. So far there is the present point only."`
}

type usageOutput struct{ Body UsageList }

func (s *Server) tenantRoutes() {
	const base = "/v1/tenants/{tenant}"
	s.planRoutes()
	s.lifeRoutes()
	register(s, operation("get-tenant", http.MethodGet, base, "Tenants", "Get a tenant"), s.getTenant)
	register(s, operation("list-quotas", http.MethodGet, base+"/quotas", "Tenants", "List the quotas of a tenant"), s.listQuotas)
	register(s, operation("replace-quota-overrides", http.MethodPut, base+"/quotas/overrides", "Tenants",
		"Replace the limits that differ from the plan's"), s.replaceOverrides)
	register(s, operation("get-usage", http.MethodGet, base+"/usage", "Tenants", "See what a tenant uses"), s.getUsage)
	s.metricsRoutes()
}

func (s *Server) getTenant(ctx context.Context, _ *tenantInput) (*tenantOutput, error) {
	t := tenantOf(ctx)
	out := &tenantOutput{ETag: etag(t.Revision), Body: s.tenantDetail(t)}
	out.Body.Cell = s.cellOf(ctx, t)
	return out, nil
}

func (s *Server) tenantDetail(t *tenancy.TenantRecord) TenantDetail {
	out := TenantDetail{
		Tenant: s.tenantBody(t), Organization: t.Organization, CreatedAt: t.CreatedAt,
		DisplayName: t.DisplayName, DeletionProtection: t.DeletionProtection,
	}
	if l := t.Life; l != nil {
		out.StateReason, out.StateBy, out.StateSince = l.Reason, l.By, &l.Since
	}
	if at, ok := t.PurgeDue(); ok {
		out.PurgeAt = &at
	}
	return out
}

func (s *Server) listQuotas(ctx context.Context, _ *tenantInput) (*quotasOutput, error) {
	return s.quotas(ctx, tenantOf(ctx))
}

func (s *Server) quotas(ctx context.Context, t *tenancy.TenantRecord) (*quotasOutput, error) {
	limits, err := t.Limits()
	if err != nil {
		return nil, err
	}
	usage := s.usage(ctx, t.ID)
	if n, err := s.store.CountTenants(ctx, t.Organization); err == nil {
		usage["tenants"] = n
	}
	if c, err := clientCAsBody(t); err == nil {
		usage["client_cas"] = int64(len(c.Body.Items))
	}
	base, err := t.Base()
	if err != nil {
		return nil, err
	}
	out := &quotasOutput{ETag: etag(t.Revision), Body: QuotaList{Held: t.Held}}
	for _, name := range tenancy.QuotaNames() {
		q := Quota{Name: name, Source: "plan"}
		q.Limit, _ = limits.Get(name)
		if v, ok := t.Overrides[name]; ok {
			q.Source, q.Override = "override", &v
		}
		if without, _ := base.Get(name); without != q.Limit {
			q.Source = "policy"
		}
		if v, ok := usage[name]; ok {
			q.Usage = &v
			if q.Limit >= 0 {
				left := max(0, q.Limit-v)
				q.Headroom = &left
			}
		}
		out.Body.Items = append(out.Body.Items, q)
	}
	return out, nil
}

// usageTimeout bounds what is asked of brokers beside the answer proper.
const usageTimeout = 2 * time.Second

// usage returns what is counted now, by meter. What cannot be had now is left
// out: limits are shown also while the brokers are away.
func (s *Server) usage(ctx context.Context, tenant string) map[string]int64 {
	ctx, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	m := map[string]int64{}
	if n, err := s.store.CountCredentials(ctx, tenant); err == nil {
		m["credentials"] = n
	}
	if n, err := s.store.CountDevices(ctx, tenant); err == nil {
		m["devices"] = n
	}
	if n, err := s.store.CountDomains(ctx, tenant); err == nil {
		m["domains"] = n
	}
	s.sharedUsage(ctx, tenant, m)
	a, err := s.cfg.Data.Query(ctx, link.Query{Kind: link.QueryUsage, Tenant: tenant})
	if err != nil {
		s.log.Warn("usage is not known", "tenant", tenant, "error", err)
		return m
	}
	u := a.Usage
	if _, ok := m["connections"]; !ok {
		m["connections"] = u.Connections
	}
	m["persistent_sessions"] = u.PersistentSessions
	m["subscriptions"] = u.Subscriptions
	m["retained_messages"] = u.Retained
	m["retained_bytes"] = u.RetainedBytes
	m["storage_bytes"] = u.RetainedBytes + u.QueueBytes
	return m
}

// sharedUsage adds what gateways say, if all of them do.
func (s *Server) sharedUsage(ctx context.Context, tenant string, m map[string]int64) {
	if s.cfg.Used == nil {
		return
	}
	used, err := s.cfg.Used.Usage(ctx, tenant)
	if err != nil {
		s.log.Debug("what is used at gateways is not known", "tenant", tenant, "error", err)
		return
	}
	for k, v := range used {
		m[quota.Kind(k).String()] = int64(math.Round(v))
	}
}

// mayOverride refuses changes of quotas of the whole organization by who is limited to
// some tenants, and an audit log that is kept for less long than the plan says: who may
// change quotas could forget with it what it has done.
func mayOverride(c *caller, t *tenancy.TenantRecord, now map[string]int64) error {
	for _, name := range store.OrganizationQuotas() {
		old, had := t.Overrides[name]
		v, has := now[name]
		if had == has && old == v {
			continue
		}
		if len(c.principal.Access.Tenants) > 0 {
			return errs.Coded(errs.Denied, "scope_insufficient", "the quota %q holds for the whole organization: a key or member that is limited to tenants cannot change it", name)
		}
		if plan, err := tenancy.PlanByName(t.Plan); name == "audit_days" && has && v != tenancy.Unlimited {
			if err != nil {
				return err
			}
			if least, _ := plan.Limits.Get(name); least == tenancy.Unlimited || v < least {
				return errs.Coded(errs.Invalid, "quota_too_low", "audit_days: expected at least what the plan %s has, %d, or -1 for no end, found %d", t.Plan, least, v)
			}
		}
	}
	return nil
}

func (s *Server) replaceOverrides(ctx context.Context, in *overridesInput) (*overridesOutput, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "tenant "+t.ID)
	if err != nil {
		return nil, err
	}
	for name, v := range in.Body {
		if err := tenancy.ValidLimit(name, v); err != nil {
			return nil, knownQuota(err, name)
		}
	}
	if err := mayOverride(callerOf(ctx), t, in.Body); err != nil {
		return nil, err
	}
	choose := s.chooseOverrides(in.Body)
	if err := choose(t.Clone()); err != nil { // before a change is noted
		return nil, err
	}
	if in.DryRun {
		if err := matches(rev, t.Revision, "tenant "+t.ID); err != nil {
			return nil, err
		}
		unchanged(ctx)
		now := t.Clone()
		if err := choose(now); err != nil {
			return nil, err
		}
		if t, err = s.store.Limited(ctx, t, now); err != nil {
			return nil, err
		}
	} else {
		if err := change(ctx, t.Organization, t.ID, "quota overrides", t.Overrides); err != nil {
			return nil, err
		}
		was, now, err := s.store.ChangeTenant(ctx, t.ID, rev, choose)
		if err != nil {
			return nil, err
		}
		t = now
		if err := changed(ctx, was.Overrides, now.Overrides); err != nil {
			return nil, err
		}
		s.log.Info("quota overrides replaced", "tenant", t.ID, "overrides", len(t.Overrides))
	}
	q, err := s.quotas(ctx, t)
	if err != nil {
		return nil, err
	}
	return &overridesOutput{ETag: q.ETag, NotEnforced: notEnforced(t.Overrides), Body: q.Body}, nil
}

// knownQuota adds to the error about a name that no quota has the name that was
// meant, if one is near.
func knownQuota(err error, name string) error {
	if errs.CodeOf(err) != "quota_unknown" {
		return err
	}
	best, distance := node.Nearest(name, tenancy.QuotaNames())
	if distance > max(2, len(name)/3) {
		return err
	}
	return errs.Coded(errs.Invalid, "quota_unknown", "there is no quota named %q; did you mean %q?", name, best)
}

// meters are what GET …/usage can show.
var meters = []string{"connections", "credentials", "persistent_sessions", "retained_bytes", "retained_messages", "storage_bytes", "subscriptions"}

func (s *Server) getUsage(ctx context.Context, in *usageInput) (*usageOutput, error) {
	wanted := meters
	if in.Meter != "" {
		if !slices.Contains(meters, in.Meter) {
			return nil, errs.Coded(errs.Invalid, "meter_unknown", "expected one of the meters %s, found %q", strings.Join(meters, ", "), in.Meter)
		}
		wanted = []string{in.Meter}
	}
	if in.Step != "" {
		if d, err := time.ParseDuration(in.Step); err != nil || d <= 0 {
			return nil, errs.Coded(errs.Invalid, "step_invalid", "expected a step like 1m or 1h, found %q", in.Step)
		}
	}
	if !in.From.IsZero() && !in.To.IsZero() && in.To.Before(in.From) {
		return nil, errs.Coded(errs.Invalid, "range_invalid", "expected from to be before to")
	}
	now := s.now().UTC()
	within := !in.From.After(now) && (in.To.IsZero() || !in.To.Before(now))
	usage := s.usage(ctx, tenantOf(ctx).ID)
	out := &usageOutput{Body: UsageList{Items: []UsageMeter{}}}
	for _, name := range wanted {
		m := UsageMeter{Meter: name, Points: []UsagePoint{}}
		if v, ok := usage[name]; ok && within {
			m.Points = append(m.Points, UsagePoint{At: now, Value: v})
		}
		out.Body.Items = append(out.Body.Items, m)
	}
	return out, nil
}
