// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"testing"

	"github.com/manormq/manor/tenancy"
)

// Quotas that hold for the organization are not changed by who is limited to a tenant, and
// nobody shortens the audit log with one.
func TestOverrides_OfTheOrganization(t *testing.T) {
	w := newWorld(t)
	_, scoped := w.newKey(tenancy.Access{Permissions: []string{"quotas:write", "quotas:read"}, Tenants: []string{"acme"}})
	const path = "/v1/tenants/acme/quotas/overrides"
	for _, body := range []string{`{"members":-1}`, `{"api_keys":-1}`, `{"audit_days":-1}`, `{"tenants":-1}`} {
		w.want(w.do("PUT", path, scoped, body), 403, "scope_insufficient")
		w.want(w.do("PUT", path, w.owner, body), 200, "")
		w.want(w.do("PUT", path, scoped, `{}`), 403, "scope_insufficient") // nor taken back
		w.want(w.do("PUT", path, w.owner, `{}`), 200, "")
	}
	w.want(w.do("PUT", path, scoped, `{"connections":5}`), 200, "")
	w.want(w.do("PUT", path, w.owner, `{"audit_days":0}`), 400, "quota_too_low")
	w.want(w.do("PUT", path+"?dry_run=true", w.owner, `{"audit_days":1}`), 400, "quota_too_low")
}
