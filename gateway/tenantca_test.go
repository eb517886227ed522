// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// setCAs gives a tenant its own CAs of client certificates, and tells it.
func (w *world) setCAs(tenant string, cas *tenancy.ClientCAs) {
	w.dir.edit(tenant, func(t *tenancy.Tenant) {
		t.Revision++
		if t.ClientCAs = cas; cas != nil {
			if cas.ClientCerts == "" {
				cas.ClientCerts = tenancy.ClientCertsOptional
			}
			cas.Revision = t.Revision
		}
	})
	w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: tenant}
}

// secure dials with a server name and, if there is one, a certificate.
func (w *world) secure(listener, host string, certs ...tls.Certificate) (*client, error) {
	config := w.tls("")
	config.ServerName = host
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // whatever is asked for
		if len(certs) == 0 {
			return &tls.Certificate{}, nil
		}
		return &certs[0], nil
	}
	c, err := tls.Dial("tcp", w.addr(listener), config)
	if err != nil {
		return nil, err
	}
	return w.client(c), nil
}

// try connects and returns what CONNACK says, and nothing if the handshake was
// refused: in TLS 1.3 a client hears of it only afterwards.
func (c *client) try(p *packet.Connect) *packet.Connack {
	c.t.Helper()
	c.v = p.Version
	if _, err := c.c.Write(packet.Append(nil, c.v, &packet.Packet{Type: packet.CONNECT, Connect: p}, 0)); err != nil {
		return nil
	}
	if k := c.next(); k != nil {
		return k.Connack
	}
	return nil
}

func as(username, password string) *packet.Connect {
	p := hello("")
	p.Username, p.HasUsername = username, username != ""
	p.Password, p.HasPassword = []byte(password), password != ""
	return p
}

func TestTenantClientCAs(t *testing.T) {
	t.Parallel()
	ca, other, beta := tenancytest.NewCA(t, "ca"), tenancytest.NewCA(t, "ca"), tenancytest.NewCA(t, "beta")
	w := start(t, nil)
	good, revoked, foreign, betas, nameless := ca.Issue(2, "press-7"), ca.Issue(66, "stolen"), other.Issue(3, "press-7"), beta.Issue(4, "press-7"), ca.Issue(5, "")
	w.setCAs("beta", &tenancy.ClientCAs{Certificates: beta.PEM(), Identity: tenancy.IdentitySAN, Authenticates: true})
	const none, refused = mqtt.Success, mqtt.ReasonCode(0xFF) // refused is in the handshake
	type row struct {
		listener, host     string
		cert               *tls.Certificate
		username, password string
		want               mqtt.ReasonCode
		user               string // who is let in
	}
	check := func(name string, rows ...row) {
		t.Helper()
		for i, r := range rows {
			var certs []tls.Certificate
			if r.cert != nil {
				certs = append(certs, *r.cert)
			}
			var k *packet.Connack
			if r.host == "" {
				k = w.dial(r.listener).try(as(r.username, r.password))
			} else if c, err := w.secure(r.listener, r.host, certs...); err == nil {
				k = c.try(as(r.username, r.password))
				_ = c.c.Close()
			}
			got := refused
			if k != nil {
				got = k.Reason
			}
			if got != r.want {
				t.Errorf("%s, row %d: CONNACK %v, expected %v: %+v", name, i, got, r.want, k)
			} else if user := w.broker.lastOpen().Labels.Username; got == none && user != r.user {
				t.Errorf("%s, row %d: the user is %q, expected %q", name, i, user, r.user)
			}
		}
	}
	const acme, nobody = "acme.localhost", "localhost"
	w.setCAs("acme", &tenancy.ClientCAs{Certificates: ca.PEM(), CRL: ca.CRL(66), Identity: tenancy.IdentityCN, Authenticates: true})
	check("authenticates",
		row{"mqtts", acme, &good, "", "", none, "press-7"},
		row{"mqtts", acme, &good, "dev", "wrong", none, "press-7"},
		row{"mqtts", acme, nil, "dev", "secret", none, "dev"},
		row{"mqtts", acme, nil, "dev", "", mqtt.BadUserNameOrPassword, ""},
		row{"mqtts", acme, &revoked, "dev", "secret", refused, ""},
		row{"mqtts", acme, &foreign, "dev", "secret", refused, ""},
		row{"mqtts", acme, &betas, "dev", "secret", refused, ""},
		row{"mqtts", acme, &nameless, "", "", mqtt.NotAuthorized, ""},
		row{"mqtts", acme, &nameless, "dev", "secret", mqtt.NotAuthorized, ""},
		// The CAs are the tenant's whose name is sent.
		row{"mqtts", "beta.localhost", &betas, "", "", none, "urn:dev:press-7"},
		row{"mqtts", "beta.localhost", &good, "dev", "secret", refused, ""},
		row{"mqtts", nobody, &good, "acme:press-7", "", mqtt.BadUserNameOrPassword, ""},
		row{"mqtts", nobody, &good, "acme:dev", "secret", none, "dev"},
		row{"mqtt", "", nil, "acme:dev", "secret", none, "dev"},
	)
	w.setCAs("acme", &tenancy.ClientCAs{Certificates: ca.PEM(), Identity: tenancy.IdentityCN})
	check("with a password",
		row{"mqtts", acme, &good, "dev", "secret", none, "press-7"},
		row{"mqtts", acme, &good, "", "secret", none, "press-7"},
		row{"mqtts", acme, &good, "press-7", "wrong", mqtt.BadUserNameOrPassword, ""},
		row{"mqtts", acme, &good, "", "", mqtt.NotAuthorized, ""},
		row{"mqtts", acme, &nameless, "dev", "secret", mqtt.NotAuthorized, ""},
	)
	w.setCAs("acme", &tenancy.ClientCAs{Certificates: other.PEM() + ca.PEM(), ClientCerts: tenancy.ClientCertsRequired})
	check("required",
		row{"mqtts", acme, &good, "dev", "secret", none, "dev"},
		row{"mqtts", acme, &foreign, "dev", "secret", none, "dev"},
		row{"mqtts", acme, &good, "dev", "wrong", mqtt.BadUserNameOrPassword, ""},
		row{"mqtts", acme, nil, "dev", "secret", refused, ""},
		row{"mqtts", nobody, &good, "acme:dev", "secret", mqtt.NotAuthorized, ""},
		row{"mqtt", "", nil, "acme:dev", "secret", mqtt.NotAuthorized, ""},
		row{"mqtt", "", nil, "acme:dev", "wrong", mqtt.BadUserNameOrPassword, ""},
	)
	w.setCAs("acme", nil)
	check("taken away",
		row{"mqtts", acme, &good, "", "", mqtt.NotAuthorized, ""}, // is not asked for it
		row{"mqtts", acme, &good, "dev", "secret", none, "dev"},
		row{"mqtt", "", nil, "acme:dev", "secret", none, "dev"},
	)
}

// A listener may require certificates; whose CAs they are of, the tenant says.
func TestTenantClientCAs_RequiredByListener(t *testing.T) {
	t.Parallel()
	listeners, own := newAuthority(t, "listener's"), tenancytest.NewCA(t, "acme's")
	w := start(t, func(_ *world, c *gateway.Config) {
		l := &c.Listeners[1]
		l.ClientCerts, l.ClientCAFile, l.Tenant, l.Identity = tenancy.ClientCertsRequired, listeners.file, "acme", tenancy.IdentityCN
	})
	w.setCAs("acme", &tenancy.ClientCAs{Certificates: own.PEM(), Identity: tenancy.IdentityCN})
	for _, c := range []struct {
		host  string
		certs []tls.Certificate
		user  string // empty: refused in the handshake
	}{
		{"acme.localhost", nil, ""},
		{"acme.localhost", []tls.Certificate{listeners.Issue(2, "press-1")}, ""},
		{"acme.localhost", []tls.Certificate{own.Issue(2, "press-2")}, "press-2"},
		{"beta.localhost", []tls.Certificate{own.Issue(2, "press-3")}, ""},
		{"beta.localhost", []tls.Certificate{listeners.Issue(2, "press-4")}, "dev"}, // good for acme only
		{"localhost", []tls.Certificate{listeners.Issue(2, "press-5")}, "press-5"},
	} {
		user := ""
		if conn, err := w.secure("mqtts", c.host, c.certs...); err == nil {
			if k := conn.try(as("dev", "secret")); k != nil && k.Reason == mqtt.Success {
				user = w.broker.lastOpen().Labels.Username
			}
		}
		if user != c.user {
			t.Errorf("%s: the user is %q, expected %q", c.host, user, c.user)
		}
	}
}

// A certificate counts over WebSocket too, whatever the request's Host says.
func TestTenantClientCAs_WebSocket(t *testing.T) {
	t.Parallel()
	ca := tenancytest.NewCA(t, "ca")
	w := start(t, nil)
	w.setCAs("acme", &tenancy.ClientCAs{Certificates: ca.PEM(), Identity: tenancy.IdentityCN, Authenticates: true})
	for _, c := range []struct {
		sni, host, username string
		want                mqtt.ReasonCode
	}{
		{"acme.localhost", "acme.localhost", "", mqtt.Success},
		{"acme.localhost", "beta.localhost", "", mqtt.Success}, // and acme's it is
		{"beta.localhost", "acme.localhost", "", mqtt.NotAuthorized},
		{"localhost", "acme.localhost", "", mqtt.NotAuthorized},
	} {
		config := w.tls(c.sni)
		config.InsecureSkipVerify, config.Certificates = true, []tls.Certificate{ca.Issue(2, "press-7")}
		ws, _, err := websocket.Dial(t.Context(), "wss://"+w.addr("wss")+"/mqtt", &websocket.DialOptions{
			Subprotocols: []string{"mqtt"}, Host: c.host, HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: config}},
		})
		if err != nil {
			t.Fatal(err)
		}
		k := w.client(websocket.NetConn(context.Background(), ws, websocket.MessageBinary)).try(as("", ""))
		if k == nil || k.Reason != c.want {
			t.Errorf("%s, Host %s: CONNACK %+v, expected %v", c.sni, c.host, k, c.want)
		} else if o := w.broker.lastOpen(); c.want == mqtt.Success && (o.Tenant != "acme" || o.Labels.Username != "press-7") {
			t.Errorf("%s, Host %s: tenant %q, user %q", c.sni, c.host, o.Tenant, o.Labels.Username)
		}
	}
}

// An enhanced authentication is held to the certificate too.
func TestTenantClientCAs_Enhanced(t *testing.T) {
	t.Parallel()
	ca := tenancytest.NewCA(t, "ca")
	w := start(t, nil)
	w.setCAs("acme", &tenancy.ClientCAs{Certificates: ca.PEM(), Identity: tenancy.IdentityCN, ClientCerts: tenancy.ClientCertsRequired})
	for name, want := range map[string]mqtt.ReasonCode{"press-7": mqtt.Success, "press-8": mqtt.NotAuthorized} {
		c, err := w.secure("mqtts", "acme.localhost", ca.Issue(2, "press-7"))
		if err != nil {
			t.Fatal(err)
		}
		if k := c.authenticate(enhancedHello("", "FAKE", name)); k.Reason != want {
			t.Errorf("%s: CONNACK %v %s", name, k.Reason, k.ReasonString)
		}
	}
}

// A change reaches connections that are open, and those that have done nothing but
// their handshake.
func TestTenantClientCAs_Live(t *testing.T) {
	t.Parallel()
	ca, other := tenancytest.NewCA(t, "ca"), tenancytest.NewCA(t, "other")
	w := start(t, nil)
	cas := func(crl string, certs ...*tenancytest.CA) *tenancy.ClientCAs {
		c := &tenancy.ClientCAs{CRL: crl, Identity: tenancy.IdentityCN, Authenticates: true}
		for _, a := range certs {
			c.Certificates += a.PEM()
		}
		return c
	}
	w.setCAs("acme", cas("", ca, other))
	dial := func(listener string, certs ...tls.Certificate) *client {
		t.Helper()
		c, err := w.secure(listener, "acme.localhost", certs...)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	in := func(certs ...tls.Certificate) *client {
		t.Helper()
		return dial("mqtts", certs...).mustConnect(as("dev", "secret"))
	}
	ends := func(what string, c *client) {
		t.Helper()
		start := time.Now()
		if d := c.want(packet.DISCONNECT).Disconnect; d.Reason != mqtt.NotAuthorized || d.ReasonString == "" {
			t.Errorf("%s: DISCONNECT %v %q", what, d.Reason, d.ReasonString)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: after %v", what, took)
		}
		c.wantEnd()
	}
	stays := func(what string, all ...*client) {
		t.Helper()
		for i, c := range all {
			c.send(&packet.Packet{Type: packet.PINGREQ})
			if p := c.next(); p == nil || p.Type != packet.PINGRESP {
				t.Errorf("%s: connection %d: %+v", what, i, p)
			}
		}
	}
	stolen, fine, others, plain := in(ca.Issue(66, "stolen")), in(ca.Issue(2, "press-7")), in(other.Issue(66, "press-8")), w.dial("mqtt").mustConnect(hello("p"))
	waits := dial("mqtts", ca.Issue(66, "stolen"))
	w.setCAs("acme", cas(ca.CRL(66), ca, other))
	ends("revoked", stolen)
	stays("revoked", fine, others, plain)
	if k := waits.try(as("", "")); k == nil || k.Reason != mqtt.NotAuthorized {
		t.Errorf("revoked between handshake and CONNECT: %+v", k)
	}
	waits = dial("mqtts", other.Issue(67, "press-9"))
	w.setCAs("acme", cas("", ca))
	ends("its CA is gone", others)
	stays("another CA is gone", fine, plain)
	if k := waits.try(as("", "")); k == nil || k.Reason != mqtt.NotAuthorized {
		t.Errorf("its CA went between handshake and CONNECT: %+v", k)
	}
	required := cas("", ca)
	required.ClientCerts = tenancy.ClientCertsRequired
	w.setCAs("acme", required)
	ends("required", plain)
	stays("required", fine)
	second := cas("", ca)
	second.Authenticates = false
	w.setCAs("acme", second)
	ends("a password is needed now", fine)
	fine, plain = in(ca.Issue(2, "press-7")), w.dial("mqtt").mustConnect(hello("p"))
	w.setCAs("acme", nil)
	ends("all CAs are gone", fine)
	stays("all CAs are gone", plain)
	w.eventually("the broker hears why", func() bool {
		n := 0
		for _, cause := range w.broker.closed() {
			if cause == link.CloseRevoked {
				n++
			}
		}
		return n == 5
	})
}

// BenchmarkHandshake is TLS from dial to CONNACK, of new sessions and of resumed
// ones.
func BenchmarkHandshake(b *testing.B) {
	for _, resumed := range []bool{false, true} {
		b.Run(map[bool]string{false: "full", true: "resumed"}[resumed], func(b *testing.B) {
			w := start(b, func(_ *world, c *gateway.Config) {})
			config := w.tls("acme.localhost")
			if resumed {
				config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			}
			for i := 0; b.Loop(); i++ {
				c, err := w.handshake("mqtts", config)
				if err != nil {
					b.Fatal(err)
				}
				if got := c.c.(*tls.Conn).ConnectionState().DidResume; got != (resumed && i > 0) {
					b.Fatalf("resumed %v", got)
				}
				_ = c.c.Close()
			}
		})
	}
}
