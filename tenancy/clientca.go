// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"crypto/rsa"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// ClientCAs are a tenant's own CAs of client certificates, and what a certificate
// of theirs is good for. They hold where TLS names the tenant by its host name
// (SNI, RFC 6066 §3), in place of the listener's. It is a plain value.
type ClientCAs struct {
	// Certificates has the CAs in PEM.
	Certificates string `json:"certificates"`
	// CRL has revocation lists of theirs in PEM; empty is none.
	CRL string `json:"crl,omitempty"`
	// ClientCerts is optional or required. Required holds for all of the
	// tenant's connections: one that cannot show a certificate is refused.
	ClientCerts string `json:"client_certs"`
	// Identity is what of a certificate is the user name, cn or san; empty leaves
	// that to the client.
	Identity string `json:"use_identity_as_username,omitempty"`
	// Authenticates: who has a certificate needs no password. It needs Identity.
	Authenticates bool `json:"certificate_authenticates,omitempty"`
	// Revision grows with each change of these; 0 is before the first.
	Revision uint64 `json:"revision"`
}

// Bounds of ClientCAs. A tenant's record has to fit into one message of the bus.
const (
	clientCAsMax   = 128 << 10 // bytes of PEM
	clientCRLMax   = 256 << 10 // bytes of PEM
	caSubjectsMax  = 32 << 10  // bytes of DER; RFC 8446 §4.2.4 has room for 64 KiB
	caKeyMax       = 8192      // bits of RSA
	clientCAsWrong = "client_cas_invalid"
)

// Trust reads the certificates and lists, and checks all of c but its Revision.
// The error is Invalid with Code "client_cas_invalid".
func (c *ClientCAs) Trust() (*Trust, error) {
	invalid := func(format string, args ...any) error {
		return errs.Coded(errs.Invalid, clientCAsWrong, format, args...)
	}
	switch {
	case len(c.Certificates) > clientCAsMax:
		return nil, invalid("expected at most %d bytes of certificates, found %d", clientCAsMax, len(c.Certificates))
	case len(c.CRL) > clientCRLMax:
		return nil, invalid("expected at most %d bytes of revocation lists, found %d", clientCRLMax, len(c.CRL))
	case !slices.Contains([]string{ClientCertsOptional, ClientCertsRequired}, c.ClientCerts):
		return nil, invalid("client_certs: expected %s or %s, found %q", ClientCertsOptional, ClientCertsRequired, c.ClientCerts)
	case !slices.Contains([]string{"", IdentityCN, IdentitySAN}, c.Identity):
		return nil, invalid("use_identity_as_username: expected %s, %s or nothing, found %q", IdentityCN, IdentitySAN, c.Identity)
	case c.Authenticates && c.Identity == "":
		return nil, invalid("certificate_authenticates: expected use_identity_as_username with it, which says who the client is")
	}
	for b, rest := pem.Decode([]byte(c.Certificates)); b != nil; b, rest = pem.Decode(rest) {
		if strings.Contains(b.Type, "PRIVATE KEY") {
			return nil, invalid("certificates: expected certificates only, found a private key; keep it to yourself, and replace it, as it has been sent here")
		}
	}
	t, err := ParseTrust([]byte(c.Certificates), []byte(c.CRL))
	if err != nil {
		return nil, invalid("%w", err)
	}
	subjects := 0
	for i, ca := range t.cas {
		if !ca.BasicConstraintsValid || !ca.IsCA {
			return nil, invalid("certificate %d, %.128s: expected that of a CA (basic constraints)", i+1, ca.Subject)
		}
		if key, ok := ca.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > caKeyMax {
			return nil, invalid("certificate %d, %.128s: expected at most %d bits of RSA, found %d", i+1, ca.Subject, caKeyMax, key.N.BitLen())
		}
		subjects += len(ca.RawSubject)
	}
	if subjects > caSubjectsMax {
		return nil, invalid("expected at most %d bytes of names of CAs, found %d", caSubjectsMax, subjects)
	}
	return t, nil
}

// ClientCAsRevision is the Revision of the tenant's CAs, 0 if it has none.
func (t *Tenant) ClientCAsRevision() uint64 {
	if t.ClientCAs == nil {
		return 0
	}
	return t.ClientCAs.Revision
}
