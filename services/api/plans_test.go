// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"testing"
	"time"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// Another plan has other limits, and the tenant's answer says how far its cell has grown to
// what that has. Where gateways look for its sessions is not changed by it.
func TestReplacePlan(t *testing.T) {
	w := newWorld(t)
	const tenant, path = "/v1/tenants/small", "/v1/tenants/small/plan"
	w.want(w.do("POST", "/v1/organizations/"+w.org+"/tenants", w.owner, `{"id":"small","plan":"free"}`), 201, "")
	if v := w.want(w.do("GET", tenant, w.owner, ""), 200, ""); v["cell"] != nil {
		t.Errorf("it has not grown: %v", v)
	}
	_, scoped := w.newKey(tenancy.Access{Permissions: []string{tenancy.MayWriteOrganization}, Tenants: []string{"small"}})
	w.want(w.do("PUT", path, scoped, `{"plan":"pro"}`), 403, "scope_insufficient")
	for _, bad := range []string{`{"plan":"none"}`, `{"plan":"gold"}`, `{"plan":""}`} {
		w.want(w.do("PUT", path, w.owner, bad), 400, "plan_unknown")
	}
	w.want(w.do("PUT", path, w.owner, `{}`), 400, "request_invalid")
	if v := w.want(w.do("PUT", path+"?dry_run=true", w.owner, `{"plan":"pro"}`), 200, ""); v["plan"] != "pro" {
		t.Errorf("a dry run: %v", v)
	}
	v := w.want(w.do("PUT", path, w.owner, `{"plan":"starter"}`), 200, "")
	if c, _ := v["cell"].(map[string]any); v["plan"] != "starter" || c["wanted"] != 4.0 || c["has"] != 0.0 || c["waits"] == nil {
		t.Errorf("changed: %v", v)
	}
	r, err := w.store.Tenant(t.Context(), "small")
	if err != nil {
		t.Fatal(err)
	}
	if l, err := r.Limits(); err != nil || l.Connections != 10_000 || r.Partitions != 1 {
		t.Errorf("the record is %+v with %+v, %v", r, l, err)
	}
	for _, c := range []store.Cell{{Wanted: 4, Has: 1, Waits: "b1 is down", Since: time.Now()}, {Wanted: 4, Has: 4, Since: time.Now()}} {
		if err := w.store.PutCell(t.Context(), "small", &c); err != nil {
			t.Fatal(err)
		}
		got, _ := w.want(w.do("GET", tenant, w.owner, ""), 200, "")["cell"].(map[string]any)
		waits, _ := got["waits"].(string)
		if got["wanted"] != 4.0 || got["has"] != float64(c.Has) || waits != c.Waits || got["since"] == nil {
			t.Errorf("%+v is told as %v", c, got)
		}
	}
	// With the plan that it was made with nothing is said, whatever was.
	if v := w.want(w.do("PUT", path, w.owner, `{"plan":"free"}`), 200, ""); v["cell"] != nil {
		t.Errorf("back: %v", v)
	}
}
