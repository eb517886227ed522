// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/manormq/manor/gateway/throttle"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

const (
	// heavyTimes is from how many times the mean of the active tenants on a tenant
	// is heavy. Who brings more than half of all bytes is too; if nobody does, those
	// at the mean are.
	heavyTimes = 2
	// Each look at an overloaded node cuts the rate of heavy tenants by slowDown,
	// not below slowLeast bytes a second; each look at a calm one gives speedUp
	// more, until the rate is no bound any more. Who sends less than slowLeast is
	// not why the node is overloaded.
	slowDown  = 0.75
	slowLeast = 256 << 10
	speedUp   = 1.25
	// connectsLeast is how many CONNECTs a second an overloaded gateway still takes,
	// and connectsPart of how many there were when it became overloaded.
	connectsLeast = 20
	connectsPart  = 0.2
	// connectSlots is how many CONNECTs are checked and opened at once, for each
	// processor: enough that a slow answer from elsewhere does not slow all down, and
	// few enough that those under way are soon done. The others wait, in their
	// order, and cost nothing but memory.
	connectSlots = 64
	// computingHandshakes is how many handshakes of TLS are computed at once, for each
	// processor. They wait for nothing meanwhile.
	computingHandshakes = 2
	// slotDelay is the longest that a CONNECT waits for that.
	slotDelay = 8 * time.Second
)

// overload is what a gateway does when there is more to do than it, or the broker,
// can.
type overload struct {
	level atomic.Uint32
	// brokers are the levels that the links told; guarded by mu.
	mu      sync.Mutex
	brokers map[*uplink.Link[connection]]load.Level
	// connects is nil while CONNECTs are not limited; taken counts those that were
	// let in, and rate is how many a second that were at the last look.
	connects atomic.Pointer[rate.Limiter]
	taken    atomic.Uint64
	before   uint64
	rate     float64
	least    float64
	// looking: tenants were looked at the last time, and slowing: one of them is slow. Both
	// are of the watch of the load.
	looking, slowing bool
	// slots has an element for each CONNECT that is under way.
	slots chan struct{}
	// shares are of the tenants that have such ones.
	shares shares
}

// slot waits for the turn of a CONNECT; done ends it. ok is false if it has not
// come in time.
func (o *overload) slot() (done func(), ok bool) {
	select {
	case o.slots <- struct{}{}:
	default:
		late := time.NewTimer(slotDelay)
		defer late.Stop()
		select {
		case o.slots <- struct{}{}:
		case <-late.C:
			return nil, false
		}
	}
	return func() { <-o.slots }, true
}

// is reports whether the level is l or above.
func (o *overload) is(l load.Level) bool { return load.Level(o.level.Load()) >= l }

// told notes what a broker says of itself.
func (o *overload) told(l *uplink.Link[connection], level load.Level) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.brokers == nil {
		o.brokers = map[*uplink.Link[connection]]load.Level{}
	}
	if level == load.Calm {
		delete(o.brokers, l)
	} else {
		o.brokers[l] = level
	}
}

// worst is the highest level of own and the brokers'.
func (o *overload) worst(own load.Level) load.Level {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.brokers {
		own = max(own, l)
	}
	return own
}

// connectWait is how long a CONNECT has to wait for its turn.
func (o *overload) connectWait(now time.Time) time.Duration {
	l := o.connects.Load()
	if l == nil {
		return 0
	}
	tokens := l.TokensAt(now)
	if tokens >= 1 {
		return 0
	}
	return time.Duration((1 - tokens) / float64(l.Limit()) * float64(time.Second))
}

// connected notes that one was let in.
func (o *overload) connected(now time.Time) {
	o.taken.Add(1)
	if l := o.connects.Load(); l != nil {
		l.ReserveN(now, 1)
	}
}

// watchLoad looks at the load until ctx is done.
func (g *Gateway) watchLoad(ctx context.Context) {
	before := time.Now()
	load.Watch(ctx, nil, func(now time.Time, own load.Level, s load.Signals) {
		level := g.load.worst(own)
		if before := load.Level(g.load.level.Swap(uint32(level))); before != level {
			g.log.Warn("the gateway's load has another level", slog.String("level", level.String()), slog.String("before", before.String()),
				slog.String("own", own.String()), slog.Duration("run_queue", s.RunQueue), slog.Float64("memory", s.Memory))
		}
		past := max(now.Sub(before), time.Millisecond).Seconds()
		before = now
		g.regulate(now, past, level)
		g.load.admit(now, past, level)
	})
}

// regulate slows the heaviest tenants down, or lets them go again. past is how many
// seconds the last look is ago. While there is no reason to nobody is looked at: what each
// sends is known from the second look on.
func (g *Gateway) regulate(now time.Time, past float64, level load.Level) {
	first := !g.load.looking
	if g.load.looking = level >= load.Slow || g.load.slowing; !g.load.looking {
		return
	}
	if first {
		g.registry.states(func(_ string, s *tenantState) { s.seen = s.bytes.Load() })
		return
	}
	type usage struct {
		tenant string
		s      *tenantState
		bytes  float64 // a second
	}
	var all []usage
	total := 0.0
	g.registry.states(func(tenant string, s *tenantState) {
		bytes := s.bytes.Load()
		u := usage{tenant, s, float64(bytes-s.seen) / past}
		s.seen = bytes
		if u.bytes > 0 || s.slow.Load() != nil {
			all = append(all, u)
			total += u.bytes
		}
	})
	mean := total / float64(max(1, len(all)))
	bound := min(total/2, heavyTimes*mean)
	if !slices.ContainsFunc(all, func(u usage) bool { return u.bytes > bound }) {
		bound = 0.99 * mean // all send about the same
	}
	g.load.slowing = false
	for _, u := range all {
		slow := u.s.slow.Load()
		heavy := u.bytes > max(slowLeast, bound)
		switch {
		case level >= load.Slow && heavy:
			if slow == nil {
				slow, u.s.rate = &throttle.Throttle{}, u.bytes
				g.log.Warn("a tenant is read more slowly: the node is overloaded, and it sends most",
					slog.String("tenant", u.tenant), slog.Float64("bytes_per_second", u.bytes), slog.Float64("of_all", u.bytes/total))
			}
			u.s.rate = max(slowLeast, slowDown*min(u.s.rate, u.bytes))
		case slow == nil:
			continue
		case level >= load.Slow:
			g.load.slowing = true
			continue
		default:
			u.s.rate *= speedUp
			if u.s.rate > 4*max(u.bytes, slowLeast) {
				u.s.slow.Store(nil)
				g.wakeAll(u.tenant)
				g.log.Info("a tenant is read at full speed again", slog.String("tenant", u.tenant))
				continue
			}
		}
		slow.Set(now, throttle.Rate{Messages: tenancy.Unlimited, Bytes: int64(u.s.rate)})
		u.s.slow.Store(slow)
		g.load.slowing = true
	}
}

// wakeAll has the connections of a tenant look again whether they must wait.
func (g *Gateway) wakeAll(tenant string) {
	for _, c := range g.registry.of(tenant) {
		c.mu.Lock()
		c.wakeLocked()
		c.mu.Unlock()
	}
}

// admit bounds how many CONNECTs are let in: as many as there were when the node
// became overloaded, fewer at each look while it is, and more again afterwards.
func (o *overload) admit(now time.Time, past float64, level load.Level) {
	taken := o.taken.Load()
	lately := float64(taken-o.before) / past
	o.before = taken
	l := o.connects.Load()
	switch {
	case level >= load.Refuse && l == nil:
		o.rate = max(connectsLeast, lately)
		o.least = max(connectsLeast, connectsPart*lately)
		l = rate.NewLimiter(rate.Limit(o.rate), int(o.rate)/10+1)
		o.connects.Store(l)
	case level >= load.Refuse:
		o.rate = max(o.least, slowDown*o.rate)
	case l == nil:
		return
	default:
		o.rate *= speedUp
		if o.rate > 4*max(lately, connectsLeast) && o.rate > 1000 {
			o.connects.Store(nil)
			return
		}
	}
	l.SetLimitAt(now, rate.Limit(o.rate))
	l.SetBurstAt(now, int(o.rate)/10+1)
}

// received counts what one turn has taken from a tenant's client.
func (c *connection) received(t *turn, n int) {
	if c.state == nil {
		return
	}
	c.state.bytes.Add(uint64(n))
	if p := t.packets[packet.PUBLISH]; p > 0 {
		c.state.publishes.Add(uint64(p))
	}
}
