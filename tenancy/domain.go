// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// DomainsBucket has a Domain in JSON at DomainKey.
const DomainsBucket = "domains"

// DomainState is where a custom domain is in its life.
type DomainState string

// The states of a Domain.
const (
	// DomainPending is one of which the tenant has not shown yet that it is its own.
	DomainPending DomainState = "pending"
	// DomainVerified has no certificate yet: handshakes that name it are refused.
	DomainVerified DomainState = "verified"
	// DomainActive is served.
	DomainActive DomainState = "active"
	// DomainFailed is one whose certificate was not issued, or not renewed, at the last
	// try. The certificate that it has is served on.
	DomainFailed DomainState = "failed"
)

// The sources of a domain's certificate.
const (
	CertificateACME     = "acme"
	CertificateUploaded = "uploaded"
)

// Domain is what a tenant claims as its own host name beside <tenant>.<domain>. A claim
// that is not verified keeps nobody from anything. It is a plain value.
type Domain struct {
	Tenant string      `json:"tenant"`
	FQDN   string      `json:"fqdn"` // in A-labels (RFC 5890), lower case, without a dot at the end; it may be a wildcard, see WildcardOf
	State  DomainState `json:"state"`
	// Token is what only this tenant is told to publish for this name.
	Token string `json:"token"`
	// Source is CertificateACME or CertificateUploaded.
	Source    string    `json:"source"`
	CreatedAt time.Time `json:"created_at"`
	// CheckedAt is when the DNS was asked last, and VerifiedAt when it last said yes.
	CheckedAt  time.Time `json:"checked_at,omitzero"`
	VerifiedAt time.Time `json:"verified_at,omitzero"`
	// AskedAt is when the tenant last asked for a new certificate.
	AskedAt time.Time `json:"asked_at,omitzero"`
	// Asked is set from then until there is one.
	Asked bool `json:"asked,omitempty"`
	// AbsentSince is since when the DNS has said, each time that it said anything, that
	// the record is not there; zero while it is.
	AbsentSince time.Time `json:"absent_since,omitzero"`
	// NotAfter and Issuer are those of the certificate that is served.
	NotAfter time.Time `json:"not_after,omitzero"`
	Issuer   string    `json:"issuer,omitempty"`
	// LastError is what went wrong last; empty if nothing has since it went well.
	LastError string `json:"last_error,omitempty"`
	// Unseen is set if that is about the record by which the domain is verified.
	Unseen bool `json:"unseen,omitempty"`
	// Failures counts the tries since it went well.
	Failures int `json:"failures,omitempty"`
	// NextRenewal is when something is to be done: a certificate to be issued or
	// renewed, or to end, or the domain to be verified again. Zero is never.
	NextRenewal time.Time `json:"next_renewal,omitzero"`
	// Renewal is what the certificate authority suggests for the certificate that is
	// served.
	Renewal Renewal `json:"renewal,omitzero"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

// Renewal is when a certificate authority would have a certificate renewed (ARI, RFC
// 9773). The zero Renewal is that it suggests nothing.
type Renewal struct {
	// From and Until are the window, and At the moment in it that was chosen: it stays
	// while the window does.
	From  time.Time `json:"from,omitzero"`
	Until time.Time `json:"until,omitzero"`
	At    time.Time `json:"at,omitzero"`
	// Check is when the authority is asked again.
	Check time.Time `json:"check,omitzero"`
}

// DomainKey is the key of a tenant's domain in its bucket.
func DomainKey(tenant, fqdn string) string { return tenant + "." + HostKey(fqdn) }

// Key is the domain's own.
func (d *Domain) Key() string { return DomainKey(d.Tenant, d.FQDN) }

// ChallengeName is the name of the TXT record by which the domain is verified; that of a
// wildcard is at the name that it is below.
func (d *Domain) ChallengeName() string {
	return "_manor-challenge." + strings.TrimPrefix(d.FQDN, wildcard)
}

// ChallengeValue is what that record has.
func (d *Domain) ChallengeValue() string { return "manor-verify=" + d.Token }

// Owned reports whether the tenant has shown that the domain is its own.
func (d *Domain) Owned() bool { return d.State != DomainPending }

// DecodeDomain reads a value of DomainsBucket.
func DecodeDomain(value []byte, revision uint64) (*Domain, error) {
	d := &Domain{}
	if err := json.Unmarshal(value, d); err != nil {
		return nil, errs.New(errs.Internal, "stored domain: %w", err)
	}
	if !slices.Contains([]DomainState{DomainPending, DomainVerified, DomainActive, DomainFailed}, d.State) || d.FQDN == "" || d.Tenant == "" {
		return nil, errs.New(errs.Internal, "stored domain: expected a tenant, a name and a state, found %q, %q and %q", d.Tenant, d.FQDN, d.State)
	}
	d.Revision = revision
	return d, nil
}
