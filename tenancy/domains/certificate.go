// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Bounds of a certificate that is uploaded.
const (
	chainMax = 16 << 10 // bytes of PEM
	keyMax   = 16 << 10 // bytes of PEM
	certsMax = 8
)

// pair is a certificate with its chain and key.
type pair struct {
	chain string // PEM, the leaf first, certificates only
	key   []byte // PKCS #8
	leaf  *x509.Certificate
}

// parsePair reads a chain and a key in PEM, and checks that they belong together and are
// good for a name, now. The error is Invalid with Code "certificate_invalid".
func parsePair(fqdn string, chain, key []byte, now time.Time) (*pair, error) {
	invalid := func(format string, args ...any) (*pair, error) {
		return nil, errs.Coded(errs.Invalid, "certificate_invalid", format, args...)
	}
	switch {
	case len(chain) > chainMax:
		return invalid("chain: expected at most %d bytes, found %d", chainMax, len(chain))
	case len(key) > keyMax:
		return invalid("key: expected at most %d bytes, found %d", keyMax, len(key))
	}
	var b strings.Builder
	n := 0
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return invalid("chain: expected certificates only, found a block %q; a key belongs into key", block.Type)
		}
		if n++; n > certsMax {
			return invalid("chain: expected at most %d certificates", certsMax)
		}
		if err := pem.Encode(&b, &pem.Block{Type: block.Type, Bytes: block.Bytes}); err != nil {
			return invalid("chain: %w", err)
		}
	}
	if n == 0 {
		return invalid("chain: expected certificates in PEM, the server's first, found none")
	}
	both, err := tls.X509KeyPair([]byte(b.String()), key)
	if err != nil {
		return invalid("expected a chain and the private key of its first certificate, both in PEM: %w", withoutPrefix(err))
	}
	p := &pair{chain: b.String(), leaf: both.Leaf}
	for i := 1; i < len(both.Certificate); i++ {
		if _, err := x509.ParseCertificate(both.Certificate[i]); err != nil {
			return invalid("chain: certificate %d: %w", i+1, err)
		}
	}
	switch public := p.leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < 2048 || bits > 4096 {
			return invalid("key: expected 2048 to 4096 bits of RSA, found %d", bits)
		}
	case *ecdsa.PublicKey:
		if bits := public.Params().BitSize; bits < 256 {
			return invalid("key: expected a curve of 256 bits or more, found %d", bits)
		}
	case ed25519.PublicKey:
	default:
		return invalid("key: expected RSA, ECDSA or Ed25519")
	}
	switch {
	case !isFor(p.leaf, fqdn):
		return invalid("expected a certificate for %s, found one for %s", fqdn, namesOf(p.leaf))
	case !now.Before(p.leaf.NotAfter):
		return invalid("the certificate has ended at %s", p.leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(p.leaf.NotBefore):
		return invalid("the certificate is good from %s on only", p.leaf.NotBefore.UTC().Format(time.RFC3339))
	case !forServers(p.leaf):
		return invalid("expected a certificate for servers (extended key usage serverAuth)")
	}
	if p.key, err = x509.MarshalPKCS8PrivateKey(both.PrivateKey); err != nil {
		return invalid("key: %w", err)
	}
	return p, nil
}

// withoutPrefix is an error of crypto/tls as a person reads it. It never has a key in it.
func withoutPrefix(err error) error {
	return errs.New(errs.Invalid, "%s", strings.TrimPrefix(err.Error(), "tls: "))
}

// isFor reports whether a certificate is for a name; for a wildcard it has to name that
// itself.
func isFor(c *x509.Certificate, fqdn string) bool {
	if _, ok := tenancy.WildcardOf(fqdn); ok {
		return slices.ContainsFunc(c.DNSNames, func(n string) bool { return strings.EqualFold(n, fqdn) })
	}
	return c.VerifyHostname(fqdn) == nil
}

func namesOf(c *x509.Certificate) string {
	names := c.DNSNames[:min(len(c.DNSNames), 5)]
	if len(names) == 0 {
		return "no host name"
	}
	return strings.Join(names, ", ")
}

func forServers(c *x509.Certificate) bool {
	for _, use := range c.ExtKeyUsage {
		if use == x509.ExtKeyUsageServerAuth || use == x509.ExtKeyUsageAny {
			return true
		}
	}
	return len(c.ExtKeyUsage) == 0
}

// issuerName is who has signed a certificate.
func issuerName(c *x509.Certificate) string {
	name := c.Issuer.String()
	if len(name) > 256 {
		name = strings.ToValidUTF8(name[:256], "")
	}
	return name
}

// publish has gateways show a certificate. The error is NotFound if the name is the
// tenant's no longer.
func (s *Service) publish(ctx context.Context, d *tenancy.Domain, p *pair) error {
	sealed := s.cfg.Sealer.Seal(tenancy.HostPurpose(d.Tenant, d.FQDN), p.key)
	return s.store.ChangeHost(ctx, d.Tenant, d.FQDN, func(h *tenancy.Host) { h.Certificates, h.Sealed = p.chain, sealed })
}

// served notes what is shown from now on.
func (s *Service) served(d *tenancy.Domain, leaf *x509.Certificate) {
	d.State, d.LastError, d.Failures, d.Asked, d.Unseen = tenancy.DomainActive, "", 0, false, false
	d.NotAfter, d.Issuer = leaf.NotAfter.UTC(), issuerName(leaf)
	d.NextRenewal = s.lookAgain(d)
	if d.Source == tenancy.CertificateACME {
		d.NextRenewal = nextLook(d, leaf)
	}
}

// renewAt is when two thirds of a certificate's life are over: it is renewed then if its
// CA suggests nothing else.
func renewAt(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3).UTC()
}

// CheckUpload returns the error that Upload would.
func (s *Service) CheckUpload(d *tenancy.Domain, chain, key []byte) error {
	_, err := s.mayUpload(d, chain, key)
	return err
}

func (s *Service) mayUpload(d *tenancy.Domain, chain, key []byte) (*pair, error) {
	switch {
	case s.cfg.Sealer == nil:
		return nil, errs.Coded(errs.Conflict, "domains_unavailable", "this installation serves no custom domains; its operator has to set domains.key_file")
	case d.Source != tenancy.CertificateUploaded:
		return nil, errs.Coded(errs.Conflict, "certificate_acme", "the certificate of %s is issued by a CA: delete the domain, and make it again with \"certificate\": \"uploaded\"", d.FQDN)
	case d.State == tenancy.DomainPending:
		return nil, errs.Coded(errs.Conflict, "domain_unverified", "%s is not verified yet", d.FQDN)
	}
	return parsePair(d.FQDN, chain, key, s.now())
}

// Upload replaces the certificate of a domain, whose source must be
// tenancy.CertificateUploaded and which must be verified. chain and key are in PEM. The
// key is sealed before it is stored. The DNS is asked again whether the name is the
// tenant's. The error is Invalid with Code "certificate_invalid", Conflict, or Unavailable
// if the DNS does not answer.
func (s *Service) Upload(ctx context.Context, tenant, fqdn string, ifRevision uint64, chain, key []byte) (was, now *tenancy.Domain, err error) {
	d, err := s.store.Domain(ctx, tenant, fqdn)
	if err != nil {
		return nil, nil, err
	}
	p, err := s.mayUpload(d, chain, key)
	if err != nil {
		return nil, nil, err
	}
	if ifRevision != 0 && ifRevision != d.Revision {
		return nil, nil, errs.Coded(errs.Conflict, "revision_mismatch", "the domain is at revision %d, not %d", d.Revision, ifRevision)
	}
	verified := d.VerifiedAt
	if s.now().Sub(verified) >= freshFor {
		if err := s.owns(ctx, tenant, d); err != nil {
			return nil, nil, conflicting(err)
		}
		verified = s.now().UTC()
	}
	if err := s.publish(ctx, d, p); err != nil {
		return nil, nil, err
	}
	began := d.Token
	was, now, err = s.store.ChangeDomain(ctx, tenant, fqdn, 0, func(d *tenancy.Domain) error {
		if d.Token != began || !d.Owned() {
			return errs.Coded(errs.Conflict, "domain_unverified", "%s was deleted and made again meanwhile, or lost: verify it first", fqdn)
		}
		s.served(d, p.leaf)
		if verified.After(d.VerifiedAt) {
			d.VerifiedAt, d.AbsentSince = verified, time.Time{}
		}
		return nil
	})
	if err == nil {
		s.metrics.certificates.WithLabelValues(tenancy.CertificateUploaded, "issued").Inc()
	}
	return was, now, err
}
