// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"testing"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/quota"
	"github.com/manormq/manor/tenancy/quota/usage"
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

// gateways says what gateways would.
type gateways struct {
	used usage.Used
	err  error
}

func (g *gateways) Usage(context.Context, string) (usage.Used, error) { return g.used, g.err }

// What gateways say is used is shown with what is left; what they do not is not known.
func TestQuotas_UsageAndHeadroom(t *testing.T) {
	g := &gateways{used: usage.Used{quota.Connections: 7, quota.PublishRate: 99.6, quota.BytesInRate: 12}}
	w := newWorld(t, func(c *api.Config) { c.Used = g })
	w.want(w.do("PUT", "/v1/tenants/acme/quotas/overrides", w.owner, `{"connections":5,"publish_rate":1000}`), 200, "")
	shown := func(name string) (usage, headroom any) {
		t.Helper()
		for _, x := range w.want(w.do("GET", "/v1/tenants/acme/quotas", w.owner, ""), 200, "")["items"].([]any) {
			if q := x.(map[string]any); q["name"] == name {
				return q["usage"], q["headroom"]
			}
		}
		t.Fatalf("there is no quota %s", name)
		return nil, nil
	}
	for _, c := range []struct {
		name            string
		usage, headroom any
	}{
		{"connections", 7.0, 0.0}, // more than the limit
		{"publish_rate", 100.0, 900.0},
		{"bytes_in_rate", 12.0, nil}, // no limit
		{"fan_out", nil, nil},        // not counted
	} {
		if u, h := shown(c.name); u != c.usage || h != c.headroom {
			t.Errorf("%s: usage %v, headroom %v, expected %v and %v", c.name, u, h, c.usage, c.headroom)
		}
	}
	g.err = errs.New(errs.Unavailable, "one does not answer")
	if u, h := shown("publish_rate"); u != nil || h != nil {
		t.Errorf("usage %v, headroom %v, although a gateway does not answer", u, h)
	}
}
