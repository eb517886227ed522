// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// What of the operator's own policy is read.
const (
	limitsRule = "data.quota.limits"
	denyRule   = "data.admission.deny"
)

const (
	// installationTime is how long one evaluation of the operator's policy may work.
	installationTime = 20 * time.Millisecond
	// denialsMost is how many messages of a refusal are told, denialMost how long one is,
	// in bytes.
	denialsMost = 20
	denialMost  = 500
)

// Installation is the operator's own policy, compiled: package quota says what tenants
// may use, package admission what the API may change. It is immutable and safe for
// concurrent use. Make it with CompileInstallation.
type Installation struct {
	// HasLimits and HasAdmission say which of quota.limits and admission.deny it has.
	HasLimits, HasAdmission bool

	engine
	limits, deny rego.PreparedEvalQuery
}

// ReadSource reads the files of a folder whose names end with .rego, those below it left
// out. The error is Invalid if it cannot be read.
func ReadSource(dir string) (Source, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.rego"))
	if err != nil {
		return nil, errs.New(errs.Invalid, "expected a folder with *.rego: %w", err)
	}
	s := Source{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, errs.New(errs.Invalid, "read the installation's policy: %w", err)
		}
		s[filepath.Base(name)] = string(text)
	}
	if len(s) == 0 {
		return nil, errs.New(errs.Invalid, "expected a folder with at least one file *.rego, found none in %s", dir)
	}
	return s, nil
}

// CompileInstallation compiles the operator's policy, runs its tests, and asks it about
// a tenant of each plan. The error is a FaultsError.
func CompileInstallation(ctx context.Context, s Source) (*Installation, error) {
	if err := s.check(Limits{Bytes: -1, Grants: -1}); err != nil {
		return nil, err
	}
	e, err := s.compile()
	if err != nil {
		return nil, err
	}
	e.time, e.bound, e.operator = installationTime, "the bound for the installation's policy", true
	p := &Installation{engine: e, HasLimits: e.hasAny(limitsRule), HasAdmission: e.hasAny(denyRule)}
	if !p.HasLimits && !p.HasAdmission {
		return nil, fault("expected the rule limits in package quota, or deny in package admission")
	}
	if p.HasLimits {
		if p.limits, err = p.prepare(ctx, limitsRule); err != nil {
			return nil, faults(err)
		}
	}
	if p.HasAdmission {
		if p.deny, err = p.prepare(ctx, denyRule); err != nil {
			return nil, faults(err)
		}
	}
	report, err := s.test(allowingOperator(ctx))
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		return nil, err
	}
	return p, p.try(ctx)
}

// try asks about a change, and about a tenant of each plan.
func (p *Installation) try(ctx context.Context) error {
	if p.HasAdmission {
		// A rule may count on what this change does not have; that it says anything else
		// than a set would refuse every change.
		if v, err := p.eval(ctx, p.deny, &Admission{Method: "POST", Operation: "example"}, nil); err == nil {
			if _, err := denials(v); err != nil {
				return err
			}
		}
	}
	if !p.HasLimits {
		return nil
	}
	for _, plan := range append(tenancy.PlanNames(), tenancy.PlanNone) {
		for _, state := range []tenancy.State{tenancy.StateActive, tenancy.StateSuspended} {
			r := &tenancy.TenantRecord{ID: "example", Organization: "org_example", Plan: plan, State: state}
			if _, err := p.Limits(ctx, r, "Example"); err != nil {
				return err
			}
		}
	}
	return nil
}

// Admission is a change that is wanted through the API, as admission.deny sees it. It is
// a plain value without secrets.
type Admission struct {
	Actor     AdmissionActor    `json:"actor"`
	Method    string            `json:"method"`    // of HTTP
	Operation string            `json:"operation"` // its id in the OpenAPI document
	Resource  AdmissionResource `json:"resource"`
	// Old is what is there now, New the body of the request; nil is nothing.
	Old any `json:"old"`
	New any `json:"new"`
	// DryRun says that nothing will be changed; then there is no Old.
	DryRun bool `json:"dry_run"`
}

// AdmissionActor is who wants it.
type AdmissionActor struct {
	Kind         string   `json:"kind"` // key, member, claim or sign-up
	ID           string   `json:"id"`
	Organization string   `json:"organization"`
	Role         string   `json:"role"`
	Permissions  []string `json:"permissions"`
	Tenants      []string `json:"tenants"`
	Address      string   `json:"address"` // of IP
}

// AdmissionResource is what is to be changed.
type AdmissionResource struct {
	// Kind is the operation's id without its verb, such as credential.
	Kind         string `json:"kind"`
	Organization string `json:"organization"`
	Tenant       string `json:"tenant"`
	// Target is its name in the audit log, such as "credential sensor-1".
	Target string `json:"target"`
	// Path are the parameters of the path by name.
	Path map[string]string `json:"path"`
}

// Deny returns why the change is refused; empty lets it through. With an error, which
// says what of the policy has failed, it must not be let through.
func (p *Installation) Deny(ctx context.Context, a *Admission) ([]string, error) {
	if !p.HasAdmission {
		return nil, nil
	}
	v, err := p.eval(ctx, p.deny, a, nil)
	if err != nil {
		return nil, evaluationFault("admission.deny", err)
	}
	return denials(v)
}

// denials reads what admission.deny is.
func denials(v any) (all []string, err error) {
	if v == nil {
		return nil, fault("admission.deny is undefined, expected a set of strings, as: deny contains msg if …")
	}
	if err := strict(v, &all); err != nil {
		return nil, fault("admission.deny: expected a set of strings: %v", err)
	}
	all = all[:min(len(all), denialsMost)]
	for i, text := range all {
		if len(text) > denialMost {
			all[i] = strings.ToValidUTF8(text[:denialMost], "")
		}
		if text == "" {
			all[i] = fmt.Sprintf("refused by the installation's policy (%s)", denyRule)
		}
	}
	return all, nil
}
