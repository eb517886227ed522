// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"context"
	"fmt"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

// Candidate is a policy that can be asked, live or not. It is safe for concurrent
// use.
type Candidate struct {
	// Revision is 0 for one that is not stored.
	Revision uint64
	tenant   policy.TenantInput
	program  *policy.Program
	classes  map[string]*tenancy.GrantSet
}

// Candidate is the policy of files that are not stored.
func (s *Service) Candidate(ctx context.Context, t *tenancy.TenantRecord, files policy.Source) (*Candidate, error) {
	p, sets, err := s.Compile(ctx, t, files)
	if err != nil {
		return nil, err
	}
	c := &Candidate{tenant: inputOf(t), program: p, classes: map[string]*tenancy.GrantSet{}}
	for _, set := range sets {
		c.classes[set.Class] = set
	}
	return c, nil
}

// Kept is a revision that is stored; the errors include NotFound.
func (s *Service) Kept(ctx context.Context, t *tenancy.TenantRecord, revision uint64) (*Candidate, error) {
	key := fmt.Sprintf("%s.%d.%s", t.ID, revision, t.Plan)
	if c, ok := s.stored.Get(key); ok {
		return c, nil
	}
	// Many clients of a tenant may come at once: it is compiled for all of them.
	v, err, _ := s.loads.Do(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTime)
		defer cancel()
		return s.load(ctx, t, revision)
	})
	if err != nil {
		return nil, err
	}
	c, _ := v.(*Candidate)
	s.stored.Add(key, c)
	return c, nil
}

// loadTime bounds reading and compiling a revision.
const loadTime = 10 * time.Second

func (s *Service) load(ctx context.Context, t *tenancy.TenantRecord, revision uint64) (*Candidate, error) {
	stored, err := s.cfg.Store.Policy(ctx, t.ID, revision)
	if err != nil {
		return nil, err
	}
	limits, err := t.Limits()
	if err != nil {
		return nil, err
	}
	l := policy.LimitsOf(&limits)
	l.Bytes = -1 // it was within the quota when it was made
	p, err := policy.Compile(ctx, stored.Files, l)
	if err != nil {
		return nil, err
	}
	c := &Candidate{Revision: revision, tenant: inputOf(t), program: p, classes: map[string]*tenancy.GrantSet{}}
	for _, class := range p.Classes {
		if c.classes[class], err = s.cfg.Store.Grants(ctx, t.ID, revision, class); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Class is what class mqtt.connect gives a client; the error is Denied, with why, if
// it lets it not in.
func (c *Candidate) Class(ctx context.Context, a *tenancy.Arrival) (string, error) {
	answer := c.program.Admit(ctx, c.tenant, a)
	switch {
	case answer.Why != "":
		return "", errs.Coded(errs.Denied, "policy_denied", "%s", answer.Why)
	case !answer.Allow && answer.Reason == "":
		return "", errs.Coded(errs.Denied, "policy_denied", "mqtt.connect says no")
	case !answer.Allow:
		return "", errs.Coded(errs.Denied, "policy_denied", "mqtt.connect says no: %s", answer.Reason)
	}
	return answer.Class, nil
}

// Dynamic reports whether mqtt.check is asked about what it allows.
func (c *Candidate) Dynamic() bool { return c.program.Dynamic }

// Explain answers a question of a client of that class.
func (c *Candidate) Explain(class string, who *tenancy.Subject, q tenancy.Question) tenancy.Explanation {
	set := c.classes[class]
	if set == nil {
		return tenancy.Explanation{Why: fmt.Sprintf("the policy has no class %q", class)}
	}
	return set.Bind(who).Explain(q)
}

// decision is what it says of what was decided.
func (c *Candidate) decision(d *tenancy.Decision) *Change {
	x := c.Explain(d.Class, &d.Client, d.Question)
	why := x.Why
	if x.Entry != nil {
		why += " (" + x.Entry.At + ")"
	}
	return &Change{Decision: d.ID, Client: d.Client, Question: d.Question, Was: d.Allowed, Would: x.Allowed, Why: why}
}

// arrival is what it says of a client that came.
func (c *Candidate) arrival(ctx context.Context, a *arrival) *Change {
	ch := &Change{Client: a.Arrival.Client, Connect: true, Was: a.Answer.Allow, Would: true}
	class, err := c.Class(ctx, &a.Arrival)
	switch {
	case err != nil:
		ch.Would, ch.Why = false, err.Error()
	case class != a.Answer.Class && a.Answer.Allow:
		ch.Why = fmt.Sprintf("the class would be %q, and was %q", class, a.Answer.Class)
	}
	return ch
}
