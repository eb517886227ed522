// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/throttle"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/quota"
)

// rateQuota is a rate that this gateway holds.
type rateQuota uint8

const (
	publishRateClient rateQuota = iota
	bytesInRateClient
	publishRate
	bytesInRate
	bytesOutRateClient
	deliveryRate
	bytesOutRate
	connectRate
	connectRateClient
	// The last are none of the tenant's quotas, but what an overloaded node does.
	overloadIn
	overloadConnects
	quotas
)

func (q rateQuota) String() string {
	return [...]string{
		"publish_rate_client", "bytes_in_rate_client", "publish_rate", "bytes_in_rate",
		"bytes_out_rate_client", "delivery_rate", "bytes_out_rate", "connect_rate", "connect_rate_client",
		"overload", "overload_connects",
	}[q]
}

const (
	// shortestWait bounds how often a connection is woken to pass a little.
	shortestWait = 20 * time.Millisecond
	// slowLook is how long a connection waits at most, because the node is
	// overloaded, before it looks whether that still is so.
	slowLook = time.Second
)

// rates are the throttles of one connection.
type rates struct {
	in, out throttle.Throttle
	shared  *tenantRates
	// shedAfter is that of Config.
	shedAfter time.Duration
}

// rateLimits are the rates in a tenant's limits.
func rateLimits(l *tenancy.Limits) (in, out throttle.Rate, shared bool) {
	return throttle.Rate{Messages: l.PublishRateClient, Bytes: l.BytesInRateClient},
		throttle.Rate{Messages: tenancy.Unlimited, Bytes: l.BytesOutRateClient},
		l.PublishRate >= 0 || l.BytesInRate >= 0 || l.DeliveryRate >= 0 || l.BytesOutRate >= 0
}

// setRates gives c the rates of its tenant, and its own as who authenticated it
// narrows them. Only who has one pays for it.
func (c *connection) setRates(t *tenancy.Tenant, o *tenancy.SessionOverride) {
	now := time.Now()
	in, out, _ := rateLimits(&c.gw.rules.of(t, o).Limits)
	_, _, shared := rateLimits(&t.Limits)
	r := c.rates.Load()
	if r == nil {
		if !in.Limited() && !out.Limited() && !shared {
			return
		}
		r = &rates{shared: c.gw.registry.ratesOf(c.tenant, &t.Limits, now, &c.gw.lending), shedAfter: c.gw.cfg.ShedAfter}
	} else {
		c.gw.registry.ratesOf(c.tenant, &t.Limits, now, &c.gw.lending) // those are r.shared: c is there
	}
	r.in.Set(now, in)
	r.out.Set(now, out)
	c.rates.Store(r)
}

// rerate has the connections of a tenant hear of changed limits.
func (g *Gateway) rerate(t *tenancy.Tenant) {
	for _, c := range g.registry.of(t.ID) {
		g.rerateOne(c, t)
	}
	g.flush()
}

// rerateOne has a connection look again whether it must wait. The caller flushes.
func (g *Gateway) rerateOne(c *connection, t *tenancy.Tenant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending || !c.opened {
		return // what admits it sets its rates, and has it looked at again
	}
	c.setRates(t, c.session())
	c.wakeLocked()
	c.goOnLocked()
	if !c.told {
		c.markLocked() // it may be granted more
	}
	if r := c.rates.Load(); r != nil {
		r.shared.line.kick()
	}
}

// allowance is what one turn may pass, by the connection's own rates and those of
// all.
type allowance struct {
	own, all throttle.Budget
	// slow is what an overloaded node takes of the tenant.
	slow throttle.Budget
	// shed says that what is beyond those of all is refused, drop that what is
	// beyond slow is, at QoS 0.
	shed, drop bool
}

// limits are what holds c: its rates, and the throttle of a tenant that is slowed
// down because the node is overloaded; nil without.
func (c *connection) limits() (r *rates, slow *throttle.Throttle) {
	if c.state != nil {
		slow = c.state.slow.Load()
	}
	return c.rates.Load(), slow
}

// allowance is what c may pass now, and must not be asked where limits are nil.
func (c *connection) allowance(r *rates, slow *throttle.Throttle, now time.Time) allowance {
	none := throttle.Budget{Messages: math.MaxInt64, Bytes: math.MaxInt64}
	a := allowance{own: none, all: none, slow: none}
	if r != nil {
		// The budget is looked at first: it may be what ends the shedding.
		a.own, a.all = r.in.Budget(now), r.shared.in.Budget(now)
		a.shed = r.shared.in.Slowed(now) >= r.shedAfter
	}
	if slow != nil {
		a.slow, a.drop = slow.Budget(now), c.gw.load.is(load.Shed)
	}
	return a
}

// packet reports whether a packet that begins with head may be handled, when that
// many messages and bytes have been, and why it is to be refused if so. Subscribing
// counts as bytes; answers and pings are never held back.
func (a allowance) packet(head byte, v packet.Version, messages, bytes int) (may bool, why conn.Drop) {
	switch packet.Type(head >> 4) {
	case packet.PUBLISH:
	case packet.SUBSCRIBE, packet.UNSUBSCRIBE:
		return int64(bytes) < min(a.own.Bytes, a.all.Bytes, a.slow.Bytes), conn.NotDropped
	default:
		return true, conn.NotDropped
	}
	qos, again := head>>1&3, head&8 != 0
	switch {
	case int64(messages) >= a.own.Messages || int64(bytes) >= a.own.Bytes:
		return false, conn.NotDropped
	case int64(messages) >= a.all.Messages || int64(bytes) >= a.all.Bytes:
		// Nobody is told in 3.x, and a QoS 2 message that comes again may be stored
		// already.
		if a.shed && (qos == 0 || v == packet.V5 && (qos == 1 || !again)) {
			return true, conn.DropRate
		}
		return false, conn.NotDropped
	case int64(bytes) < a.slow.Bytes:
		return true, conn.NotDropped
	case a.drop && qos == 0:
		return true, conn.DropOverload
	}
	return false, conn.NotDropped
}

// charge takes what one turn has passed.
func charge(r *rates, slow *throttle.Throttle, messages, bytes int) {
	now := time.Now()
	if r != nil {
		r.in.Spend(now, messages, bytes)
		r.shared.in.Spend(now, messages, bytes)
	}
	if slow != nil {
		slow.Spend(now, messages, bytes)
	}
}

// throttledLocked reports whether the packet that begins with head must wait for
// a rate. c is then woken in time.
func (c *connection) throttledLocked(head byte) bool {
	r, slow := c.limits()
	if r == nil && slow == nil {
		return false
	}
	now := time.Now()
	over := c.overRate
	c.overRate = false
	a := c.allowance(r, slow, now)
	if may, _ := a.packet(head, c.m.Version(), 0, 0); may && (!over || a.shed || a.drop) {
		return false
	}
	wait, q, of := c.waitOf(r, slow, now)
	c.slowed(q)
	if (q == publishRateClient || q == bytesInRateClient) && c.overLongLocked(r, now) {
		return false // it ends, and waits for nothing
	}
	c.throttleInLocked(now, max(wait, shortestWait), of)
	return true
}

// overLongLocked notes that c is over its own rates, and ends it if that has been so for as
// long as its tenant bears.
func (c *connection) overLongLocked(r *rates, now time.Time) bool {
	rules := c.m.Rules()
	if rules == nil || rules.Settings.DisconnectOverRateAfter == 0 || r == nil {
		return false
	}
	most := time.Duration(rules.Settings.DisconnectOverRateAfter) * time.Second
	if r.in.Slow(now) < most {
		return false
	}
	c.endLocked(conn.Close{
		Ended: true, Cause: link.CloseLost, Reason: mqtt.MessageRateTooHigh,
		Text: fmt.Sprintf("the client has sent more than its quotas publish_rate_client and bytes_in_rate_client allow for %s", most),
	})
	return true
}

// waitOf is how long c has to wait, and for what; of counts who waits for the same quota
// that gateways share, nil if it is none.
func (c *connection) waitOf(r *rates, slow *throttle.Throttle, now time.Time) (wait time.Duration, q rateQuota, of *atomic.Int64) {
	q = publishRateClient
	if r != nil {
		var byBytes bool
		wait, byBytes = r.in.Wait(now)
		if all, allBytes := r.shared.in.Wait(now); all > wait {
			wait, byBytes, q = all, allBytes, publishRate
			r.shared.in.Slow(now)
			of = c.gw.sleeps(c.state, kindOf(quota.PublishRate, quota.BytesInRate, allBytes))
		}
		if byBytes {
			q++ // the one of the bytes comes after that of the messages
		}
	}
	if slow != nil {
		if w, _ := slow.Wait(now); w > wait {
			wait, q, of = min(w, slowLook), overloadIn, nil
		}
	}
	return wait, q, of
}

// kindOf is messages, or bytes if it is for those.
func kindOf(messages, bytes quota.Kind, byBytes bool) quota.Kind {
	if byBytes {
		return bytes
	}
	return messages
}

// slowed counts, and tells once of each quota for each connection.
func (c *connection) slowed(q rateQuota) {
	c.gw.metrics.throttled[q].Inc()
	if c.throttledBy.Or(1<<q)&(1<<q) == 0 {
		c.tell(c.tenant, events.Event{Kind: events.Throttled, Reason: q.String(), Why: "read, or written to, more slowly; further times of this connection and quota are not told"})
		c.gw.log.Info("a client is slowed down to a quota; further times of this connection and quota are only counted",
			"tenant", c.tenant, "client_id", c.clientID, "quota", q.String())
	}
}
