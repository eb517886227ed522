// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"math"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

const (
	// apiRateNames is how many tenants and organizations are remembered; beyond it the
	// one that was quiet for longest is forgotten, and has its whole burst again.
	apiRateNames = 50_000
	// apiRateBurst is how many seconds' worth of requests may come at once.
	apiRateBurst = 2
	// apiRateKnown is for how long the limit of an organization is not asked for again:
	// it takes a look at each of its tenants.
	apiRateKnown = 10 * time.Second
)

// apiRates hold the quota api_rate: of each tenant for what is about it, and of each
// organization for the rest, with the widest limit of its tenants. Each process counts
// its own. It is safe for concurrent use.
type apiRates struct {
	names *lru.Cache[string, *apiRate]
}

type apiRate struct {
	mu      sync.Mutex
	limiter *rate.Limiter // guarded by mu; nil before the first request
	limit   int64         // guarded by mu; of limiter
	widest  int64         // guarded by mu; of an organization, as it was at askedAt
	askedAt time.Time     // guarded by mu
}

func newAPIRates() (*apiRates, error) {
	names, err := lru.New[string, *apiRate](apiRateNames)
	if err != nil {
		return nil, errs.New(errs.Internal, "api rates: %w", err)
	}
	return &apiRates{names}, nil
}

func (a *apiRates) of(name string) *apiRate {
	if r, ok := a.names.Get(name); ok {
		return r
	}
	fresh := &apiRate{}
	if r, ok, _ := a.names.PeekOrAdd(name, fresh); ok {
		return r
	}
	return fresh
}

// take counts a request at a limit per second. The error is a
// *tenancy.ExceededError that says when to come back; then it is not counted.
func (r *apiRate) take(now time.Time, limit int64) error {
	if limit == tenancy.Unlimited {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limiter == nil || r.limit != limit {
		r.limiter, r.limit = rate.NewLimiter(rate.Limit(limit), int(min(limit, math.MaxInt32/apiRateBurst))*apiRateBurst), limit
	}
	x := r.limiter.ReserveN(now, 1)
	wait := x.DelayFrom(now)
	if x.OK() && wait == 0 {
		return nil
	}
	x.CancelAt(now)
	return &tenancy.ExceededError{Quota: "api_rate", Limit: limit, Usage: limit, RetryAfter: max(int64(math.Ceil(wait.Seconds())), 1)}
}

// mayAsk counts a request of c, about the tenant t if it is about one.
func (s *Server) mayAsk(ctx context.Context, c *caller, t *tenancy.TenantRecord) error {
	now := s.now()
	if t != nil {
		limits, err := t.Limits()
		if err != nil {
			return err
		}
		return s.rates.of("tenant "+t.ID).take(now, limits.APIRate)
	}
	r := s.rates.of("organization " + c.principal.Organization)
	r.mu.Lock()
	limit, known := r.widest, !r.askedAt.IsZero() && now.Sub(r.askedAt) < apiRateKnown
	r.mu.Unlock()
	if !known {
		var err error
		if limit, err = s.store.WidestLimit(ctx, c.principal.Organization, "api_rate"); err != nil {
			return err
		}
		r.mu.Lock()
		r.widest, r.askedAt = limit, now
		r.mu.Unlock()
	}
	return r.take(now, limit)
}
