// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/infra/packet"
)

// authority is a CA for clients.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t, file: filepath.Join(t.TempDir(), "ca.pem")}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue signs a certificate for a client.
func (a *authority) issue(serial int64, cn string) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: cn}, URIs: []*url.URL{{Scheme: "urn", Opaque: "dev:" + cn}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// revoke writes a list of what is revoked.
func (a *authority) revoke(file string, serials ...int64) {
	a.t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, n := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	writePEM(a.t, file, "X509 CRL", der)
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
	ca.revoke(crl, 66)
	w := start(t, func(w *world, c *gateway.Config) {
		mtls := listener.Config{
			Name: "required", Kind: listener.MQTTS, Address: "127.0.0.1:0", CertFile: w.cert, KeyFile: w.key, Tenant: "acme",
			ClientCerts: listener.ClientCertsRequired, ClientCAFile: ca.file, ClientCRLFile: crl, Identity: listener.IdentityCN,
		}
		optional := mtls
		optional.Name, optional.ClientCerts, optional.Identity, optional.MinTLS = "optional", listener.ClientCertsOptional, listener.IdentitySAN, "1.3"
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
		{"required", config(ca.issue(2, "press-7")), "press-7"},
		{"required", old(ca.issue(3, "press-8")), "press-8"},
		{"required", config(), ""},
		{"required", config(other.issue(4, "press-7")), ""},
		{"required", config(ca.issue(66, "stolen")), ""},
		{"required", old(ca.issue(66, "stolen")), ""},
		{"optional", config(ca.issue(5, "press-9")), "urn:dev:press-9"},
		{"optional", config(), "acme:dev"}, // with its password
		{"optional", config(ca.issue(66, "stolen")), ""},
		{"optional", old(ca.issue(6, "press-10")), ""},
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
			ca.revoke(crl)
			w := start(t, func(w *world, c *gateway.Config) {
				l := &c.Listeners[1]
				l.ClientCerts, l.ClientCAFile, l.ClientCRLFile = listener.ClientCertsRequired, ca.file, crl
			})
			config := w.tls("acme.localhost")
			config.Certificates, config.MaxVersion = []tls.Certificate{ca.issue(7, "press-7")}, version
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
			ca.revoke(crl, 7)
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
		l.Tenant, l.ClientCerts, l.ClientCAFile, l.Identity = "acme", listener.ClientCertsRequired, ca.file, listener.IdentityCN
	})
	pair := ca.issue(2, "press-7")
	folder := t.TempDir()
	cert, key := filepath.Join(folder, "c.pem"), filepath.Join(folder, "k.pem")
	writePEM(t, cert, "CERTIFICATE", pair.Certificate[0])
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, key, "PRIVATE KEY", der)
	_, port, _ := net.SplitHostPort(w.addr("mqtts"))
	out, err := exec.Command("mosquitto_pub", "-h", "localhost", "-p", port, "--cafile", w.cert, "--cert", cert, "--key", key, "-t", "a", "-m", "x", "-q", "1").CombinedOutput()
	if err != nil || w.broker.lastOpen().Labels.Username != "press-7" {
		t.Errorf("mosquitto_pub: %v %s, the user is %q", err, out, w.broker.lastOpen().Labels.Username)
	}
}
