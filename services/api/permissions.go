// SPDX-License-Identifier: Apache-2.0

package api

import "github.com/manormq/manor/tenancy"

// own marks operations that need to know who calls and nothing more: they are
// about the caller.
const own = "own"

// permissions says what each operation needs that has a security requirement.
// An operation without a row cannot be registered.
var permissions = map[string]string{
	"get-me":     own,
	"sign-out":   own,
	"list-plans": own,

	"get-organization":          tenancy.MayReadOrganization,
	"update-organization":       tenancy.MayWriteOrganization,
	"delete-organization":       tenancy.MayDeleteOrganization,
	"list-roles":                tenancy.MayReadOrganization,
	"create-tenant":             tenancy.MayWriteOrganization,
	"list-organization-tenants": tenancy.MayReadTenants,

	"list-members":  tenancy.MayReadMembers,
	"get-member":    tenancy.MayReadMembers,
	"invite-member": tenancy.MayWriteMembers,
	"update-member": tenancy.MayWriteMembers,
	"remove-member": tenancy.MayWriteMembers,

	"list-api-keys":  tenancy.MayReadKeys,
	"get-api-key":    tenancy.MayReadKeys,
	"create-api-key": tenancy.MayWriteKeys,
	"update-api-key": tenancy.MayWriteKeys,
	"rotate-api-key": tenancy.MayWriteKeys,
	"delete-api-key": tenancy.MayWriteKeys,

	"list-audit":   tenancy.MayReadAudit,
	"export-audit": tenancy.MayReadAudit,
	"verify-audit": tenancy.MayReadAudit,

	"get-tenant":              tenancy.MayReadTenants,
	"update-tenant":           tenancy.MayWriteTenants,
	"suspend-tenant":          tenancy.MaySuspendTenants,
	"resume-tenant":           tenancy.MaySuspendTenants,
	"delete-tenant":           tenancy.MayDeleteTenants,
	"restore-tenant":          tenancy.MayDeleteTenants,
	"purge-tenant":            tenancy.MayDeleteTenants,
	"replace-plan":            tenancy.MayWriteOrganization, // which pays
	"list-settings":           tenancy.MayReadTenants,
	"replace-settings":        tenancy.MayWriteTenants,
	"list-client-cas":         tenancy.MayReadTenants,
	"replace-client-cas":      tenancy.MayWriteTenants,
	"list-policies":           tenancy.MayReadPolicies,
	"get-policy":              tenancy.MayReadPolicies,
	"put-policy":              tenancy.MayWritePolicies,
	"import-policy":           tenancy.MayWritePolicies,
	"delete-policy":           tenancy.MayWritePolicies,
	"rollback-policy":         tenancy.MayWritePolicies,
	"test-policy":             tenancy.MayReadPolicies,
	"explain-policy":          tenancy.MayReadClients, // which shows what clients have asked
	"simulate-policy":         tenancy.MayReadClients,
	"get-policy-shadow":       tenancy.MayReadClients,
	"delete-policy-shadow":    tenancy.MayWritePolicies,
	"list-quotas":             tenancy.MayReadQuotas,
	"replace-quota-overrides": tenancy.MayWriteQuotas,
	"get-usage":               tenancy.MayReadUsage,
	"get-tenant-metrics":      tenancy.MayReadUsage,

	"replace-passwd-source":      tenancy.MayWriteCredentials,
	"list-sources":               tenancy.MayReadCredentials,
	"list-credentials":           tenancy.MayReadCredentials,
	"create-credential":          tenancy.MayWriteCredentials,
	"replace-credential-session": tenancy.MayWriteCredentials,
	"delete-credential":          tenancy.MayWriteCredentials,
	"import-credentials":         tenancy.MayWriteCredentials,
	"get-operation":              tenancy.MayReadCredentials,

	"get-auth-methods":           tenancy.MayReadTenants,
	"replace-auth-methods":       tenancy.MayWriteTenants,
	"list-jwt-issuers":           tenancy.MayReadTenants,
	"replace-jwt-issuers":        tenancy.MayWriteTenants,
	"get-ip-allow-lists":         tenancy.MayReadTenants,
	"replace-ip-allow-lists":     tenancy.MayWriteTenants,
	"get-flapping":               tenancy.MayReadTenants,
	"replace-flapping":           tenancy.MayWriteTenants,
	"get-managed-ca":             tenancy.MayReadTenants,
	"get-managed-ca-crl":         tenancy.MayReadTenants,
	"create-managed-ca":          tenancy.MayWriteTenants,
	"delete-managed-ca":          tenancy.MayWriteTenants,
	"sign-certificate":           tenancy.MayWriteCredentials,
	"list-claims":                tenancy.MayReadCredentials,
	"create-claim":               tenancy.MayWriteCredentials,
	"delete-claim":               tenancy.MayWriteCredentials,
	"list-devices":               tenancy.MayReadCredentials,
	"get-device":                 tenancy.MayReadCredentials,
	"replace-device":             tenancy.MayWriteCredentials,
	"delete-device":              tenancy.MayWriteCredentials,
	"import-devices":             tenancy.MayWriteCredentials,
	"export-devices":             tenancy.MayReadCredentials,
	"list-groups":                tenancy.MayReadCredentials,
	"list-domains":               tenancy.MayReadTenants,
	"get-domain":                 tenancy.MayReadTenants,
	"create-domain":              tenancy.MayWriteTenants,
	"delete-domain":              tenancy.MayWriteTenants,
	"verify-domain":              tenancy.MayWriteTenants,
	"renew-domain":               tenancy.MayWriteTenants,
	"replace-domain-certificate": tenancy.MayWriteTenants,

	"list-bans":  tenancy.MayReadClients,
	"create-ban": tenancy.MayWriteClients,
	"delete-ban": tenancy.MayWriteClients,

	"list-clients":  tenancy.MayReadClients,
	"get-client":    tenancy.MayReadClients,
	"delete-client": tenancy.MayWriteClients,

	"list-client-subscriptions": tenancy.MayReadClients,
	"get-client-queue":          tenancy.MayReadClients, // with payloads MayReadMessages besides
	"match-topic":               tenancy.MayReadClients,

	"list-events":         tenancy.MayReadClients,
	"follow-events":       tenancy.MayReadClients,
	"get-client-timeline": tenancy.MayReadClients,

	"publish":       tenancy.MayWriteMessages,
	"list-retained": tenancy.MayReadMessages,
}
