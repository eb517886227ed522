// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Pace of Run.
const (
	// atOnce is how many domains one process sees to at a time, each of another
	// tenant.
	atOnce = 8
	// againAfter is when a domain is looked at again that the bus could not be asked about. One
	// that another process has is looked at three times in the life of its lock.
	againAfter = 5 * time.Second
	// lookEvery is how long Run sleeps at most.
	lookEvery = time.Minute
	// freshFor is for how long a domain needs not be verified again.
	freshFor = 5 * time.Minute
)

// backoff is how long after the nth failure in a row it is tried again; the last holds
// for all others. CAs take few failures of one name in an hour.
var backoff = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 4 * time.Hour, 12 * time.Hour}

func wait(failures int) time.Duration { return backoff[max(0, min(failures, len(backoff))-1)] }

// Run issues, renews and ends until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := s.store.WatchDomains(ctx, s.told); err != nil && ctx.Err() == nil {
				s.log.Warn("custom domains are not watched", "error", err, "retry_in", againAfter)
				sleep(ctx, againAfter)
			}
		}
	})
	wg.Go(func() { s.sweep(ctx) })
	for {
		due, next := s.due()
		for _, d := range due {
			wg.Go(func() { s.seeTo(ctx, d) })
		}
		timer := time.NewTimer(min(next, lookEvery))
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (s *Service) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// told is what the store says of a domain.
func (s *Service) told(key string, d *tenancy.Domain) {
	s.mu.Lock()
	if d == nil {
		delete(s.known, key)
		delete(s.later, key)
	} else {
		s.known[key] = d
	}
	s.mu.Unlock()
	s.kick()
}

// due takes those domains to work that something is to be done for, and says when the
// next is. Of a tenant it is one at a time, and tenants take turns: the one that has waited
// longest since its last is first.
func (s *Service) due() (take []*tenancy.Domain, next time.Duration) {
	now := s.now()
	next = lookEvery
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metrics.show(s.known)
	first := map[string]*tenancy.Domain{} // by tenant
	for key, d := range s.known {
		if s.working[d.Tenant] != "" || d.NextRenewal.IsZero() || !d.Owned() {
			continue
		}
		at := d.NextRenewal
		for _, l := range []time.Time{s.later[key], s.later[d.Tenant]} {
			if l.After(at) {
				at = l
			}
		}
		if w := at.Sub(now); w > 0 {
			next = min(next, w)
			continue
		}
		if f := first[d.Tenant]; f == nil || d.NextRenewal.Before(f.NextRenewal) {
			first[d.Tenant] = d
		}
	}
	take = slices.SortedFunc(maps.Values(first), func(a, b *tenancy.Domain) int {
		return cmp.Or(cmp.Compare(s.turns[a.Tenant], s.turns[b.Tenant]), a.NextRenewal.Compare(b.NextRenewal))
	})
	// Who is done has it looked at again what waits.
	take = take[:max(0, min(len(take), atOnce-len(s.working)))]
	for _, d := range take {
		s.turn++
		s.turns[d.Tenant], s.working[d.Tenant] = s.turn, d.Key()
	}
	maps.DeleteFunc(s.later, func(_ string, at time.Time) bool { return !at.After(now) })
	if len(first) == 0 && len(s.working) == 0 {
		clear(s.turns) // nobody waits
	}
	return take, next
}

// seeTo does what is to be done for a domain, unless another process sees to the tenant.
func (s *Service) seeTo(ctx context.Context, d *tenancy.Domain) {
	key, tenant := d.Key(), d.Tenant
	defer func() {
		s.mu.Lock()
		delete(s.working, tenant)
		s.mu.Unlock()
		s.kick()
	}()
	lock := "tenant " + tenant
	ok, err := s.leases.TryLock(ctx, lock)
	if err == nil && ok {
		defer func() {
			if err := s.leases.Unlock(context.WithoutCancel(ctx), lock); err != nil {
				s.log.Warn("the lock of a tenant's domains stays until its life is over", "tenant", tenant, "error", err)
			}
		}()
		// As it is now: somebody may have been faster.
		if d, err = s.store.Domain(ctx, tenant, d.FQDN); err == nil && d.Owned() && !d.NextRenewal.IsZero() && !d.NextRenewal.After(s.now()) {
			err = s.work(ctx, d)
		}
	}
	if err != nil && !errs.Is(err, errs.NotFound) && ctx.Err() == nil {
		s.log.Warn("a custom domain could not be seen to", "domain", key, "error", err, "retry_in", againAfter)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil && !ok:
		s.later[tenant] = s.now().Add(s.cfg.LockLife / 3)
	case err != nil:
		s.later[key] = s.now().Add(againAfter)
	default:
		delete(s.later, key)
		if now, known := s.known[key]; known && d.Revision > now.Revision {
			s.known[key] = d
		}
	}
}
