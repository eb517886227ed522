// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/manormq/manor/tenancy"
)

// What of package mqtt is read.
const (
	grantsRule  = "data.mqtt.grants"
	connectRule = "data.mqtt.connect"
	classesRule = "data.mqtt.classes"
)

const (
	classesMost   = 64
	classNameMost = 64
	// reasonMost is the longest reason of a denial that clients are told, in bytes.
	reasonMost = 256
)

// Program is a compiled policy of a tenant. It is safe for concurrent use. Make it
// with Compile.
type Program struct {
	// Connect says that the policy has mqtt.connect.
	Connect bool
	// Dynamic says that mqtt.check is to be asked about what the grants allow.
	Dynamic bool
	// Classes are those of its clients, in order.
	Classes []string

	engine
	limits          Limits
	source          Source
	grants, connect rego.PreparedEvalQuery
	check           rego.PreparedEvalQuery // if Dynamic
}

// Compile compiles a policy. The error is a FaultsError, or a
// tenancy.ExceededError of the quota policy_bytes.
func Compile(ctx context.Context, s Source, l Limits) (*Program, error) {
	if err := s.check(l); err != nil {
		return nil, err
	}
	e, err := s.compile()
	if err != nil {
		return nil, err
	}
	e.time, e.bound = l.Time, "the quota policy_time_ms"
	p := &Program{engine: e, limits: l, source: s}
	if !p.has(grantsRule) {
		return nil, fault("expected the rule grants in package mqtt, such as: grants contains {\"action\": \"publish\", \"filter\": \"a/#\"}")
	}
	p.Connect = p.has(connectRule)
	if p.grants, err = p.prepare(ctx, grantsRule); err != nil {
		return nil, faults(err)
	}
	if p.Connect {
		if p.connect, err = p.prepare(ctx, connectRule); err != nil {
			return nil, faults(err)
		}
	}
	if err := p.readDynamic(ctx); err != nil {
		return nil, err
	}
	if p.Classes, err = p.readClasses(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// readClasses evaluates mqtt.classes.
func (p *Program) readClasses(ctx context.Context) ([]string, error) {
	if !p.has(classesRule) {
		return []string{tenancy.DefaultClass}, nil
	}
	q, err := p.prepare(ctx, classesRule)
	if err != nil {
		return nil, faults(err)
	}
	var classes []string
	v, err := p.eval(ctx, q, nil, nil)
	if err == nil {
		err = strict(v, &classes)
	}
	switch {
	case err != nil:
		return nil, fault("mqtt.classes: expected a set of strings: %v", err)
	case len(classes) == 0 || len(classes) > classesMost:
		return nil, fault("mqtt.classes: expected 1 to %d classes, found %d", classesMost, len(classes))
	}
	if !p.Connect && !slices.Contains(classes, tenancy.DefaultClass) {
		return nil, fault("mqtt.classes: expected %q among them: without mqtt.connect every client is of that class", tenancy.DefaultClass)
	}
	slices.Sort(classes)
	for _, c := range classes {
		if c == "" || len(c) > classNameMost {
			return nil, fault("mqtt.classes: expected names of 1 to %d bytes, found %q", classNameMost, c)
		}
	}
	return slices.Compact(classes), nil
}

// strict makes v, which JSON can say, one of Go's types.
func strict(v, to any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(to)
}

// TenantInput is what policies know of their tenant.
type TenantInput struct {
	ID   string `json:"id"`
	Plan string `json:"plan"`
}

// grantsInput is the input of mqtt.grants.
type grantsInput struct {
	Tenant TenantInput `json:"tenant"`
	Class  string      `json:"class"`
}

// Grants evaluates mqtt.grants for a class, and compiles it: At of each entry is the
// rule that made it. The error is a FaultsError, or a tenancy.ExceededError of the
// quota grants.
func (p *Program) Grants(ctx context.Context, t TenantInput, class string) (*tenancy.GrantSet, error) {
	at := &origins{at: map[string]string{}}
	begin := time.Now()
	v, err := p.eval(ctx, p.grants, grantsInput{t, class}, at)
	took := time.Since(begin)
	if err != nil {
		return nil, p.failed("grants", class, err)
	}
	// Tracing takes longer than what gateways wait for: who is over is looked at again.
	for try := 0; p.limits.Time > 0 && took > p.limits.Time && try < 3; try++ {
		begin = time.Now()
		if _, err := p.eval(ctx, p.grants, grantsInput{t, class}, nil); err != nil {
			return nil, p.failed("grants", class, err)
		}
		took = min(took, time.Since(begin))
	}
	if p.limits.Time > 0 && took > p.limits.Time {
		return nil, fault("mqtt.grants of class %q takes %s, the quota policy_time_ms allows %s", class, took.Round(time.Millisecond), p.limits.Time)
	}
	var values []any
	if v != nil {
		var ok bool
		if values, ok = v.([]any); !ok {
			return nil, fault("mqtt.grants: expected a set or an array, found %T", v)
		}
	}
	if n := int64(len(values)); p.limits.Grants >= 0 && n > p.limits.Grants {
		return nil, &tenancy.ExceededError{Quota: "grants", Limit: p.limits.Grants, Usage: n}
	}
	entries := make([]tenancy.GrantEntry, len(values))
	for i, v := range values {
		where := at.of(v)
		if err := strict(v, &entries[i]); err != nil || entries[i].At != "" {
			return nil, located(where, fmt.Sprintf("mqtt.grants: expected an object with action, filter, and if wanted effect, user, qos, retain and priority: %v", err))
		}
		entries[i].At = where
		if _, err := tenancy.NewGrantSet(0, class, entries[i:i+1]); err != nil {
			return nil, located(where, err.Error())
		}
	}
	return tenancy.NewGrantSet(0, class, entries)
}

// failed is an evaluation that has failed, as a fault where it did.
func (p *Program) failed(rule, class string, err error) error {
	return evaluationFault(fmt.Sprintf("mqtt.%s of class %q", rule, class), err)
}

// connectInput is the input of mqtt.connect.
type connectInput struct {
	Tenant TenantInput `json:"tenant"`
	tenancy.Arrival
}

// Admit evaluates mqtt.connect. What is undefined denies, and so does what is wrong or
// fails, of which Why of the answer says so.
func (p *Program) Admit(ctx context.Context, t TenantInput, a *tenancy.Arrival) tenancy.ConnectAnswer {
	if !p.Connect {
		return tenancy.ConnectAnswer{Allow: true, Class: tenancy.DefaultClass}
	}
	v, err := p.eval(ctx, p.connect, connectInput{t, *a}, nil)
	if err != nil {
		return tenancy.ConnectAnswer{Why: "mqtt.connect: " + err.Error()}
	}
	if v == nil {
		return tenancy.ConnectAnswer{Reason: "the tenant's policy does not let this client in: mqtt.connect is undefined for it"}
	}
	var said struct {
		Allow  bool   `json:"allow"`
		Class  string `json:"class"`
		Reason string `json:"reason"`
	}
	if err := strict(v, &said); err != nil {
		return tenancy.ConnectAnswer{Why: fmt.Sprintf("mqtt.connect: expected an object with allow, and if wanted class and reason: %v", err)}
	}
	answer := tenancy.ConnectAnswer{Allow: said.Allow, Class: said.Class, Reason: reasonOf(said.Reason)}
	if answer.Class == "" {
		answer.Class = tenancy.DefaultClass
	}
	if answer.Allow && !slices.Contains(p.Classes, answer.Class) {
		return tenancy.ConnectAnswer{Why: fmt.Sprintf("mqtt.connect says class %q, which mqtt.classes does not have", answer.Class)}
	}
	return answer
}
