// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/jointrate"
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
// organization for the rest, with the widest limit of its tenants. Processes of the API
// that hear each other keep it together. It is safe for concurrent use.
type apiRates struct {
	names *lru.Cache[string, *apiRate]
	// replicas is how many processes there are.
	replicas atomic.Int64
	mu       sync.Mutex
	// stirred, guarded by mu, are those of which something was taken since the last
	// exchange, or in the one before, by name.
	stirred map[string]*apiRate
}

type apiRate struct {
	joint   jointrate.Rate
	limit   atomic.Int64 // of the last that was taken or heard of
	others  atomic.Int64 // what other processes took, since the last exchange
	mu      sync.Mutex
	widest  int64     // guarded by mu; of an organization, as it was at askedAt
	askedAt time.Time // guarded by mu
}

func newAPIRates() (*apiRates, error) {
	names, err := lru.New[string, *apiRate](apiRateNames)
	if err != nil {
		return nil, errs.New(errs.Internal, "api rates: %w", err)
	}
	a := &apiRates{names: names, stirred: map[string]*apiRate{}}
	a.replicas.Store(1)
	return a, nil
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

func (a *apiRates) stir(name string, r *apiRate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stirred[name] = r
}

// take counts a request at a limit per second. The error is a
// *tenancy.ExceededError that says when to come back; then it is not counted. left is what
// may come at once after it; it is nil without a limit.
func (a *apiRates) take(now time.Time, name string, limit int64) (left *rateLeft, err error) {
	if limit == tenancy.Unlimited {
		return nil, nil
	}
	r := a.of(name)
	wait, ok := r.joint.Take(now, limit, apiRateBurst, int(a.replicas.Load()))
	left = &rateLeft{limit: limit, left: r.joint.Left(now)}
	if !ok {
		left.left = 0 // what other processes may take is not this one's
		return left, &tenancy.ExceededError{Quota: "api_rate", Limit: limit, Usage: limit, RetryAfter: max(int64(math.Ceil(wait.Seconds())), 1)}
	}
	r.limit.Store(limit)
	a.stir(name, r)
	return left, nil
}

// rateLeft is what is left of api_rate.
type rateLeft struct{ limit, left int64 }

// tell sets the header fields of draft-ietf-httpapi-ratelimit-headers-10: how many requests may
// come in the seconds of a burst, how many of them are left, and when all would be again.
func (l *rateLeft) tell(h http.Header) {
	if l == nil {
		return
	}
	most := max(l.limit*apiRateBurst, 1)
	full := int64(apiRateBurst)
	if l.limit > 0 {
		full = int64(math.Ceil(float64(max(most-l.left, 0)) / float64(l.limit)))
	}
	h.Set("RateLimit-Policy", fmt.Sprintf(`"api_rate";q=%d;w=%d`, most, apiRateBurst))
	h.Set("RateLimit", fmt.Sprintf(`"api_rate";r=%d;t=%d`, l.left, full))
}

// mayAsk counts a request of c, about the tenant t if it is about one; see take.
func (s *Server) mayAsk(ctx context.Context, c *caller, t *tenancy.TenantRecord) (*rateLeft, error) {
	now := s.now()
	if t != nil {
		limits, err := t.Limits()
		if err != nil {
			return nil, err
		}
		return s.rates.take(now, "tenant "+t.ID, limits.APIRate)
	}
	name := "organization " + c.principal.Organization
	r := s.rates.of(name)
	r.mu.Lock()
	limit, known := r.widest, !r.askedAt.IsZero() && now.Sub(r.askedAt) < apiRateKnown
	r.mu.Unlock()
	if !known {
		var err error
		if limit, err = s.store.WidestLimit(ctx, c.principal.Organization, "api_rate"); err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.widest, r.askedAt = limit, now
		r.mu.Unlock()
	}
	return s.rates.take(now, name, limit)
}
