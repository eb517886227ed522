// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"time"
)

// Setting is a setting of a tenant's sessions (docs/settings.md).
type Setting struct {
	Name    string `json:"name"`
	Value   any    `json:"value"`
	Default any    `json:"default"`
	Source  string `json:"source"` // default or tenant
	VerneMQ string `json:"vernemq,omitempty"`
}

// SessionOverride is what holds for the sessions of a credential over the tenant's.
type SessionOverride struct {
	Settings map[string]any   `json:"settings,omitempty"`
	Quotas   map[string]int64 `json:"quotas,omitempty"` // where they are narrower
}

// NewOwnCAs replaces a tenant's own CAs of client certificates.
type NewOwnCAs struct {
	Certificates  string `json:"certificates,omitempty"`             // PEM
	CRL           string `json:"crl,omitempty"`                      // PEM
	ClientCerts   string `json:"client_certs,omitempty"`             // optional or required
	Identity      string `json:"use_identity_as_username,omitempty"` // cn or san
	Authenticates bool   `json:"certificate_authenticates,omitempty"`
}

// OwnCAs are a tenant's own CAs of client certificates.
type OwnCAs struct {
	NewOwnCAs
	Items   []OwnCA `json:"items"`
	Revoked int     `json:"revoked"` // how many certificates the CRL has
}

// OwnCA is one of them.
type OwnCA struct {
	Subject   string    `json:"subject"`
	SHA256    string    `json:"sha256"` // of the certificate in DER, in hexadecimal
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Settings lists the settings of a tenant's sessions.
func (c *Client) Settings(ctx context.Context, tenant string, o ...Option) (*Page[Setting], error) {
	return ask[Page[Setting]](ctx, c, "list-settings", []string{"tenant", tenant}, nil, o)
}

// ReplaceSettings replaces the settings that differ from the defaults.
func (c *Client) ReplaceSettings(ctx context.Context, tenant string, in map[string]any, o ...Option) (*Page[Setting], error) {
	return ask[Page[Setting]](ctx, c, "replace-settings", []string{"tenant", tenant}, in, o)
}

// CAs gets a tenant's own CAs.
func (c *Client) CAs(ctx context.Context, tenant string, o ...Option) (*OwnCAs, error) {
	return ask[OwnCAs](ctx, c, "list-client-cas", []string{"tenant", tenant}, nil, o)
}

// ReplaceCAs replaces a tenant's own CAs; connections whose certificate is no longer
// good end within 2 s.
func (c *Client) ReplaceCAs(ctx context.Context, tenant string, in NewOwnCAs, o ...Option) (*OwnCAs, error) {
	return ask[OwnCAs](ctx, c, "replace-client-cas", []string{"tenant", tenant}, in, o)
}

// ReplaceCredentialSession replaces what holds for the sessions of a credential.
func (c *Client) ReplaceCredentialSession(ctx context.Context, tenant, username string, in SessionOverride, o ...Option) (*SessionOverride, error) {
	return ask[SessionOverride](ctx, c, "replace-credential-session", []string{"tenant", tenant, "username", username}, in, o)
}
