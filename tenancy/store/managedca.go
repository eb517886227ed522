// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// ManagedCA is a CA whose key we have. It is a plain value.
type ManagedCA struct {
	Tenant      string `json:"tenant"`
	Certificate string `json:"certificate"` // PEM
	// Sealed is the key, which only who has the operator's secrets key can open.
	Sealed    []byte    `json:"sealed"`
	CreatedAt time.Time `json:"created_at"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

// Claim is good for one certificate. It is a plain value.
type Claim struct {
	ID       string `json:"id"`
	Tenant   string `json:"tenant"`
	Username string `json:"username"`
	// Days is for how long the certificate is good.
	Days      int       `json:"days"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

// ClaimsMax is how many claims a tenant may have at once.
const ClaimsMax = 10_000

// ManagedCA returns a tenant's managed CA, or an error NotFound.
func (s *Store) ManagedCA(ctx context.Context, tenant string) (*ManagedCA, error) {
	e, err := s.managedCAs.Get(ctx, tenant)
	if err != nil {
		return nil, named(err, "managed_ca_not_found", "the tenant %s has no managed CA", tenant)
	}
	ca := &ManagedCA{Revision: uint64(e.Revision)}
	if err := json.Unmarshal(e.Value, ca); err != nil {
		return nil, errs.New(errs.Internal, "stored managed CA: %w", err)
	}
	return ca, nil
}

// AddManagedCA keeps a managed CA, and has the tenant trust it: a tenant without CAs of
// its own then takes its certificates in place of a password. The error is Conflict with
// Code "managed_ca_exists", or that of SetClientCAs.
func (s *Store) AddManagedCA(ctx context.Context, tenant, certificate string, sealed []byte) (*ManagedCA, error) {
	trust := TrustManagedCA(certificate)
	t, err := s.Tenant(ctx, tenant)
	if err != nil {
		return nil, err
	}
	if err := trust(t.Clone()); err != nil {
		return nil, err
	}
	ca := &ManagedCA{Tenant: tenant, Certificate: certificate, Sealed: sealed, CreatedAt: s.now().UTC()}
	rev, err := put(ctx, s.managedCAs, tenant, ca, bus.Absent)
	if errs.Is(err, errs.Conflict) {
		return nil, errs.Coded(errs.Conflict, "managed_ca_exists", "the tenant %s has a managed CA already", tenant)
	}
	if err != nil {
		return nil, err
	}
	ca.Revision = rev
	if _, err := s.UpdateTenant(ctx, tenant, 0, trust); err != nil {
		// Without trust it is of no use; what is left says so when it is asked to sign.
		_ = s.managedCAs.Delete(ctx, tenant, bus.Revision(rev))
		return nil, err
	}
	return ca, nil
}

// TrustManagedCA is a change of a tenant for ChangeTenant: one more CA.
func TrustManagedCA(certificate string) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		cas := tenancy.ClientCAs{ClientCerts: tenancy.ClientCertsOptional, Identity: tenancy.IdentityCN, Authenticates: true}
		if r.ClientCAs != nil {
			cas = *r.ClientCAs
		}
		cas.Certificates = strings.TrimLeft(strings.TrimRight(cas.Certificates, "\n")+"\n"+certificate, "\n")
		return ClientCAs(&cas)(r)
	}
}

// RemoveManagedCA forgets the key of a managed CA. What it has signed stays good until
// the tenant trusts it no more. The error is NotFound if there is none.
func (s *Store) RemoveManagedCA(ctx context.Context, tenant string, ifRevision uint64) (*ManagedCA, error) {
	for {
		ca, err := s.ManagedCA(ctx, tenant)
		if err != nil {
			return nil, err
		}
		if ifRevision != 0 && ca.Revision != ifRevision {
			return nil, errs.Coded(errs.Conflict, "revision_mismatch", "the managed CA is at revision %d, not %d", ca.Revision, ifRevision)
		}
		if err = s.managedCAs.Delete(ctx, tenant, bus.Revision(ca.Revision)); !errs.Is(err, errs.Conflict) {
			return ca, err
		}
	}
}

// claimBegins is how a claim is told from other secrets; the tenant's id follows, and
// an underscore, which no tenant's id has.
const claimBegins = "mc_"

func claimID(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "claim_" + hex.EncodeToString(sum[:16])
}

// AddClaim makes a claim, whose secret is returned and not kept: its id is made of that.
// Of like Username, Days and ExpiresAt are read.
func (s *Store) AddClaim(ctx context.Context, tenant string, like Claim) (c *Claim, secret string, err error) {
	if err := s.CheckClaim(ctx, tenant, like); err != nil {
		return nil, "", err
	}
	secret = claimBegins + tenant + "_" + strings.ToLower(rand.Text())
	like.ID, like.Tenant, like.CreatedAt = claimID(secret), tenant, s.now().UTC()
	like.Revision, err = put(ctx, s.claims, tenant+"."+like.ID, like, bus.Absent)
	return &like, secret, err
}

// CheckClaim returns the error that AddClaim would.
func (s *Store) CheckClaim(ctx context.Context, tenant string, like Claim) error {
	if err := tenancy.ValidUsername(like.Username); err != nil {
		return err
	}
	if !s.now().Before(like.ExpiresAt) {
		return errs.Coded(errs.Invalid, "claim_invalid", "expires_at: expected a time to come")
	}
	keys, err := s.claims.Keys(ctx, tenant+".")
	if err == nil && len(keys) >= ClaimsMax {
		err = &tenancy.ExceededError{Quota: "claims", Limit: ClaimsMax, Usage: int64(len(keys))}
	}
	return err
}

// ClaimOf returns the claim of that secret. The error is Denied with Code
// "claim_refused" for one that was used, is over, or never was.
func (s *Store) ClaimOf(ctx context.Context, secret string) (*Claim, error) {
	refused := errs.Coded(errs.Denied, "claim_refused", "the claim was used, is over, or is none")
	rest, ok := strings.CutPrefix(secret, claimBegins)
	tenant, _, ok2 := strings.Cut(rest, "_")
	if !ok || !ok2 || tenancy.ValidTenantID(tenant) != nil {
		return nil, refused
	}
	c, err := s.Claim(ctx, tenant, claimID(secret))
	if errs.Is(err, errs.NotFound) || err == nil && !s.now().Before(c.ExpiresAt) {
		return nil, refused
	}
	return c, err
}

// Claim returns a claim of a tenant, or an error NotFound.
func (s *Store) Claim(ctx context.Context, tenant, id string) (*Claim, error) {
	e, err := s.claims.Get(ctx, tenant+"."+id)
	if err != nil {
		return nil, named(err, "claim_not_found", "there is no claim %q", id)
	}
	c := &Claim{Revision: uint64(e.Revision)}
	if err := json.Unmarshal(e.Value, c); err != nil {
		return nil, errs.New(errs.Internal, "stored claim: %w", err)
	}
	return c, nil
}

// UseClaim ends a claim. Of several who try one does; for the others the error is Denied
// with Code "claim_refused".
func (s *Store) UseClaim(ctx context.Context, c *Claim) error {
	err := s.claims.Delete(ctx, c.Tenant+"."+c.ID, bus.Revision(c.Revision))
	if errs.Is(err, errs.Conflict) || errs.Is(err, errs.NotFound) {
		return errs.Coded(errs.Denied, "claim_refused", "the claim was used, is over, or is none")
	}
	return err
}

// Claims returns at most limit of the tenant's claims that are not over and whose ids
// come after cursor, in order, and the cursor of the next page, empty at the end.
func (s *Store) Claims(ctx context.Context, tenant, cursor string, limit int) (page []*Claim, next string, err error) {
	entries, _, err := bus.List(ctx, s.claims, tenant+".", 2*ClaimsMax)
	if err != nil {
		return nil, "", err
	}
	for _, e := range entries {
		c := &Claim{Revision: uint64(e.Revision)}
		if err := json.Unmarshal(e.Value, c); err != nil {
			return nil, "", errs.New(errs.Internal, "stored claim: %w", err)
		}
		if c.ID > cursor && s.now().Before(c.ExpiresAt) {
			page = append(page, c)
		}
	}
	slices.SortFunc(page, func(a, b *Claim) int { return strings.Compare(a.ID, b.ID) })
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].ID
	}
	return page, next, nil
}
