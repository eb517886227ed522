// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// The values of Config.ClientCerts and Config.Identity.
const (
	ClientCertsOptional = "optional"
	ClientCertsRequired = "required"
	IdentityCN          = "cn"
	IdentitySAN         = "san"
)

// authorities are the CAs of client certificates and what those have revoked. The
// files are read again when they change, which a handshake looks for at most once
// a second. It is safe for concurrent use.
type authorities struct {
	caFile, crlFile string
	log             *slog.Logger
	current         atomic.Pointer[trust]

	mu      sync.Mutex
	looked  time.Time
	version [2]fileVersion
}

// trust is what was read at one time.
type trust struct {
	pool    *x509.CertPool
	revoked map[string]struct{} // by revocation
}

func loadAuthorities(caFile, crlFile string, log *slog.Logger) (*authorities, error) {
	a := &authorities{caFile: caFile, crlFile: crlFile, log: log}
	a.version = onDisk(caFile, crlFile)
	t, err := readTrust(caFile, crlFile)
	if err != nil {
		return nil, err
	}
	a.current.Store(t)
	return a, nil
}

func readTrust(caFile, crlFile string) (*trust, error) {
	t := &trust{pool: x509.NewCertPool(), revoked: map[string]struct{}{}}
	blocks, err := readPEM(caFile, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	var cas []*x509.Certificate
	for _, b := range blocks {
		c, err := x509.ParseCertificate(b)
		if err != nil {
			return nil, errs.New(errs.Invalid, "expected PEM certificates in %s: %w", caFile, err)
		}
		cas = append(cas, c)
		t.pool.AddCert(c)
	}
	if crlFile == "" {
		return t, nil
	}
	if blocks, err = readPEM(crlFile, "X509 CRL"); err != nil {
		return nil, err
	}
	for _, b := range blocks {
		l, err := x509.ParseRevocationList(b)
		if err != nil {
			return nil, errs.New(errs.Invalid, "expected PEM revocation lists in %s: %w", crlFile, err)
		}
		if err := signed(l, cas); err != nil {
			return nil, errs.New(errs.Invalid, "%s: the revocation list of %s: %w", crlFile, l.Issuer, err)
		}
		for i := range l.RevokedCertificateEntries {
			t.revoked[revocation(l.RawIssuer, l.RevokedCertificateEntries[i].SerialNumber.Bytes())] = struct{}{}
		}
	}
	return t, nil
}

// readPEM returns the blocks of one kind, at least one.
func readPEM(file, kind string) (blocks [][]byte, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, errs.New(errs.Invalid, "expected a PEM file: %w", err)
	}
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		if b.Type == kind {
			blocks = append(blocks, b.Bytes)
		}
	}
	if len(blocks) == 0 {
		return nil, errs.New(errs.Invalid, "expected a PEM block %s in %s, found none", kind, file)
	}
	return blocks, nil
}

// signed reports whether one of the CAs has signed the list.
func signed(l *x509.RevocationList, cas []*x509.Certificate) error {
	err := errors.New("it is of no CA that is trusted here")
	for _, ca := range cas {
		if bytes.Equal(ca.RawSubject, l.RawIssuer) {
			if err = l.CheckSignatureFrom(ca); err == nil {
				return nil
			}
		}
	}
	return err
}

// revocation names a certificate by its issuer and serial number.
func revocation(issuer, serial []byte) string { return string(serial) + "\x00" + string(issuer) }

// get returns the newest that could be read.
func (a *authorities) get(now time.Time) *trust {
	if a.mu.TryLock() {
		if now.Sub(a.looked) >= lookEvery {
			a.looked = now
			if v := onDisk(a.caFile, a.crlFile); v != a.version {
				if t, err := readTrust(a.caFile, a.crlFile); err != nil {
					a.log.Error("the CAs or revocation lists of client certificates have changed and cannot be read; the old ones stay", "error", err)
				} else {
					a.version = v
					a.current.Store(t)
					a.log.Info("the CAs of client certificates were read again", "file", a.caFile, "revoked", len(t.revoked))
				}
			}
		}
		a.mu.Unlock()
	}
	return a.current.Load()
}

// verify checks the certificate of a client, if it has one, against what is
// trusted and revoked now: of resumed sessions too, whose tickets are older.
func (a *authorities) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return nil
	}
	t := a.get(time.Now())
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	chains, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: t.pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	for _, chain := range chains {
		if err = t.good(chain); err == nil {
			return nil
		}
	}
	return err
}

// good reports whether nothing in the chain is revoked.
func (t *trust) good(chain []*x509.Certificate) error {
	for _, c := range chain {
		if _, ok := t.revoked[revocation(c.RawIssuer, c.SerialNumber.Bytes())]; ok {
			return fmt.Errorf("the certificate %s of %s is revoked", c.SerialNumber, c.Subject)
		}
	}
	return nil
}

// identity is the name in a client's certificate; empty if there is none.
func identity(kind string, c *x509.Certificate) string {
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
