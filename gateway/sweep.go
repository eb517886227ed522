// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

// sweep ends connections that are silent for too long.
func (g *Gateway) sweep(ctx context.Context) {
	tick := time.NewTicker(wheelTick * time.Millisecond)
	defer tick.Stop()
	var buf []*timed
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		at := time.Now()
		now := at.UnixMilli()
		buf = g.registry.wheel.turn(now, buf, func(t *timed) int64 { return t.c.timeout(now) })
		g.flush()
		g.registry.forgetRates(at)
	}
}

// timeout ends c if it is time, and returns when to look again.
func (c *connection) timeout(now int64) (again int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	silence, over := c.silence.Load(), c.overLocked()
	switch {
	case c.awaitsLocked() && c.reported:
		if now < c.lingerUntil {
			return c.lingerUntil
		}
		c.answeredLocked()
	case c.ending:
		if c.source == nil || !c.told {
			break // its goroutine has a deadline, or a flush is under way
		}
		if now < c.lingerUntil {
			return c.lingerUntil
		}
		c.source.Wake()
	case !c.opened:
		return c.overdueLocked(now)
	case c.moving != nil:
		return c.movedLocked(now)
	case over != 0 && now > over:
		cl := conn.Close{
			Ended: true, Cause: link.CloseLost, Reason: mqtt.MaximumConnectTime, Text: "the connection is as old as the tenant allows",
			Details: &conn.Details{Limit: "max_connection_lifetime"},
		}
		if expires := c.expires(); expires != 0 && now > expires {
			cl.Text, cl.Details.Limit = "the token has expired; connect with a new one", "token"
		}
		c.endLocked(cl)
		c.gw.log.Info("client disconnected", "tenant", c.tenant, "client_id", short(c.clientID), "reason", mqtt.MaximumConnectTime.String(), "why", cl.Details.Limit)
	case silence == 0:
		return earlier(now+wheelSlots*wheelTick, over)
	case c.paused && !c.stalled:
		return earlier(now+silence, over) // not being read is no silence of the client's
	default:
		if due := c.lastRead.Load() + silence; now <= due { // [MQTT-3.1.2-22]
			return earlier(due+1, over)
		}
		c.endLocked(conn.Close{Ended: true, Cause: link.CloseLost, Reason: mqtt.KeepAliveTimeout, Text: "nothing came for one and a half times the keep alive"})
	}
	return now + lingerTime.Milliseconds()
}

// watch ends connections whose credential or tenant is gone.
func (g *Gateway) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := g.cfg.Directory.Watch(ctx, g.changed)
		if ctx.Err() != nil {
			return
		}
		g.log.Warn("the directory's changes are not heard of", "error", err, "retry_in", time.Second)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// changed hears of one change. It must not block, so that a tenant is looked up
// elsewhere.
func (g *Gateway) changed(ch tenancy.Change) {
	if ch.Kind != tenancy.BansChanged && ch.Kind != tenancy.DeviceChanged { // which say nothing of who is who
		g.changes.Add(1)
	}
	switch ch.Kind {
	case tenancy.CredentialGone:
		for _, c := range g.registry.of(ch.Tenant) {
			if c.username == ch.Username && c.method != byToken { // whose name is the issuer's
				c.end(conn.Close{Ended: true, Cause: link.CloseRevoked, Reason: mqtt.NotAuthorized, Text: "the credential was deleted or changed"})
			}
		}
		g.flush()
	case tenancy.CredentialChanged:
		g.inOrder(changesOf{tenant: ch.Tenant}, func() { g.override(ch) })
	case tenancy.TenantChanged:
		g.inOrder(changesOf{tenant: ch.Tenant}, func() { g.recheck(ch.Tenant) })
	case tenancy.DeviceChanged:
		g.inOrder(changesOf{tenant: ch.Tenant}, func() { g.regroup(ch) })
	case tenancy.BansChanged:
		g.inOrder(changesOf{ch.Tenant, true}, func() {
			g.flaps.settle(ch.Tenant, g.cfg.Directory.Bans(ch.Tenant), time.Now())
			g.endBanned(ch.Tenant, g.registry.of(ch.Tenant))
		})
	}
}

// changesOf are the changes that are applied one after the other.
type changesOf struct {
	tenant string
	bans   bool
}

// inOrder runs f on another goroutine, after all that was given to it before of the
// same: of two changes the later one must hold in the end.
func (g *Gateway) inOrder(of changesOf, f func()) {
	g.order.mu.Lock()
	defer g.order.mu.Unlock()
	if g.order.todo == nil {
		g.order.todo = map[changesOf][]func(){}
	}
	g.order.todo[of] = append(g.order.todo[of], f)
	if len(g.order.todo[of]) == 1 {
		go g.runInOrder(of)
	}
}

func (g *Gateway) runInOrder(of changesOf) {
	for {
		g.order.mu.Lock()
		f := g.order.todo[of][0]
		g.order.mu.Unlock()
		f()
		g.order.mu.Lock()
		todo := g.order.todo[of]
		todo[0] = nil
		if todo = todo[1:]; len(todo) == 0 {
			delete(g.order.todo, of)
		} else {
			g.order.todo[of] = todo
		}
		g.order.mu.Unlock()
		if len(todo) == 0 {
			return
		}
	}
}

// recheckLater has a tenant looked at again of which not all could be heard: nobody
// tells of its change a second time. Calls count once until that is done.
func (g *Gateway) recheckLater(tenant string) {
	g.order.mu.Lock()
	defer g.order.mu.Unlock()
	if g.order.again[tenant] {
		return
	}
	if g.order.again == nil {
		g.order.again = map[string]bool{}
	}
	g.order.again[tenant] = true
	time.AfterFunc(regrantAgain, func() {
		g.order.mu.Lock()
		delete(g.order.again, tenant)
		g.order.mu.Unlock()
		g.inOrder(changesOf{tenant: tenant}, func() { g.recheck(tenant) })
	})
}

// recheckOne gives a connection, which was on its way when its tenant changed, the
// rules that hold now.
func (g *Gateway) recheckOne(c *connection) {
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.ConnectTimeout)
	defer cancel()
	t, err := g.cfg.Directory.Known(ctx, c.tenant)
	if err != nil || !t.Active() {
		g.recheck(c.tenant) // which says what that leads to
		return
	}
	g.recertify(t, []*connection{c})
	g.reidentify(t, []*connection{c})
	g.endBanned(t.ID, []*connection{c})
	c.change(t)
	g.regrant(t, []*connection{c})
	g.rerateOne(c, t)
	g.flush()
}

// recheck ends the connections of a tenant that is not active any more, and gives
// the others the rules that it has now. Of a tenant without any nothing is asked:
// at start every tenant is told as changed.
func (g *Gateway) recheck(tenant string) {
	if len(g.registry.of(tenant)) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.ConnectTimeout)
	defer cancel()
	t, err := g.cfg.Directory.Known(ctx, tenant)
	if err != nil && !errs.Is(err, errs.NotFound) {
		g.log.Warn("a tenant has changed and cannot be looked up", "tenant", tenant, "error", err)
		if errs.Is(err, errs.Unavailable) {
			g.recheckLater(tenant)
		}
		return
	}
	if err == nil && t.Active() {
		all := g.registry.of(tenant)
		g.recertify(t, all)
		g.reidentify(t, all)
		g.change(t)
		g.regrant(t, g.registry.of(tenant))
		g.rerate(t)
		return
	}
	text := "the tenant is not there any more"
	if err == nil {
		text = t.Inactive().Error()
	}
	for _, c := range g.registry.of(tenant) {
		c.end(conn.Close{Ended: true, Cause: link.CloseRevoked, Reason: mqtt.Banned, Text: text})
	}
	g.flush()
}
