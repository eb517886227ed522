// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/decide"
)

// arrival is a client as mqtt.connect sees it.
func (c *PolicyClient) arrival(t *tenancy.TenantRecord, domain string) *tenancy.Arrival {
	return &tenancy.Arrival{
		Client: tenancy.Subject{ClientID: c.ID, Username: c.User, CommonName: c.CN, Groups: c.Groups, Claims: c.Claims},
		IP:     c.IP, Protocol: "5", Hostname: t.ID + "." + domain,
	}
}

// ask has a policy answer a question; nil is the default policy.
func (s *Server) ask(ctx context.Context, t *tenancy.TenantRecord, c *decide.Candidate, q *PolicyQuestion) (PolicyAnswer, error) {
	if q.Topic == "" {
		return PolicyAnswer{}, errs.Coded(errs.Invalid, "topic_missing", "expected a topic name to publish to, or a topic filter to subscribe to")
	}
	question := tenancy.Question{Action: q.Action, Topic: q.Topic, QoS: mqtt.QoS(q.QoS), Retain: q.Retain}
	if question.Action == "" {
		question.Action = tenancy.ActionPublish
	}
	a := q.Client.arrival(t, s.cfg.Domain)
	if c == nil {
		return answerOf(0, "", tenancy.DefaultGrant().Explain(question)), nil
	}
	class := q.Class
	if class == "" {
		var err error
		if class, err = c.Class(ctx, a); err != nil {
			return PolicyAnswer{Revision: c.Revision, Why: err.Error()}, nil
		}
	}
	answer := answerOf(c.Revision, class, c.Explain(class, &a.Client, question))
	if answer.Allowed && c.Dynamic() {
		answer.Why += "; mqtt.check is asked, too, and may deny it"
	}
	return answer, nil
}

func answerOf(revision uint64, class string, x tenancy.Explanation) PolicyAnswer {
	return PolicyAnswer{Allowed: x.Allowed, QoS: int(x.QoS), Revision: revision, Class: class, Entry: x.Entry, Why: x.Why}
}

// candidate is a revision that is kept, or the live one if revision is 0; nil if that
// is the default.
func (s *Server) candidate(ctx context.Context, t *tenancy.TenantRecord, revision uint64) (*decide.Candidate, error) {
	if revision == 0 {
		revision = t.Policy.Live()
	}
	if revision == 0 {
		return nil, nil
	}
	return s.cfg.Policies.Kept(ctx, t, revision)
}

func (s *Server) explainPolicy(ctx context.Context, in *explainInput) (*explainOutput, error) {
	t, b := tenantOf(ctx), &in.Body
	if b.Decision == "" {
		c, err := s.candidate(ctx, t, b.Revision)
		if err != nil {
			return nil, err
		}
		a, err := s.ask(ctx, t, c, &b.PolicyQuestion)
		return &explainOutput{a}, err
	}
	d, err := s.cfg.Policies.Decision(t.ID, b.Decision)
	if err != nil {
		return nil, err
	}
	if b.Revision == 0 {
		b.Revision = d.Revision
	}
	c, err := s.candidate(ctx, t, b.Revision)
	if err != nil {
		return nil, err
	}
	a := answerOf(0, "", tenancy.DefaultGrant().Explain(d.Question))
	if c != nil {
		a = answerOf(c.Revision, d.Class, c.Explain(d.Class, &d.Client, d.Question))
	}
	a.Recorded = &RecordedDecision{d.ID, d.At, d.Revision, d.Client.ClientID, d.Client.Username, d.Action, d.Topic, d.Allowed}
	return &explainOutput{a}, nil
}

func (s *Server) simulatePolicy(ctx context.Context, in *simulateInput) (*simulateOutput, error) {
	t, b := tenantOf(ctx), &in.Body
	if (len(b.Files) > 0) == (b.Revision > 0) {
		return nil, errs.Coded(errs.Invalid, "policy_missing", "expected either files or a revision")
	}
	var c *decide.Candidate
	var err error
	if b.Revision > 0 {
		c, err = s.cfg.Policies.Kept(ctx, t, b.Revision)
	} else {
		c, err = s.cfg.Policies.Candidate(ctx, t, b.Files)
	}
	if err != nil {
		return nil, err
	}
	out := &simulateOutput{Simulation{PolicyDiff: PolicyDiff{Revision: c.Revision, Changes: []PolicyChange{}}, Answers: []PolicyAnswer{}}}
	if len(b.Questions) == 0 {
		out.Body.PolicyDiff = diffOf(c.Revision, s.cfg.Policies.Simulate(ctx, t, c))
		return out, nil
	}
	live, err := s.candidate(ctx, t, 0)
	if err != nil {
		return nil, err
	}
	for i := range b.Questions {
		q := &b.Questions[i]
		would, err := s.ask(ctx, t, c, q)
		if err != nil {
			return nil, err
		}
		was, err := s.ask(ctx, t, live, q)
		if err != nil {
			return nil, err
		}
		out.Body.Answers = append(out.Body.Answers, would)
		out.Body.Looked++
		if was.Allowed != would.Allowed {
			out.Body.Changed++
			out.Body.Changes = append(out.Body.Changes, PolicyChange{
				ClientID: q.Client.ID, Username: q.Client.User, Action: q.Action, Topic: q.Topic, QoS: q.QoS, Retain: q.Retain,
				Was: was.Allowed, Would: would.Allowed, Why: would.Why,
			})
		}
	}
	return out, nil
}

func diffOf(revision uint64, d decide.Diff) PolicyDiff {
	out := PolicyDiff{Revision: revision, Looked: d.Looked, Changed: d.Changed, Changes: []PolicyChange{}}
	if since := d.Since; !since.IsZero() {
		since = since.UTC().Truncate(time.Millisecond)
		out.Since = &since
	}
	for i := range d.Examples {
		c := &d.Examples[i]
		action := c.Action
		if c.Connect {
			action = "connect"
		}
		out.Changes = append(out.Changes, PolicyChange{
			Decision: c.Decision, ClientID: c.Client.ClientID, Username: c.Client.Username, Action: action, Topic: c.Topic, QoS: int(c.QoS), Retain: c.Retain,
			Was: c.Was, Would: c.Would, Why: c.Why,
		})
	}
	return out
}

func (s *Server) getShadow(ctx context.Context, _ *tenantInput) (*diffOutput, error) {
	t := tenantOf(ctx)
	d, err := s.cfg.Policies.Shadow(t)
	if err != nil {
		return nil, err
	}
	return &diffOutput{diffOf(t.Policy.Shadow, d)}, nil
}
