// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/throttle"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/quota"
)

const (
	// connectBurst is how many seconds' worth of CONNECTs may come at once.
	connectBurst = 5
	// ratesKept is for how long a tenant without connections keeps its buckets at
	// least.
	ratesKept = time.Minute
)

// tenantRates are what the connections of one tenant share at this gateway.
type tenantRates struct {
	in, out, connects throttle.Throttle
	used              time.Time // guarded by registry.mu
	// line are the clients that wait for out.
	line line
}

// set gives s the rates of a tenant, of which these parts may pass here.
func (s *tenantRates) set(now time.Time, limits *[quota.Kinds]int64, parts [quota.Kinds]float64) {
	of := func(messages, bytes quota.Kind) throttle.Rate {
		return throttle.Rate{Messages: limits[messages], MessagesShare: parts[messages], Bytes: limits[bytes], BytesShare: parts[bytes]}
	}
	s.in.Set(now, of(quota.PublishRate, quota.BytesInRate))
	s.out.Set(now, of(quota.DeliveryRate, quota.BytesOutRate))
	s.connects.Set(now, throttle.Rate{
		Messages: limits[quota.ConnectRate], MessagesShare: parts[quota.ConnectRate], Bytes: tenancy.Unlimited, Burst: connectBurst,
	})
}

// reshare has a tenant's rates be those parts that are lent now.
func (r *registry) reshare(now time.Time, tenant string, lent *lending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reshareLocked(now, tenant, lent)
}

// reshareAll is reshare of all tenants.
func (r *registry) reshareAll(now time.Time, lent *lending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for tenant := range r.rates {
		r.reshareLocked(now, tenant, lent)
	}
}

func (r *registry) reshareLocked(now time.Time, tenant string, lent *lending) {
	s, t := r.rates[tenant], r.tenants[tenant]
	if s == nil || t == nil {
		return
	}
	if limits := t.meters.limits.Load(); limits != nil {
		s.set(now, limits, lent.shares(tenant))
	}
}

// ratesOf returns what a tenant shares, with the rates that it has now.
func (r *registry) ratesOf(tenant string, l *tenancy.Limits, now time.Time, lent *lending) *tenantRates {
	limits := quota.LimitsOf(l)
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tenants[tenant]; t != nil {
		if known := t.meters.limits.Load(); known == nil || *known != limits {
			t.meters.limits.Store(&limits)
		}
	}
	s := r.rates[tenant]
	if s == nil {
		s = &tenantRates{}
		if r.rates == nil {
			r.rates = map[string]*tenantRates{}
		}
		r.rates[tenant] = s
	}
	if t := r.tenants[tenant]; t == nil || len(t.connections) == 0 {
		r.unusedLocked(now, tenant, s)
	}
	s.set(now, &limits, lent.shares(tenant))
	return s
}

// sharedRates returns what a tenant shares, nil if it has no rates.
func (r *registry) sharedRates(tenant string) *tenantRates {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rates[tenant]
}

// forgetRates drops what no connection has used for a while, when its debts are
// paid.
func (r *registry) forgetRates(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for tenant, s := range r.unused {
		if t := r.tenants[tenant]; t != nil && len(t.connections) > 0 {
			delete(r.unused, tenant)
		} else if now.Sub(s.used) > ratesKept && s.paid(now) {
			delete(r.unused, tenant)
			delete(r.rates, tenant)
		}
	}
}

// unusedLocked notes that no connection uses s now. The caller holds r.mu.
func (r *registry) unusedLocked(now time.Time, tenant string, s *tenantRates) {
	if r.unused == nil {
		r.unused = map[string]*tenantRates{}
	}
	s.used, r.unused[tenant] = now, s
}

// paid reports whether nobody would have to wait.
func (s *tenantRates) paid(now time.Time) bool {
	for _, t := range []*throttle.Throttle{&s.in, &s.out, &s.connects} {
		if wait, _ := t.Wait(now); wait > 0 {
			return false
		}
	}
	return true
}

// admitRate holds a CONNECT to the rates of its tenant and client id: it waits a
// little, and is refused if that is not enough.
func (c *connection) admitRate(turn *turn, t *tenancy.Tenant, s *tenantState) conn.Refusal {
	g, now := c.gw, time.Now()
	var wait time.Duration
	over := connectRate
	shared := g.registry.ratesOf(t.ID, &t.Limits, now, &g.lending)
	if t.Limits.ConnectRate >= 0 {
		wait, now = g.connectWait(turn, s, shared, now)
	}
	var own *throttle.Throttle
	if t.Limits.ConnectRateClient >= 0 && c.clientID != "" {
		own = g.clientRate(t.ID + "/" + c.clientID)
		own.Set(now, throttle.Rate{Messages: t.Limits.ConnectRateClient, Bytes: tenancy.Unlimited, Burst: connectBurst})
		if w, _ := own.Wait(now); w > wait {
			wait, over = w, connectRateClient
		}
	}
	if wait > 0 {
		g.metrics.throttled[over].Inc()
	}
	if w := g.load.connectWait(now); w > connectDelay {
		g.metrics.throttled[overloadConnects].Inc()
		return conn.Refusal{Reason: mqtt.ConnectionRateExceeded, Text: fmt.Sprintf("this gateway is overloaded; try again in %s", max(w, time.Second).Round(time.Second))}
	} else if w > wait {
		wait, over = w, overloadConnects
		g.metrics.throttled[over].Inc()
	}
	if wait > connectDelay {
		return conn.Refusal{Reason: mqtt.ConnectionRateExceeded, Text: fmt.Sprintf("more CONNECTs than the quota %s allows; try again in %s", over, wait.Round(time.Second))}
	}
	g.load.connected(now)
	shared.connects.Spend(now, 1, 0)
	g.count(s, quota.ConnectRate, 1)
	if own != nil {
		own.Spend(now, 1, 0)
	}
	if wait > 0 {
		turn.freeSlot() // others need not wait with it
		time.Sleep(wait)
	}
	return conn.Refusal{}
}

// clientRate is the CONNECT throttle under a name. The least recently used ones
// are forgotten.
func (g *Gateway) clientRate(name string) *throttle.Throttle {
	t := &throttle.Throttle{}
	if known, ok, _ := g.clientRates.PeekOrAdd(name, t); ok {
		g.clientRates.Get(name)
		return known
	}
	return t
}

// clientRates is how many client ids are remembered, of about 300 bytes each.
const clientRates = 65536
