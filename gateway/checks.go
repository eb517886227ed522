// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"sync"
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
	checkTime = 2 * time.Second
	// checksAtOnce is how many questions a gateway has open, checksOfTenant how many of
	// one tenant: a policy that is slow keeps its own tenant waiting.
	checksAtOnce   = 1024
	checksOfTenant = 64
	// filtersAtOnce is how many held subscriptions are asked about at once.
	filtersAtOnce = 200
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
	answered bool
	verdicts []tenancy.CheckVerdict
}

// turns are so many questions at once; the zero turns has as many as its first caller
// says.
type turns struct {
	once sync.Once
	c    chan struct{}
}

// take waits for a turn, and reports whether it has one.
func (t *turns) take(ctx context.Context, most int) (done func(), ok bool) {
	t.once.Do(func() { t.c = make(chan struct{}, most) })
	select {
	case t.c <- struct{}{}:
		return func() { <-t.c }, true
	case <-ctx.Done():
		return nil, false
	}
}

// check has mqtt.check asked, and the connection wait. The inbound half calls it, and
// has handled nothing of what is asked about.
func (c *connection) check(a conn.Asking) {
	q := &checking{asking: a}
	c.mu.Lock()
	c.makeSpecial().checking = q
	c.mu.Unlock()
	go func() {
		verdicts, err := c.askCheck(a.Grant, c.seen(), a.Items)
		if err != nil {
			c.warnCheck("it could not be asked, which denies", "error", err)
		}
		c.mu.Lock()
		q.answered, q.verdicts = true, verdicts
		c.wakeLocked()
		c.mu.Unlock()
	}()
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

// askCheck asks what mqtt.check says of what a client wants. With an error nothing is
// allowed.
func (c *connection) askCheck(grant *tenancy.Grant, a *tenancy.Arrival, items []tenancy.CheckItem) (verdicts []tenancy.CheckVerdict, err error) {
	g := c.gw
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
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	own, ok := c.state.checks.take(ctx, checksOfTenant)
	if !ok {
		return nil, tooManyChecks(checksOfTenant)
	}
	defer own()
	all, ok := g.checks.take(ctx, checksAtOnce)
	if !ok {
		return nil, tooManyChecks(checksAtOnce)
	}
	defer all()
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

func tooManyChecks(most int) error {
	return errs.New(errs.Unavailable, "%d questions are open: expected one of them to be answered within %s", most, checkTime)
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
	verdicts, err := c.askCheck(id.Grant, c.seen(), []tenancy.CheckItem{item})
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
// denies. Who cannot be asked about keeps it until that can be.
func (c *connection) checkHeld(h *holding, grant *tenancy.Grant, held []mqtt.Subscription) {
	said := make(map[string]tenancy.CheckVerdict, len(held))
	for begin := 0; begin < len(held); begin += filtersAtOnce {
		some := held[begin:min(begin+filtersAtOnce, len(held))]
		items := make([]tenancy.CheckItem, len(some))
		for i := range some {
			items[i] = tenancy.CheckItem{Action: tenancy.ActionSubscribe, Topic: some[i].Filter, QoS: some[i].QoS}
		}
		verdicts, err := c.askCheck(grant, c.seen(), items)
		if err != nil {
			c.warnCheck("what a session holds could not be held to it; it is, once it can be asked", "error", err)
			c.holdAgain(regrantAgain)
			return
		}
		for i := range some {
			said[some[i].Filter] = verdicts[i]
		}
	}
	c.mu.Lock()
	if !c.ending && c.holding == h && !h.due && h.id == 0 && c.m.Grant() == grant {
		c.reduceLocked(c.m.Reduce(held, said))
	}
	c.mu.Unlock()
	c.gw.flush()
}
