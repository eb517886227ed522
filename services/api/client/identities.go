// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"time"
)

// AuthMethods are the methods by which a tenant's clients show who they are, in their
// order.
type AuthMethods struct {
	Methods []string `json:"methods"`
}

// JWTIssuer is somebody whose tokens (JWT) a tenant takes as passwords.
type JWTIssuer struct {
	Issuer         string   `json:"issuer"`
	Audience       []string `json:"audience"`
	Algorithms     []string `json:"algorithms,omitempty"`
	JWKSURL        string   `json:"jwks_url,omitempty"`
	JWKS           string   `json:"jwks,omitempty"`
	UsernameClaim  string   `json:"username_claim,omitempty"`
	ClientIDClaim  string   `json:"client_id_claim,omitempty"`
	PublishClaim   string   `json:"publish_claim,omitempty"`
	SubscribeClaim string   `json:"subscribe_claim,omitempty"`
}

// Issuers are all issuers of a tenant.
type Issuers struct {
	Items []JWTIssuer `json:"items"`
}

// IssuerDetail is an issuer with what is known of its keys.
type IssuerDetail struct {
	JWTIssuer
	Keys IssuerKeys `json:"keys"`
}

// IssuerKeys are the keys of an issuer.
type IssuerKeys struct {
	IDs       []string   `json:"ids"`
	FetchedAt *time.Time `json:"fetched_at,omitempty"`
	TriedAt   *time.Time `json:"tried_at,omitempty"`
	Problem   string     `json:"problem,omitempty"`
}

// AllowLists are from where a tenant may be reached: networks and addresses. One that
// is empty allows every address.
type AllowLists struct {
	MQTT []string `json:"mqtt,omitempty"`
	API  []string `json:"api,omitempty"`
}

// Flapping is when a client is banned that connects again and again; never without a
// rule.
type Flapping struct {
	Rule *FlappingRule `json:"rule,omitempty"`
}

// FlappingRule is a rule of Flapping; Window and Ban are in seconds.
type FlappingRule struct {
	Connects int `json:"connects"`
	Window   int `json:"window"`
	Ban      int `json:"ban"`
}

// NewBan asks for a ban. Kind is client_id, username, address or certificate.
type NewBan struct {
	Kind      string     `json:"kind"`
	Value     string     `json:"value"`
	Reason    string     `json:"reason,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"` // nil is never
}

// Ban is a ban.
type Ban struct {
	ID string `json:"id"`
	NewBan
	CreatedAt time.Time `json:"created_at"`
	Automatic bool      `json:"automatic"`
	Level     int       `json:"level,omitempty"`
}

// AuthMethods gets the methods by which a tenant's clients show who they are.
func (c *Client) AuthMethods(ctx context.Context, tenant string) (*AuthMethods, error) {
	return ask[AuthMethods](ctx, c, "get-auth-methods", []string{"tenant", tenant}, nil, nil)
}

// ReplaceAuthMethods replaces them, and their order.
func (c *Client) ReplaceAuthMethods(ctx context.Context, tenant string, in AuthMethods, o ...Option) (*AuthMethods, error) {
	return ask[AuthMethods](ctx, c, "replace-auth-methods", []string{"tenant", tenant}, in, o)
}

// Issuers lists the issuers whose tokens are taken.
func (c *Client) Issuers(ctx context.Context, tenant string) (*Page[IssuerDetail], error) {
	return ask[Page[IssuerDetail]](ctx, c, "list-jwt-issuers", []string{"tenant", tenant}, nil, nil)
}

// ReplaceIssuers replaces them.
func (c *Client) ReplaceIssuers(ctx context.Context, tenant string, in Issuers, o ...Option) (*Page[IssuerDetail], error) {
	return ask[Page[IssuerDetail]](ctx, c, "replace-jwt-issuers", []string{"tenant", tenant}, in, o)
}

// AllowLists gets from where a tenant may be reached.
func (c *Client) AllowLists(ctx context.Context, tenant string) (*AllowLists, error) {
	return ask[AllowLists](ctx, c, "get-ip-allow-lists", []string{"tenant", tenant}, nil, nil)
}

// ReplaceAllowLists replaces that.
func (c *Client) ReplaceAllowLists(ctx context.Context, tenant string, in AllowLists, o ...Option) (*AllowLists, error) {
	return ask[AllowLists](ctx, c, "replace-ip-allow-lists", []string{"tenant", tenant}, in, o)
}

// Flapping gets when a client is banned that connects again and again.
func (c *Client) Flapping(ctx context.Context, tenant string) (*Flapping, error) {
	return ask[Flapping](ctx, c, "get-flapping", []string{"tenant", tenant}, nil, nil)
}

// ReplaceFlapping replaces that.
func (c *Client) ReplaceFlapping(ctx context.Context, tenant string, in Flapping, o ...Option) (*Flapping, error) {
	return ask[Flapping](ctx, c, "replace-flapping", []string{"tenant", tenant}, in, o)
}

// Bans lists the bans that hold now.
func (c *Client) Bans(ctx context.Context, tenant string, o ...Option) (*Page[Ban], error) {
	return ask[Page[Ban]](ctx, c, "list-bans", []string{"tenant", tenant}, nil, o)
}

// CreateBan bans clients, or changes the ban that is there.
func (c *Client) CreateBan(ctx context.Context, tenant string, in NewBan, o ...Option) (*Ban, error) {
	return ask[Ban](ctx, c, "create-ban", []string{"tenant", tenant}, in, o)
}

// DeleteBan ends a ban.
func (c *Client) DeleteBan(ctx context.Context, tenant, ban string, o ...Option) error {
	return c.call(ctx, "delete-ban", []string{"tenant", tenant, "ban", ban}, nil, nil, o)
}
