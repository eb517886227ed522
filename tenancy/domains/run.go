// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Pace of Run.
const (
	// atOnce is how many domains one process sees to at a time.
	atOnce = 4
	// againAfter is when a domain is looked at again that another process has, or that
	// the bus could not be asked about.
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
	turns := make(chan struct{}, atOnce)
	for {
		due, next := s.due()
		for _, key := range due {
			select {
			case turns <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			wg.Go(func() {
				defer func() { <-turns }()
				s.seeTo(ctx, key)
			})
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
// next is.
func (s *Service) due() (keys []string, next time.Duration) {
	now := s.now()
	next = lookEvery
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metrics.show(s.known)
	for key, d := range s.known {
		if s.working[key] || d.NextRenewal.IsZero() || !d.Owned() {
			continue
		}
		at := d.NextRenewal
		if l, ok := s.later[key]; ok && l.After(at) {
			at = l
		}
		if w := at.Sub(now); w > 0 {
			next = min(next, w)
			continue
		}
		s.working[key] = true
		keys = append(keys, key)
	}
	maps.DeleteFunc(s.later, func(_ string, at time.Time) bool { return !at.After(now) })
	return keys, next
}

// seeTo does what is to be done for a domain, unless another process does.
func (s *Service) seeTo(ctx context.Context, key string) {
	s.mu.Lock()
	d := s.known[key]
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.working, key)
		s.mu.Unlock()
		s.kick()
	}()
	if d == nil {
		return
	}
	name := d.FQDN
	ok, err := s.leases.TryLock(ctx, name)
	if err == nil && ok {
		defer func() {
			if err := s.leases.Unlock(context.WithoutCancel(ctx), name); err != nil {
				s.log.Warn("the lock of a domain stays until its life is over", "domain", name, "error", err)
			}
		}()
		// As it is now: somebody may have been faster.
		if d, err = s.store.Domain(ctx, d.Tenant, d.FQDN); err == nil && d.Owned() && !d.NextRenewal.IsZero() && !d.NextRenewal.After(s.now()) {
			err = s.work(ctx, d)
		}
	}
	if err != nil && !errs.Is(err, errs.NotFound) && ctx.Err() == nil {
		s.log.Warn("a custom domain could not be seen to", "domain", name, "error", err, "retry_in", againAfter)
	}
	s.mu.Lock()
	s.later[key] = s.now().Add(againAfter)
	if err == nil && ok {
		delete(s.later, key)
		if now, known := s.known[key]; known && d != nil && d.Revision > now.Revision {
			s.known[key] = d
		}
	}
	s.mu.Unlock()
}
