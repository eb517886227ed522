// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// What client certificates are asked for, and what of them is a user name.
const (
	ClientCertsOptional = "optional"
	ClientCertsRequired = "required"
	IdentityCN          = "cn"
	IdentitySAN         = "san"
)

// Trust is what client certificates are verified against: CAs, and what those
// have revoked. It is immutable.
type Trust struct {
	cas     []*x509.Certificate
	pool    *x509.CertPool
	revoked map[string]map[string]struct{} // by issuer in DER, then serial number
	sum     [sha256.Size]byte
}

// ParseTrust reads the CAs from PEM, and revocation lists that they have signed;
// no text of those is no list. The error is Invalid.
func ParseTrust(cas, crls []byte) (*Trust, error) {
	t := &Trust{pool: x509.NewCertPool(), revoked: map[string]map[string]struct{}{}}
	h := sha256.New()
	fmt.Fprintf(h, "%d ", len(cas))
	h.Write(cas)
	h.Write(crls)
	h.Sum(t.sum[:0])
	blocks, err := readPEM(cas, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	for i, b := range blocks {
		c, err := x509.ParseCertificate(b)
		if err != nil {
			return nil, errs.New(errs.Invalid, "certificate %d: %w", i+1, err)
		}
		t.cas = append(t.cas, c)
		t.pool.AddCert(c)
	}
	if len(bytes.TrimSpace(crls)) == 0 {
		return t, nil
	}
	if blocks, err = readPEM(crls, "X509 CRL"); err != nil {
		return nil, err
	}
	for i, b := range blocks {
		l, err := x509.ParseRevocationList(b)
		if err != nil {
			return nil, errs.New(errs.Invalid, "revocation list %d: %w", i+1, err)
		}
		if err := t.signed(l); err != nil {
			return nil, errs.New(errs.Invalid, "revocation list %d, of %.128s: %w", i+1, l.Issuer, err)
		}
		of := t.revoked[string(l.RawIssuer)]
		if of == nil {
			of = map[string]struct{}{}
			t.revoked[string(l.RawIssuer)] = of
		}
		for k := range l.RevokedCertificateEntries {
			of[string(l.RevokedCertificateEntries[k].SerialNumber.Bytes())] = struct{}{}
		}
	}
	return t, nil
}

// readPEM returns the blocks of one kind, at least one.
func readPEM(text []byte, kind string) (blocks [][]byte, err error) {
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		if b.Type == kind {
			blocks = append(blocks, b.Bytes)
		}
	}
	if len(blocks) == 0 {
		return nil, errs.New(errs.Invalid, "expected a PEM block %s, found none", kind)
	}
	return blocks, nil
}

// signed reports whether one of the CAs has signed the list.
func (t *Trust) signed(l *x509.RevocationList) error {
	err := errors.New("it is of no CA that is trusted here")
	for _, ca := range t.cas {
		if bytes.Equal(ca.RawSubject, l.RawIssuer) {
			if err = l.CheckSignatureFrom(ca); err == nil {
				return nil
			}
		}
	}
	return err
}

// Authorities are the CAs; the slice is not to be changed.
func (t *Trust) Authorities() []*x509.Certificate { return t.cas }

// Pool has the CAs; it is not to be changed.
func (t *Trust) Pool() *x509.CertPool { return t.pool }

// Revoked is how many certificates are revoked.
func (t *Trust) Revoked() (n int) {
	for _, of := range t.revoked {
		n += len(of)
	}
	return n
}

// Sum is the SHA-256 of what was read.
func (t *Trust) Sum() [sha256.Size]byte { return t.sum }

// Verify checks a client's certificate, the first of chain, at the time now: a
// chain leads to a CA (RFC 5280 §6) and nothing in it is revoked.
func (t *Trust) Verify(chain []*x509.Certificate, now time.Time) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots: t.pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	for _, c := range chains {
		if err = t.good(c); err == nil {
			return nil
		}
	}
	return err
}

// good reports whether nothing in the chain is revoked.
func (t *Trust) good(chain []*x509.Certificate) error {
	for _, c := range chain {
		if _, ok := t.revoked[string(c.RawIssuer)][string(c.SerialNumber.Bytes())]; ok {
			return fmt.Errorf("the certificate %s of %.128s is revoked", c.SerialNumber, c.Subject)
		}
	}
	return nil
}

// Gone are the CAs that next has not.
func (t *Trust) Gone(next *Trust) (gone []*x509.Certificate) {
	for _, ca := range t.cas {
		if !slices.ContainsFunc(next.cas, ca.Equal) {
			gone = append(gone, ca)
		}
	}
	return gone
}

// Recheck is Verify of a chain that was good under a trust that had the CAs gone
// beside these. It costs a signature only if it has to.
func (t *Trust) Recheck(chain, gone []*x509.Certificate, now time.Time) error {
	touched := func(c *x509.Certificate) bool {
		return slices.ContainsFunc(gone, func(ca *x509.Certificate) bool { return bytes.Equal(ca.RawSubject, c.RawIssuer) || ca.Equal(c) })
	}
	if !slices.ContainsFunc(chain, touched) && t.good(chain) == nil {
		return nil
	}
	return t.Verify(chain, now)
}

// CertificateName is the name in a client's certificate, of the kind IdentityCN or
// IdentitySAN: the first URI, DNS name or e-mail address. It is empty if there is
// none.
func CertificateName(kind string, c *x509.Certificate) string {
	switch kind {
	case IdentityCN:
		return c.Subject.CommonName
	case IdentitySAN:
		switch {
		case len(c.URIs) > 0:
			return c.URIs[0].String()
		case len(c.DNSNames) > 0:
			return c.DNSNames[0]
		case len(c.EmailAddresses) > 0:
			return c.EmailAddresses[0]
		}
	}
	return ""
}
