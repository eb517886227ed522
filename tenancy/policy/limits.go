// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/manormq/manor/tenancy"
)

// limitsInput is the input of quota.limits.
type limitsInput struct {
	Tenant       string                  `json:"tenant"`
	Plan         string                  `json:"plan"`
	State        tenancy.State           `json:"state"`
	Organization limitsInputOrganization `json:"organization"`
	Overrides    map[string]int64        `json:"overrides"`
	Limits       map[string]int64        `json:"limits"`
}

type limitsInputOrganization struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Limits evaluates quota.limits for a tenant of an organization of that name, and returns
// what it says otherwise than the tenant's plan and overrides, by the quotas' names; nil
// is nothing. The error is a FaultsError: no value of an answer that has a fault is used.
func (p *Installation) Limits(ctx context.Context, t *tenancy.TenantRecord, organization string) (map[string]int64, error) {
	if !p.HasLimits {
		return nil, nil
	}
	base, err := t.Base()
	if err != nil {
		return nil, err
	}
	in := limitsInput{
		Tenant: t.ID, Plan: t.Plan, State: t.State, Organization: limitsInputOrganization{t.Organization, organization},
		Overrides: t.Overrides, Limits: base.All(),
	}
	if in.Overrides == nil {
		in.Overrides = map[string]int64{}
	}
	v, err := p.eval(ctx, p.limits, in, nil)
	if err != nil {
		return nil, evaluationFault("quota.limits", err)
	}
	said, ok := v.(map[string]any)
	if !ok {
		return nil, fault("quota.limits: expected an object of limits by the names of quotas, found %s", kindOf(v))
	}
	answer := map[string]int64{}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		n, wrong := limitOf(name, said[name], in.Limits)
		if wrong != "" {
			return nil, located(p.lineOf(ctx, in, name), "quota.limits: "+wrong)
		}
		if n != in.Limits[name] {
			answer[name] = n
		}
	}
	if len(answer) == 0 {
		return nil, nil
	}
	return answer, nil
}

// limitOf reads one limit that a policy has said, or says what is wrong with it.
func limitOf(name string, v any, base map[string]int64) (n int64, wrong string) {
	was, known := base[name]
	number, ok := v.(json.Number)
	switch {
	case !known:
		return 0, fmt.Sprintf("there is no quota named %q", name)
	case !ok:
		return 0, fmt.Sprintf("expected a whole number for the quota %s, found %s", name, kindOf(v))
	}
	n, err := number.Int64()
	switch {
	case err != nil:
		return 0, fmt.Sprintf("expected a whole number for the quota %s, found %s", name, number)
	case n == tenancy.Unlimited && was != tenancy.Unlimited:
		// Arithmetic must not make "no limit" of a limit.
		return 0, fmt.Sprintf("the quota %s is limited to %d, and a policy cannot make it unlimited: expected 0 or more, found %d", name, was, n)
	}
	if err := tenancy.ValidLimit(name, n); err != nil {
		return 0, err.Error()
	}
	return n, ""
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case json.Number:
		return v.String()
	case string:
		return fmt.Sprintf("the string %.40q", v)
	case bool:
		return fmt.Sprint(v)
	case []any:
		return "an array or a set"
	}
	return "an object"
}

// lineOf is where the value of a name was made, as far as that can be told.
func (p *Installation) lineOf(ctx context.Context, in limitsInput, name string) string {
	lines := &limitLines{at: map[string]string{}}
	_, _ = p.eval(ctx, p.limits, in, lines) // it has gone well before
	return cmp.Or(lines.at[name], lines.whole)
}

// limitLines is a tracer that notes which rule has made which value of quota.limits.
type limitLines struct {
	at    map[string]string // file:line by the name of a quota
	whole string            // of a rule that makes all of them
}

var limitsRef = ast.MustParseRef(limitsRule)

// Enabled implements topdown.QueryTracer.
func (*limitLines) Enabled() bool { return true }

// Config implements topdown.QueryTracer.
func (*limitLines) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent implements topdown.QueryTracer.
func (l *limitLines) TraceEvent(e topdown.Event) {
	rule, ok := e.Node.(*ast.Rule)
	if !ok || e.Op != topdown.ExitOp || rule.Location == nil || !rule.Ref().HasPrefix(limitsRef) {
		return
	}
	where := fmt.Sprintf("%s:%d", rule.Location.File, rule.Location.Row)
	ref := rule.Ref()
	if len(ref) == len(limitsRef) {
		l.whole = where
		return
	}
	if name, ok := e.Plug(ref[len(limitsRef)]).Value.(ast.String); ok {
		l.at[string(name)] = where
	}
}
