// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"time"
)

// ManagedCA is a CA that signs for a tenant; its certificate is in PEM.
type ManagedCA struct {
	Certificate string    `json:"certificate"`
	CreatedAt   time.Time `json:"created_at"`
}

// Sign asks for a certificate; CSR is a request in PEM.
type Sign struct {
	CSR      string `json:"csr"`
	Username string `json:"username"`
	Days     int    `json:"days,omitempty"`
}

// SignedCertificate is a certificate, in PEM as its CA's.
type SignedCertificate struct {
	Certificate string    `json:"certificate"`
	CA          string    `json:"ca"`
	Username    string    `json:"username"`
	Serial      string    `json:"serial"`
	SHA256      string    `json:"sha256"`
	ExpiresAt   time.Time `json:"expires_at"`
}

// NewClaim asks for a claim.
type NewClaim struct {
	Username  string     `json:"username"`
	Days      int        `json:"days,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// Claim is good for one certificate.
type Claim struct {
	ID        string    `json:"id,omitempty"`
	Username  string    `json:"username"`
	Days      int       `json:"days"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

// CreatedClaim is a claim with its secret, which is shown once.
type CreatedClaim struct {
	Claim
	Secret string `json:"secret,omitempty"`
}

// Redeem gives a claim for a certificate.
type Redeem struct {
	Claim string `json:"claim"`
	CSR   string `json:"csr"`
}

// ManagedCA gets the CA that signs for a tenant.
func (c *Client) ManagedCA(ctx context.Context, tenant string) (*ManagedCA, error) {
	return ask[ManagedCA](ctx, c, "get-managed-ca", []string{"tenant", tenant}, nil, nil)
}

// ManagedCRL gets its revocation list, in DER.
func (c *Client) ManagedCRL(ctx context.Context, tenant string) ([]byte, error) {
	return c.whole(ctx, "get-managed-ca-crl", []string{"tenant", tenant})
}

// whole reads an answer that is not JSON.
func (c *Client) whole(ctx context.Context, operation string, path []string) ([]byte, error) {
	r, err := c.open(ctx, operation, path, nil, nil)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, answerMax))
	return b, errors.Join(err, r.Close())
}

// CreateManagedCA makes it, and has it trusted.
func (c *Client) CreateManagedCA(ctx context.Context, tenant string, o ...Option) (*ManagedCA, error) {
	return ask[ManagedCA](ctx, c, "create-managed-ca", []string{"tenant", tenant}, nil, o)
}

// DeleteManagedCA forgets its key.
func (c *Client) DeleteManagedCA(ctx context.Context, tenant string, o ...Option) error {
	return c.call(ctx, "delete-managed-ca", []string{"tenant", tenant}, nil, nil, o)
}

// SignCertificate signs a client's certificate.
func (c *Client) SignCertificate(ctx context.Context, tenant string, in Sign, o ...Option) (*SignedCertificate, error) {
	return ask[SignedCertificate](ctx, c, "sign-certificate", []string{"tenant", tenant}, in, o)
}

// Claims lists the claims that were not used.
func (c *Client) Claims(ctx context.Context, tenant string, o ...Option) (*Page[Claim], error) {
	return ask[Page[Claim]](ctx, c, "list-claims", []string{"tenant", tenant}, nil, o)
}

// CreateClaim makes a claim.
func (c *Client) CreateClaim(ctx context.Context, tenant string, in NewClaim, o ...Option) (*CreatedClaim, error) {
	return ask[CreatedClaim](ctx, c, "create-claim", []string{"tenant", tenant}, in, o)
}

// DeleteClaim takes a claim back.
func (c *Client) DeleteClaim(ctx context.Context, tenant, claim string, o ...Option) error {
	return c.call(ctx, "delete-claim", []string{"tenant", tenant, "claim", claim}, nil, nil, o)
}

// RedeemClaim gets a certificate for a claim. The client needs no key.
func (c *Client) RedeemClaim(ctx context.Context, in Redeem, o ...Option) (*SignedCertificate, error) {
	return ask[SignedCertificate](ctx, c, "redeem-claim", nil, in, o)
}
