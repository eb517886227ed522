// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

const (
	// checkTime is how long a client's packet waits for what mqtt.check says, turns
	// included; then it is denied.
	checkTime = tenancy.CheckTime
	// checksAtOnce is how many questions a gateway has open, checksOfTenant how many of
	// one tenant: a policy that is slow keeps its own tenant waiting. Tenants that wait are
	// asked about in turn.
	checksAtOnce   = 1024
	checksOfTenant = 64
	// heldOfTenant is how many more of a tenant may be about what sessions hold: all are
	// asked about when a policy changes, and clients' packets must not wait behind them.
	// heldTime is how long one waits for its turn.
	heldOfTenant = 16
	heldTime     = 10 * time.Second
)

// What becomes of what mqtt.check is asked.
const (
	checkAllowed = iota
	checkDenied
	checkUnknown
)

var checkEvents = [...]string{checkAllowed: "allowed", checkDenied: "denied", checkUnknown: "unknown"}

// checkUnanswered is what clients are told when nobody can be asked.
const checkUnanswered = "the tenant's policy cannot be asked now (mqtt.check); try again later"

// checking is a question of a connection that waits for its answer: what it has sent
// behind is not handled before. Guarded by the connection's mu.
type checking struct {
	asking   conn.Asking
	cancel   context.CancelFunc // when the connection has ended
	answered bool
	verdicts []tenancy.CheckVerdict
}

// check has mqtt.check asked, and the connection wait. The inbound half calls it, and
// has handled nothing of what is asked about.
func (c *connection) check(a conn.Asking) {
	ctx, cancel := context.WithCancel(context.Background())
	q := &checking{asking: a, cancel: cancel}
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		cancel()
		return
	}
	c.makeSpecial().checking = q
	c.mu.Unlock()
	go func() {
		defer cancel()
		verdicts, err := c.askCheck(ctx, a.Grant, a.Items, false)
		if err != nil && ctx.Err() == nil {
			c.warnCheck("it could not be asked, which denies", "error", err)
		}
		c.mu.Lock()
		q.answered, q.verdicts = true, verdicts
		c.wakeLocked()
		c.mu.Unlock()
	}()
}

// uncheckLocked ends the question of a connection that has ended.
func (c *connection) uncheckLocked() {
	if sp := c.special.Load(); sp != nil && sp.checking != nil {
		sp.checking.cancel()
	}
}

// warnCheck logs what is wrong with a tenant's mqtt.check, once a minute.
func (c *connection) warnCheck(what string, args ...any) {
	now, last := time.Now().UnixMilli(), c.state.checkLogged.Load()
	if now-last < refusalEvery.Milliseconds() || !c.state.checkLogged.CompareAndSwap(last, now) {
		return
	}
	args = append([]any{"tenant", c.tenant, "client_id", short(c.clientID), "what", what}, args...)
	c.gw.log.Warn("mqtt.check of a tenant's policy: something is wrong; more of the tenant is only counted for a minute", args...)
}

// checksLocked reports whether the connection waits for mqtt.check; an answer that has
// come is taken.
func (c *connection) checksLocked() bool {
	sp := c.special.Load()
	if sp == nil || sp.checking == nil {
		return false
	}
	q := sp.checking
	if !q.answered {
		return true
	}
	sp.checking = nil
	c.m.Answer(&q.asking, q.verdicts, checkUnanswered, time.Now().UnixMilli())
	return false
}

// askCheck asks what mqtt.check says of what a client wants, or of what its session holds.
// With an error nothing is allowed.
func (c *connection) askCheck(ctx context.Context, grant *tenancy.Grant, items []tenancy.CheckItem, held bool) (verdicts []tenancy.CheckVerdict, err error) {
	g, a := c.gw, c.seen()
	defer func() {
		for i := range items {
			event := checkUnknown
			if err == nil {
				event = checkDenied
				if verdicts[i].Allow {
					event = checkAllowed
				}
			}
			g.metrics.checks[event].Inc()
		}
	}()
	if g.cfg.Check == nil || a == nil {
		return nil, errs.New(errs.Internal, "there is nobody to ask what mqtt.check says")
	}
	key, most, wait := c.tenant, checksOfTenant, checkTime
	if held { // a name that no tenant has
		key, most, wait = "held by "+c.tenant, heldOfTenant, heldTime
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	end, err := g.checks.TakeOf(ctx, key, most)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "expected one of the open questions to be answered within %s: at most %d of a tenant and %d of all are asked at once", wait, most, checksAtOnce)
	}
	defer end()
	ctx, done := context.WithTimeout(ctx, checkTime)
	defer done()
	answer, err := g.cfg.Check(ctx, &tenancy.CheckQuestion{
		Tenant: c.tenant, Revision: grant.Revision - tenancy.GrantRevision(0), Class: grant.Class(), Arrival: *a, Items: items,
	})
	if err != nil {
		return nil, err
	}
	if len(answer.Verdicts) != len(items) {
		return nil, errs.New(errs.Internal, "expected %d verdicts of mqtt.check, found %d", len(items), len(answer.Verdicts))
	}
	for i := range answer.Verdicts {
		if v := &answer.Verdicts[i]; v.Why != "" {
			c.warnCheck("it cannot be followed, which denies", "action", items[i].Action, "topic", short(items[i].Topic), "why", v.Why)
			break
		}
	}
	return answer.Verdicts, nil
}

// checkWill asks about the will of a client that is let in.
func (c *connection) checkWill(p *packet.Connect, id *tenancy.Identity) conn.Refusal {
	if p.Will == nil || id.Grant == nil || !id.Grant.Asks() {
		return conn.Refusal{}
	}
	item, ok := conn.CheckedMessage(&p.Will.Message)
	if !ok {
		return conn.Refusal{Reason: mqtt.NotAuthorized, Text: "the will: the tenant's policy looks at no more than 8 KiB of user properties"}
	}
	item.IsWill = true
	verdicts, err := c.askCheck(context.Background(), id.Grant, []tenancy.CheckItem{item}, false)
	switch {
	case err != nil:
		return conn.Refusal{Reason: mqtt.ServerUnavailable, Text: checkUnanswered, Why: err.Error()}
	case verdicts[0].Allow:
		return conn.Refusal{}
	}
	r := conn.Refusal{Reason: mqtt.NotAuthorized, Text: "the tenant's policy does not allow the will (mqtt.check)", Why: verdicts[0].Why}
	if verdicts[0].Reason != "" {
		r.Text = "the will: " + verdicts[0].Reason
	}
	return r
}

// checkHeld asks about what the session of a client holds, and takes away what mqtt.check
// denies. What cannot be asked about stays until it can be.
func (c *connection) checkHeld(h *holding, grant *tenancy.Grant, held []mqtt.Subscription) {
	said := make(map[string]tenancy.CheckVerdict, len(held))
	most, rest := conn.AskedItems, held
	for len(rest) > 0 {
		items := heldItems(rest, most)
		verdicts, err := c.askCheck(context.Background(), grant, items, true)
		if err != nil {
			if len(items) > 1 { // perhaps it is too much for the time that there is
				most = max(len(items)/8, 1)
				continue
			}
			c.warnCheck("what a session holds could not be held to it; it is, once it can be asked", "error", err)
			break
		}
		for i := range items {
			said[items[i].Topic] = verdicts[i]
		}
		rest = rest[len(items):]
	}
	c.mu.Lock()
	if !c.ending && c.holding == h && !h.due && h.id == 0 && c.m.Grant() == grant {
		ends := h.ends
		c.reduceLocked(c.m.Reduce(held[:len(held)-len(rest)], said))
		if len(rest) > 0 {
			c.holdAgain(regrantAgain, ends)
		}
	}
	c.mu.Unlock()
	c.gw.flush()
}

// heldItems are the first of what a session holds, as many as are asked about at once.
func heldItems(held []mqtt.Subscription, most int) (items []tenancy.CheckItem) {
	size := 0
	for i := range held[:min(most, len(held))] {
		s := &held[i]
		if size += len(s.Filter); i > 0 && size > conn.AskedBytes {
			break
		}
		items = append(items, tenancy.CheckItem{Action: tenancy.ActionSubscribe, Topic: s.Filter, QoS: s.QoS})
	}
	return items
}
