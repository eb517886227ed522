// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// ClientCAsRequest is the body of PUT …/client-cas.
type ClientCAsRequest struct {
	Certificates  string `json:"certificates,omitempty" doc:"Certificates of CAs in PEM, at most 128 KiB. Without any the tenant has none of its own."`
	CRL           string `json:"crl,omitempty" doc:"Revocation lists of those CAs in PEM, at most 256 KiB. A certificate in one is refused, and its connections end within 2 s."`
	ClientCerts   string `json:"client_certs,omitempty" enum:"optional,required" default:"optional" doc:"required refuses every connection of the tenant that shows no certificate of these CAs, on every listener."`
	Identity      string `json:"use_identity_as_username,omitempty" enum:"cn,san" doc:"What of a certificate replaces the user name: cn, or san (the first URI, DNS name or e-mail address). Left out, the client says it."`
	Authenticates bool   `json:"certificate_authenticates,omitempty" doc:"Whether a client with a certificate needs no password; use_identity_as_username says who it is."`
}

// ClientCA is one CA.
type ClientCA struct {
	Subject   string    `json:"subject" example:"CN=Acme devices"`
	SHA256    string    `json:"sha256" doc:"Of the certificate in DER, in hexadecimal."`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// ClientCAs is the answer to GET and PUT of client-cas.
type ClientCAs struct {
	ClientCAsRequest
	Items   []ClientCA `json:"items" doc:"What certificates has."`
	Revoked int        `json:"revoked" doc:"How many certificates crl has."`
}

type clientCAsOutput struct {
	ETag string `header:"ETag"`
	Body ClientCAs
}

type clientCAsInput struct {
	InTenant
	Change
	Body ClientCAsRequest
}

func (s *Server) clientCARoutes() {
	const base = "/v1/tenants/{tenant}/client-cas"
	register(s, operation("list-client-cas", http.MethodGet, base, "Tenants", "List a tenant's own CAs of client certificates"), s.listClientCAs)
	register(s, operation("replace-client-cas", http.MethodPut, base, "Tenants",
		"Replace a tenant's own CAs of client certificates; connections whose certificate is no longer good end within 2 s"), s.replaceClientCAs)
}

func (s *Server) listClientCAs(ctx context.Context, _ *tenantInput) (*clientCAsOutput, error) {
	return clientCAsBody(tenantOf(ctx))
}

func clientCAsBody(t *tenancy.TenantRecord) (*clientCAsOutput, error) {
	out := &clientCAsOutput{ETag: etag(t.Revision), Body: ClientCAs{Items: []ClientCA{}}}
	c := t.ClientCAs
	if c == nil {
		out.Body.ClientCerts = tenancy.ClientCertsOptional
		return out, nil
	}
	trust, err := c.Trust()
	if err != nil {
		return nil, errs.New(errs.Internal, "stored client CAs: %w", err)
	}
	out.Body.ClientCAsRequest = ClientCAsRequest{c.Certificates, c.CRL, c.ClientCerts, c.Identity, c.Authenticates}
	out.Body.Revoked = trust.Revoked()
	for _, ca := range trust.Authorities() {
		sum := sha256.Sum256(ca.Raw)
		out.Body.Items = append(out.Body.Items, ClientCA{ca.Subject.String(), hex.EncodeToString(sum[:]), ca.NotBefore, ca.NotAfter})
	}
	return out, nil
}

// own is what is stored; nil without certificates, with which nothing else has a
// meaning.
func (r *ClientCAsRequest) own() (*tenancy.ClientCAs, error) {
	if r.Certificates != "" {
		return &tenancy.ClientCAs{Certificates: r.Certificates, CRL: r.CRL, ClientCerts: r.ClientCerts, Identity: r.Identity, Authenticates: r.Authenticates}, nil
	}
	if r.CRL != "" || r.ClientCerts != tenancy.ClientCertsOptional || r.Identity != "" || r.Authenticates {
		return nil, errs.Coded(errs.Invalid, "client_cas_invalid", "expected certificates with what is set; an empty body takes the CAs away")
	}
	return nil, nil
}

func (s *Server) replaceClientCAs(ctx context.Context, in *clientCAsInput) (*clientCAsOutput, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "tenant "+t.ID)
	if err != nil {
		return nil, err
	}
	cas, err := in.Body.own()
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		if err := matches(rev, t.Revision, "tenant "+t.ID); err != nil {
			return nil, err
		}
		unchanged(ctx)
		if cas != nil {
			if err := store.CheckClientCAs(t, cas); err != nil {
				return nil, err
			}
		}
		t = t.Clone()
		t.ClientCAs = cas
		return clientCAsBody(t)
	}
	if err := change(ctx, t.Organization, t.ID, "client CAs", t.ClientCAs); err != nil {
		return nil, err
	}
	was, now, err := s.store.ChangeTenant(ctx, t.ID, rev, store.ClientCAs(cas))
	if err != nil {
		return nil, err
	}
	s.log.Info("client CAs replaced", "tenant", t.ID, "any", cas != nil)
	if err := changed(ctx, was.ClientCAs, now.ClientCAs); err != nil {
		return nil, err
	}
	out, err := clientCAsBody(now)
	if err == nil {
		s.usesCAs(ctx, was, now, len(out.Body.Items))
	}
	return out, err
}

// usesCAs is uses of CAs, which are replaced all at once.
func (s *Server) usesCAs(ctx context.Context, was, now *tenancy.TenantRecord, n int) {
	if before, err := clientCAsBody(was); err == nil {
		s.uses(ctx, now, "client_cas", int64(n-len(before.Body.Items)), func(context.Context, string) (int64, error) { return int64(n), nil })
	}
}
