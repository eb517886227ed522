// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
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
	crlOutput struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}
	signOutput struct {
		Status int
		Body   SignedCertificate
	}
)

// crlType is the media type of a revocation list (RFC 2585 §4.2).
const crlType = "application/pkix-crl"

func (s *Server) certificateRoutes() {
	const base, tag = "/v1/tenants/{tenant}", "Identities"
	register(s, operation("get-managed-ca", http.MethodGet, base+"/managed-ca", tag, "Get the CA that signs for a tenant"), s.managedCA)
	op := operation("create-managed-ca", http.MethodPost, base+"/managed-ca", tag, "Make a CA that signs for a tenant, and have it trusted")
	describeDryRun(s, &op, ManagedCA{})
	register(s, op, s.createManagedCA)
	register(s, operation("delete-managed-ca", http.MethodDelete, base+"/managed-ca", tag,
		"Forget the key of a tenant's CA; what it has signed is good until it is taken out of client-cas"), s.deleteManagedCA)
	op = operation("get-managed-ca-crl", http.MethodGet, base+"/managed-ca/crl", tag,
		"Get the revocation list of a tenant's CA (RFC 5280), of the certificates whose serial numbers are banned")
	op.Responses = map[string]*huma.Response{"200": {Description: "The list, in DER.", Content: map[string]*huma.MediaType{crlType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}}
	register(s, op, s.managedCRL)
	op = operation("sign-certificate", http.MethodPost, base+"/certificates:sign", tag, "Sign a client's certificate with the tenant's managed CA")
	describeDryRun(s, &op, SignedCertificate{})
	register(s, op, s.signCertificate)
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

// managedCRL makes the revocation list anew each time: what it says is what bans say now.
func (s *Server) managedCRL(ctx context.Context, _ *tenantInput) (*crlOutput, error) {
	t := tenantOf(ctx)
	sealer, err := s.sealer()
	if err != nil {
		return nil, err
	}
	ca, err := s.store.ManagedCA(ctx, t.ID)
	if err != nil {
		return nil, err
	}
	bans, _, err := s.store.Bans(ctx, t.ID, "", tenancy.BansMax)
	if err != nil {
		return nil, err
	}
	var revoked []managedca.Revoked
	for _, b := range bans {
		text, ok := strings.CutPrefix(b.Value, "serial:")
		if b.Kind != tenancy.BanCertificate || !ok {
			continue
		}
		if serial, ok := managedca.ParseSerial(text); ok {
			revoked = append(revoked, managedca.Revoked{Serial: serial, At: b.CreatedAt, Hold: !b.ExpiresAt.IsZero()})
		}
	}
	key, err := sealer.Open("managed CA of "+t.ID, ca.Sealed)
	if err != nil {
		return nil, err
	}
	list, err := managedca.CRL(ca.Certificate, key, revoked, s.now())
	if err != nil {
		return nil, err
	}
	return &crlOutput{ContentType: crlType, Body: list}, nil
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
