// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/rand"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/quota"
	"github.com/manormq/manor/tenancy/quota/usage"
)

// lending is this gateway's part of the quotas that gateways share. Locks: registry.mu,
// then lending.mu.
type lending struct {
	fresh   fresh
	waiting atomic.Int64 // CONNECTs
	lost    rate.Sometimes

	// name is this process's among the gateways.
	name string

	mu        sync.Mutex
	allocator *quota.Allocator // guarded by mu
	looks     looks            // guarded by mu
}

func (g *Gateway) newLending() {
	l := &g.lending
	l.name = g.cfg.Name + "-" + strings.ToLower(rand.Text())
	l.lost = rate.Sometimes{First: 1, Interval: time.Minute}
	if g.alone() {
		l.allocator = quota.NewSingle(l.name)
	} else {
		l.allocator = quota.New(l.name)
	}
}

// alone reports whether there are no other gateways.
func (g *Gateway) alone() bool { return g.cfg.Bus == nil || g.cfg.Alone }

// lent is the part of a tenant's quota that this gateway may use.
func (l *lending) lent(tenant string, k quota.Kind) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.allocator.Lent(quota.Resource{Tenant: tenant, Kind: k})
}

// shares returns the parts of all kinds.
func (l *lending) shares(tenant string) (of [quota.Kinds]float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range of {
		of[k] = l.allocator.Lent(quota.Resource{Tenant: tenant, Kind: quota.Kind(k)})
	}
	return of
}

// size is how many gateways there are, and resources that they speak of.
func (l *lending) size() (gateways, resources int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.allocator.Gateways(), l.allocator.Loans()
}

// most is how many connections of a tenant this gateway may have.
func (l *lending) most(tenant string, limit int64) int64 {
	if limit <= 0 {
		return limit
	}
	return min(limit, int64(math.Floor(l.lent(tenant, quota.Connections)*float64(limit)+1e-6)))
}

// lend tells the other gateways what is used here, and takes what they leave, until ctx
// is done.
func (g *Gateway) lend(ctx context.Context) {
	if g.cfg.Bus != nil {
		g.subscribe(ctx)
	}
	tick := time.NewTicker(quota.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			g.report(context.WithoutCancel(ctx), &quota.Report{From: g.lending.name, Leaving: true})
			return
		case <-tick.C:
			g.settle(ctx, time.Now())
		}
	}
}

// subscribe hears of the others until ctx is done.
func (g *Gateway) subscribe(ctx context.Context) {
	for _, subscribe := range []func() (func(), error){
		func() (func(), error) {
			return g.cfg.Bus.Subscribe(quota.Subject, func(_ string, b []byte) { g.heard(b) })
		},
		func() (func(), error) { return usage.Serve(g.cfg.Bus, g.lending.name, g.usage) },
	} {
		stop, err := subscribe()
		if err != nil {
			g.log.Error("this gateway does not hear of the others: each counts quotas for itself", "error", err)
			continue
		}
		context.AfterFunc(ctx, stop)
	}
}

func (g *Gateway) heard(b []byte) {
	r, err := quota.Decode(b)
	if err != nil {
		g.lending.lost.Do(func() { g.log.Warn("a report of another gateway cannot be read", "error", err) })
		return
	}
	g.lending.mu.Lock()
	defer g.lending.mu.Unlock()
	g.lending.allocator.Hear(time.Now(), r)
}

// report tells the others.
func (g *Gateway) report(ctx context.Context, r *quota.Report) {
	if g.cfg.Bus == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, quota.Interval)
	defer cancel()
	for _, b := range r.Encode() {
		if err := g.cfg.Bus.Publish(ctx, quota.Subject, b); err != nil {
			g.lending.lost.Do(func() {
				g.log.Warn("the other gateways are not told what is used here: quotas stay divided as they are", "error", err)
			})
			return
		}
	}
}

// settle looks at all that is used, and brings what is lent nearer to it.
func (g *Gateway) settle(ctx context.Context, now time.Time) {
	l := &g.lending
	g.touchSpoken()
	began, near := l.fresh.take()

	l.mu.Lock()
	for _, x := range began {
		x.state.meters.look = x
		x.before = now.Add(-quota.Interval)
		l.looks.near = append(l.looks.near, x)
	}
	for _, s := range near {
		if x := s.meters.look; x != nil {
			l.looks.hasten(x)
		}
	}
	needs := map[quota.Resource]quota.Need{}
	l.looks.each(func(x *look) finding {
		found := x.sample(now, l.allocator, needs)
		if found == foundIdle {
			x.state.meters.look = nil
			x.state.meters.looked.Store(false)
			if x.state.meters.waiting() {
				g.touch(x.state) // one that has just begun, and seen that it was looked at
			}
		}
		return found
	})
	step := l.allocator.Tick(now, needs)
	if g.alone() {
		l.allocator.Hear(now, &step.Report)
	}
	l.mu.Unlock()

	g.report(ctx, &step.Report)
	g.relend(now, &step)
	for _, c := range step.Crossed {
		g.tellCrossing(now, &c)
	}
}

// touchSpoken has tenants looked at of which the gateways speak. Connections may be there
// without using anything.
func (g *Gateway) touchSpoken() {
	spoken := map[string]bool{} // whether of its connections
	g.lending.mu.Lock()
	g.lending.allocator.Spoken(func(r quota.Resource) {
		spoken[r.Tenant] = spoken[r.Tenant] || r.Kind == quota.Connections
	})
	g.lending.mu.Unlock()
	for tenant, connections := range spoken {
		s := g.registry.known(tenant)
		if s == nil {
			continue
		}
		if connections && s.meters.open.Load() > 0 {
			g.touch(s)
		}
		g.hasten(s)
	}
}

// relend has the throttles follow what is lent, and wakes who waits where that is
// clearly more.
func (g *Gateway) relend(now time.Time, step *quota.Step) {
	if step.All {
		g.registry.reshareAll(now, &g.lending)
	}
	for _, r := range step.Changed {
		if r.Kind != quota.Connections {
			g.registry.reshare(now, r.Tenant, &g.lending)
		}
	}
	grown := g.lending.grown()
	for _, tenant := range grown {
		g.wakeLent(tenant)
	}
	if len(grown) > 0 {
		g.flush()
	}
}

// grown returns the tenants whose clients wait for a rate of which clearly more is lent
// than when their waits began.
func (l *lending) grown() (tenants []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.looks.near { // who waits is near
		any := false
		for k := range quota.Kinds {
			if x.state.meters.sleeping[k].Load() > 0 && x.meters[k].Grown(l.allocator.Lent(quota.Resource{Tenant: x.state.tenant, Kind: k})) {
				any = true
			}
		}
		if any {
			tenants = append(tenants, x.state.tenant)
		}
	}
	return tenants
}

// wakeLent has the connections of a tenant that wait for what gateways share look again
// whether they must, which they do for as long as they had to when less was lent. The
// caller flushes.
func (g *Gateway) wakeLent(tenant string) {
	for _, c := range g.registry.of(tenant) {
		c.mu.Lock()
		if c.sleeps != nil && !c.ending && c.sleeps.in.lent() {
			c.wakeLocked()
		}
		c.mu.Unlock()
	}
	if r := g.registry.sharedRates(tenant); r != nil {
		r.line.kick()
	}
}

// usage is what a tenant uses at this gateway.
func (g *Gateway) usage(tenant string) (u usage.Used) {
	s := g.registry.known(tenant)
	if s == nil {
		return u
	}
	g.lending.mu.Lock()
	defer g.lending.mu.Unlock()
	if x := s.meters.look; x != nil {
		for k := range u {
			u[k] = x.meters[k].Rate()
		}
	}
	u[quota.Connections] = float64(s.meters.open.Load())
	return u
}

// tellCrossing has the tenant's history say how much of a quota is used.
func (g *Gateway) tellCrossing(now time.Time, c *quota.Crossing) {
	if g.cfg.Events == nil {
		return
	}
	e := events.OfQuota(now, c.Kind.String(), c.Level, c.Used)
	e.Gateway = g.cfg.Name
	g.cfg.Events.Add(c.Tenant, e)
}
