// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// authority is a CA for clients, in a file.
type authority struct {
	*tenancytest.CA
	file string
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{tenancytest.NewCA(t, name), filepath.Join(t.TempDir(), "ca.pem")}
	write(t, a.file, a.PEM())
	return a
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// handshake dials with TLS and has the server say that the handshake is over:
// in TLS 1.3 a client only then hears that its certificate is refused.
func (w *world) handshake(name string, config *tls.Config) (*client, error) {
	c, err := tls.Dial("tcp", w.addr(name), config)
	if err != nil {
		return nil, err
	}
	client := w.client(c)
	p := hello("c")
	client.v = p.Version
	if _, err := c.Write(packet.Append(nil, p.Version, &packet.Packet{Type: packet.CONNECT, Connect: p}, 0)); err != nil {
		return nil, err
	}
	one := make([]byte, 1)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(one); err != nil {
		return nil, err
	}
	client.buf = one
	return client, nil
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	crl := filepath.Join(t.TempDir(), "crl.pem")
	write(t, crl, ca.CRL(66))
	w := start(t, func(w *world, c *gateway.Config) {
		mtls := listener.Config{
			Name: "required", Kind: listener.MQTTS, Address: "127.0.0.1:0", CertFile: w.cert, KeyFile: w.key, Tenant: "acme",
			ClientCerts: tenancy.ClientCertsRequired, ClientCAFile: ca.file, ClientCRLFile: crl, Identity: tenancy.IdentityCN,
		}
		optional := mtls
		optional.Name, optional.ClientCerts, optional.Identity, optional.MinTLS = "optional", tenancy.ClientCertsOptional, tenancy.IdentitySAN, "1.3"
		c.Listeners = append(c.Listeners, mtls, optional)
	})
	config := func(certs ...tls.Certificate) *tls.Config {
		c := w.tls("acme.localhost")
		c.Certificates = certs
		return c
	}
	old := func(certs ...tls.Certificate) *tls.Config {
		c := config(certs...)
		c.MaxVersion = tls.VersionTLS12
		return c
	}
	for _, c := range []struct {
		listener string
		config   *tls.Config
		user     string // "" is refused in the handshake
	}{
		{"required", config(ca.Issue(2, "press-7")), "press-7"},
		{"required", old(ca.Issue(3, "press-8")), "press-8"},
		{"required", config(), ""},
		{"required", config(other.Issue(4, "press-7")), ""},
		{"required", config(ca.Issue(66, "stolen")), ""},
		{"required", old(ca.Issue(66, "stolen")), ""},
		{"optional", config(ca.Issue(5, "press-9")), "urn:dev:press-9"},
		{"optional", config(), "acme:dev"}, // with its password
		{"optional", config(ca.Issue(66, "stolen")), ""},
		{"optional", old(ca.Issue(6, "press-10")), ""},
	} {
		conn, err := w.handshake(c.listener, c.config)
		if c.user == "" {
			if err == nil {
				t.Errorf("%s: a certificate that must be refused is not", c.listener)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %s: %v", c.listener, c.user, err)
			continue
		}
		if k := conn.want(packet.CONNACK); k.Connack.Reason != 0 {
			t.Errorf("%s: %s: CONNACK %s", c.listener, c.user, k.Connack.Reason)
		}
		if got := w.broker.lastOpen().Labels.Username; got != c.user {
			t.Errorf("%s: the user is %q, expected %q", c.listener, got, c.user)
		}
		_ = conn.c.Close()
	}
}

// A session that is resumed is checked again: its ticket is older than the list.
func TestRevokedWhileAway(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			ca := newAuthority(t, "ca")
			crl := filepath.Join(t.TempDir(), "crl.pem")
			write(t, crl, ca.CRL())
			w := start(t, func(w *world, c *gateway.Config) {
				l := &c.Listeners[1]
				l.ClientCerts, l.ClientCAFile, l.ClientCRLFile = tenancy.ClientCertsRequired, ca.file, crl
			})
			config := w.tls("acme.localhost")
			config.Certificates, config.MaxVersion = []tls.Certificate{ca.Issue(7, "press-7")}, version
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			for i := range 2 {
				c, err := w.handshake("mqtts", config)
				if err != nil {
					t.Fatal(err)
				}
				if resumed := c.c.(*tls.Conn).ConnectionState().DidResume; resumed != (i == 1) {
					t.Fatalf("connection %d: resumed %v", i, resumed)
				}
				_ = c.c.Close()
			}
			write(t, crl, ca.CRL(7))
			w.eventually("the certificate is refused", func() bool {
				c, err := w.handshake("mqtts", config)
				if err == nil {
					_ = c.c.Close()
				}
				return err != nil
			})
		})
	}
}

func TestMosquittoClientWithCertificate(t *testing.T) {
	t.Parallel()
	needsMosquittoClients(t)
	ca := newAuthority(t, "ca")
	w := start(t, func(w *world, c *gateway.Config) {
		l := &c.Listeners[1]
		l.Tenant, l.ClientCerts, l.ClientCAFile, l.Identity = "acme", tenancy.ClientCertsRequired, ca.file, tenancy.IdentityCN
	})
	pair := ca.Issue(2, "press-7")
	folder := t.TempDir()
	cert, key := filepath.Join(folder, "c.pem"), filepath.Join(folder, "k.pem")
	write(t, cert, tenancytest.PEM("CERTIFICATE", pair.Certificate[0]))
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, key, tenancytest.PEM("PRIVATE KEY", der))
	_, port, _ := net.SplitHostPort(w.addr("mqtts"))
	out, err := exec.Command("mosquitto_pub", "-h", "localhost", "-p", port, "--cafile", w.cert, "--cert", cert, "--key", key, "-t", "a", "-m", "x", "-q", "1").CombinedOutput()
	if err != nil || w.broker.lastOpen().Labels.Username != "press-7" {
		t.Errorf("mosquitto_pub: %v %s, the user is %q", err, out, w.broker.lastOpen().Labels.Username)
	}
}
