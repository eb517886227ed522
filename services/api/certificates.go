// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/store"
)

// ManagedCA is a CA that signs for a tenant.
type ManagedCA struct {
	Certificate string    `json:"certificate" doc:"In PEM. It is among the tenant's client CAs."`
	CreatedAt   time.Time `json:"created_at"`
}

// SignRequest is the body of POST …/certificates:sign.
type SignRequest struct {
	CSR      string `json:"csr" doc:"A certificate request in PEM, as openssl req -new writes it. Its key is signed; the name in it does not matter."`
	Username string `json:"username" doc:"Who the client is: the common name of the certificate. 1 to 64 bytes." example:"press-7"`
	Days     int    `json:"days,omitempty" minimum:"1" maximum:"398" default:"90" doc:"For how long the certificate is good."`
}

// SignedCertificate is a certificate.
type SignedCertificate struct {
	Certificate string    `json:"certificate" doc:"In PEM."`
	CA          string    `json:"ca" doc:"The certificate of its CA, in PEM."`
	Username    string    `json:"username"`
	Serial      string    `json:"serial" doc:"In hexadecimal; a ban of the certificate serial:… revokes it."`
	SHA256      string    `json:"sha256" doc:"Of the certificate in DER, in hexadecimal."`
	ExpiresAt   time.Time `json:"expires_at"`
}

// ClaimRequest is the body of POST …/claims.
type ClaimRequest struct {
	Username  string     `json:"username" doc:"Who the client will be. 1 to 64 bytes." example:"press-7" maxLength:"64"`
	Days      int        `json:"days,omitempty" minimum:"1" maximum:"398" default:"90" doc:"For how long the certificate will be good."`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"When the claim ends; left out, in 24 hours. At most in 30 days."`
}

// Claim is a claim.
type Claim struct {
	ID        string    `json:"id,omitempty" example:"claim_9f86d081884c7d659a2feaa0c55ad015"`
	Username  string    `json:"username"`
	Days      int       `json:"days"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

// CreatedClaim is the answer to POST …/claims.
type CreatedClaim struct {
	Claim
	Secret tenancy.Secret `json:"secret,omitempty" doc:"Shown once."`
}

// ClaimList is a page of claims.
type ClaimList struct {
	Items []Claim `json:"items"`
	Next  *string `json:"next" doc:"The cursor of the next page; null at the end."`
}

// RedeemRequest is the body of POST /v1/claims:redeem.
type RedeemRequest struct {
	Claim tenancy.Secret `json:"claim" doc:"The secret of the claim." example:"mc_acme_…"`
	CSR   string         `json:"csr" doc:"A certificate request in PEM."`
}

type (
	createManagedCAInput struct {
		InTenant
		Post
	}
	managedCAOutput struct {
		Status int
		ETag   string `header:"ETag"`
		Body   ManagedCA
	}
	deleteManagedCAInput struct {
		InTenant
		Change
	}
	signInput struct {
		InTenant
		Post
		Body SignRequest
	}
	signOutput struct {
		Status int
		Body   SignedCertificate
	}
	createClaimInput struct {
		InTenant
		Post
		Body ClaimRequest
	}
	createClaimOutput struct {
		Status int
		Body   CreatedClaim
	}
	listClaimsInput struct {
		InTenant
		Paged
	}
	listClaimsOutput struct{ Body ClaimList }
	deleteClaimInput struct {
		InTenant
		Change
		Claim string `path:"claim" doc:"The claim's id."`
	}
	redeemInput struct {
		Write
		Body RedeemRequest
	}
)

func (s *Server) certificateRoutes() {
	const base, tag = "/v1/tenants/{tenant}", "Identities"
	register(s, operation("get-managed-ca", http.MethodGet, base+"/managed-ca", tag, "Get the CA that signs for a tenant"), s.managedCA)
	op := operation("create-managed-ca", http.MethodPost, base+"/managed-ca", tag, "Make a CA that signs for a tenant, and have it trusted")
	describeDryRun(s, &op, ManagedCA{})
	register(s, op, s.createManagedCA)
	register(s, operation("delete-managed-ca", http.MethodDelete, base+"/managed-ca", tag,
		"Forget the key of a tenant's CA; what it has signed is good until it is taken out of client-cas"), s.deleteManagedCA)
	op = operation("sign-certificate", http.MethodPost, base+"/certificates:sign", tag, "Sign a client's certificate with the tenant's managed CA")
	describeDryRun(s, &op, SignedCertificate{})
	register(s, op, s.signCertificate)
	op = operation("create-claim", http.MethodPost, base+"/claims", tag, "Make a claim, with which a device gets one certificate")
	describeDryRun(s, &op, CreatedClaim{})
	register(s, op, s.createClaim)
	register(s, operation("list-claims", http.MethodGet, base+"/claims", tag, "List the claims that were not used"), s.listClaims)
	register(s, operation("delete-claim", http.MethodDelete, base+"/claims/{claim}", tag, "Take a claim back"), s.deleteClaim)
	op = operation("redeem-claim", http.MethodPost, "/v1/claims:redeem", tag, "Get a certificate for a claim, which is then used up; a device needs no API key")
	op.Security = nil
	describeDryRun(s, &op, SignedCertificate{})
	register(s, op, s.redeemClaim)
}

// sealer is what opens keys of CAs.
func (s *Server) sealer() (*managedca.Sealer, error) {
	if s.cfg.Sealer == nil {
		return nil, errs.Coded(errs.Conflict, "managed_ca_unavailable", "this installation keeps no keys of CAs; its operator has to set secrets_key_file")
	}
	return s.cfg.Sealer, nil
}

func managedCABody(ca *store.ManagedCA, status int) *managedCAOutput {
	return &managedCAOutput{Status: status, ETag: etag(ca.Revision), Body: ManagedCA{ca.Certificate, ca.CreatedAt}}
}

func (s *Server) managedCA(ctx context.Context, _ *tenantInput) (*managedCAOutput, error) {
	ca, err := s.store.ManagedCA(ctx, tenantOf(ctx).ID)
	if err != nil {
		return nil, err
	}
	return managedCABody(ca, http.StatusOK), nil
}

func (s *Server) createManagedCA(ctx context.Context, in *createManagedCAInput) (*managedCAOutput, error) {
	t := tenantOf(ctx)
	sealer, err := s.sealer()
	if err != nil {
		return nil, err
	}
	now := s.now().UTC()
	certificate, key, err := managedca.New("Manor: devices of "+t.ID, now)
	if err != nil {
		return nil, err
	}
	switch _, err := s.store.ManagedCA(ctx, t.ID); {
	case err == nil:
		return nil, errs.Coded(errs.Conflict, "managed_ca_exists", "the tenant %s has a managed CA already", t.ID)
	case !errs.Is(err, errs.NotFound):
		return nil, err
	}
	if err := store.TrustManagedCA(certificate)(t.Clone()); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return &managedCAOutput{Status: http.StatusOK, Body: ManagedCA{certificate, now}}, nil
	}
	if err := change(ctx, t.Organization, t.ID, "managed CA", nil); err != nil {
		return nil, err
	}
	ca, err := s.store.AddManagedCA(ctx, t.ID, certificate, sealer.Seal("managed CA of "+t.ID, key))
	if err != nil {
		return nil, err
	}
	s.log.Info("managed CA made", "tenant", t.ID)
	out := managedCABody(ca, http.StatusCreated)
	return out, changed(ctx, nil, out.Body)
}

func (s *Server) deleteManagedCA(ctx context.Context, in *deleteManagedCAInput) (*struct{}, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "managed CA")
	if err != nil {
		return nil, err
	}
	ca, err := s.store.ManagedCA(ctx, t.ID)
	if err != nil {
		return nil, err
	}
	if err := matches(rev, ca.Revision, "managed CA"); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return nil, nil
	}
	if err := change(ctx, t.Organization, t.ID, "managed CA", managedCABody(ca, 0).Body); err != nil {
		return nil, err
	}
	was, err := s.store.RemoveManagedCA(ctx, t.ID, rev)
	if err != nil {
		return nil, err
	}
	s.log.Info("managed CA deleted", "tenant", t.ID)
	return nil, changed(ctx, managedCABody(was, 0).Body, nil)
}

// sign signs with a tenant's managed CA, which the tenant must trust.
func (s *Server) sign(ctx context.Context, t *tenancy.TenantRecord, csr, username string, days int) (*SignedCertificate, error) {
	sealer, err := s.sealer()
	if err != nil {
		return nil, err
	}
	r, err := managedca.ParseRequest(csr)
	if err != nil {
		return nil, err
	}
	ca, err := s.store.ManagedCA(ctx, t.ID)
	if err != nil {
		return nil, err
	}
	if t.ClientCAs == nil || !strings.Contains(t.ClientCAs.Certificates, strings.TrimSpace(ca.Certificate)) {
		return nil, errs.Coded(errs.Conflict, "managed_ca_untrusted", "the tenant's client CAs do not have the managed CA any more, so that what it signs is good for nothing")
	}
	key, err := sealer.Open("managed CA of "+t.ID, ca.Sealed)
	if err != nil {
		return nil, err
	}
	got, err := managedca.Sign(ca.Certificate, key, r, username, days, s.now())
	if err != nil {
		return nil, err
	}
	return &SignedCertificate{
		Certificate: got.Certificate, CA: ca.Certificate, Username: username, Serial: got.Serial, SHA256: got.SHA256, ExpiresAt: got.NotAfter,
	}, nil
}

func (s *Server) signCertificate(ctx context.Context, in *signInput) (*signOutput, error) {
	t := tenantOf(ctx)
	c, err := s.sign(ctx, t, in.Body.CSR, in.Body.Username, in.Body.Days)
	if err != nil {
		return nil, err
	}
	if in.DryRun { // which must not give one away
		unchanged(ctx)
		c.Certificate, c.Serial, c.SHA256 = "", "", ""
		return &signOutput{http.StatusOK, *c}, nil
	}
	if err := change(ctx, t.Organization, t.ID, "certificate of "+c.Username, nil); err != nil {
		return nil, err
	}
	s.log.Info("certificate signed", "tenant", t.ID, "username", c.Username, "serial", c.Serial)
	return &signOutput{http.StatusCreated, *c}, changed(ctx, nil, c)
}

func claimBody(c *store.Claim) Claim {
	return Claim{c.ID, c.Username, c.Days, c.CreatedAt, c.ExpiresAt}
}

// claimFor is how long a claim is good if nobody says.
const claimFor = 24 * time.Hour

func (s *Server) createClaim(ctx context.Context, in *createClaimInput) (*createClaimOutput, error) {
	t := tenantOf(ctx)
	if _, err := s.store.ManagedCA(ctx, t.ID); err != nil {
		return nil, err
	}
	now := s.now().UTC()
	like := store.Claim{Username: in.Body.Username, Days: in.Body.Days, CreatedAt: now, ExpiresAt: now.Add(claimFor).Truncate(time.Second)}
	if in.Body.ExpiresAt != nil {
		like.ExpiresAt = in.Body.ExpiresAt.UTC()
	}
	if like.ExpiresAt.After(now.Add(store.ClaimLife)) {
		return nil, errs.Coded(errs.Invalid, "claim_invalid", "expires_at: expected a time within 30 days")
	}
	if err := s.store.CheckClaim(ctx, t.ID, like); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return &createClaimOutput{http.StatusOK, CreatedClaim{Claim: claimBody(&like)}}, nil
	}
	if err := change(ctx, t.Organization, t.ID, "claim of "+like.Username, nil); err != nil {
		return nil, err
	}
	c, secret, err := s.store.AddClaim(ctx, t.ID, like)
	if err != nil {
		return nil, err
	}
	return &createClaimOutput{http.StatusCreated, CreatedClaim{claimBody(c), tenancy.Secret(secret)}}, changed(ctx, nil, claimBody(c))
}

func (s *Server) listClaims(ctx context.Context, in *listClaimsInput) (*listClaimsOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	page, next, err := s.store.Claims(ctx, tenantOf(ctx).ID, after, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listClaimsOutput{Body: ClaimList{Items: []Claim{}, Next: writeCursor(next)}}
	for _, c := range page {
		out.Body.Items = append(out.Body.Items, claimBody(c))
	}
	return out, nil
}

func (s *Server) deleteClaim(ctx context.Context, in *deleteClaimInput) (*struct{}, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "claim "+in.Claim)
	if err != nil {
		return nil, err
	}
	c, err := s.store.Claim(ctx, t.ID, in.Claim)
	if err != nil {
		return nil, err
	}
	if err := matches(rev, c.Revision, "claim "+in.Claim); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return nil, nil
	}
	if err := change(ctx, t.Organization, t.ID, "claim "+c.ID, claimBody(c)); err != nil {
		return nil, err
	}
	if err := s.store.UseClaim(ctx, c); err != nil {
		return nil, errs.Coded(errs.NotFound, "claim_not_found", "there is no claim %q", in.Claim)
	}
	return nil, changed(ctx, claimBody(c), nil)
}

// redeemClaim gives a device its certificate. The claim is used up by what is answered,
// and not by a request that is refused.
func (s *Server) redeemClaim(ctx context.Context, in *redeemInput) (*signOutput, error) {
	if err := s.limiters.claimsAddress.take(s.now(), addressName(callerOf(ctx).address)); err != nil {
		return nil, err
	}
	claim, err := s.store.ClaimOf(ctx, string(in.Body.Claim))
	if err != nil {
		return nil, err
	}
	t, err := s.store.Tenant(ctx, claim.Tenant)
	if err != nil || t.State != tenancy.StateActive {
		return nil, errs.Coded(errs.Denied, "claim_refused", "the claim was used, is over, or is none")
	}
	c, err := s.sign(ctx, t, in.Body.CSR, claim.Username, claim.Days)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		c.Certificate, c.Serial, c.SHA256 = "", "", ""
		return &signOutput{http.StatusOK, *c}, nil
	}
	if err := changeAs(ctx, audit.Actor{Kind: audit.ActorClaim, ID: claim.ID}, t.Organization, t.ID, "certificate of "+c.Username, nil); err != nil {
		return nil, err
	}
	if err := s.store.UseClaim(ctx, claim); err != nil {
		return nil, err
	}
	s.log.Info("certificate signed for a claim", "tenant", t.ID, "username", c.Username, "serial", c.Serial, "claim", claim.ID)
	return &signOutput{http.StatusCreated, *c}, changed(ctx, nil, c)
}
