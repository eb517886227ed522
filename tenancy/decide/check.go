// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// itemsMost is how many items one question may have.
const itemsMost = 1000

// check answers a tenancy.CheckQuestion.
func (s *Service) check(ctx context.Context, body []byte) ([]byte, error) {
	var q tenancy.CheckQuestion
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, errs.New(errs.Invalid, "expected a question about what a client wants: %w", err)
	}
	if len(q.Items) > itemsMost {
		return nil, errs.New(errs.Invalid, "expected at most %d items, found %d", itemsMost, len(q.Items))
	}
	ctx, cancel := context.WithTimeout(ctx, tenancy.CheckTime) // nobody waits longer
	defer cancel()
	if why := s.rests.why(q.Tenant); why != "" {
		v := tenancy.CheckVerdict{Why: "mqtt.check: " + why}
		s.warnCheck(&q, &v)
		s.checks.WithLabelValues("failed").Add(float64(len(q.Items)))
		return json.Marshal(tenancy.CheckAnswer{Verdicts: slices.Repeat([]tenancy.CheckVerdict{v}, len(q.Items))})
	}
	done, err := s.checking.Take(ctx, q.Tenant)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "the policy of tenant %s is being asked %d times already: %w", q.Tenant, evaluationsOfTenant(), err)
	}
	defer done()
	t, err := s.cfg.Store.Tenant(ctx, q.Tenant)
	if err != nil {
		return nil, err
	}
	c, err := s.Kept(ctx, t, q.Revision)
	if err != nil {
		return nil, err
	}
	var a tenancy.CheckAnswer
	for i := range q.Items {
		ended := s.rests.watch(q.Tenant, c.program.Patience())
		v := c.program.Check(ctx, c.tenant, q.Class, &q.Arrival, &q.Items[i])
		ended()
		if ctx.Err() != nil {
			return nil, errs.New(errs.Unavailable, "%d of %d items were looked at in %s", i, len(q.Items), tenancy.CheckTime)
		}
		answer := "allowed"
		switch {
		case v.Why != "":
			answer = "failed"
			s.warnCheck(&q, &v)
		case !v.Allow:
			answer = "denied"
		}
		s.checks.WithLabelValues(answer).Inc()
		a.Verdicts = append(a.Verdicts, v)
	}
	return json.Marshal(a)
}

// warnCheck logs that mqtt.check of a tenant has failed, once a minute: it is asked about
// each message.
func (s *Service) warnCheck(q *tenancy.CheckQuestion, v *tenancy.CheckVerdict) {
	now := time.Now()
	if last, ok := s.checkWarned.Get(q.Tenant); ok && now.Sub(last) < time.Minute {
		return
	}
	s.checkWarned.Add(q.Tenant, now)
	s.log.Warn("mqtt.check of a tenant's policy has failed, which denies; further failures are only counted for a minute",
		"tenant", q.Tenant, "revision", q.Revision, "client_id", q.Arrival.Client.ClientID, "why", v.Why)
}
