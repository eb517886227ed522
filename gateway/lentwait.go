// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"time"

	"github.com/manormq/manor/tenancy/quota"
)

const (
	// enterWait is how long a CONNECT waits for the other gateways when this one has
	// as many connections of the tenant as it may: they hold what is free.
	enterWait = 1500 * time.Millisecond
	// enterTold is how long it does so at least: what is told then was counted after it
	// came, so that who comes here from another gateway finds its own place free.
	enterTold = 2 * quota.Interval
	// connectDelay is up to how long a CONNECT waits for its turn.
	connectDelay = time.Second
	// lookAgain is how often who waits for them looks.
	lookAgain = 25 * time.Millisecond
	// lendWaiters bounds how many CONNECTs do so, and lendWaitersTenant how many of one
	// tenant.
	lendWaiters       = 1024
	lendWaitersTenant = 64
)

// waiter counts a CONNECT of a tenant that waits for the other gateways, unless too many
// do.
func (l *lending) waiter(s *tenantState) (done func(), ok bool) {
	done = func() {
		l.waiting.Add(-1)
		s.meters.entering.Add(-1)
	}
	// Both are counted before either is looked at.
	all, own := l.waiting.Add(1), s.meters.entering.Add(1)
	if all > lendWaiters || own > lendWaitersTenant {
		done()
		return nil, false
	}
	return done, true
}

// full reports whether the gateways say that they use all of a quota.
func (l *lending) full(tenant string, k quota.Kind) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.allocator.Full(quota.Resource{Tenant: tenant, Kind: k})
}

// enterTenant makes c one of its tenant's connections, if the tenant may have one more.
// If this gateway has as many as it may and others could have some that are free, it
// waits for those.
func (c *connection) enterTenant(t *turn, s *tenantState, limit int64) bool {
	g := c.gw
	try := func() (in, all bool) {
		most := g.lending.most(s.tenant, limit)
		if g.registry.enter(s, most, c) {
			g.touch(s)
			return true, true
		}
		g.waits(s, quota.Connections)
		return false, most >= limit
	}
	in, all := try()
	if in || all {
		return in
	}
	done, ok := g.lending.waiter(s)
	if !ok {
		return false
	}
	defer done()
	t.freeSlot()
	for begin := time.Now(); time.Since(begin) < enterWait; {
		time.Sleep(lookAgain)
		if in, _ := try(); in {
			return true
		}
		if time.Since(begin) >= enterTold && g.lending.full(s.tenant, quota.Connections) {
			return false
		}
	}
	return false
}

// connectWait is how long a CONNECT has to wait for the rate of its tenant. If that is
// too long, because other gateways have most of the rate, it tells them, and waits until
// they have left some, for as long as a CONNECT may wait.
func (g *Gateway) connectWait(turn *turn, s *tenantState, shared *tenantRates, now time.Time) (wait time.Duration, later time.Time) {
	wait, _ = shared.connects.Wait(now)
	if wait == 0 {
		return 0, now
	}
	g.waits(s, quota.ConnectRate)
	if wait <= connectDelay || g.alone() {
		return wait, now
	}
	done, ok := g.lending.waiter(s)
	if !ok {
		return wait, now
	}
	defer done()
	turn.freeSlot()
	for end := now.Add(connectDelay); now.Before(end) && wait > connectDelay; {
		time.Sleep(lookAgain)
		now = time.Now()
		if wait, _ = shared.connects.Wait(now); wait > 0 {
			g.waits(s, quota.ConnectRate)
		}
	}
	return wait, now
}
