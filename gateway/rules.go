// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"reflect"
	"sync"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

// rules are what holds for the connections of each tenant that has some. They
// are made once for each revision, and stay the same ones if a revision has
// changed something else.
type rules struct {
	mu sync.Mutex
	m  map[string]ruled
}

type ruled struct {
	tenant *tenancy.Tenant
	rules  *conn.Rules
}

// of returns the rules of a tenant's connection; who authenticated it said o.
func (r *rules) of(t *tenancy.Tenant, o *tenancy.SessionOverride) *conn.Rules {
	if o != nil {
		return conn.NewRules(t, o)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.m[t.ID]
	if known.tenant == t {
		return known.rules
	}
	made := conn.NewRules(t, nil)
	if known.rules != nil && reflect.DeepEqual(*made, *known.rules) {
		made = known.rules
	}
	if r.m == nil {
		r.m = map[string]ruled{}
	}
	r.m[t.ID] = ruled{t, made}
	return made
}

func (r *rules) forget(tenant string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, tenant)
}

// change gives the connections of a tenant the rules that it has now.
func (g *Gateway) change(t *tenancy.Tenant) {
	changed, ended := 0, 0
	for _, c := range g.registry.of(t.ID) {
		did, end := c.change(t)
		if did {
			changed++
		}
		if end {
			ended++
		}
	}
	if changed == 0 {
		return
	}
	g.flush()
	g.log.Info("a tenant's limits or settings have changed for live connections", "tenant", t.ID, "connections", changed, "ended", ended)
}

// override has the connections of a credential go on with what that says of its
// sessions now.
func (g *Gateway) override(ch tenancy.Change) {
	some := false
	for _, c := range g.registry.of(ch.Tenant) {
		if c.username != ch.Username {
			continue
		}
		some = true
		c.mu.Lock()
		if c.opened && !c.ending {
			c.makeSpecial().session = ch.Session
		} else if !c.ending {
			// Its CONNACK is on its way, with what the credential had said.
			c.endLocked(conn.Close{Ended: true, Cause: link.CloseLost, Reason: mqtt.ServerBusy, Text: "the credential has changed meanwhile; try again"})
		}
		c.mu.Unlock()
	}
	if !some {
		return
	}
	g.flush()
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.ConnectTimeout)
	defer cancel()
	t, err := g.cfg.Directory.Known(ctx, ch.Tenant)
	if err != nil {
		g.log.Warn("a credential has changed and its tenant cannot be looked up", "tenant", ch.Tenant, "error", err)
		if errs.Is(err, errs.Unavailable) {
			g.recheckLater(ch.Tenant) // by which what was set above has its effect
		}
		return
	}
	g.change(t)
	g.rerate(t)
}

// change gives the connection other rules, and reports whether they are others
// and whether they end it.
func (c *connection) change(t *tenancy.Tenant) (changed, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return false, false
	}
	if !c.opened {
		c.stale = true
		return false, false
	}
	own := c.session()
	r := c.gw.rules.of(t, own)
	if was := c.m.Rules(); was == r || own != nil && reflect.DeepEqual(*was, *r) {
		return false, false
	}
	limits, cl := c.m.Change(r)
	if cl.Ended {
		c.endLocked(cl)
		return true, true
	}
	c.changed = limits
	c.markLocked()
	c.lookLocked()
	return true, false
}

// overLocked is when the connection has had its time, in Unix milliseconds; 0 is
// never.
func (c *connection) overLocked() int64 {
	expires := c.expires()
	r := c.m.Rules()
	if r == nil || r.Settings.MaxConnectionLifetime == 0 {
		return expires
	}
	return earliest(c.started+r.Settings.MaxConnectionLifetime*1000, expires)
}

// expires is when the token ends that has let the client in, in Unix milliseconds; 0
// is never.
func (c *connection) expires() int64 {
	if sp := c.special.Load(); sp != nil {
		return sp.expires.Load()
	}
	return 0
}

// earliest is the earlier of two times, of which either is never if it is 0.
func earliest(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// lookLocked has the sweep look at the connection when something may be due. It
// is called at CONNACK and when the rules change.
func (c *connection) lookLocked() {
	at := c.overLocked()
	if silence := c.silence.Load(); silence > 0 {
		at = earlier(time.Now().UnixMilli()+silence, at)
	}
	if at != 0 {
		c.gw.registry.wheel.look(&c.timed, at+1)
	}
	if c.stale {
		c.stale = false
		c.gw.inOrder(changesOf{tenant: c.tenant}, func() { c.gw.recheckOne(c) })
	}
}

// earlier is the earlier of two times, of which over is never if it is 0.
func earlier(at, over int64) int64 {
	if over != 0 && over < at {
		return over + 1
	}
	return at
}
