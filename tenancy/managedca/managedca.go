// SPDX-License-Identifier: Apache-2.0

// Package managedca makes CAs for tenants that have none of their own, and signs
// certificates of clients with them (RFC 5280, RFC 2986). It keeps nothing, reads no
// clock and owns no goroutine.
package managedca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

const (
	// caLife is how long a CA is good.
	caLife = 10 * 365 * 24 * time.Hour
	// DaysMax is for how many days a certificate of a client is good at most.
	DaysMax = 398
	// skew is how far the clock of a device, or of a gateway, may be behind.
	skew   = 5 * time.Minute
	csrMax = 16 << 10 // bytes of PEM
)

func serial() (*big.Int, error) {
	b := make([]byte, 16) // of at most 20 (RFC 5280 §4.1.2.2)
	_, err := rand.Read(b)
	b[0] &= 0x7F
	b[15] |= 1
	return new(big.Int).SetBytes(b), err
}

// New makes a CA of that common name. It returns the certificate in PEM, and the key
// in PKCS #8.
func New(name string, now time.Time) (certificate string, key []byte, err error) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", nil, errs.New(errs.Internal, "make a CA: %w", err)
	}
	n, err := serial()
	if err != nil {
		return "", nil, errs.New(errs.Internal, "make a CA: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-skew), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err == nil {
		key, err = x509.MarshalPKCS8PrivateKey(signer)
	}
	if err != nil {
		return "", nil, errs.New(errs.Internal, "make a CA: %w", err)
	}
	return encode(der), key, nil
}

func encode(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// Request is what a client wants signed: its public key. Who it is, is not the
// client's to say.
type Request struct{ public crypto.PublicKey }

// ParseRequest reads a certificate request in PEM, which must be signed with its own
// key. The error is Invalid with Code "csr_invalid".
func ParseRequest(text string) (*Request, error) {
	invalid := func(format string, args ...any) (*Request, error) {
		return nil, errs.Coded(errs.Invalid, "csr_invalid", format, args...)
	}
	if len(text) > csrMax {
		return invalid("expected at most %d bytes, found %d", csrMax, len(text))
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
		return invalid("expected a certificate request in PEM, as openssl req -new writes it")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return invalid("expected a certificate request: %w", err)
	}
	switch key := r.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < 2048 || n > 4096 {
			return invalid("expected 2048 to 4096 bits of RSA, found %d", n)
		}
	case *ecdsa.PublicKey:
		if n := key.Params().BitSize; n < 256 {
			return invalid("expected a curve of 256 bits or more, found %d", n)
		}
	case ed25519.PublicKey:
	default:
		return invalid("expected a key of RSA, ECDSA or Ed25519")
	}
	if err := r.CheckSignature(); err != nil {
		return invalid("the request is not signed with its own key: %w", err)
	}
	return &Request{r.PublicKey}, nil
}

// Issued is a certificate that was signed.
type Issued struct {
	Certificate string // PEM
	Serial      string // in hexadecimal
	SHA256      string // of the DER, in hexadecimal
	NotAfter    time.Time
}

// Sign signs a certificate for the client of that user name, which is its common name,
// good for some days from now on but not for longer than its CA.
func Sign(ca string, key []byte, r *Request, username string, days int, now time.Time) (*Issued, error) {
	if err := tenancy.ValidUsername(username); err != nil {
		return nil, err
	}
	if len(username) > 64 { // ub-common-name, RFC 5280 A.1
		return nil, errs.Coded(errs.Invalid, "username_invalid", "the name in a certificate has at most 64 bytes, this one has %d", len(username))
	}
	if days < 1 || days > DaysMax {
		return nil, errs.Coded(errs.Invalid, "days_invalid", "expected 1 to %d days, found %d", DaysMax, days)
	}
	parent, signer, err := authority(ca, key)
	if err != nil {
		return nil, err
	}
	n, err := serial()
	if err != nil {
		return nil, errs.New(errs.Internal, "sign: %w", err)
	}
	end := now.Add(time.Duration(days) * 24 * time.Hour)
	if end.After(parent.NotAfter) {
		end = parent.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: username}, NotBefore: now.Add(-skew), NotAfter: end,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, parent, r.public, signer)
	if err != nil {
		return nil, errs.New(errs.Internal, "sign: %w", err)
	}
	sum := sha256.Sum256(der)
	return &Issued{Certificate: encode(der), Serial: n.Text(16), SHA256: hex.EncodeToString(sum[:]), NotAfter: end.UTC().Truncate(time.Second)}, nil
}
