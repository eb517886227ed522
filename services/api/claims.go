// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/store"
)

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

func (s *Server) claimRoutes() {
	const base, tag = "/v1/tenants/{tenant}", "Identities"
	op := operation("create-claim", http.MethodPost, base+"/claims", tag, "Make a claim, with which a device gets one certificate")
	describeDryRun(s, &op, CreatedClaim{})
	register(s, op, s.createClaim)
	register(s, operation("list-claims", http.MethodGet, base+"/claims", tag, "List the claims that were not used"), s.listClaims)
	register(s, operation("delete-claim", http.MethodDelete, base+"/claims/{claim}", tag, "Take a claim back"), s.deleteClaim)
	op = operation("redeem-claim", http.MethodPost, "/v1/claims:redeem", tag, "Get a certificate for a claim, which is then used up; a device needs no API key")
	op.Security = nil
	describeDryRun(s, &op, SignedCertificate{})
	register(s, op, s.redeemClaim)
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
