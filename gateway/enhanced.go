// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"errors"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// enhanced is an enhanced authentication before CONNACK.
type enhanced struct {
	exchange tenancy.Exchange
	// connect is the CONNECT, which is handled when the exchange has ended well.
	connect []byte
}

// begin begins the enhanced authentication that a CONNECT asks for
// [MQTT-4.12.0-1]. It reports whether the exchange has ended at once, and well.
func (c *connection) begin(t *turn, p *packet.Connect, raw []byte) (done bool, r conn.Refusal) {
	g := c.gw
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.ConnectTimeout)
	defer cancel()
	tenant := c.in.Tenant
	if tenant == nil && p.HasUsername {
		named, name, r := g.tenantOf(ctx, c, p)
		if !r.Reason.Failed() && name != p.Username {
			tenant = named // by the prefix; else the exchange has it
		}
		t.username = name
	}
	if tenant != nil {
		t.tenant, t.stranger = tenant.ID, tenant.State == ""
		if r = c.kept(tenant, ""); r.Reason.Failed() {
			return false, r
		}
		if r = c.share(t, tenant); r.Reason.Failed() {
			return false, r
		}
	}
	x, err := g.cfg.Directory.Begin(ctx, p.AuthMethod, tenancy.Attempt{Tenant: tenant, ClientID: p.ClientID, Peer: c.in.Peer})
	if errs.CodeOf(err) == tenancy.CodeMethodUnknown {
		return false, conn.UnknownMethod(p.AuthMethod)
	}
	if err != nil {
		return false, refusal(err)
	}
	sp := c.makeSpecial()
	sp.prefixed, sp.enhanced = tenant == nil, &enhanced{exchange: x, connect: bytes.Clone(raw)}
	return c.authStep(t, p.AuthData)
}

// authStep goes on with the exchange. It reports whether that has ended well, and
// the client is on its way to the broker.
func (c *connection) authStep(t *turn, data []byte) (done bool, r conn.Refusal) {
	g := c.gw
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.ConnectTimeout)
	defer cancel()
	before := g.changes.Load()
	answer, id, err := c.special.Load().enhanced.exchange.Step(ctx, data)
	if err != nil {
		g.metrics.authenticated(c.exchanged(), err)
		return false, authRefusal(err)
	}
	if id != nil {
		g.metrics.authenticated(c.exchanged(), nil)
	}
	c.mu.Lock()
	if id == nil {
		c.appendLocked(c.m.Challenge(nil, mqtt.ContinueAuthentication, answer))
	} else {
		c.m.Authenticated(answer)
	}
	c.mu.Unlock()
	if id == nil {
		g.flush()
		return false, conn.Refusal{}
	}
	var d packet.Decoder
	var p packet.Packet
	if _, err := d.Decode(c.special.Load().enhanced.connect, 0, 0, &p); err != nil {
		return false, conn.Refusal{Reason: mqtt.UnspecifiedError, Text: "internal error", Why: err.Error()}
	}
	c.special.Load().enhanced = nil
	t.tenant, t.username = id.Tenant.ID, id.Username
	return true, c.enter(t, p.Connect, id, before, func() (*tenancy.Identity, conn.Refusal) {
		// The exchange cannot be had again, and what has changed may be about it.
		return nil, conn.Refusal{Reason: mqtt.ServerBusy, Text: "something has changed meanwhile; try again"}
	})
}

// exchanged is the method of the client's exchange, as its tenant calls it.
func (c *connection) exchanged() string {
	if c.m.Method() == tenancy.MethodJWT {
		return tenancy.AuthJWT
	}
	return tenancy.AuthSCRAM
}

// authenticate takes the packet at the front of b, of a client whose exchange is
// under way. It returns its length, 0 if it has not come whole, and whether to
// go on.
func (c *connection) authenticate(t *turn, b []byte) (n int, ok bool) {
	n, err := t.decoder.Decode(b, packet.V5, c.gw.cfg.ConnectSize, &t.packet)
	if err != nil {
		var e *packet.Error
		errors.As(err, &e)
		t.packets[0]++
		c.refuse(t, conn.Refusal{Reason: e.Reason, Text: e.Type.String() + ": " + e.Text})
		return 0, false
	}
	if n == 0 {
		return 0, false
	}
	t.packets[t.packet.Type]++
	a, cl, r := c.m.Authenticating(&t.packet)
	if cl.Ended {
		c.end(cl)
		c.gw.flush()
		return n, false
	}
	done := false
	if !r.Reason.Failed() {
		done, r = c.authStep(t, a.Data)
	}
	if r.Reason.Failed() || done {
		return n, c.admitted(t, r)
	}
	return n, true
}

// authRefusal is refusal for an exchange [MQTT-4.12.0-4].
func authRefusal(err error) conn.Refusal {
	if errs.CodeOf(err) == tenancy.CodeTenantInactive {
		return inactive(err)
	}
	switch errs.CodeOf(err) {
	case tenancy.CodeMethodNotTaken, tenancy.CodeTokenRefused, tenancy.CodeTokenKeyUnknown:
		return conn.Refusal{Reason: mqtt.NotAuthorized, Text: err.Error()}
	}
	if errs.Is(err, errs.Denied) {
		return conn.Refusal{Reason: mqtt.NotAuthorized, Text: "the authentication failed", Why: err.Error()}
	}
	return refusal(err)
}

// reauth is an authentication of a client that has a connection
// [MQTT-4.12.1].
type reauth struct {
	exchange tenancy.Exchange // nil before the first step
	// busy: a goroutine is in a step. It alone has the exchange then.
	busy bool
}

// again goes on with the authentication of a client that has a connection. That
// may have to ask the control plane, so that it is done elsewhere; what the
// client sends meanwhile is served under its old one.
func (c *connection) again(a conn.Auth) {
	c.mu.Lock()
	x := c.special.Load().reauth
	fault := ""
	switch {
	case x != nil && x.busy:
		fault = "AUTH before the server has answered the last one"
	case a.Again:
		x = &reauth{}
	case x == nil:
		fault = "AUTH continues what has not begun"
	}
	if fault != "" {
		c.endLocked(conn.Close{Ended: true, Cause: link.CloseLost, Reason: mqtt.ProtocolError, Text: fault})
		c.mu.Unlock()
		c.gw.flush()
		return
	}
	x.busy, c.special.Load().reauth = true, x
	c.mu.Unlock()
	go c.stepAgain(x, a.Data)
}

func (c *connection) stepAgain(x *reauth, data []byte) {
	g := c.gw
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.ConnectTimeout)
	defer cancel()
	var err error
	if x.exchange == nil {
		// As the tenant is known now, the user name has no prefix; one that has the
		// tenant's is the same.
		x.exchange, err = g.cfg.Directory.Begin(ctx, c.m.Method(), tenancy.Attempt{Tenant: c.sameTenant(), ClientID: c.clientID, Peer: c.in.Peer})
	}
	var answer []byte
	var id *tenancy.Identity
	if err == nil {
		answer, id, err = x.exchange.Step(ctx, data)
	}
	if err == nil && id != nil && (id.Tenant.ID != c.tenant || id.Username != c.username) {
		err = errs.Coded(errs.Denied, "identity_changed", "the client is somebody else now")
	}
	if sp := c.special.Load(); err == nil && id != nil && (id.Issuer != sp.issuer || id.LimitText != sp.limitText || sp.othersThan(id)) {
		err = errs.Coded(errs.Denied, "identity_changed", "the token allows something else; connect with it")
	}
	result := "continued"
	c.mu.Lock()
	x.busy = false
	switch {
	case c.ending:
		result = ""
	case err != nil: // [MQTT-4.12.1-2]
		result = "failed"
		r := authRefusal(err)
		c.endLocked(conn.Close{Ended: true, Cause: link.CloseRevoked, Reason: r.Reason, Text: r.Text})
	case id != nil:
		result = "succeeded"
		sp := c.special.Load()
		if sp.reauth = nil; !id.Expires.IsZero() {
			sp.expires.Store(id.Expires.UnixMilli())
			c.lookLocked()
		}
		c.appendLocked(c.m.Challenge(nil, mqtt.Success, answer))
	default:
		c.appendLocked(c.m.Challenge(nil, mqtt.ContinueAuthentication, answer))
	}
	c.mu.Unlock()
	if result != "" {
		g.metrics.reauths.WithLabelValues(result).Inc()
	}
	if result == "failed" {
		g.log.Info("client disconnected: it could not authenticate again", "tenant", c.tenant, "client_id", short(c.clientID), "why", err)
	}
	g.flush()
}

// sameTenant is the tenant of an exchange on a live connection: nil where the
// first one had it in its user name.
func (c *connection) sameTenant() *tenancy.Tenant {
	if c.special.Load().prefixed {
		return nil
	}
	return &tenancy.Tenant{ID: c.tenant}
}

// appendLocked appends a packet that no frame of the broker has led to.
func (c *connection) appendLocked(b []byte) {
	if c.ending {
		return
	}
	c.borrowOut()
	c.out.b = append(c.out.b, b...)
	c.appendedLocked(len(b), true)
	c.markLocked()
}
