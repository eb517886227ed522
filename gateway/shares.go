// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

// shares bound how many of the CONNECTs that are under way at once are of one tenant: half.
// What a tenant's CONNECTs wait for may be the tenant's own, as the server of its issuer's
// keys is, and must not keep others out.
type shares struct {
	mu sync.Mutex
	of map[string]*share // guarded by mu; by tenant
}

type share struct {
	*semaphore.Weighted
	users int // guarded by shares.mu: have it or wait for it
}

func (s *shares) join(tenant string, most int) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.of[tenant]
	if sh == nil {
		sh = &share{Weighted: semaphore.NewWeighted(int64(most))}
		if s.of == nil {
			s.of = map[string]*share{}
		}
		s.of[tenant] = sh
	}
	sh.users++
	return sh
}

func (s *shares) leave(tenant string, sh *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh.users--; sh.users == 0 {
		delete(s.of, tenant)
	}
}

// share has a CONNECT that has its slot count as one of its tenant's. While the tenant has
// as many as it may, the CONNECT waits without a slot.
func (c *connection) share(t *turn, tenant *tenancy.Tenant) conn.Refusal {
	if tenant == nil || t.slot == nil {
		return conn.Refusal{}
	}
	o := &c.gw.load
	sh := o.shares.join(tenant.ID, max(1, cap(o.slots)/2))
	ok := sh.TryAcquire(1)
	if !ok {
		t.freeSlot()
		ctx, cancel := context.WithTimeout(context.Background(), slotDelay)
		ok = sh.Acquire(ctx, 1) == nil
		cancel()
		if ok {
			if t.slot, ok = o.slot(); !ok {
				sh.Release(1)
			}
		}
	}
	if !ok {
		o.shares.leave(tenant.ID, sh)
		c.gw.metrics.throttled[overloadConnects].Inc()
		return conn.Refusal{Reason: mqtt.ConnectionRateExceeded, Text: "too many clients of this tenant connect to this gateway, or what they are authenticated by is slow; try again in some seconds"}
	}
	slot := t.slot
	t.slot = func() {
		slot()
		sh.Release(1)
		o.shares.leave(tenant.ID, sh)
	}
	return conn.Refusal{}
}
