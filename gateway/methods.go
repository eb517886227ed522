// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"strings"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// method is by which a client was let in: a tenancy.AuthMethods in one byte.
type method uint8

const (
	byNothing method = iota // the listener lets anybody in
	byPassword
	byCertificate
	byToken
	bySCRAM
)

var methodNames = [...]string{
	byPassword: tenancy.AuthPassword, byCertificate: tenancy.AuthCertificate, byToken: tenancy.AuthJWT, bySCRAM: tenancy.AuthSCRAM,
}

func methodOf(id *tenancy.Identity) method {
	for m, name := range methodNames {
		if name == id.Method {
			return method(m)
		}
	}
	return byNothing
}

// identify finds out who a client is, by the methods of its tenant in their order:
// the first that applies to what the client has shown decides.
func (g *Gateway) identify(ctx context.Context, c *connection, t *tenancy.Tenant, username string, p *packet.Connect) (*tenancy.Identity, conn.Refusal) {
	if t.ID == g.cfg.Anonymous && g.mayBeAnonymous(c) && !p.HasPassword {
		if err := t.Inactive(); err != nil {
			return nil, inactive(err)
		}
		grant := t.Grant
		if grant == nil {
			grant = tenancy.DefaultGrant()
		}
		return &tenancy.Identity{Tenant: t, Grant: grant}, conn.Refusal{}
	}
	// The tenant that the handshake has found may be from before a change. What is no
	// tenant takes the way of a wrong password.
	if now, err := g.cfg.Directory.Tenant(ctx, t.ID); err == nil {
		t = now
	}
	a := tenancy.Attempt{
		Tenant: t, ClientID: p.ClientID, Username: username, HasUsername: p.HasUsername, Password: p.Password, HasPassword: p.HasPassword, Peer: c.in.Peer,
	}
	cert := c.certOf(t.ID)
	if cert != nil && cert.Name != "" {
		a.Username, a.HasUsername = cert.Name, true
	}
	var why error // of the last method that has something to say
	for _, m := range t.Methods() {
		switch m {
		case tenancy.AuthCertificate:
			if cert == nil || cert.Name == "" || !cert.Authenticates {
				continue
			}
			id, r := g.certified(ctx, t.ID, cert.Name)
			g.metrics.certified(r)
			return id, r
		case tenancy.AuthPassword, tenancy.AuthJWT:
			a.Method = m
			id, err := g.cfg.Directory.Authenticate(ctx, a)
			g.metrics.authenticated(m, err)
			if err == nil {
				return id, conn.Refusal{}
			}
			if !passes(m, err) {
				return nil, g.refused(c, t, p, err)
			}
			if why == nil || errs.CodeOf(err) != tenancy.CodePassed {
				why = err
			}
		}
	}
	if why == nil || errs.CodeOf(why) == tenancy.CodePassed {
		r := conn.Refusal{Reason: mqtt.NotAuthorized, Text: "no method of the tenant applies; expected " + expected(t)}
		if why != nil {
			r.Why = why.Error()
		}
		return nil, r
	}
	return nil, g.refused(c, t, p, why)
}

// registered is the identity with what the tenant's registry says of it.
func (g *Gateway) registered(id *tenancy.Identity) (*tenancy.Identity, conn.Refusal) {
	if !id.Tenant.Registry {
		return id, conn.Refusal{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.ConnectTimeout)
	defer cancel()
	d, err := g.cfg.Directory.Device(ctx, id.Tenant, id.Username)
	if err != nil {
		return nil, refusal(err)
	}
	if d != nil {
		with := *id
		with.Device, with.Groups = d, d.Groups
		id = &with
	}
	return id, conn.Refusal{}
}

// passes reports whether the next method is asked: this one does not apply.
func passes(m string, err error) bool {
	switch errs.CodeOf(err) {
	case tenancy.CodePassed, "username_missing", "password_missing":
		return true
	}
	return m == tenancy.AuthPassword && errs.Is(err, errs.NotFound)
}

// expected says what a tenant's clients may show.
func expected(t *tenancy.Tenant) string {
	var all []string
	for _, m := range t.Methods() {
		switch m {
		case tenancy.AuthCertificate:
			all = append(all, "a client certificate")
		case tenancy.AuthJWT:
			all = append(all, "a token as the password")
		case tenancy.AuthPassword:
			all = append(all, "a user name and a password")
		case tenancy.AuthSCRAM:
			all = append(all, tenancy.MethodSCRAM)
		}
	}
	return strings.Join(all, ", or ")
}

// refused is refusal of a CONNECT.
func (g *Gateway) refused(c *connection, t *tenancy.Tenant, p *packet.Connect, err error) conn.Refusal {
	switch {
	case errs.CodeOf(err) == tenancy.CodeTenantInactive:
		return inactive(err)
	case errs.CodeOf(err) == tenancy.CodeTokenRefused, errs.CodeOf(err) == tenancy.CodeTokenKeyUnknown:
	case !p.HasUsername && c.in.ForeignOrigin && t.ID == g.cfg.Anonymous:
		return conn.Refusal{Reason: mqtt.NotAuthorized, Text: "a web page from another origin needs a user name and a password"}
	case !p.HasUsername && (errs.Is(err, errs.Denied) || errs.Is(err, errs.NotFound)):
		return conn.Refusal{Reason: mqtt.NotAuthorized, Text: "expected a user name and a password", Why: err.Error()}
	}
	return refusal(err)
}

// reidentify ends those of a tenant's connections that would not be let in any more:
// the tenant takes their method, their issuer or their address no more.
func (g *Gateway) reidentify(t *tenancy.Tenant, all []*connection) {
	ended := 0
	for _, c := range all {
		reason, text := c.unlawful(t)
		if text == "" {
			continue
		}
		if c.expel(conn.Close{Ended: true, Cause: link.CloseRevoked, Reason: mqtt.NotAuthorized, Text: text}) {
			g.metrics.keptOut.WithLabelValues(reason).Inc()
			ended++
		}
	}
	if ended > 0 {
		g.flush()
		g.log.Info("connections ended: a tenant's methods, issuers or allow-list have changed", "tenant", t.ID, "connections", ended)
	}
}

// unlawful says why a connection that its tenant has let in must end; empty if it
// goes on.
func (c *connection) unlawful(t *tenancy.Tenant) (reason, text string) {
	switch {
	case !t.Networks.Allow(c.in.Peer.Addr()):
		return keptAddress, notAllowed
	case c.method == byNothing:
	case !t.Takes(methodNames[c.method]):
		return keptMethod, "the tenant does not take the method " + methodNames[c.method] + " any more"
	case c.method == byToken && t.IssuerOf(c.special.Load().issuer) == nil:
		return keptMethod, "the tenant does not take tokens of this issuer any more"
	}
	return "", ""
}
