// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"

	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/events"
)

// uses has the history of a tenant say so if it has come to 80% of a quota, or to all of it, with
// what was made. count is asked how many there are now, made of which were made.
func (s *Server) uses(ctx context.Context, t *tenancy.TenantRecord, quota string, made int64, count func(context.Context, string) (int64, error)) {
	limits, err := t.Limits()
	if err != nil || made <= 0 || s.cfg.Happened == nil {
		return
	}
	most, ok := limits.Get(quota)
	if !ok || most < 1 {
		return
	}
	now, err := count(ctx, t.ID)
	if err != nil {
		s.log.Warn("it is not known whether a tenant has come to its quota", "tenant", t.ID, "quota", quota, "error", err)
		return
	}
	if at := level.Crossed(now-made, now, most); at != level.Below {
		s.cfg.Happened(t.ID, events.OfQuota(s.now(), quota, at, float64(now)/float64(most)))
	}
}
