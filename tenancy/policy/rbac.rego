# SPDX-License-Identifier: Apache-2.0

# Who may do what through the API. allow.go gives the input and reads decision,
# excess and roles; nothing else of this file is read.
package manor.rbac

# The built-in roles. A permission that is in none of them can be given to nobody.
roles := {
	"owner": everything,
	"admin": everything - {"organization:delete", "owners:write", "tenants:delete"},
	"developer": everyone | {
		"audit:read",
		"clients:read",
		"clients:write",
		"credentials:read",
		"credentials:write",
		"keys:read",
		"messages:read",
		"messages:write",
		"policies:read",
		"policies:write",
		"tenants:write",
	},
	"billing": everyone | {"quotas:write"},
	"viewer": everyone | {"clients:read", "credentials:read", "policies:read"},
}

everyone := {"members:read", "organization:read", "quotas:read", "tenants:read", "usage:read"}

everything := everyone | {
	"audit:read",
	"clients:read",
	"clients:write",
	"credentials:read",
	"credentials:write",
	"keys:read",
	"keys:write",
	"members:write",
	"messages:read",
	"messages:write",
	"organization:delete",
	"organization:write",
	"owners:write",
	"policies:read",
	"policies:write",
	"quotas:write",
	"tenants:delete",
	"tenants:suspend",
	"tenants:write",
}

# What the caller holds: of its role, or of its own list.
held := roles[input.principal.role]

held := {p | some p in input.principal.permissions} & everything if not input.principal.role

# The caller is of the organization that the thing belongs to.
own if {
	input.principal.organization != ""
	input.principal.organization == input.resource.organization
}

# The caller is not limited to tenants, or the thing belongs to one of them.
in_scope if count(input.principal.tenants) == 0

in_scope if input.resource.tenant in input.principal.tenants

# Undefined never allows: what goes wrong above ends in the default.
default decision := "permission"

decision := "organization" if not own

decision := "scope" if {
	own
	not in_scope
}

decision := "allow" if {
	own
	in_scope
	input.permission in held
}

# What the caller would give away without holding it.
given := roles[input.grant.role]

given := {p | some p in input.grant.permissions} if not input.grant.role

excess contains p if {
	some p in given
	not p in held
}

excess contains "every tenant" if {
	count(input.principal.tenants) > 0
	count(input.grant.tenants) == 0
}

excess contains t if {
	count(input.principal.tenants) > 0
	some t in input.grant.tenants
	not t in input.principal.tenants
}
