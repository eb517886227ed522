// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"io"
)

// ask does an operation and returns what it answers.
func ask[T any](ctx context.Context, c *Client, id string, params []string, in any, options []Option) (*T, error) {
	out := new(T)
	if err := c.call(ctx, id, params, in, out, options); err != nil {
		return nil, err
	}
	return out, nil
}

// SignUp makes an organization, or has a code sent that makes it.
func (c *Client) SignUp(ctx context.Context, in SignUp, o ...Option) (*SignedUp, error) {
	return ask[SignedUp](ctx, c, "sign-up", nil, in, o)
}

// VerifySignUp makes what a sign-up with that code asked for.
func (c *Client) VerifySignUp(ctx context.Context, code string, o ...Option) (*SignedUp, error) {
	return ask[SignedUp](ctx, c, "verify-sign-up", nil, Verify{code}, o)
}

// AcceptInvitation makes a member of who was invited.
func (c *Client) AcceptInvitation(ctx context.Context, in Accept, o ...Option) (*Accepted, error) {
	return ask[Accepted](ctx, c, "accept-invitation", nil, in, o)
}

// SignIn gets a token for 12 hours.
func (c *Client) SignIn(ctx context.Context, in SignIn) (*Token, error) {
	return ask[Token](ctx, c, "sign-in", nil, in, nil)
}

// SignOut ends the token that this client calls with.
func (c *Client) SignOut(ctx context.Context) error {
	return c.call(ctx, "sign-out", nil, nil, nil, nil)
}

// Me says who calls.
func (c *Client) Me(ctx context.Context) (*Me, error) {
	return ask[Me](ctx, c, "get-me", nil, nil, nil)
}

// Plans lists the plans.
func (c *Client) Plans(ctx context.Context) (*PlanList, error) {
	return ask[PlanList](ctx, c, "list-plans", nil, nil, nil)
}

// Organization gets an organization.
func (c *Client) Organization(ctx context.Context, organization string) (*Organization, error) {
	return ask[Organization](ctx, c, "get-organization", []string{"organization", organization}, nil, nil)
}

// UpdateOrganization changes what is given.
func (c *Client) UpdateOrganization(ctx context.Context, organization string, in OrganizationUpdate, o ...Option) (*Organization, error) {
	return ask[Organization](ctx, c, "update-organization", []string{"organization", organization}, in, o)
}

// DeleteOrganization deletes an organization that has no tenants, with its members and keys,
// also the one of this client.
func (c *Client) DeleteOrganization(ctx context.Context, organization string, o ...Option) error {
	return c.call(ctx, "delete-organization", []string{"organization", organization}, nil, nil, o)
}

// Roles lists the built-in roles.
func (c *Client) Roles(ctx context.Context, organization string) (*Page[Role], error) {
	return ask[Page[Role]](ctx, c, "list-roles", []string{"organization", organization}, nil, nil)
}

// CreateTenant makes another tenant of an organization.
func (c *Client) CreateTenant(ctx context.Context, organization string, in NewTenant, o ...Option) (*TenantDetail, error) {
	return ask[TenantDetail](ctx, c, "create-tenant", []string{"organization", organization}, in, o)
}

// OrganizationTenants lists the tenants of an organization.
func (c *Client) OrganizationTenants(ctx context.Context, organization string, o ...Option) (*Page[TenantDetail], error) {
	return ask[Page[TenantDetail]](ctx, c, "list-organization-tenants", []string{"organization", organization}, nil, o)
}

// Members lists members.
func (c *Client) Members(ctx context.Context, organization string, o ...Option) (*Page[Member], error) {
	return ask[Page[Member]](ctx, c, "list-members", []string{"organization", organization}, nil, o)
}

// Member gets a member.
func (c *Client) Member(ctx context.Context, organization, member string) (*Member, error) {
	return ask[Member](ctx, c, "get-member", []string{"organization", organization, "member", member}, nil, nil)
}

// InviteMember invites somebody, or invites again.
func (c *Client) InviteMember(ctx context.Context, organization string, in Invite, o ...Option) (*InvitedMember, error) {
	return ask[InvitedMember](ctx, c, "invite-member", []string{"organization", organization}, in, o)
}

// UpdateMember changes what a member may do.
func (c *Client) UpdateMember(ctx context.Context, organization, member string, in MemberAccess, o ...Option) (*Member, error) {
	return ask[Member](ctx, c, "update-member", []string{"organization", organization, "member", member}, in, o)
}

// RemoveMember removes a member.
func (c *Client) RemoveMember(ctx context.Context, organization, member string, o ...Option) error {
	return c.call(ctx, "remove-member", []string{"organization", organization, "member", member}, nil, nil, o)
}

// APIKeys lists API keys.
func (c *Client) APIKeys(ctx context.Context, organization string, o ...Option) (*Page[APIKey], error) {
	return ask[Page[APIKey]](ctx, c, "list-api-keys", []string{"organization", organization}, nil, o)
}

// APIKey gets an API key.
func (c *Client) APIKey(ctx context.Context, organization, key string) (*APIKey, error) {
	return ask[APIKey](ctx, c, "get-api-key", []string{"organization", organization, "key", key}, nil, nil)
}

// CreateAPIKey makes an API key.
func (c *Client) CreateAPIKey(ctx context.Context, organization string, in NewAPIKey, o ...Option) (*APIKeySecret, error) {
	return ask[APIKeySecret](ctx, c, "create-api-key", []string{"organization", organization}, in, o)
}

// UpdateAPIKey changes what is given.
func (c *Client) UpdateAPIKey(ctx context.Context, organization, key string, in APIKeyUpdate, o ...Option) (*APIKey, error) {
	return ask[APIKey](ctx, c, "update-api-key", []string{"organization", organization, "key", key}, in, o)
}

// RotateAPIKey gives an API key another secret.
func (c *Client) RotateAPIKey(ctx context.Context, organization, key string, in Rotate, o ...Option) (*APIKeySecret, error) {
	return ask[APIKeySecret](ctx, c, "rotate-api-key", []string{"organization", organization, "key", key}, in, o)
}

// DeleteAPIKey ends an API key.
func (c *Client) DeleteAPIKey(ctx context.Context, organization, key string, o ...Option) error {
	return c.call(ctx, "delete-api-key", []string{"organization", organization, "key", key}, nil, nil, o)
}

// Audit lists changes, the newest first.
func (c *Client) Audit(ctx context.Context, organization string, o ...Option) (*Page[AuditRecord], error) {
	return ask[Page[AuditRecord]](ctx, c, "list-audit", []string{"organization", organization}, nil, o)
}

// ExportAudit returns every record that is kept, one in JSON a line, the oldest
// first; the caller closes it. Read with an error it was not whole.
func (c *Client) ExportAudit(ctx context.Context, organization string) (io.ReadCloser, error) {
	return c.open(ctx, "export-audit", []string{"organization", organization}, nil, nil)
}

// VerifyAudit has the API check its log.
func (c *Client) VerifyAudit(ctx context.Context, organization string) (*AuditCheck, error) {
	return ask[AuditCheck](ctx, c, "verify-audit", []string{"organization", organization}, nil, nil)
}

// Tenant gets a tenant.
func (c *Client) Tenant(ctx context.Context, tenant string) (*TenantDetail, error) {
	return ask[TenantDetail](ctx, c, "get-tenant", []string{"tenant", tenant}, nil, nil)
}

// ReplacePlan changes the plan of a tenant; Cell of the answer says how far its cell has grown.
func (c *Client) ReplacePlan(ctx context.Context, tenant, plan string, o ...Option) (*TenantDetail, error) {
	return ask[TenantDetail](ctx, c, "replace-plan", []string{"tenant", tenant}, TenantPlan{plan}, o)
}

// Quotas lists the quotas of a tenant.
func (c *Client) Quotas(ctx context.Context, tenant string, o ...Option) (*QuotaList, error) {
	return ask[QuotaList](ctx, c, "list-quotas", []string{"tenant", tenant}, nil, o)
}

// ReplaceOverrides replaces the limits that differ from the plan's.
func (c *Client) ReplaceOverrides(ctx context.Context, tenant string, in map[string]int64, o ...Option) (*QuotaList, error) {
	return ask[QuotaList](ctx, c, "replace-quota-overrides", []string{"tenant", tenant}, in, o)
}

// Credentials lists credentials.
func (c *Client) Credentials(ctx context.Context, tenant string, o ...Option) (*Page[Credential], error) {
	return ask[Page[Credential]](ctx, c, "list-credentials", []string{"tenant", tenant}, nil, o)
}

// CreateCredential makes a credential.
func (c *Client) CreateCredential(ctx context.Context, tenant string, in NewCredential, o ...Option) (*CreatedCredential, error) {
	return ask[CreatedCredential](ctx, c, "create-credential", []string{"tenant", tenant}, in, o)
}

// DeleteCredential deletes a credential; its clients are disconnected.
func (c *Client) DeleteCredential(ctx context.Context, tenant, username string, o ...Option) error {
	return c.call(ctx, "delete-credential", []string{"tenant", tenant, "username", username}, nil, nil, o)
}

// Sources says what became of the files that credentials and the policy come from.
func (c *Client) Sources(ctx context.Context, tenant string) (*SourceList, error) {
	return ask[SourceList](ctx, c, "list-sources", []string{"tenant", tenant}, nil, nil)
}

// ReplacePasswdSource has the credentials that come from a file be those of the text; ask
// Operation how far it is.
func (c *Client) ReplacePasswdSource(ctx context.Context, tenant, text string, o ...Option) (*Operation, error) {
	return ask[Operation](ctx, c, "replace-passwd-source", []string{"tenant", tenant}, PasswdFile{text}, o)
}

// ImportCredentials makes many credentials; ask Operation how far it is.
func (c *Client) ImportCredentials(ctx context.Context, tenant string, in Import, o ...Option) (*Operation, error) {
	return ask[Operation](ctx, c, "import-credentials", []string{"tenant", tenant}, in, o)
}

// Operation says how far an operation is.
func (c *Client) Operation(ctx context.Context, tenant, operation string) (*Operation, error) {
	return ask[Operation](ctx, c, "get-operation", []string{"tenant", tenant, "operation", operation}, nil, nil)
}
