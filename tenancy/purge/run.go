// SPDX-License-Identifier: Apache-2.0

package purge

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Run purges, one tenant after the other, until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := s.cfg.Store.WatchTenants(ctx, s.told); err != nil && ctx.Err() == nil {
				s.cfg.Log.Warn("tenants are not watched for those that are to be purged", "error", err, "retry_in", againAfter)
				pause(ctx, againAfter)
			}
		}
	})
	wg.Go(func() { s.sweepAll(ctx) })
	s.work(ctx)
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (s *Service) work(ctx context.Context) {
	for ctx.Err() == nil {
		id, x, next := s.due()
		if x != nil {
			s.see(ctx, id, x)
			continue
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// due is the tenant that is due for longest; without one it is when the next is.
func (s *Service) due() (id string, first *deleted, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	next = lookAgain
	for name, x := range s.known {
		if left := x.due.Sub(now); left > 0 {
			next = min(next, left)
		} else if first == nil || x.due.Before(first.due) {
			id, first = name, x
		}
	}
	s.show()
	return id, first, next
}

// see purges a tenant, unless another process does.
func (s *Service) see(ctx context.Context, id string, x *deleted) {
	ok, err := s.leases.TryLock(ctx, id)
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("the lock of a tenant that is to be purged could not be asked for", "tenant", id, "error", err, "retry_in", againAfter)
	}
	if err != nil || !ok {
		s.later(id, againAfter, false)
		return
	}
	defer func() {
		if err := s.leases.Unlock(context.WithoutCancel(ctx), id); err != nil {
			s.cfg.Log.Warn("the lock of a purged tenant stays until its life is over", "tenant", id, "error", err)
		}
	}()
	switch err := s.purge(ctx, id); {
	case ctx.Err() != nil:
	case err == nil, errs.CodeOf(err) == "tenant_not_deleted", errs.CodeOf(err) == "tenant_not_due":
		s.mu.Lock()
		if s.known[id] == x { // else it was deleted again meanwhile, and that was told
			delete(s.known, id)
		}
		s.mu.Unlock()
	default:
		s.results.WithLabelValues("failed").Inc()
		d := s.later(id, 0, true)
		s.cfg.Log.Warn("what a deleted tenant has is not all removed yet", "tenant", id, "error", err, "retry_in", d)
	}
}

// later has a tenant be seen to again after a while: d, or with a failure more the longer the
// more there were. It returns the while.
func (s *Service) later(id string, d time.Duration, failed bool) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.known[id]
	if x == nil {
		return d
	}
	if failed {
		d = min(longest, againAfter<<min(x.failures, 10))
		x.failures++
	}
	x.due = s.cfg.Now().Add(d)
	return d
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
