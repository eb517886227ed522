// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"encoding/json"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// AskCheck asks a tenancyd what mqtt.check of a tenant's policy says. The answer has a
// verdict for each item. The error is Unavailable if nobody answers in time; with any
// error nothing is allowed.
func (d *Directory) AskCheck(ctx context.Context, q *tenancy.CheckQuestion) (*tenancy.CheckAnswer, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, errs.New(errs.Internal, "ask mqtt.check: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	b, err := d.cfg.Bus.Request(ctx, tenancy.CheckSubject, body)
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "mqtt.check of tenant %s, revision %d: %w", q.Tenant, q.Revision, err)
	}
	a := &tenancy.CheckAnswer{}
	if err := json.Unmarshal(b, a); err != nil {
		return nil, errs.New(errs.Internal, "mqtt.check of tenant %s, revision %d: %w", q.Tenant, q.Revision, err)
	}
	if len(a.Verdicts) != len(q.Items) {
		return nil, errs.New(errs.Internal, "mqtt.check of tenant %s, revision %d: expected %d verdicts, found %d", q.Tenant, q.Revision, len(q.Items), len(a.Verdicts))
	}
	return a, nil
}
