// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"context"
	"runtime"
	"sync"

	"github.com/manormq/manor/infra/errs"
)

// tenantTurns bounds how many evaluations of one tenant go on at once, so that a policy
// that works long keeps its own tenant waiting and leaves processors to the others. It is
// safe for concurrent use; the zero value is ready.
type tenantTurns struct {
	mu  sync.Mutex
	all map[string]*tenantTurn // of tenants that have or want a turn; guarded by mu
}

type tenantTurn struct {
	turns chan struct{}
	users int // who have or want one; guarded by mu of tenantTurns
}

// evaluationsOfTenant is how many of a tenant go on at once: half of the processors.
func evaluationsOfTenant() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// take waits for a turn of a tenant. The error is Unavailable if ctx ends before.
func (t *tenantTurns) take(ctx context.Context, tenant string) (done func(), err error) {
	t.mu.Lock()
	turn := t.all[tenant]
	if turn == nil {
		if t.all == nil {
			t.all = map[string]*tenantTurn{}
		}
		turn = &tenantTurn{turns: make(chan struct{}, evaluationsOfTenant())}
		t.all[tenant] = turn
	}
	turn.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		if turn.users--; turn.users == 0 {
			delete(t.all, tenant)
		}
		t.mu.Unlock()
	}
	select {
	case turn.turns <- struct{}{}:
		return func() { <-turn.turns; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, errs.New(errs.Unavailable, "the policy of tenant %s is being asked %d times already: %w", tenant, evaluationsOfTenant(), ctx.Err())
	}
}
