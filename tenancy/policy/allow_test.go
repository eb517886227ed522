// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

func open(t testing.TB) *policy.RBAC {
	t.Helper()
	r, err := policy.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRoles holds the names in the rules to those of package tenancy.
func TestRoles(t *testing.T) {
	roles := open(t).Roles()
	if d := cmp.Diff(slices.Sorted(slices.Values(tenancy.Roles())), slices.Sorted(maps.Keys(roles))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(tenancy.Permissions(), roles[tenancy.RoleOwner]); d != "" {
		t.Errorf("an owner may do everything: %s", d)
	}
	for name, all := range roles {
		for _, p := range all {
			if !slices.Contains(tenancy.Permissions(), p) {
				t.Errorf("role %s: there is no permission %q", name, p)
			}
		}
	}
}

func TestAllow(t *testing.T) {
	r := open(t)
	role := func(name string, tenants ...string) tenancy.Access {
		return tenancy.Access{Role: name, Tenants: tenants}
	}
	list := func(p ...string) tenancy.Access { return tenancy.Access{Permissions: p} }
	for _, c := range []struct {
		name          string
		of            string
		access        tenancy.Access
		permission    string
		about, tenant string
		want          policy.Decision
	}{
		{"owner", "o1", role("owner"), "owners:write", "o1", "", policy.Allowed},
		{"owner of another", "o2", role("owner"), "organization:read", "o1", "", policy.Foreign},
		{"of none", "", role("owner"), "organization:read", "", "", policy.Foreign},
		{"admin", "o1", role("admin"), "members:write", "o1", "", policy.Allowed},
		{"admin and owners", "o1", role("admin"), "owners:write", "o1", "", policy.Forbidden},
		{"viewer reads", "o1", role("viewer"), "tenants:read", "o1", "t1", policy.Allowed},
		{"viewer writes", "o1", role("viewer"), "tenants:write", "o1", "t1", policy.Forbidden},
		{"billing", "o1", role("billing"), "quotas:write", "o1", "t1", policy.Allowed},
		{"billing and credentials", "o1", role("billing"), "credentials:read", "o1", "t1", policy.Forbidden},
		{"scoped, its tenant", "o1", role("owner", "t1", "t2"), "tenants:write", "o1", "t2", policy.Allowed},
		{"scoped, another", "o1", role("owner", "t1"), "tenants:write", "o1", "t2", policy.OutOfScope},
		{"scoped, the organization", "o1", role("owner", "t1"), "organization:read", "o1", "", policy.OutOfScope},
		{"scoped, foreign", "o1", role("owner", "t1"), "tenants:read", "o2", "t1", policy.Foreign},
		{"listed", "o1", list("usage:read"), "usage:read", "o1", "t1", policy.Allowed},
		{"not listed", "o1", list("usage:read"), "quotas:read", "o1", "t1", policy.Forbidden},
		{"unknown role", "o1", role("king"), "usage:read", "o1", "t1", policy.Forbidden},
		{"role and list", "o1", tenancy.Access{Role: "viewer", Permissions: []string{"keys:write"}}, "keys:write", "o1", "", policy.Forbidden},
		{"nothing", "o1", tenancy.Access{}, "usage:read", "o1", "t1", policy.Forbidden},
		{"no permission", "o1", role("owner"), "", "o1", "t1", policy.Forbidden},
		{"unknown permission", "o1", list("all"), "all", "o1", "", policy.Forbidden},
	} {
		got, err := r.Allow(t.Context(), policy.Principal{Organization: c.of, Access: c.access}, c.permission, policy.Resource{Organization: c.about, Tenant: c.tenant})
		if err != nil || got != c.want {
			t.Errorf("%s: %s, %v, want %s", c.name, got, err, c.want)
		}
	}
}

func TestExcess(t *testing.T) {
	r := open(t)
	for _, c := range []struct {
		name       string
		has, gives tenancy.Access
		want       []string
	}{
		{"owner, owner", tenancy.Access{Role: "owner"}, tenancy.Access{Role: "owner"}, nil},
		{"admin, owner", tenancy.Access{Role: "admin"}, tenancy.Access{Role: "owner"}, []string{"organization:delete", "owners:write", "tenants:delete"}},
		{"viewer, billing", tenancy.Access{Role: "viewer"}, tenancy.Access{Role: "billing"}, []string{"quotas:write"}},
		{"list, wider", tenancy.Access{Permissions: []string{"keys:write", "usage:read"}}, tenancy.Access{Permissions: []string{"usage:read", "audit:read"}}, []string{"audit:read"}},
		{"scoped, all", tenancy.Access{Role: "owner", Tenants: []string{"t1"}}, tenancy.Access{Role: "viewer"}, []string{"every tenant"}},
		{"scoped, another", tenancy.Access{Role: "owner", Tenants: []string{"t1"}}, tenancy.Access{Role: "viewer", Tenants: []string{"t1", "t2"}}, []string{"t2"}},
		{"scoped, same", tenancy.Access{Role: "owner", Tenants: []string{"t1"}}, tenancy.Access{Role: "viewer", Tenants: []string{"t1"}}, nil},
		{"all, scoped", tenancy.Access{Role: "owner"}, tenancy.Access{Role: "viewer", Tenants: []string{"t1"}}, nil},
	} {
		got, err := r.Excess(t.Context(), policy.Principal{Organization: "o1", Access: c.has}, c.gives)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func BenchmarkAllow(b *testing.B) {
	r := open(b)
	p := policy.Principal{Organization: "o1", Access: tenancy.Access{Role: "developer"}}
	for b.Loop() {
		if d, err := r.Allow(b.Context(), p, "credentials:write", policy.Resource{Organization: "o1", Tenant: "t1"}); err != nil || d != policy.Allowed {
			b.Fatal(d, err)
		}
	}
}
