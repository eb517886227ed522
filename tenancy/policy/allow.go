// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	_ "embed"
	"encoding/json"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

//go:embed rbac.rego
var rbac string

// Principal is who calls.
type Principal struct {
	// Organization is the id of the one that it belongs to.
	Organization string
	tenancy.Access
}

// Resource is what a call is about.
type Resource struct {
	// Organization is the id of the one that owns it.
	Organization string
	// Tenant is the id of the tenant that it belongs to, or empty if it is of
	// the organization as a whole.
	Tenant string
}

// Decision is an answer of Allow.
type Decision string

// The answers.
const (
	// Allowed is the only one that lets the call through.
	Allowed Decision = "allow"
	// Foreign: the thing belongs to another organization; it must look as if it
	// were not there.
	Foreign Decision = "organization"
	// OutOfScope: the caller is limited to tenants, and the thing is not of them.
	OutOfScope Decision = "scope"
	// Forbidden: the caller lacks the permission.
	Forbidden Decision = "permission"
)

// RBAC holds the prepared rules. It is safe for concurrent use. Make it with
// New.
type RBAC struct {
	decision, excess rego.PreparedEvalQuery
	roles            map[string][]string
}

// New compiles the rules. The error is Internal: the rules are built in.
func New(ctx context.Context) (*RBAC, error) {
	module, err := ast.ParseModule("rbac.rego", rbac)
	if err != nil {
		return nil, errs.New(errs.Internal, "rbac.rego: %w", err)
	}
	prepare := func(query string) (q rego.PreparedEvalQuery) {
		if err == nil {
			q, err = rego.New(rego.Query(query), rego.ParsedModule(module), rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
		}
		return q
	}
	r := &RBAC{decision: prepare("data.manor.rbac.decision"), excess: prepare("data.manor.rbac.excess")}
	all := prepare("data.manor.rbac.roles")
	if err != nil {
		return nil, errs.New(errs.Internal, "rbac.rego: %w", err)
	}
	if err := one(ctx, all, nil, &r.roles); err != nil {
		return nil, err
	}
	for _, p := range r.roles {
		slices.Sort(p)
	}
	return r, nil
}

// Allow says whether the principal may do what needs that permission of the
// resource. The error is Internal or ctx's; with one, nothing is allowed.
func (r *RBAC) Allow(ctx context.Context, p Principal, permission string, about Resource) (Decision, error) {
	var d Decision
	err := one(ctx, r.decision, object(
		"principal", principal(p),
		"permission", text(permission),
		"resource", object("organization", text(about.Organization), "tenant", text(about.Tenant)),
	), &d)
	if err != nil {
		return Forbidden, err
	}
	return d, nil
}

// Excess lists, in order, what grant has and the principal itself lacks; it may
// give away what is left empty. The error is Internal or ctx's.
func (r *RBAC) Excess(ctx context.Context, p Principal, grant tenancy.Access) ([]string, error) {
	var all []string
	err := one(ctx, r.excess, object("principal", principal(p), "grant", access(grant)), &all)
	slices.Sort(all)
	return all, err
}

// Roles returns what each role may do, in order. The result is not to be
// changed.
func (r *RBAC) Roles() map[string][]string { return r.roles }

// one evaluates a query that has exactly one answer.
func one(ctx context.Context, q rego.PreparedEvalQuery, input ast.Value, to any) error {
	var opts []rego.EvalOption
	if input != nil {
		opts = append(opts, rego.EvalParsedInput(input))
	}
	results, err := q.Eval(ctx, opts...)
	if err != nil {
		return errs.New(errs.Internal, "evaluate rbac.rego: %w", err)
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return errs.New(errs.Internal, "evaluate rbac.rego: expected one answer, found %d", len(results))
	}
	b, err := json.Marshal(results[0].Expressions[0].Value)
	if err != nil {
		return errs.New(errs.Internal, "evaluate rbac.rego: %w", err)
	}
	if err := json.Unmarshal(b, to); err != nil {
		return errs.New(errs.Internal, "evaluate rbac.rego: %w", err)
	}
	return nil
}

func text(s string) ast.Value { return ast.String(s) }

// object makes an object of names and values in turn.
func object(pairs ...any) ast.Value {
	o := ast.NewObject()
	for i := 0; i+1 < len(pairs); i += 2 {
		name, _ := pairs[i].(string)
		value, _ := pairs[i+1].(ast.Value)
		o.Insert(ast.StringTerm(name), ast.NewTerm(value))
	}
	return o
}

func principal(p Principal) ast.Value {
	o := access(p.Access)
	o.Insert(ast.StringTerm("organization"), ast.StringTerm(p.Organization))
	return o
}

// access leaves an empty role out: the rules ask whether it is there.
func access(a tenancy.Access) ast.Object {
	o := ast.NewObject()
	if a.Role != "" {
		o.Insert(ast.StringTerm("role"), ast.StringTerm(a.Role))
	}
	o.Insert(ast.StringTerm("permissions"), list(a.Permissions))
	o.Insert(ast.StringTerm("tenants"), list(a.Tenants))
	return o
}

func list(all []string) *ast.Term {
	terms := make([]*ast.Term, len(all))
	for i, s := range all {
		terms[i] = ast.StringTerm(s)
	}
	return ast.ArrayTerm(terms...)
}
