// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// authorities are the CAs of a listener's client certificates and what those have
// revoked. The files are read again when they change, which a handshake looks for
// at most once a second. It is safe for concurrent use.
type authorities struct {
	caFile, crlFile string
	log             *slog.Logger
	current         atomic.Pointer[tenancy.Trust]

	mu      sync.Mutex
	looked  time.Time
	version [2]fileVersion
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

func readTrust(caFile, crlFile string) (*tenancy.Trust, error) {
	cas, err := os.ReadFile(caFile)
	if err != nil {
		return nil, errs.New(errs.Invalid, "client_ca_file: expected a PEM file: %w", err)
	}
	if crlFile == "" {
		t, err := tenancy.ParseTrust(cas, nil)
		if err != nil {
			return nil, errs.New(errs.Invalid, "client_ca_file %s: %w", caFile, err)
		}
		return t, nil
	}
	crls, err := os.ReadFile(crlFile)
	if err != nil {
		return nil, errs.New(errs.Invalid, "client_crl_file: expected a PEM file: %w", err)
	}
	if len(crls) == 0 {
		return nil, errs.New(errs.Invalid, "client_crl_file %s: expected a PEM block X509 CRL, found nothing", crlFile)
	}
	t, err := tenancy.ParseTrust(cas, crls)
	if err != nil {
		return nil, errs.New(errs.Invalid, "client_ca_file %s, client_crl_file %s: %w", caFile, crlFile, err)
	}
	return t, nil
}

// get returns the newest that could be read.
func (a *authorities) get(now time.Time) *tenancy.Trust {
	if a.mu.TryLock() {
		if now.Sub(a.looked) >= lookEvery {
			a.looked = now
			if v := onDisk(a.caFile, a.crlFile); v != a.version {
				if t, err := readTrust(a.caFile, a.crlFile); err != nil {
					a.log.Error("the CAs or revocation lists of client certificates have changed and cannot be read; the old ones stay", "error", err)
				} else {
					a.version = v
					a.current.Store(t)
					a.log.Info("the CAs of client certificates were read again", "file", a.caFile, "revoked", t.Revoked())
				}
			}
		}
		a.mu.Unlock()
	}
	return a.current.Load()
}

// ClientCert is a client's certificate, which was verified in the handshake. It is
// safe for concurrent use.
type ClientCert struct {
	// Tenant is for whose clients it is good: of the tenant whose CAs have verified
	// it, or of the listener. It is good for nobody else's.
	Tenant string
	// Own says that the tenant's CAs have verified it, and not the listener's.
	Own bool
	// Identity is of what kind Name is, as in Config and tenancy.ClientCAs; Name is
	// the user name that it gives, empty if the certificate has none.
	Identity, Name string
	// Authenticates: the client needs no password.
	Authenticates bool

	chain []*x509.Certificate
	good  atomic.Pointer[goodUnder]
}

// goodUnder is under what a certificate was good last.
type goodUnder struct {
	trust    *tenancy.Trust
	revision uint64
}

// CommonName is that of its subject, or empty.
func (c *ClientCert) CommonName() string {
	if len(c.chain) == 0 {
		return ""
	}
	return c.chain[0].Subject.CommonName
}

// Leaf is the client's own certificate; it is not to be changed.
func (c *ClientCert) Leaf() *x509.Certificate { return c.chain[0] }

// Trust is under what it was good last.
func (c *ClientCert) Trust() *tenancy.Trust { return c.good.Load().trust }

// Revision is that of the tenant's CAs under which it was good last.
func (c *ClientCert) Revision() uint64 { return c.good.Load().revision }

// Recheck verifies it under the tenant's CAs of another revision, which has not
// the CAs gone that were in the last one.
func (c *ClientCert) Recheck(t *tenancy.Trust, revision uint64, gone []*x509.Certificate, now time.Time) error {
	if err := t.Recheck(c.chain, gone, now); err != nil {
		return err
	}
	c.good.Store(&goodUnder{t, revision})
	return nil
}

// clientCert is the certificate that the client has shown under config; nil if it
// has none.
func (l *Listener) clientCert(config *tlsConfig, cs *tls.ConnectionState) *ClientCert {
	if config == nil || config.trust == nil || len(cs.PeerCertificates) == 0 {
		return nil
	}
	c := &ClientCert{Tenant: l.cfg.Tenant, Identity: l.cfg.Identity, Authenticates: true, chain: cs.PeerCertificates}
	good := &goodUnder{trust: config.trust}
	if own := config.own; own != nil {
		good.revision = own.Revision
		c.Tenant, c.Own, c.Identity, c.Authenticates = config.tenant, true, own.Identity, own.Authenticates
	}
	c.Name = tenancy.CertificateName(c.Identity, c.chain[0])
	c.good.Store(good)
	return c
}
