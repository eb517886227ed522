// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/policy"
)

// Admission says which changes are refused; see tenancy/decide. It is safe for
// concurrent use.
type Admission interface {
	// Admits reports whether there is anything to ask Deny.
	Admits() bool
	// Deny returns why a change is refused; empty lets it through. With an error it is
	// not let through.
	Deny(ctx context.Context, a *policy.Admission) ([]string, error)
}

// admittedMax bounds what of a request admission looks at, in bytes of JSON.
const admittedMax = 1 << 20

// drier is an input that may ask for a dry run.
type drier interface{ dry() bool }

func (w Write) dry() bool { return w.DryRun }

// admit asks the installation's policy about the change, and records a refusal. A
// handler's change asks by itself.
func (c *changing) admit(ctx context.Context, actor audit.Actor, organization, tenant, target string, before any) error {
	if c.admission == nil || !c.admission.Admits() {
		return nil
	}
	a, err := c.admissionOf(ctx, actor, organization, tenant, target, before)
	if err != nil {
		return err
	}
	denied, err := c.admission.Deny(ctx, a)
	if err != nil {
		return errs.Coded(errs.Unavailable, "admission_failed", "the installation's policy could not be followed, which refuses the request: nothing was changed; the operator's log says why")
	}
	if len(denied) == 0 {
		return nil
	}
	p := newProblem(http.StatusForbidden, "admission_denied", "the installation's policy refuses this: "+strings.Join(denied, "; "))
	for _, text := range denied {
		p.Errors = append(p.Errors, ProblemDetail{Location: "admission", Message: text})
	}
	// What a stranger wanted belongs to no organization's log, a dry run to none.
	if actor.Kind == audit.ActorSignUp || a.DryRun {
		return p
	}
	noted, err := c.log.Begin(ctx, c.record(ctx, actor, organization, tenant, target, before))
	if err != nil {
		return err
	}
	return c.refused(ctx, noted, denied, p)
}

// refused records a refusal, and returns it.
func (c *changing) refused(ctx context.Context, noted *audit.Pending, denied []string, p *Problem) error {
	if err := noted.Refused(ctx, map[string][]string{"denied": denied}); err != nil {
		return err
	}
	return p
}

// admissionOf is what the policy is asked.
func (c *changing) admissionOf(ctx context.Context, actor audit.Actor, organization, tenant, target string, before any) (*policy.Admission, error) {
	caller := callerOf(ctx)
	access := caller.principal.Access
	_, kind, _ := strings.Cut(c.op.OperationID, "-")
	a := &policy.Admission{
		Actor: policy.AdmissionActor{
			Kind: actor.Kind, ID: actor.ID, Organization: caller.principal.Organization, Role: access.Role,
			Permissions: access.Permissions, Tenants: access.Tenants, Address: caller.address,
		},
		Method: c.op.Method, Operation: c.op.OperationID,
		Resource: policy.AdmissionResource{Kind: kind, Organization: organization, Tenant: tenant, Target: target, Path: map[string]string{}},
		Old:      audit.Redact(before),
	}
	if d, ok := c.in.(drier); ok {
		a.DryRun = d.dry()
	}
	in := reflect.Indirect(reflect.ValueOf(c.in))
	parametersOf(in, a.Resource.Path)
	wanted := c.wanted
	if body := bodyOf(in); wanted == nil && body.IsValid() {
		wanted = body.Interface()
	}
	if wanted == nil {
		return a, nil
	}
	b, err := json.Marshal(audit.Redact(wanted))
	switch {
	case err != nil:
		return nil, errs.New(errs.Internal, "encode a request for the installation's policy: %w", err)
	case len(b) > admittedMax:
		return nil, errs.Coded(errs.Denied, "admission_denied", "the installation's policy looks at requests of up to %d bytes, this one has %d: make several of it", admittedMax, len(b))
	}
	a.New = json.RawMessage(b)
	return a, nil
}

// bodyOf is the field Body of an input; the zero Value without one.
func bodyOf(in reflect.Value) reflect.Value {
	if in.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return in.FieldByName("Body")
}

// parametersOf adds the parameters of the path of an input.
func parametersOf(in reflect.Value, to map[string]string) {
	if in.Kind() != reflect.Struct {
		return
	}
	for i := range in.NumField() {
		f := in.Type().Field(i)
		switch name := f.Tag.Get("path"); {
		case name != "":
			b, err := json.Marshal(in.Field(i).Interface())
			if err == nil {
				to[name] = strings.Trim(string(b), `"`)
			}
		case f.Anonymous:
			parametersOf(in.Field(i), to)
		}
	}
}

// dryRun asks the installation's policy about a request that a dry run has found good.
func (c *changing) dryRun(ctx context.Context) error {
	if d, ok := c.in.(drier); !ok || !d.dry() {
		return nil
	}
	organization, tenant := callerOf(ctx).principal.Organization, ""
	if t, ok := ctx.Value(tenantKey{}).(*tenancy.TenantRecord); ok && t != nil {
		organization, tenant = t.Organization, t.ID
	}
	return c.admit(ctx, callerOf(ctx).actor, organization, tenant, "", nil)
}
