// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"crypto/rand"
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// ticket is a client's cache that shows the same session to every server.
type ticket struct {
	kept atomic.Pointer[tls.ClientSessionState]
	held atomic.Bool // what comes now is not kept
}

func (k *ticket) Get(string) (*tls.ClientSessionState, bool) {
	s := k.kept.Load()
	return s, s != nil
}

func (k *ticket) Put(_ string, s *tls.ClientSessionState) {
	if s != nil && !k.held.Load() {
		k.kept.Store(s)
	}
}

// secrets are what gateways share.
type secrets struct {
	atomic.Pointer[tenancy.TicketSecrets]
}

func (s *secrets) rotate(now time.Time) {
	var secret [32]byte
	_, _ = rand.Read(secret[:])
	s.Store(s.Load().With(secret, now))
}

// resumes reports whether a session that begins at from, with one server name, is
// resumed at to, with another one, after what has happened between.
func resumes(t *testing.T, version uint16, from *world, host string, between func(), to *world, other string) bool {
	t.Helper()
	k := &ticket{}
	config := from.tls("")
	config.ServerName, config.MaxVersion, config.ClientSessionCache = host, version, k
	c, err := from.handshake("mqtts", config)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.c.Close()
	if k.kept.Load() == nil {
		t.Fatal("the server gave no ticket")
	}
	k.held.Store(true)
	if between != nil {
		between()
	}
	config = config.Clone()
	config.ServerName = other
	if c, err = to.handshake("mqtts", config); err != nil {
		t.Fatal(err)
	}
	_ = c.c.Close()
	return c.c.(*tls.Conn).ConnectionState().DidResume
}

func TestTickets(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			shared := &secrets{}
			shared.rotate(time.Now())
			share := func(_ *world, c *gateway.Config) { c.Tickets = shared.Load }
			a, b, alone := start(t, share), start(t, share), start(t, nil)
			ca := tenancytest.NewCA(t, "ca")
			change := func(cas *tenancy.ClientCAs) func() {
				return func() {
					a.setCAs("acme", cas)
					b.setCAs("acme", cas)
				}
			}
			const acme, beta, nobody = "acme.localhost", "beta.localhost", "localhost"
			times := func(n int) func() {
				return func() {
					for range n {
						shared.rotate(time.Now())
					}
				}
			}
			for _, c := range []struct {
				what     string
				from, to *world
				host     string
				between  func()
				other    string
				want     bool
			}{
				{"the same gateway", a, a, acme, nil, acme, true},
				{"another gateway", a, b, acme, nil, acme, true},
				{"in other letters", a, b, acme, nil, "ACME.localhost", true},
				{"no tenant", a, b, nobody, nil, nobody, true},
				{"an address names no tenant", a, b, nobody, nil, "127.0.0.1", true},
				{"another tenant", a, b, acme, nil, beta, false},
				{"a tenant, then none", a, b, acme, nil, nobody, false},
				{"no tenant, then one", a, b, nobody, nil, acme, false},
				{"rotated once", a, b, acme, times(1), acme, true},
				{"rotated twice", a, b, acme, times(2), acme, true},
				{"rotated three times", a, b, acme, times(3), acme, false},
				{"the tenant has got CAs", a, b, acme, change(&tenancy.ClientCAs{Certificates: ca.PEM()}), acme, false},
				{"the same CAs", a, b, acme, nil, acme, true},
				{"the CAs of another revision", a, b, acme, change(&tenancy.ClientCAs{Certificates: ca.PEM()}), acme, false},
				{"a revocation list", a, b, acme, change(&tenancy.ClientCAs{Certificates: ca.PEM(), CRL: ca.CRL()}), acme, false},
				{"the CAs were taken away", a, b, acme, change(nil), acme, false},
				{"another tenant's change", a, b, beta, change(&tenancy.ClientCAs{Certificates: ca.PEM()}), beta, true},
				{"a gateway with secrets of its own", alone, a, beta, nil, beta, false},
				{"a gateway alone", alone, alone, beta, nil, beta, true},
			} {
				if got := resumes(t, version, c.from, c.host, c.between, c.to, c.other); got != c.want {
					t.Errorf("%s: resumed %v", c.what, got)
				}
			}
			// Nobody makes new secrets: the old ones are not used for ever.
			shared.rotate(time.Now().Add(-25 * time.Hour))
			if resumes(t, version, a, beta, nil, b, beta) || !resumes(t, version, a, beta, nil, a, beta) {
				t.Error("secrets that are too old are used, or not replaced")
			}
			shared.Store(nil)
			if !resumes(t, version, a, beta, nil, a, beta) {
				t.Error("without secrets a gateway does not resume what it knows")
			}
		})
	}
}

// A ticket opens no connection for a host that is no tenant's, though a resumed
// session needs no certificate.
func TestTickets_UnknownHost(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	k := &ticket{}
	config := w.tls("")
	config.ServerName, config.ClientSessionCache = "acme.localhost", k
	if _, err := w.handshake("mqtts", config); err != nil {
		t.Fatal(err)
	}
	config = config.Clone()
	config.ServerName = "nobody.localhost"
	if _, err := w.handshake("mqtts", config); err == nil {
		t.Error("the handshake is not refused")
	}
}

// A resumed session of a client with a certificate is the same client's.
func TestTickets_ClientCert(t *testing.T) {
	t.Parallel()
	ca := tenancytest.NewCA(t, "ca")
	w := start(t, nil)
	w.setCAs("acme", &tenancy.ClientCAs{Certificates: ca.PEM(), ClientCerts: tenancy.ClientCertsRequired, Identity: tenancy.IdentityCN, Authenticates: true})
	config := w.tls("acme.localhost")
	config.ClientSessionCache, config.Certificates = tls.NewLRUClientSessionCache(1), []tls.Certificate{ca.Issue(2, "press-7")}
	for i := range 2 {
		c, err := w.handshake("mqtts", config)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.c.(*tls.Conn).ConnectionState().DidResume; got != (i == 1) || w.broker.lastOpen().Labels.Username != "press-7" {
			t.Errorf("connection %d: resumed %v, the user is %q", i, got, w.broker.lastOpen().Labels.Username)
		}
		_ = c.c.Close()
	}
}

// A ticket that came under a wildcard domain is for the names of its tenant: the certificate
// is good for that of another tenant too, and what the client shows there opens nothing.
func TestTickets_Wildcard(t *testing.T) {
	t.Parallel()
	w, h := startCustom(t)
	h.set("acme", "*.devices.example", 5, nil)
	h.set("beta", "b.devices.example", 6, nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, c := range []struct {
			host, other, tenant string
			resumed             bool
		}{
			{"a.devices.example", "a.devices.example", "acme", true},
			{"a.devices.example", "c.devices.example", "acme", true},
			{"a.devices.example", "b.devices.example", "beta", false},
			{"b.devices.example", "a.devices.example", "acme", false},
		} {
			k := &ticket{}
			var state tls.ConnectionState
			for _, name := range []string{c.host, c.other} {
				conn, err := tls.Dial("tcp", w.addr("mqtts"), &tls.Config{
					ServerName: name, InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: k, // shown whatever certificate it came with
				})
				if err != nil {
					t.Fatal(err)
				}
				p := hello("x")
				p.Username = "dev"
				w.client(conn).mustConnect(p)
				state = conn.ConnectionState()
				_ = conn.Close()
				if k.kept.Load() == nil {
					t.Fatal("the server gave no ticket")
				}
				k.held.Store(true)
			}
			if got := w.broker.lastOpen().Tenant; state.DidResume != c.resumed || got != c.tenant {
				t.Errorf("%s: of %s at %s: resumed %v, of the tenant %s", tls.VersionName(version), c.host, c.other, state.DidResume, got)
			}
		}
	}
}
