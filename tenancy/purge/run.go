// SPDX-License-Identifier: Apache-2.0

package purge

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/lease"
)

// Run purges, one tenant after the other, until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.sweepAll(ctx) })
	s.worker.Run(ctx)
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// see purges a tenant, whose lock this process has.
func (s *Service) see(ctx context.Context, id string, x *deleted) {
	switch err := s.purge(ctx, id); {
	case ctx.Err() != nil:
	case err == nil, errs.CodeOf(err) == "tenant_not_deleted", errs.CodeOf(err) == "tenant_not_due":
		s.worker.Edit(id, func(now *lease.Item[*deleted], known bool) bool {
			return known && now.Value != x // it was deleted again meanwhile, and that was told
		})
	default:
		s.results.WithLabelValues("failed").Inc()
		d := time.Duration(0)
		s.worker.Edit(id, func(now *lease.Item[*deleted], known bool) bool {
			if known {
				d = min(longest, firstRest<<min(now.Value.failures, 10))
				now.Value.failures++
				now.Due = s.cfg.Now().Add(d)
			}
			return known
		})
		s.cfg.Log.Warn("what a deleted tenant has is not all removed yet", "tenant", id, "error", err, "retry_in", d)
	}
}

// sweepAll removes now and then what has come of tenants after they were purged: from imports
// that had begun before, or a gateway that the bus was away from.
func (s *Service) sweepAll(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("what purged tenants may have got later is not looked for", "error", err, "retry_in", lookAgain)
		}
		pause(ctx, lookAgain)
	}
}

func (s *Service) sweep(ctx context.Context) error {
	ids, err := s.cfg.Store.PurgedSince(ctx, s.cfg.Now().Add(-sweepFor))
	if err != nil {
		return err
	}
	for _, id := range ids {
		switch _, err := s.cfg.Store.Tenant(ctx, id); {
		case err == nil:
			continue // its organization has made it again
		case !errs.Is(err, errs.NotFound):
			return err
		}
		removed, err := s.cfg.Store.PurgeRecords(ctx, id)
		if err = errors.Join(err, s.cfg.Events.Forget(ctx, id)); err != nil {
			return err
		}
		if len(removed) > 0 {
			s.cfg.Log.Warn("something was made for a tenant while it was purged, and is removed", "tenant", id, "removed", removed)
		}
	}
	return nil
}
