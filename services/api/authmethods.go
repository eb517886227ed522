// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/jwt"
	"github.com/manormq/manor/tenancy/store"
)

// AuthMethods is the body of auth-methods, both ways.
type AuthMethods struct {
	Methods []string `json:"methods" enum:"certificate,jwt,password,scram" minItems:"1" maxItems:"4" doc:"The methods by which clients may show who they are, in the order in which they are tried: the first that applies decides. Connections by one that is taken away end within 2 s."`
}

type (
	authMethodsInput struct {
		InTenant
		Change
		Body AuthMethods
	}
	authMethodsOutput struct {
		ETag string `header:"ETag"`
		Body AuthMethods
	}
)

// IssuersRequest is the body of PUT …/jwt-issuers.
type IssuersRequest struct {
	Items []tenancy.Issuer `json:"items" maxItems:"10" doc:"All of them; connections by tokens of one that is taken away end within 2 s."`
}

// IssuerDetail is an issuer with what is known of its keys.
type IssuerDetail struct {
	tenancy.Issuer
	Keys IssuerKeys `json:"keys"`
}

// IssuerKeys are the keys of an issuer.
type IssuerKeys struct {
	IDs       []string   `json:"ids" doc:"The ids (kid) of the keys that tokens may be signed with."`
	FetchedAt *time.Time `json:"fetched_at,omitempty" doc:"When they came from jwks_url."`
	TriedAt   *time.Time `json:"tried_at,omitempty" doc:"When they were asked for last."`
	Problem   string     `json:"problem,omitempty" doc:"Why they did not come then; those of before stay."`
}

// IssuerList is the answer to GET and PUT of jwt-issuers.
type IssuerList struct {
	Items []IssuerDetail `json:"items"`
}

type (
	issuersInput struct {
		InTenant
		Change
		Body IssuersRequest
	}
	issuersOutput struct {
		ETag string `header:"ETag"`
		Body IssuerList
	}
)

func (s *Server) authMethodRoutes() {
	const base = "/v1/tenants/{tenant}"
	register(s, operation("get-auth-methods", http.MethodGet, base+"/auth-methods", "Identities", "Get the methods by which clients show who they are"), s.authMethods)
	register(s, operation("replace-auth-methods", http.MethodPut, base+"/auth-methods", "Identities",
		"Replace the methods by which clients show who they are, and their order"), s.replaceAuthMethods)
	register(s, operation("list-jwt-issuers", http.MethodGet, base+"/jwt-issuers", "Identities", "List the issuers whose tokens (JWT) are taken as passwords"), s.listIssuers)
	register(s, operation("replace-jwt-issuers", http.MethodPut, base+"/jwt-issuers", "Identities",
		"Replace the issuers whose tokens (JWT) are taken as passwords"), s.replaceIssuers)
}

func authMethodsBody(t *tenancy.TenantRecord) *authMethodsOutput {
	out := &authMethodsOutput{ETag: etag(t.Revision), Body: AuthMethods{t.AuthMethods}}
	if len(t.AuthMethods) == 0 {
		out.Body.Methods = tenancy.AuthMethods()
	}
	return out
}

func (s *Server) authMethods(ctx context.Context, _ *tenantInput) (*authMethodsOutput, error) {
	return authMethodsBody(tenantOf(ctx)), nil
}

func (s *Server) replaceAuthMethods(ctx context.Context, in *authMethodsInput) (*authMethodsOutput, error) {
	t, err := s.replacePart(ctx, in.Change, "auth methods", func(t *tenancy.TenantRecord) any { return t.AuthMethods }, store.AuthMethods(in.Body.Methods))
	if err != nil {
		return nil, err
	}
	return authMethodsBody(t), nil
}

func (s *Server) issuersBody(ctx context.Context, t *tenancy.TenantRecord) (*issuersOutput, error) {
	out := &issuersOutput{ETag: etag(t.Revision), Body: IssuerList{[]IssuerDetail{}}}
	for _, i := range t.Issuers {
		x := IssuerDetail{Issuer: i, Keys: IssuerKeys{IDs: []string{}}}
		jwks := i.JWKS
		if i.JWKSURL != "" {
			k, _, err := s.store.TokenKeys(ctx, t.ID, i.JWKSURL)
			switch {
			case errs.Is(err, errs.NotFound):
			case err != nil:
				return nil, err
			default:
				jwks, x.Keys.Problem, x.Keys.TriedAt = k.JWKS, k.Problem, &k.TriedAt
				if !k.FetchedAt.IsZero() {
					x.Keys.FetchedAt = &k.FetchedAt
				}
			}
		}
		if jwks != "" {
			if ids, err := jwt.CheckKeys(jwks); err == nil {
				x.Keys.IDs = ids
			}
		}
		out.Body.Items = append(out.Body.Items, x)
	}
	return out, nil
}

func (s *Server) listIssuers(ctx context.Context, _ *tenantInput) (*issuersOutput, error) {
	return s.issuersBody(ctx, tenantOf(ctx))
}

func (s *Server) replaceIssuers(ctx context.Context, in *issuersInput) (*issuersOutput, error) {
	for n, i := range in.Body.Items {
		if i.JWKS == "" {
			continue
		}
		if _, err := jwt.CheckKeys(i.JWKS); err != nil {
			return nil, errs.Coded(errs.Invalid, "issuers_invalid", "issuer %d: jwks: %w", n+1, err)
		}
	}
	t, err := s.replacePart(ctx, in.Change, "JWT issuers", func(t *tenancy.TenantRecord) any { return t.Issuers }, store.Issuers(in.Body.Items))
	if err != nil {
		return nil, err
	}
	return s.issuersBody(ctx, t)
}
