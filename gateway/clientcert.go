// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

// certOf is the certificate that the client has shown, if it is good for clients
// of that tenant; else nil. One of another tenant's CAs, or of a listener's for
// another tenant, is as good as none.
func (c *connection) certOf(tenant string) *listener.ClientCert {
	if cert := c.in.Cert; cert != nil && cert.Tenant == tenant {
		return cert
	}
	return nil
}

// certified is the identity of a client whose certificate gives it that name.
func (g *Gateway) certified(ctx context.Context, tenant, name string) (*tenancy.Identity, conn.Refusal) {
	if err := tenancy.ValidUsername(name); err != nil {
		return nil, conn.Refusal{Reason: mqtt.BadUserNameOrPassword, Text: "the certificate's name cannot be a user name: " + err.Error()}
	}
	// The tenant that the handshake has found may be from before a change.
	t, err := g.cfg.Directory.Tenant(ctx, tenant)
	if err != nil {
		return nil, refusal(err)
	}
	if err := t.Inactive(); err != nil {
		return nil, inactive(err)
	}
	grant := t.Grant
	if grant == nil {
		grant = tenancy.DefaultGrant()
	}
	return &tenancy.Identity{Method: tenancy.AuthCertificate, Tenant: t, Username: name, Grant: grant}, conn.Refusal{}
}

// certified checks an identity against what its tenant asks of certificates now.
func (c *connection) certified(id *tenancy.Identity) conn.Refusal {
	r := conn.Refusal{Reason: mqtt.NotAuthorized}
	cert := c.certOf(id.Tenant.ID)
	if cert != nil && cert.Own && cert.Identity != "" {
		switch {
		case cert.Name == "":
			r.Text = fmt.Sprintf("expected a certificate with a name (%s) that is the user name", cert.Identity)
			return r
		case cert.Name != id.Username:
			r.Text = "the certificate is another user's"
			return r
		}
	}
	if r.Text = (&certCheck{tenant: id.Tenant, now: time.Now()}).why(c); r.Text == "" {
		return conn.Refusal{}
	}
	return r
}

// certCheck holds connections of a tenant to the CAs that it has now.
type certCheck struct {
	tenant *tenancy.Tenant
	now    time.Time
	trust  *tenancy.Trust // nil until it is needed
	err    error
	gone   map[*tenancy.Trust][]*x509.Certificate // since a trust of before
}

// why says why a connection cannot be, or go on; empty if it can. Of the connection
// it reads what is set before others know it.
func (k *certCheck) why(c *connection) string {
	cas, cert := k.tenant.ClientCAs, c.certOf(k.tenant.ID)
	own := cert != nil && cert.Own
	switch {
	case !own && cas != nil && cas.ClientCerts == tenancy.ClientCertsRequired:
		return "the tenant requires a client certificate: expected TLS with the server name " + k.tenant.Hostname + " (SNI) and a certificate of the tenant's CAs"
	case !own:
		return ""
	case cas == nil:
		return "the tenant has taken the CA of the client certificate away"
	case cert.Identity != cas.Identity || cert.Authenticates != cas.Authenticates:
		return "the tenant has changed what a client certificate is good for; connect again"
	}
	if cert.Revision() == cas.Revision {
		return ""
	}
	if err := k.recheck(cert, cas); err != nil {
		c.gw.log.Info("a client certificate is no longer good", "tenant", k.tenant.ID, "peer", c.in.Peer.String(), "username", short(cert.Name), "why", err)
		return "the client certificate is no longer good"
	}
	return ""
}

func (k *certCheck) recheck(cert *listener.ClientCert, cas *tenancy.ClientCAs) error {
	if k.trust == nil && k.err == nil {
		k.trust, k.err = cas.Trust()
		k.gone = map[*tenancy.Trust][]*x509.Certificate{}
	}
	if k.err != nil {
		return k.err
	}
	was := cert.Trust()
	gone, ok := k.gone[was]
	if !ok {
		gone = was.Gone(k.trust)
		k.gone[was] = gone
	}
	return cert.Recheck(k.trust, cas.Revision, gone, k.now)
}

// recertify ends those of a tenant's connections whose certificate, or lack of
// one, is no longer good.
func (g *Gateway) recertify(t *tenancy.Tenant, all []*connection) {
	k := &certCheck{tenant: t, now: time.Now()}
	ended := 0
	for _, c := range all {
		if text := k.why(c); text != "" {
			c.end(conn.Close{Ended: true, Cause: link.CloseRevoked, Reason: mqtt.NotAuthorized, Text: text})
			ended++
		}
	}
	if ended > 0 {
		g.flush()
		g.log.Info("connections ended: a tenant's client CAs have changed", "tenant", t.ID, "connections", ended)
	}
}
