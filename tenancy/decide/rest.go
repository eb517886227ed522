// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/manormq/manor/infra/errs"
)

const (
	// restFactor is how many times what an evaluation took its tenant's policy is not asked,
	// restMost the longest of that.
	restFactor = 10
	restMost   = 10 * time.Minute
	// restGrace is how much longer than twice its bound an evaluation may take: a busy
	// machine comes to cutting it off late.
	restGrace = time.Second
)

// rests are the tenants whose policies are not asked for a while, since an evaluation of
// theirs could not be cut off in time. It is safe for concurrent use. Make it with newRests.
type rests struct {
	now   func() time.Time
	until *lru.Cache[string, rest] // by tenant
}

// rest is one of them.
type rest struct {
	until time.Time
	took  time.Duration
}

func newRests(now func() time.Time) (*rests, error) {
	until, err := lru.New[string, rest](tenantsRecorded)
	if err != nil {
		return nil, errs.New(errs.Internal, "decide: %w", err)
	}
	return &rests{now: now, until: until}, nil
}

// why says why a tenant's policy is not asked, empty if it is.
func (r *rests) why(tenant string) string {
	x, ok := r.until.Get(tenant)
	if !ok {
		return ""
	}
	left := x.until.Sub(r.now())
	if left <= 0 {
		r.until.Remove(tenant)
		return ""
	}
	return fmt.Sprintf("the policy is not asked for %s more: an evaluation took %s and could not be cut off", left.Round(time.Second), x.took.Round(time.Millisecond))
}

// watch is for before an evaluation that is cut off after bound, 0 for never; what it
// returns is for after it.
func (r *rests) watch(tenant string, bound time.Duration) (ended func()) {
	begin := r.now()
	return func() {
		now := r.now()
		took := now.Sub(begin)
		if bound <= 0 || took <= 2*bound+restGrace {
			return
		}
		r.until.Add(tenant, rest{until: now.Add(min(restFactor*took, restMost)), took: took})
	}
}
