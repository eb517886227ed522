// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// customHosts are custom domains, of a directory that knows no others.
type customHosts struct {
	*fakeDirectory
	t  *testing.T
	ca *tenancytest.CA

	hosts sync.Map // *tenancy.CustomHost by name
}

// get is a host of that name, or else that of the wildcard above it.
func (h *customHosts) get(name string) *tenancy.CustomHost {
	name = strings.ToLower(name)
	x, ok := h.hosts.Load(name)
	if _, rest, cut := strings.Cut(name, "."); !ok && cut {
		x, _ = h.hosts.Load("*." + rest)
	}
	host, _ := x.(*tenancy.CustomHost)
	return host
}

// TenantByHost implements tenancy.Directory.
func (h *customHosts) TenantByHost(ctx context.Context, name string) (*tenancy.Tenant, error) {
	if x := h.get(name); x != nil && x.Active() {
		return h.Tenant(ctx, x.Host().Tenant)
	}
	return h.fakeDirectory.TenantByHost(ctx, name)
}

// set has a host of a tenant; serial 0 has no certificate. edit may change it.
func (h *customHosts) set(tenant, name string, serial int64, edit func(*tenancy.Host)) {
	h.t.Helper()
	x := &tenancy.Host{FQDN: name, Tenant: tenant}
	if serial != 0 {
		chain, key := h.ca.Server(serial, time.Now().Add(time.Hour), name)
		block, _ := pem.Decode([]byte(key))
		x.Certificates, x.Sealed = chain, block.Bytes
	}
	if edit != nil {
		edit(x)
	}
	h.hosts.Store(name, tenancy.NewCustomHost(x, func(purpose string, sealed []byte) ([]byte, error) {
		if purpose != tenancy.HostPurpose(tenant, name) || string(sealed) == "broken" {
			return nil, errors.New("it cannot be opened")
		}
		return sealed, nil
	}))
}

func startCustom(t *testing.T) (*world, *customHosts) {
	t.Helper()
	h := &customHosts{t: t, ca: tenancytest.NewCA(t, "custom")}
	w := start(t, func(w *world, c *gateway.Config) {
		h.fakeDirectory = w.dir
		c.Directory, c.Hosts = h, h.get
	})
	return w, h
}

func TestCustomDomains(t *testing.T) {
	t.Parallel()
	w, h := startCustom(t)
	const name = "mqtt.acme.example"
	config := &tls.Config{ServerName: name, RootCAs: tenancytest.Pool(h.ca)}
	serial := func(listener string) int64 {
		t.Helper()
		c, err := tls.Dial("tcp", w.addr(listener), config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	refused := func(what, alert string) {
		t.Helper()
		for _, listener := range []string{"mqtts", "wss"} {
			if _, err := tls.Dial("tcp", w.addr(listener), config); err == nil || !strings.Contains(err.Error(), alert) {
				t.Errorf("%s, %s: %v, want %s", what, listener, err, alert)
			}
		}
	}
	refused("unknown", "unrecognized name")
	h.set("acme", name, 0, nil)
	refused("verified only", "unrecognized name")
	h.set("acme", name, 5, nil)
	if a, b := serial("mqtts"), serial("wss"); a != 5 || b != 5 {
		t.Errorf("serial numbers %d and %d", a, b)
	}
	c, err := tls.Dial("tcp", w.addr("mqtts"), config)
	if err != nil {
		t.Fatal(err)
	}
	kept := w.client(c)
	kept.mustConnect(hello("kept"))
	if got := w.broker.lastOpen().Tenant; got != "acme" {
		t.Errorf("the tenant is %q", got)
	}
	// By the Host of a request, where there is no TLS; and in any case of letters.
	if k := w.ws("ws", "MQTT.acme.example:8083", nil).connect(hello("ws")); k.Reason != mqtt.Success || w.broker.lastOpen().Tenant != "acme" {
		t.Errorf("Host: %v, tenant %q", k.Reason, w.broker.lastOpen().Tenant)
	}
	// The tenant's own name goes on with its own certificate.
	if own, err := tls.Dial("tcp", w.addr("mqtts"), w.tls("acme.localhost")); err != nil || own.ConnectionState().PeerCertificates[0].SerialNumber.Int64() != 1 {
		t.Errorf("the tenant's own name: %v", err)
	}
	h.set("acme", name, 6, nil)
	if got := serial("mqtts"); got != 6 {
		t.Errorf("renewed: serial number %d", got)
	}
	h.set("acme", name, 7, func(x *tenancy.Host) { x.Sealed = []byte("broken") })
	refused("with a key that cannot be opened", "internal error")
	h.hosts.Delete(name)
	refused("deleted", "unrecognized name")
	kept.send(&packet.Packet{Type: packet.PINGREQ})
	kept.want(packet.PINGRESP)
}

// A certificate authority's question is answered by the digest that it asks for, and
// nothing more is said.
func TestCustomDomains_Challenge(t *testing.T) {
	t.Parallel()
	w, h := startCustom(t)
	const name = "mqtt.acme.example"
	digest := sha256.Sum256([]byte("key authorization"))
	ask := func(listener string, protos ...string) (*tls.Conn, error) {
		return tls.Dial("tcp", w.addr(listener), &tls.Config{ServerName: name, NextProtos: protos, InsecureSkipVerify: true})
	}
	const proto = "acme-tls/1"
	for _, before := range []func(){func() {}, func() { h.set("acme", name, 0, nil) }, func() { h.set("acme", name, 5, nil) }} {
		before()
		if _, err := ask("mqtts", proto); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("without a challenge: %v", err)
		}
	}
	for n, serial := range []int64{0, 5} {
		h.set("acme", name, serial, func(x *tenancy.Host) { x.Challenge = digest[:] })
		for _, listener := range []string{"mqtts", "wss"} {
			c, err := ask(listener, proto)
			if err != nil {
				t.Fatal(err)
			}
			state := c.ConnectionState()
			if state.NegotiatedProtocol != proto || !answers(state.PeerCertificates, name, digest[:]) {
				t.Errorf("%s: %q, %v", listener, state.NegotiatedProtocol, state.PeerCertificates[0].DNSNames)
			}
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.ReadAll(c); err != nil {
				t.Errorf("%s: the connection does not end: %v", listener, err)
			}
			w.eventually("a count", func() bool {
				return w.metric("mqtt_gateway_connections_refused_total", listener, "acme_challenge") == float64(n+1)
			})
		}
		if serial == 0 {
			continue
		}
		// Clients have the other certificate meanwhile, also those with an ALPN of their own.
		for _, protos := range [][]string{nil, {"mqtt"}, {"mqtt", proto}} {
			c, err := ask("mqtts", protos...)
			if err != nil || c.ConnectionState().PeerCertificates[0].SerialNumber.Int64() != serial {
				t.Errorf("a client with ALPN %q: %v", protos, err)
			}
		}
	}
}

// answers checks a certificate as RFC 8737 §3 has authorities do.
func answers(chain []*x509.Certificate, name string, digest []byte) bool {
	if len(chain) != 1 || len(chain[0].DNSNames) != 1 || chain[0].DNSNames[0] != name || chain[0].CheckSignature(chain[0].SignatureAlgorithm, chain[0].RawTBSCertificate, chain[0].Signature) != nil {
		return false
	}
	for _, e := range chain[0].Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}) {
			var got []byte
			rest, err := asn1.Unmarshal(e.Value, &got)
			return e.Critical && err == nil && len(rest) == 0 && string(got) == string(digest)
		}
	}
	return false
}
