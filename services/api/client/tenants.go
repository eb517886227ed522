// SPDX-License-Identifier: Apache-2.0

package client

import "context"

// UpdateTenant changes what is given of a tenant.
func (c *Client) UpdateTenant(ctx context.Context, tenant string, in TenantUpdate, o ...Option) (*TenantDetail, error) {
	return ask[TenantDetail](ctx, c, "update-tenant", []string{"tenant", tenant}, in, o)
}

// SuspendTenant lets no client of a tenant in and ends the connections of those that are there;
// everything is kept. The reason, which may be empty, is told to the clients.
func (c *Client) SuspendTenant(ctx context.Context, tenant, reason string, o ...Option) (*TenantDetail, error) {
	return ask[TenantDetail](ctx, c, "suspend-tenant", []string{"tenant", tenant}, TenantSuspension{reason}, o)
}

// ResumeTenant lets the clients of a suspended tenant in again.
func (c *Client) ResumeTenant(ctx context.Context, tenant string, o ...Option) (*TenantDetail, error) {
	return ask[TenantDetail](ctx, c, "resume-tenant", []string{"tenant", tenant}, nil, o)
}

// DeleteTenant deletes a tenant, which can be restored until the grace time of the installation
// is over.
func (c *Client) DeleteTenant(ctx context.Context, tenant string, o ...Option) error {
	return c.call(ctx, "delete-tenant", []string{"tenant", tenant}, nil, nil, o)
}

// RestoreTenant brings a deleted tenant back.
func (c *Client) RestoreTenant(ctx context.Context, tenant string, o ...Option) (*TenantDetail, error) {
	return ask[TenantDetail](ctx, c, "restore-tenant", []string{"tenant", tenant}, nil, o)
}

// PurgeTenant has all be removed that a deleted tenant has, now and for ever. It returns before
// that is done: until then Tenant answers tenant_deleted, and tenant_not_found after that.
func (c *Client) PurgeTenant(ctx context.Context, tenant string, o ...Option) (*TenantDetail, error) {
	return ask[TenantDetail](ctx, c, "purge-tenant", []string{"tenant", tenant}, nil, o)
}
