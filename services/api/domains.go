// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/manormq/manor/tenancy"
)

// DomainRequest is the body of POST …/domains.
type DomainRequest struct {
	FQDN        string `json:"fqdn" minLength:"3" maxLength:"1024" doc:"A host name, or a wildcard such as *.devices.example.com, which stands for names one part below; in A-labels or U-labels (RFC 5890)." example:"mqtt.example.com"`
	Certificate string `json:"certificate,omitempty" enum:"acme,uploaded" default:"acme" doc:"Where its certificate comes from: acme has it issued and renewed here, uploaded, which wildcards need, waits for PUT …/certificate."`
}

// DNSRecord is a record that the tenant is to make.
type DNSRecord struct {
	Type  string `json:"type" enum:"TXT,CNAME"`
	Name  string `json:"name" example:"_manor-challenge.mqtt.example.com"`
	Value string `json:"value" example:"manor-verify=k5sywzdgnaxcb3mjl2rtqph7ev"`
}

// Domain is a custom domain.
type Domain struct {
	FQDN        string    `json:"fqdn" example:"mqtt.example.com"`
	State       string    `json:"state" enum:"pending,verified,active,failed" doc:"pending: not verified. verified: no certificate yet. active: served. failed: the last try to get a certificate failed; the one that there is is served on."`
	Certificate string    `json:"certificate" enum:"acme,uploaded"`
	Challenge   DNSRecord `json:"challenge" doc:"By this record the domain is verified, now and at each renewal: leave it there."`
	CNAME       DNSRecord `json:"cname" doc:"By this one, or another that leads to the same place, clients find the tenant."`
	CreatedAt   time.Time `json:"created_at"`

	VerifiedAt       *time.Time `json:"verified_at" doc:"When the DNS last said that the domain is the tenant's; null: never."`
	NotAfter         *time.Time `json:"not_after" doc:"When the certificate ends; null without one."`
	Issuer           string     `json:"issuer,omitempty" doc:"Who has signed it." example:"CN=R11,O=Let's Encrypt,C=US"`
	LastError        string     `json:"last_error,omitempty" doc:"What went wrong last, in the words of the certificate authority where it refused."`
	Failures         int        `json:"failures,omitempty" doc:"How often in a row."`
	NextRenewal      *time.Time `json:"next_renewal" doc:"When a certificate will be asked for next, or the authority be asked when that is to be, or the domain verified again, or an uploaded certificate ends; null: never."`
	SuggestedRenewal *time.Time `json:"suggested_renewal,omitempty" doc:"When the certificate will be asked for anew by what the authority suggests (RFC 9773); absent if it suggests nothing."`
}

// DomainList is a page of domains.
type DomainList struct {
	Items []Domain `json:"items"`
	Next  *string  `json:"next" doc:"The cursor of the next page; null at the end."`
}

// CertificateRequest is the body of PUT …/domains/{domain}/certificate.
type CertificateRequest struct {
	Chain string         `json:"chain" maxLength:"16384" doc:"The server's certificate and those of the CAs between, in PEM and in that order."`
	Key   tenancy.Secret `json:"key" maxLength:"16384" doc:"The private key of the first, in PEM: RSA of 2048 to 4096 bits, ECDSA or Ed25519. It is never shown."`
}

type (
	createDomainInput struct {
		InTenant
		Post
		Body DomainRequest
	}
	domainOutput struct {
		Status int
		ETag   string `header:"ETag"`
		Body   Domain
	}
	listDomainsInput struct {
		InTenant
		Paged
	}
	listDomainsOutput struct{ Body DomainList }
	// InDomain is a request about a domain of a tenant.
	InDomain struct {
		Domain string `path:"domain" doc:"The domain's name." example:"mqtt.example.com"`
	}
	domainInput struct {
		InTenant
		InDomain
	}
	changeDomainInput struct {
		InTenant
		InDomain
		Change
	}
	actDomainInput struct {
		InTenant
		InDomain
		Post
	}
	uploadInput struct {
		InTenant
		InDomain
		Change
		Body CertificateRequest
	}
)

func (s *Server) domainRoutes() {
	const base, tag = "/v1/tenants/{tenant}/domains", "Domains"
	op := operation("create-domain", http.MethodPost, base, tag, "Claim a domain; it is served when it is verified and has a certificate")
	describeDryRun(s, &op, Domain{})
	register(s, op, s.createDomain)
	register(s, operation("list-domains", http.MethodGet, base, tag, "List a tenant's domains, in order of their names"), s.listDomains)
	register(s, operation("get-domain", http.MethodGet, base+"/{domain}", tag, "Get a domain"), s.domain)
	register(s, operation("delete-domain", http.MethodDelete, base+"/{domain}", tag,
		"Delete a domain and its certificate; gateways refuse new handshakes for it within 2 s"), s.deleteDomain)
	verify := operation("verify-domain", http.MethodPost, base+"/{domain}:verify", tag,
		"Look whether the DNS has the domain's challenge; with acme its certificate is then issued, within seconds")
	verify.DefaultStatus = http.StatusOK
	register(s, verify, s.verifyDomain)
	renew := operation("renew-domain", http.MethodPost, base+"/{domain}:renew", tag,
		"Have the domain's certificate issued anew, within seconds; next_renewal, not_after and last_error say how that went")
	renew.DefaultStatus = http.StatusOK
	register(s, renew, s.renewDomain)
	register(s, operation("replace-domain-certificate", http.MethodPut, base+"/{domain}/certificate", tag,
		"Replace the uploaded certificate of a domain; gateways show it within 2 s"), s.uploadCertificate)
}

func (s *Server) domainBody(d *tenancy.Domain) Domain {
	some := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	return Domain{
		FQDN: d.FQDN, State: string(d.State), Certificate: d.Source, CreatedAt: d.CreatedAt,
		Challenge:  DNSRecord{"TXT", d.ChallengeName(), d.ChallengeValue()},
		CNAME:      DNSRecord{"CNAME", d.FQDN, d.Tenant + "." + s.cfg.Domain},
		VerifiedAt: some(d.VerifiedAt), NotAfter: some(d.NotAfter), Issuer: d.Issuer,
		LastError: d.LastError, Failures: d.Failures, NextRenewal: some(d.NextRenewal), SuggestedRenewal: some(d.Renewal.At),
	}
}

func (s *Server) createDomain(ctx context.Context, in *createDomainInput) (*domainOutput, error) {
	t := tenantOf(ctx)
	d, err := s.cfg.Domains.Check(ctx, t, in.Body.FQDN, in.Body.Certificate)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		d.Token = "" // each claim has another one
		return &domainOutput{Status: http.StatusOK, Body: s.domainBody(d)}, nil
	}
	if err := change(ctx, t.Organization, t.ID, "domain "+d.FQDN, nil); err != nil {
		return nil, err
	}
	if d, err = s.cfg.Domains.Create(ctx, t, d.FQDN, in.Body.Certificate); err != nil {
		return nil, err
	}
	s.log.Info("domain claimed", "tenant", t.ID, "domain", d.FQDN)
	s.uses(ctx, t, "domains", 1, s.store.CountDomains)
	out := &domainOutput{Status: http.StatusCreated, ETag: etag(d.Revision), Body: s.domainBody(d)}
	return out, changed(ctx, nil, out.Body)
}

func (s *Server) listDomains(ctx context.Context, in *listDomainsInput) (*listDomainsOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	page, next, err := s.store.Domains(ctx, tenantOf(ctx).ID, after, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listDomainsOutput{Body: DomainList{Items: []Domain{}, Next: writeCursor(next)}}
	for _, d := range page {
		out.Body.Items = append(out.Body.Items, s.domainBody(d))
	}
	return out, nil
}

func (s *Server) domain(ctx context.Context, in *domainInput) (*domainOutput, error) {
	d, err := s.cfg.Domains.Find(ctx, tenantOf(ctx).ID, in.Domain)
	if err != nil {
		return nil, err
	}
	return &domainOutput{Status: http.StatusOK, ETag: etag(d.Revision), Body: s.domainBody(d)}, nil
}

// domainAt finds the domain that a change is about, which must be at the revision of the
// request's If-Match.
func (s *Server) domainAt(ctx context.Context, name, match string) (d *tenancy.Domain, rev uint64, err error) {
	if rev, err = ifMatch(match, "domain "+name); err != nil {
		return nil, 0, err
	}
	if d, err = s.cfg.Domains.Find(ctx, tenantOf(ctx).ID, name); err != nil {
		return nil, 0, err
	}
	return d, rev, matches(rev, d.Revision, "domain "+name)
}

func (s *Server) deleteDomain(ctx context.Context, in *changeDomainInput) (*struct{}, error) {
	t := tenantOf(ctx)
	d, rev, err := s.domainAt(ctx, in.Domain, in.IfMatch)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return nil, nil
	}
	if err := change(ctx, t.Organization, t.ID, "domain "+d.FQDN, s.domainBody(d)); err != nil {
		return nil, err
	}
	was, err := s.cfg.Domains.Delete(ctx, t.ID, d.FQDN, rev)
	if err != nil {
		return nil, err
	}
	s.log.Info("domain deleted", "tenant", t.ID, "domain", was.FQDN)
	return nil, changed(ctx, s.domainBody(was), nil)
}

// act is a change of a domain that may be tried first; with a dry run only check is
// called.
func (s *Server) act(ctx context.Context, name, match string, dry bool, check func(*tenancy.Domain) error,
	f func(ctx context.Context, tenant, fqdn string, rev uint64) (was, now *tenancy.Domain, err error),
) (*domainOutput, error) {
	t := tenantOf(ctx)
	d, rev, err := s.domainAt(ctx, name, match)
	if err == nil {
		err = check(d)
	}
	if err != nil {
		return nil, err
	}
	if dry {
		unchanged(ctx)
		return &domainOutput{Status: http.StatusOK, ETag: etag(d.Revision), Body: s.domainBody(d)}, nil
	}
	if err := change(ctx, t.Organization, t.ID, "domain "+d.FQDN, s.domainBody(d)); err != nil {
		return nil, err
	}
	was, now, err := f(ctx, t.ID, d.FQDN, rev)
	if err != nil {
		return nil, err
	}
	out := &domainOutput{Status: http.StatusOK, ETag: etag(now.Revision), Body: s.domainBody(now)}
	return out, changed(ctx, s.domainBody(was), out.Body)
}

func (s *Server) verifyDomain(ctx context.Context, in *actDomainInput) (*domainOutput, error) {
	return s.act(ctx, in.Domain, "", in.DryRun, func(*tenancy.Domain) error { return nil }, s.cfg.Domains.Verify)
}

func (s *Server) renewDomain(ctx context.Context, in *actDomainInput) (*domainOutput, error) {
	return s.act(ctx, in.Domain, "", in.DryRun, s.cfg.Domains.CheckRenew, s.cfg.Domains.Renew)
}

func (s *Server) uploadCertificate(ctx context.Context, in *uploadInput) (*domainOutput, error) {
	chain, key := []byte(in.Body.Chain), []byte(in.Body.Key)
	return s.act(ctx, in.Domain, in.IfMatch, in.DryRun,
		func(d *tenancy.Domain) error { return s.cfg.Domains.CheckUpload(d, chain, key) },
		func(ctx context.Context, tenant, fqdn string, rev uint64) (was, now *tenancy.Domain, err error) {
			return s.cfg.Domains.Upload(ctx, tenant, fqdn, rev, chain, key)
		})
}
