// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"slices"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// The built-in roles of an organization. What they may do is in
// tenancy/policy.
const (
	// RoleOwner may do everything, and alone appoints owners, and deletes tenants and the organization.
	RoleOwner = "owner"
	// RoleAdmin may do everything but appoint and remove owners, and delete tenants
	// and the organization.
	RoleAdmin = "admin"
	// RoleDeveloper works with tenants, credentials, clients and messages.
	RoleDeveloper = "developer"
	// RoleBilling sees usage and sets quotas.
	RoleBilling = "billing"
	// RoleViewer sees all but messages, keys and the audit log.
	RoleViewer = "viewer"
)

// Roles returns the names of the roles, the most powerful first.
func Roles() []string { return []string{RoleOwner, RoleAdmin, RoleDeveloper, RoleBilling, RoleViewer} }

// Permissions that operations of the API need: a thing and read or write.
const (
	MayReadOrganization  = "organization:read"
	MayWriteOrganization = "organization:write"
	// MayDeleteOrganization takes the organization away, which has no tenants then.
	MayDeleteOrganization = "organization:delete"
	MayReadMembers        = "members:read"
	MayWriteMembers       = "members:write"
	// MayWriteOwners is needed, beside MayWriteMembers, where a member becomes or
	// was an owner.
	MayWriteOwners  = "owners:write"
	MayReadKeys     = "keys:read"
	MayWriteKeys    = "keys:write"
	MayReadAudit    = "audit:read"
	MayReadTenants  = "tenants:read"
	MayWriteTenants = "tenants:write"
	// MaySuspendTenants stops and resumes all clients of a tenant, MayDeleteTenants takes it
	// away, for a while or for ever.
	MaySuspendTenants   = "tenants:suspend"
	MayDeleteTenants    = "tenants:delete"
	MayReadPolicies     = "policies:read"
	MayWritePolicies    = "policies:write"
	MayReadQuotas       = "quotas:read"
	MayWriteQuotas      = "quotas:write"
	MayReadUsage        = "usage:read"
	MayReadCredentials  = "credentials:read"
	MayWriteCredentials = "credentials:write"
	MayReadClients      = "clients:read"
	MayWriteClients     = "clients:write"
	MayReadMessages     = "messages:read"
	MayWriteMessages    = "messages:write"
)

// Permissions returns all of them, in order.
func Permissions() []string {
	all := []string{
		MayReadOrganization, MayWriteOrganization, MayDeleteOrganization, MayReadMembers, MayWriteMembers, MayWriteOwners, MayReadKeys, MayWriteKeys,
		MayReadAudit, MayReadTenants, MayWriteTenants, MaySuspendTenants, MayDeleteTenants, MayReadPolicies, MayWritePolicies, MayReadQuotas, MayWriteQuotas, MayReadUsage, MayReadCredentials,
		MayWriteCredentials, MayReadClients, MayWriteClients, MayReadMessages, MayWriteMessages,
	}
	slices.Sort(all)
	return all
}

// Access is what a member or an API key may do. It is a plain value.
type Access struct {
	// Role is one of Roles, or empty; then Permissions are what it may do.
	Role        string   `json:"role,omitempty"`
	Permissions []string `json:"permissions,omitempty"`
	// Tenants are the ids of those to which it is limited; empty is no limit.
	Tenants []string `json:"tenants,omitempty"`
}

// Bounds of an Access.
const (
	accessTenantsMax = 100
)

// Valid checks that either a role or permissions are given, that they exist, and
// the form of the tenants, of which there are at most 100. The error is Invalid
// with Code "role_unknown", "permission_unknown", "access_invalid" or
// "tenant_invalid".
func (a Access) Valid() error {
	switch {
	case a.Role == "" && len(a.Permissions) == 0, a.Role != "" && len(a.Permissions) > 0:
		return errs.Coded(errs.Invalid, "access_invalid", "expected either a role or permissions")
	case a.Role != "" && !slices.Contains(Roles(), a.Role):
		return errs.Coded(errs.Invalid, "role_unknown", "expected one of the roles %s, found %q", strings.Join(Roles(), ", "), a.Role)
	case len(a.Tenants) > accessTenantsMax:
		return errs.Coded(errs.Invalid, "access_invalid", "expected at most %d tenants, found %d", accessTenantsMax, len(a.Tenants))
	}
	all := Permissions()
	for i, p := range a.Permissions {
		if !slices.Contains(all, p) {
			return errs.Coded(errs.Invalid, "permission_unknown", "expected permissions of %s, found %q", strings.Join(all, ", "), p)
		}
		if slices.Contains(a.Permissions[:i], p) {
			return errs.Coded(errs.Invalid, "access_invalid", "the permission %q is there twice", p)
		}
	}
	for i, t := range a.Tenants {
		if err := ValidTenantID(t); err != nil {
			return err
		}
		if slices.Contains(a.Tenants[:i], t) {
			return errs.Coded(errs.Invalid, "access_invalid", "the tenant %q is there twice", t)
		}
	}
	return nil
}
