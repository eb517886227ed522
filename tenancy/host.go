// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// HostsBucket has a Host in JSON at the HostKey of its FQDN: who a verified name belongs to, and what
// gateways show to who asks for it. Of a name there is one, whoever else claims it.
const HostsBucket = "hosts"

// Host is a host name that one tenant has verified. It is a plain value.
type Host struct {
	FQDN   string `json:"fqdn"` // or a wildcard, see WildcardOf
	Tenant string `json:"tenant"`
	// ClaimedAt is when the tenant got the name.
	ClaimedAt time.Time `json:"claimed_at,omitzero"`
	// Certificates is the chain in PEM, the leaf first; empty while there is none, and
	// then the name is served to nobody.
	Certificates string `json:"certificates,omitempty"`
	// Sealed is the key in PKCS #8, sealed for HostPurpose: gateways open it.
	Sealed []byte `json:"sealed,omitempty"`
	// Challenge is the SHA-256 of the key authorization that a certificate authority
	// asks for by TLS-ALPN-01 (RFC 8737 §3) just now; empty if none does.
	Challenge []byte `json:"challenge,omitempty"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

// wildcard begins names that stand for each name one label below another one.
const wildcard = "*."

// keyWildcard stands for it in keys of buckets, which have no asterisks. No host name
// begins with it.
const keyWildcard = "_."

// WildcardOf returns the name below which each name of one label more is meant, if a name
// is a wildcard such as *.devices.example.com.
func WildcardOf(fqdn string) (base string, ok bool) { return strings.CutPrefix(fqdn, wildcard) }

// WildcardFor returns the wildcard that stands for a name, whose first part it leaves
// away. ok is false for names that no wildcard stands for.
func WildcardFor(name string) (fqdn string, ok bool) {
	label, base, ok := strings.Cut(name, ".")
	if !ok || label == "" || base == "" || strings.Contains(name, "*") {
		return "", false
	}
	return wildcard + base, true
}

// HostKey is the key of a name in HostsBucket.
func HostKey(fqdn string) string {
	if base, ok := WildcardOf(fqdn); ok {
		return keyWildcard + base
	}
	return fqdn
}

// HostOfKey is the name at a key of HostsBucket.
func HostOfKey(key string) string {
	if base, ok := strings.CutPrefix(key, keyWildcard); ok {
		return wildcard + base
	}
	return key
}

// HostPurpose is what the key of a host's certificate is sealed for: it opens for no
// other tenant or name.
func HostPurpose(tenant, fqdn string) string { return "key of " + fqdn + " of " + tenant }

// DecodeHost reads a value of HostsBucket.
func DecodeHost(value []byte, revision uint64) (*Host, error) {
	h := &Host{}
	if err := json.Unmarshal(value, h); err != nil {
		return nil, errs.New(errs.Internal, "stored host: %w", err)
	}
	if h.FQDN == "" || h.Tenant == "" {
		return nil, errs.New(errs.Internal, "stored host: expected a name and a tenant, found %q and %q", h.FQDN, h.Tenant)
	}
	h.Revision = revision
	return h, nil
}

// CustomHost is a Host as gateways serve it. It is immutable and safe for concurrent
// use.
type CustomHost struct {
	host *Host
	pair func() (*tls.Certificate, error)
}

// NewCustomHost returns the host, whose key open opens when it is first needed; see
// managedca.Sealer.
func NewCustomHost(h *Host, open func(purpose string, sealed []byte) ([]byte, error)) *CustomHost {
	return &CustomHost{h, sync.OnceValues(func() (*tls.Certificate, error) {
		der, err := open(HostPurpose(h.Tenant, h.FQDN), h.Sealed)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair([]byte(h.Certificates), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		if err != nil {
			return nil, errs.New(errs.Internal, "stored certificate of %s: %w", h.FQDN, err)
		}
		return &pair, nil
	})}
}

// Host is what was stored; it must not be changed.
func (h *CustomHost) Host() *Host { return h.host }

// Active reports whether the name is served.
func (h *CustomHost) Active() bool { return h.host.Certificates != "" }

// Certificate is what is shown to clients. The error is Internal: the key cannot be
// opened, or is no key of the certificate.
func (h *CustomHost) Certificate() (*tls.Certificate, error) { return h.pair() }

// Below is a name of the same tenant that has no certificate of its own yet, such as one
// that is being ordered: it is served with the wildcard's, and its own challenge answered.
func (h *CustomHost) Below(wildcard *CustomHost) *CustomHost {
	host := *h.host
	host.Certificates = wildcard.host.Certificates
	return &CustomHost{&host, wildcard.pair}
}
