// SPDX-License-Identifier: Apache-2.0

// Package tenancytest makes CAs, client certificates and revocation lists for tests.
// It owns no goroutine and knows nothing of tenants.
package tenancytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"
)

// CA signs clients' certificates. It is safe for concurrent use.
type CA struct {
	t    testing.TB
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a CA of that common name.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	return newCA(t, nil, 1, name)
}

// Under makes a CA below a, whose certificate clients show with theirs.
func (a *CA) Under(serial int64, name string) *CA {
	a.t.Helper()
	return newCA(a.t, a, serial, name)
}

func newCA(t testing.TB, above *CA, serial int64, name string) *CA {
	t.Helper()
	a := &CA{t: t, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	parent, signer := template, a.key
	if above != nil {
		parent, signer = above.Cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, a.key.Public(), signer)
	if err == nil {
		a.Cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
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

// PEM is a block of that kind.
func PEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// Pool has the certificate of a CA alone.
func Pool(a *CA) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.Cert)
	return p
}

// PEM is the CA's certificate.
func (a *CA) PEM() string { return PEM("CERTIFICATE", a.Cert.Raw) }

// Issue signs a certificate for a client, with the URI urn:dev:cn beside its
// common name.
func (a *CA) Issue(serial int64, cn string) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: cn}, URIs: []*url.URL{{Scheme: "urn", Opaque: "dev:" + cn}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.Cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Server signs a certificate for a server of these host names, good until then. It returns
// the certificate and its key, in PEM.
func (a *CA) Server(serial int64, until time.Time, names ...string) (chain, key string) {
	a.t.Helper()
	k := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "server"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.Cert, k.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return PEM("CERTIFICATE", der), PEM("PRIVATE KEY", private)
}

// CRL is the list of what is revoked, in PEM.
func (a *CA) CRL(serials ...int64) string {
	a.t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, n := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.Cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return PEM("X509 CRL", der)
}

// Request is a certificate request in PEM, with a new key.
func Request() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("tenancytest: " + err.Error())
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "device"}}, key)
	if err != nil {
		panic("tenancytest: " + err.Error())
	}
	return PEM("CERTIFICATE REQUEST", der)
}
