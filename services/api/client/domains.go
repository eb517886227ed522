// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"time"
)

// NewDomain asks for a domain; Certificate is acme or uploaded, empty is acme.
type NewDomain struct {
	FQDN        string `json:"fqdn"`
	Certificate string `json:"certificate,omitempty"`
}

// DNSRecord is a record that the tenant is to make.
type DNSRecord struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Domain is a custom domain; its state is pending, verified, active or failed.
type Domain struct {
	FQDN             string     `json:"fqdn"`
	State            string     `json:"state"`
	Certificate      string     `json:"certificate"`
	Challenge        DNSRecord  `json:"challenge"`
	CNAME            DNSRecord  `json:"cname"`
	CreatedAt        time.Time  `json:"created_at"`
	VerifiedAt       *time.Time `json:"verified_at"`
	NotAfter         *time.Time `json:"not_after"`
	Issuer           string     `json:"issuer,omitempty"`
	LastError        string     `json:"last_error,omitempty"`
	Failures         int        `json:"failures,omitempty"`
	NextRenewal      *time.Time `json:"next_renewal"`
	SuggestedRenewal *time.Time `json:"suggested_renewal,omitempty"`
}

// Certificate is a chain and its private key, in PEM.
type Certificate struct {
	Chain string `json:"chain"`
	Key   string `json:"key"`
}

// Domains lists a tenant's domains.
func (c *Client) Domains(ctx context.Context, tenant string, o ...Option) (*Page[Domain], error) {
	return ask[Page[Domain]](ctx, c, "list-domains", []string{"tenant", tenant}, nil, o)
}

// CreateDomain claims a domain.
func (c *Client) CreateDomain(ctx context.Context, tenant string, in NewDomain, o ...Option) (*Domain, error) {
	return ask[Domain](ctx, c, "create-domain", []string{"tenant", tenant}, in, o)
}

// Domain gets a domain.
func (c *Client) Domain(ctx context.Context, tenant, domain string) (*Domain, error) {
	return ask[Domain](ctx, c, "get-domain", []string{"tenant", tenant, "domain", domain}, nil, nil)
}

// VerifyDomain has the DNS asked whether the domain is the tenant's.
func (c *Client) VerifyDomain(ctx context.Context, tenant, domain string, o ...Option) (*Domain, error) {
	return ask[Domain](ctx, c, "verify-domain", []string{"tenant", tenant, "domain", domain}, nil, o)
}

// RenewDomain has the domain's certificate issued anew, soon.
func (c *Client) RenewDomain(ctx context.Context, tenant, domain string, o ...Option) (*Domain, error) {
	return ask[Domain](ctx, c, "renew-domain", []string{"tenant", tenant, "domain", domain}, nil, o)
}

// ReplaceDomainCertificate uploads the certificate of a domain.
func (c *Client) ReplaceDomainCertificate(ctx context.Context, tenant, domain string, in Certificate, o ...Option) (*Domain, error) {
	return ask[Domain](ctx, c, "replace-domain-certificate", []string{"tenant", tenant, "domain", domain}, in, o)
}

// DeleteDomain deletes a domain; gateways refuse it within 2 s.
func (c *Client) DeleteDomain(ctx context.Context, tenant, domain string, o ...Option) error {
	return c.call(ctx, "delete-domain", []string{"tenant", tenant, "domain", domain}, nil, nil, o)
}
