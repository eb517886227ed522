// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/quota"
)

// meters count what the clients of a tenant use, at this gateway, of the quotas that
// gateways share.
type meters struct {
	used   [quota.Kinds]atomic.Uint64 // for ever; not of quota.Connections
	waited [quota.Kinds]atomic.Bool   // since the last look: somebody had to wait
	// sleeping is how many clients wait for a rate right now.
	sleeping [quota.Kinds]atomic.Int64
	// entering is how many CONNECTs wait for what other gateways hold.
	entering atomic.Int64
	// open is how many connections were let in and are there.
	open atomic.Int64
	// limits are the tenant's; nil before they are known.
	limits atomic.Pointer[[quota.Kinds]int64]
	pace   pace
	// looked: a state with something to count is in lending.fresh or has a look.
	looked atomic.Bool
	// look is nil while nothing is used; guarded by lending.mu, as seen.
	look *look
	seen [quota.Kinds]uint64 // of used, at the last look
}

// look is what the last looks at the meters of a tenant have shown.
type look struct {
	state  *tenantState
	meters [quota.Kinds]quota.Meter
	before time.Time // of the last
	calm   int       // at a stretch, as long as they come in each interval
}

// touch has the tenant looked at, as long as it uses something.
func (g *Gateway) touch(s *tenantState) {
	if s.meters.looked.Load() || !s.meters.looked.CompareAndSwap(false, true) {
		return
	}
	g.lending.fresh.mu.Lock()
	defer g.lending.fresh.mu.Unlock()
	g.lending.fresh.began = append(g.lending.fresh.began, &look{state: s})
}

// count counts n of a kind.
func (g *Gateway) count(s *tenantState, k quota.Kind, n int) {
	if n > 0 {
		s.meters.used[k].Add(uint64(n))
		g.touch(s)
	}
}

// waits notes that a client of the tenant had to wait, or was refused.
func (g *Gateway) waits(s *tenantState, k quota.Kind) {
	s.meters.waited[k].Store(true)
	g.touch(s)
	g.hasten(s)
}

// hasten has the tenant looked at in each interval from now on, if it is looked at.
func (g *Gateway) hasten(s *tenantState) {
	if !s.meters.pace.hasten() {
		return
	}
	g.lending.fresh.mu.Lock()
	defer g.lending.fresh.mu.Unlock()
	g.lending.fresh.near = append(g.lending.fresh.near, s)
}

// sleeps notes that a client of the tenant has to wait for a rate, and returns what counts
// those that do, for as long as they do.
func (g *Gateway) sleeps(s *tenantState, k quota.Kind) *atomic.Int64 {
	g.waits(s, k)
	return &s.meters.sleeping[k]
}

// waiting reports whether a client waits, or has since the last look.
func (m *meters) waiting() bool {
	for k := range quota.Kinds {
		if m.waited[k].Load() || m.sleeping[k].Load() > 0 {
			return true
		}
	}
	return false
}

// metered counts what one turn has taken from c: with rates what they were charged
// with.
func (c *connection) metered(t *turn, n int, limited bool, messages, bytes int) {
	if c.state == nil {
		return
	}
	if !limited {
		messages, bytes = t.packets[packet.PUBLISH], n
	}
	c.gw.count(c.state, quota.PublishRate, messages)
	c.gw.count(c.state, quota.BytesInRate, bytes)
}

// sample looks at the meters. needs takes what others are to know of. The caller holds
// lending.mu.
func (l *look) sample(now time.Time, a *quota.Allocator, needs map[quota.Resource]quota.Need) finding {
	m := &l.state.meters
	past := now.Sub(l.before)
	l.before = now
	var limits [quota.Kinds]int64
	for k := range limits {
		limits[k] = tenancy.Unlimited
	}
	if known := m.limits.Load(); known != nil {
		limits = *known
	}
	idle, calm := true, true
	for k := range quota.Kinds {
		waits := m.waited[k].Load() && m.waited[k].Swap(false) || m.sleeping[k].Load() > 0
		var d quota.Need
		if k == quota.Connections {
			if limits[k] <= 0 {
				continue
			}
			d = l.meters[k].SampleCount(m.open.Load(), waits, limits[k])
			idle = idle && !waits
		} else {
			used := m.used[k].Load()
			n := used - m.seen[k]
			m.seen[k] = used
			if n == 0 && !waits && l.meters[k].Idle() {
				continue
			}
			idle = false
			if limits[k] <= 0 {
				l.meters[k].Count(past, n)
				continue
			}
			d = l.meters[k].Sample(past, n, waits, limits[k], a.Lent(quota.Resource{Tenant: l.state.tenant, Kind: k}))
		}
		r := quota.Resource{Tenant: l.state.tenant, Kind: k}
		if a.Heeds(r, d) {
			needs[r] = d
		}
		calm = calm && a.Calm(r, d)
	}
	switch {
	case idle:
		return foundIdle
	case calm:
		return foundCalm
	}
	return foundUse
}
