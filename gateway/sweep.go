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

// sweepEvery is how often timeouts are looked for. A timeout comes that much
// late, which the half of a keep alive that clients are granted allows for.
const sweepEvery = 500 * time.Millisecond

// sweep ends connections that are silent for too long: one walk over all
// instead of a timer for each.
func (g *Gateway) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var buf []*connection
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now().UnixMilli()
		slow := 0
		buf = g.registry.all(buf, func(c *connection) {
			if c.in.Socket.Backlog() > 0 {
				slow++
			}
			c.timeout(now)
		})
		g.metrics.slow.Set(float64(slow))
		g.flush()
	}
}

// timeout ends c if it is time.
func (c *connection) timeout(now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	silence := c.silence.Load()
	switch {
	case c.ending:
		if c.source != nil && c.told && now >= c.lingerUntil {
			c.source.Wake()
		}
	case !c.opened:
		if now-c.started > c.gw.cfg.ConnectTimeout.Milliseconds() {
			cl := conn.Close{Ended: true, Cause: link.CloseLost, Reason: mqtt.ServerUnavailable, Text: "the broker does not answer"}
			if c.version() == 0 {
				cl.Reason, cl.Text = mqtt.KeepAliveTimeout, "no CONNECT"
			}
			c.endLocked(cl)
		}
	case silence > 0 && (!c.paused || c.stalled) && now-c.lastRead.Load() > silence: // [MQTT-3.1.2-22]
		c.endLocked(conn.Close{Ended: true, Cause: link.CloseLost, Reason: mqtt.KeepAliveTimeout, Text: "nothing came for one and a half times the keep alive"})
	}
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
	g.changes.Add(1)
	switch ch.Kind {
	case tenancy.CredentialGone:
		for _, c := range g.registry.of(ch.Tenant) {
			if c.username == ch.Username {
				c.end(conn.Close{Ended: true, Cause: link.CloseRevoked, Reason: mqtt.NotAuthorized, Text: "the credential was deleted or changed"})
			}
		}
		g.flush()
	case tenancy.TenantChanged:
		go g.recheck(ch.Tenant)
	}
}

// recheck ends the connections of a tenant that is not active any more.
func (g *Gateway) recheck(tenant string) {
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.ConnectTimeout)
	defer cancel()
	t, err := g.cfg.Directory.Tenant(ctx, tenant)
	if err != nil && !errs.Is(err, errs.NotFound) {
		g.log.Warn("a tenant has changed and cannot be looked up", "tenant", tenant, "error", err)
		return
	}
	if err == nil && t.Active() {
		return
	}
	for _, c := range g.registry.of(tenant) {
		c.end(conn.Close{Ended: true, Cause: link.CloseRevoked, Reason: mqtt.Banned, Text: "the tenant is not active"})
	}
	g.flush()
}
