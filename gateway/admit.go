// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// connect handles the CONNECT at the front of b and, where a goroutine has the
// connection, waits for the broker's answer. It returns the packet's length, 0 if it has not come whole, and
// whether the client was let in.
func (c *connection) connect(t *turn, b []byte) (n int, ok bool) {
	p := &t.packet
	t.tenant, t.username, t.stranger = "", "", false
	n, err := t.decoder.Decode(b, 0, c.gw.cfg.ConnectSize, p)
	if err != nil {
		var e *packet.Error
		errors.As(err, &e)
		t.packets[0]++
		if speaks := otherThanMQTT(b); speaks != "" {
			c.gw.strangers.Do(func() {
				l := c.in.Listener.Config()
				c.gw.log.Warn("a client does not speak MQTT; further ones are counted only, for a minute",
					"listener", l.Label(), "peer", c.in.Peer.String(), "speaks", speaks)
			})
		}
		c.mu.Lock()
		if e.Type == packet.CONNECT {
			c.m.ConnectFailed(p.Connect.Version)
		}
		c.mu.Unlock()
		c.refuse(t, conn.Refusal{Reason: e.Reason, Text: e.Type.String() + ": " + e.Text})
		return 0, false
	}
	if n == 0 {
		return 0, false
	}
	t.packets[packet.CONNECT]++
	c.mu.Lock()
	r := c.m.Connect(p.Connect)
	c.mu.Unlock()
	if !r.Reason.Failed() {
		r = c.mayConnect(p.Connect)
	}
	if r.Reason.Failed() {
		return n, c.admitted(t, r)
	}
	done, ok := c.gw.load.slot()
	if !ok {
		c.gw.metrics.throttled[overloadConnects].Inc()
		return n, c.admitted(t, conn.Refusal{Reason: mqtt.ConnectionRateExceeded, Text: "too many clients connect to this gateway; try again in some seconds"})
	}
	t.slot = done
	defer t.freeSlot()
	if p.Connect.HasAuthMethod {
		var done bool
		if done, r = c.begin(t, p.Connect, b[:n]); !done && !r.Reason.Failed() {
			return n, true // for its AUTH
		}
	} else {
		r = c.admit(t, p.Connect)
	}
	t.freeSlot() // the broker may take its time
	return n, c.admitted(t, r)
}

// otherThanMQTT says what a client speaks whose first bytes are b and no CONNECT, and
// where it may; empty if that is not clear.
func otherThanMQTT(b []byte) string {
	switch {
	case len(b) > 1 && b[0] == 0x16 && b[1] == 3:
		return "TLS: it wants a listener of kind mqtts, or is not to use TLS here"
	case bytes.HasPrefix(b, []byte("GET ")), bytes.HasPrefix(b, []byte("POST ")), bytes.HasPrefix(b, []byte("HEAD ")):
		return "HTTP: WebSocket wants a listener of kind ws or wss"
	}
	return ""
}

// freeSlot lets another CONNECT have its turn. It may be called again.
func (t *turn) freeSlot() {
	if t.slot != nil {
		t.slot()
		t.slot = nil
	}
}

// admitted waits for CONNACK, or refuses the client. It also returns when the client
// has to wait for the owner of its partition, and of one that a loop has before that.
func (c *connection) admitted(t *turn, r conn.Refusal) bool {
	if r.Reason.Failed() {
		c.refuse(t, r)
		return false
	}
	// The client may send on before CONNACK, but what it may do is known only
	// then [MQTT-3.1.4-6].
	return c.wait(func() bool { return c.opened || c.waitsLocked() || c.entering })
}

func (c *connection) refuse(t *turn, r conn.Refusal) {
	cfg := c.in.Listener.Config()
	why := r.Why
	if why == "" {
		why = r.Text
	}
	c.tellRefusal(t, r, why)
	c.gw.log.Info("client refused", "listener", cfg.Label(), "peer", c.in.Peer.String(), "tenant", short(t.tenant),
		"username", short(t.username), "client_id", short(c.clientID), "reason", r.Reason.String(), "why", why)
	c.end(r.Close())
	c.gw.flush()
}

// mayConnect is what can be said before anybody is authenticated.
func (c *connection) mayConnect(p *packet.Connect) conn.Refusal {
	c.clientID = p.ClientID
	if v := c.in.Listener.Config().Versions; len(v) > 0 && !slices.Contains(v, p.Version.String()) {
		return conn.Refusal{Reason: mqtt.UnsupportedProtocolVersion, Text: "this listener takes MQTT " + strings.Join(v, ", ")}
	}
	if c.gw.draining.Load() {
		return conn.Refusal{Reason: mqtt.ServerUnavailable, Text: "the gateway is shutting down"}
	}
	if err := c.in.Unavailable; err != nil {
		return refusal(err)
	}
	return conn.Refusal{}
}

// admit finds the tenant, authenticates and asks the broker.
func (c *connection) admit(t *turn, p *packet.Connect) conn.Refusal {
	g := c.gw
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.ConnectTimeout)
	defer cancel()
	named, username, r := g.tenantOf(ctx, c, p)
	t.username = username
	if named != nil {
		t.tenant, t.stranger = named.ID, named.State == ""
	}
	if r.Reason.Failed() {
		return r
	}
	if r = c.kept(named, ""); r.Reason.Failed() {
		return r
	}
	if r = c.share(t, named); r.Reason.Failed() {
		return r
	}
	before := g.changes.Load()
	id, r := g.identify(ctx, c, named, username, p)
	if r.Reason.Failed() {
		return r
	}
	t.username = id.Username
	return c.enter(t, p, id, before, func() (*tenancy.Identity, conn.Refusal) {
		return g.identify(ctx, c, id.Tenant, username, p)
	})
}

// enter makes an authenticated client one of its tenant's and asks the broker.
// before counts what the directory had told when it was authenticated; again
// does that once more.
func (c *connection) enter(t *turn, p *packet.Connect, id *tenancy.Identity, before uint64, again func() (*tenancy.Identity, conn.Refusal)) (r conn.Refusal) {
	g := c.gw
	tenant := id.Tenant
	if r := c.lawful(id); r.Reason.Failed() {
		return r
	}
	if r := g.flapping(c, id); r.Reason.Failed() {
		return r
	}
	if id, r = g.registered(id); r.Reason.Failed() {
		return r
	}
	state := g.registry.state(tenant.ID)
	if r := c.admitRate(t, tenant, state); r.Reason.Failed() {
		state.refused.Add(1)
		return r
	}
	c.username = id.Username // before enter, which makes it known to others
	c.mu.Lock()
	c.state, c.method = state, methodOf(id)
	if id.Issuer != "" {
		sp := c.makeSpecial()
		sp.issuer, sp.limitText = id.Issuer, id.LimitText
		sp.expires.Store(id.Expires.UnixMilli())
	}
	c.mu.Unlock()
	if !c.enterTenant(t, state, tenant.Limits.Connections) {
		state.refused.Add(1)
		return conn.Refusal{Reason: mqtt.QuotaExceeded, Text: fmt.Sprintf("the quota connections allows %d", tenant.Limits.Connections), Limit: "connections"}
	}
	c.tenant = tenant.ID
	// A ban that was told between the check and enter has missed us.
	if r = c.kept(tenant, id.Username); r.Reason.Failed() {
		return r
	}
	if g.changes.Load() != before {
		// A revocation that was told between the check and enter has missed us.
		first := id
		if id, r = again(); !r.Reason.Failed() {
			r = c.lawful(id)
		}
		if !r.Reason.Failed() && (id.Method != first.Method || id.Username != first.Username || id.Issuer != first.Issuer || id.LimitText != first.LimitText) {
			r = conn.Refusal{Reason: mqtt.ServerBusy, Text: "something has changed meanwhile; try again"}
		}
		if !r.Reason.Failed() {
			id, r = g.registered(id)
		}
		if r.Reason.Failed() {
			return r
		}
	}
	if id.Session != nil {
		c.makeSpecial().session = id.Session
	}
	c.setRates(id.Tenant, id.Session)
	if p.ClientID == "" {
		c.clientID = "auto-" + rand.Text()
	}
	if id, r = c.authorize(id, p); r.Reason.Failed() {
		return r
	}
	if r = c.checkWill(p, id); r.Reason.Failed() {
		return r
	}
	open, r := c.accept(p, id)
	if r.Reason.Failed() {
		return r
	}
	return c.open(t, open)
}

// accept is Accept of the machine. Its stack is given back before the broker runs on
// what is left: the stack of a new connection's goroutine is small, and is copied when
// it grows.
//
//go:noinline
func (c *connection) accept(p *packet.Connect, id *tenancy.Identity) (*link.Open, conn.Refusal) {
	g := c.gw
	assigned := ""
	if p.ClientID == "" {
		assigned = c.clientID
	}
	cfg := c.in.Listener.Config()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.Accept(p, conn.Admission{
		Identity: id, AssignedClientID: assigned, Rules: g.rules.of(id.Tenant, id.Session),
		Labels: link.Labels{Listener: cfg.Label(), Username: id.Username, Peer: c.in.Peer.String(), Gateway: g.cfg.Name},
	})
}

// tenantOf applies the rules by which a connection's tenant is found; the
// listener has applied the first three. username has lost its prefix. A prefix
// that names no tenant gives a tenant of that id and nothing else, with which
// nobody is authenticated: to a stranger that is no different from a wrong
// password.
func (g *Gateway) tenantOf(ctx context.Context, c *connection, p *packet.Connect) (t *tenancy.Tenant, username string, r conn.Refusal) {
	if t = c.in.Tenant; t != nil {
		return t, p.Username, r
	}
	prefix, name, ok := strings.Cut(p.Username, ":")
	named := ok && p.HasUsername
	if named {
		t, err := g.cfg.Directory.Tenant(ctx, prefix)
		if err == nil {
			return t, name, r
		}
		if !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Invalid) {
			return nil, "", refusal(err)
		}
	}
	if g.mayBeAnonymous(c) {
		t, err := g.cfg.Directory.Tenant(ctx, g.cfg.Anonymous)
		if err != nil {
			return nil, "", refusal(err)
		}
		return t, p.Username, r
	}
	if named {
		return &tenancy.Tenant{ID: prefix}, name, r
	}
	return nil, "", conn.Refusal{
		Reason: mqtt.NotAuthorized,
		Text:   "no tenant: expected a tenant's hostname (TLS SNI or WebSocket Host), or a user name like tenant:name",
	}
}

// inactive refuses who has shown that it belongs to a tenant that is not active; the error is
// of tenancy.Tenant.Inactive.
func inactive(err error) conn.Refusal { return conn.Refusal{Reason: mqtt.Banned, Text: err.Error()} }

// mayBeAnonymous reports whether the listener lets clients in without
// credentials. A browser opens WebSockets to this machine for any page, so that
// a page from elsewhere has to show credentials.
func (g *Gateway) mayBeAnonymous(c *connection) bool {
	cfg := c.in.Listener.Config()
	return g.cfg.Anonymous != "" && !cfg.TLS() && !c.in.ForeignOrigin
}

// refusal maps an error of the directory to a CONNACK. What exists and what
// does not looks the same to a client.
func refusal(err error) conn.Refusal {
	switch errs.CodeOf(err) { // what who has shown a token may know
	case tenancy.CodeTokenRefused, tenancy.CodeTokenKeyUnknown:
		return conn.Refusal{Reason: mqtt.BadUserNameOrPassword, Text: err.Error()}
	}
	switch errs.KindOf(err) {
	case errs.Denied, errs.NotFound, errs.Invalid, errs.Conflict:
		return conn.Refusal{Reason: mqtt.BadUserNameOrPassword, Text: "bad user name or password", Why: err.Error()}
	case errs.Quota:
		return conn.Refusal{Reason: mqtt.QuotaExceeded, Text: err.Error()}
	case errs.Unavailable:
		return conn.Refusal{Reason: mqtt.ServerUnavailable, Text: unavailable(err), Why: err.Error()}
	case errs.Internal:
	}
	return conn.Refusal{Reason: mqtt.UnspecifiedError, Text: "internal error", Why: err.Error()}
}

// unavailable says to a client why it cannot be let in now.
func unavailable(err error) string {
	switch errs.CodeOf(err) {
	case tenancy.CodeControlPlaneAway:
		return "the client is not known here, and the control plane that may know it is away; try again later"
	case tenancy.CodeControlPlaneGone:
		return "the control plane is away for too long: nobody is let in until it is back; try again later"
	case tenancy.CodeControlPlaneNever:
		return "this gateway has not reached the control plane yet; try again later, or elsewhere"
	}
	return "credentials cannot be checked now; try again later"
}
