// SPDX-License-Identifier: Apache-2.0

package join

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Life is for how long certificates of brokers that joined are good.
const Life = 90 * 24 * time.Hour

// Authority has the key of the region's CA. Its methods may be called concurrently.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	mac  []byte // the key of tokens' MACs
}

// OpenAuthority reads the CA's certificate and its key from PEM files. The error is
// Invalid.
func OpenAuthority(certFile, keyFile string) (*Authority, error) {
	cert, err := readCertificate(certFile)
	if err != nil {
		return nil, err
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	if own, ok := key.Public().(*ecdsa.PublicKey); !ok || !own.Equal(cert.PublicKey) {
		return nil, errs.New(errs.Invalid, "%s: expected the key of the CA in %s, an ECDSA key", keyFile, certFile)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", keyFile, err)
	}
	h := hmac.New(sha256.New, der)
	h.Write([]byte("manor join tokens"))
	return &Authority{cert: cert, key: key, mac: h.Sum(nil)}, nil
}

// readCertificate reads the first certificate of a PEM file. The error is Invalid.
func readCertificate(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, errs.New(errs.Invalid, "certificate: %w", err)
	}
	cert, err := parseCertificate(text)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", file, err)
	}
	return cert, nil
}

func parseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errs.New(errs.Invalid, "expected a certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// readKey reads an ECDSA key, in PKCS #8 or SEC 1.
func readKey(file string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, errs.New(errs.Invalid, "key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errs.New(errs.Invalid, "%s: expected a key in PEM", file)
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := any.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, errs.New(errs.Invalid, "%s: expected an ECDSA key in PEM", file)
	}
	return key, nil
}

// sign makes the certificate of a node for a request, which must have its name and be
// signed by the key in it. The error is Invalid.
func (a *Authority) sign(request []byte, node string, now time.Time, life time.Duration) ([]byte, error) {
	csr, err := parseRequest(request)
	if err != nil {
		return nil, err
	}
	if csr.Subject.CommonName != node || node == "" || len(node) > 255 {
		return nil, errs.New(errs.Invalid, "expected a certificate request for %q, found one for %q", node, csr.Subject.CommonName)
	}
	if key, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, errs.New(errs.Invalid, "expected a certificate request with an ECDSA key on P-256")
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	end := now.Add(life)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	// Nothing else of the request counts: who asks does not choose what it is for.
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: node}, DNSNames: []string{node},
		NotBefore: now.Add(-min(5*time.Minute, life/10)), NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, csr.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// parseRequest reads a certificate request whose signature is right. The error is Invalid.
func parseRequest(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errs.New(errs.Invalid, "expected a certificate request in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "certificate request: %w", err)
	}
	return csr, nil
}

// newRequest is the request of a node with a key.
func newRequest(node string, key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: node}}, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}
