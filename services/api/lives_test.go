// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/store"
)

// What the states of a tenant are for its API, one after the other.
func TestTenant_Life(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	w := newWorld(t, func(c *api.Config) { c.Now, c.DeletionGrace = func() time.Time { return now }, time.Hour })
	_, admin := w.newKey(tenancy.Access{Role: tenancy.RoleAdmin})
	const acme = "/v1/tenants/acme"
	list := func(query string) string {
		return w.do("GET", "/v1/organizations/"+w.org+"/tenants"+query, w.owner, "").body
	}

	// Suspended: reads are answered, publishes are refused with what the clients are told.
	for _, bad := range []string{`{"reason":"` + strings.Repeat("x", 201) + `"}`, `{"reason":"a\nb"}`} {
		w.want(w.do("POST", acme+":suspend", w.owner, bad), 400, "reason_invalid")
	}
	w.want(w.do("POST", acme+":suspend", w.owner, `{"reason":7}`), 400, "request_invalid")
	w.want(w.do("POST", acme+":suspend?dry_run=true", admin, `{"reason":"unpaid"}`), 200, "")
	w.want(w.do("POST", acme+"/publish", w.owner, `{"topic":"a"}`), 200, "")
	v := w.want(w.do("POST", acme+":suspend", admin, `{"reason":"unpaid"}`), 200, "")
	if v["state"] != "suspended" || v["state_reason"] != "unpaid" || v["state_since"] != "2026-05-01T12:00:00Z" {
		t.Errorf("suspended: %v", v)
	}
	now = now.Add(time.Minute)
	if v = w.want(w.do("POST", acme+":suspend", admin, ""), 200, ""); v["state_reason"] != nil || v["state_since"] != "2026-05-01T12:00:00Z" {
		t.Errorf("suspended for another reason: %v", v)
	}
	w.want(w.do("POST", acme+":suspend", w.owner, `{"reason":"unpaid"}`), 200, "")
	if v = w.want(w.do("POST", acme+"/publish", w.owner, `{"topic":"a"}`), 403, "tenant_inactive"); v["detail"] != "the tenant is suspended: unpaid" {
		t.Errorf("a publish is told %v", v)
	}
	w.want(w.do("GET", acme+"/credentials", w.owner, ""), 200, "")
	w.want(w.do("POST", acme+":restore", w.owner, ""), 409, "tenant_not_deleted")
	w.want(w.do("POST", acme+":purge", w.owner, ""), 409, "tenant_not_deleted")
	w.want(w.do("POST", acme+":resume", w.owner, "", "If-Match", `"999999"`), 412, "revision_mismatch")
	w.want(w.do("POST", acme+":resume", admin, ""), 200, "")
	w.want(w.do("POST", acme+"/publish", w.owner, `{"topic":"a"}`), 200, "")

	// Protected from being deleted, which who may delete alone takes away.
	_, developer := w.newKey(tenancy.Access{Role: tenancy.RoleDeveloper})
	w.want(w.do("PATCH", acme, developer, `{}`), 400, "request_invalid")
	w.want(w.do("PATCH", acme, developer, `{"display_name":"`+strings.Repeat("x", 129)+`"}`), 400, "display_name_invalid")
	v = w.want(w.do("PATCH", acme, developer, `{"deletion_protection":true,"display_name":"Acme, production"}`), 200, "")
	if v["deletion_protection"] != true || v["display_name"] != "Acme, production" {
		t.Errorf("changed: %v", v)
	}
	for _, query := range []string{"?dry_run=true", ""} {
		w.want(w.do("DELETE", acme+query, w.owner, ""), 409, "tenant_protected")
	}
	w.want(w.do("PATCH", acme, developer, `{"deletion_protection":false}`), 403, "permission_missing")
	w.want(w.do("PATCH", acme, w.owner, `{"deletion_protection":false}`), 200, "")

	// Deleted: gone for whoever might use it, but for what brings it back.
	w.want(w.do("POST", acme+":suspend", w.owner, `{"reason":"unpaid"}`), 200, "")
	w.want(w.do("DELETE", acme, admin, ""), 403, "permission_missing")
	w.want(w.do("DELETE", acme+"?dry_run=true", w.owner, ""), 204, "")
	w.want(w.do("DELETE", acme, w.owner, ""), 204, "")
	for _, r := range []struct{ method, path, body string }{
		{"GET", "", ""},
		{"PATCH", "", `{"display_name":"x"}`},
		{"POST", ":suspend", ""},
		{"POST", ":resume", ""},
		{"DELETE", "", ""},
		{"GET", "/credentials", ""},
		{"POST", "/publish", `{"topic":"a"}`},
	} {
		v = w.want(w.do(r.method, acme+r.path, w.owner, r.body), 410, "tenant_deleted")
		if !strings.Contains(v["detail"].(string), "2026-05-01T13:01:00Z") {
			t.Errorf("%s %s says %v", r.method, r.path, v)
		}
		w.want(w.do(r.method, acme+r.path, w.beta, r.body), 404, "tenant_not_found")
	}
	w.want(w.do("POST", acme+":restore", w.beta, ""), 404, "tenant_not_found")
	w.want(w.do("POST", acme+":purge", "", ""), 401, "api_key_missing")
	if all, gone := list(""), list("?deleted=true"); strings.Contains(all, `"acme"`) || !strings.Contains(gone, `"acme"`) || strings.Contains(gone, `"second"`) {
		t.Errorf("listed %s, and as deleted %s", all, gone)
	}
	w.want(w.do("POST", "/v1/organizations/"+w.org+"/tenants", w.owner, `{"id":"acme"}`), 409, "tenant_taken")
	if v = w.want(w.do("POST", acme+":restore", w.owner, ""), 200, ""); v["state"] != "suspended" || v["state_reason"] != "unpaid" || v["purge_at"] != nil {
		t.Errorf("restored: %v", v)
	}
	w.want(w.do("POST", acme+":resume", w.owner, ""), 200, "")

	// Purged: it is noted; when the work has begun there is no way back.
	w.want(w.do("DELETE", acme, w.owner, ""), 204, "")
	if v = w.want(w.do("POST", acme+":purge", w.owner, ""), 200, ""); v["purge_at"] != "2026-05-01T12:01:00Z" {
		t.Errorf("to be purged: %v", v)
	}
	if _, err := w.store.BeginPurge(t.Context(), "acme", now); err != nil {
		t.Fatal(err)
	}
	w.want(w.do("POST", acme+":restore", w.owner, ""), 409, "tenant_purging")
	w.want(w.do("GET", acme, w.owner, ""), 410, "tenant_deleted")
}

// An organization that has had another tenant made meanwhile may not have the deleted one too.
func TestRestore_Quota(t *testing.T) {
	w := newWorld(t)
	w.want(w.do("PUT", "/v1/tenants/second/quotas/overrides", w.owner, `{"tenants":2}`), 200, "")
	w.want(w.do("PUT", "/v1/tenants/acme/quotas/overrides", w.owner, `{"tenants":2}`), 200, "")
	w.want(w.do("DELETE", "/v1/tenants/acme", w.owner, ""), 204, "")
	w.want(w.do("POST", "/v1/organizations/"+w.org+"/tenants", w.owner, `{"id":"third","plan":"free"}`), 201, "")
	w.want(w.do("POST", "/v1/tenants/acme:restore", w.owner, ""), 409, "quota_exceeded")
}

// Of deleted tenants that are restored at once, where there may be one more, one is; what has
// begun, and was not ended, counts for a while only.
func TestRestore_QuotaAtOnce(t *testing.T) {
	w := newWorld(t)
	w.want(w.do("PUT", "/v1/tenants/second/quotas/overrides", w.owner, `{"tenants":2}`), 200, "")
	w.want(w.do("PUT", "/v1/tenants/acme/quotas/overrides", w.owner, `{"tenants":2}`), 200, "")
	w.want(w.do("DELETE", "/v1/tenants/acme", w.owner, ""), 204, "")
	w.want(w.do("POST", "/v1/organizations/"+w.org+"/tenants", w.owner, `{"id":"third","plan":"free"}`), 201, "")
	w.want(w.do("DELETE", "/v1/tenants/third", w.owner, ""), 204, "")
	begun := map[string]*atomic.Int64{"acme": {}, "third": {}}
	var all sync.WaitGroup
	for range 8 {
		for id, n := range begun {
			all.Go(func() {
				if _, err := w.store.BeginRestore(t.Context(), w.org, id); err == nil {
					n.Add(1)
				}
			})
		}
	}
	all.Wait()
	if a, b := begun["acme"].Load(), begun["third"].Load(); a+b == 0 || a != 0 && b != 0 {
		t.Fatalf("%d and %d have begun, expected those of one tenant", a, b)
	}
	id, other := "acme", "third"
	if begun[id].Load() == 0 {
		id, other = other, id
	}
	w.want(w.do("POST", "/v1/tenants/"+other+":restore", w.owner, ""), 409, "quota_exceeded")
	if err := w.store.MayAddTenant(t.Context(), w.org, "fourth"); err == nil {
		t.Error("another tenant may be made meanwhile")
	}
	later, err := store.New(t.Context(), store.Config{Bus: w.bus, Region: "local", Now: func() time.Time { return time.Now().Add(2 * time.Minute) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := later.MayRestoreTenant(t.Context(), w.org); err != nil {
		t.Errorf("what nobody ended counts for ever: %v", err)
	}
	w.want(w.do("POST", "/v1/tenants/"+id+":restore", w.owner, ""), 200, "")
	w.want(w.do("DELETE", "/v1/tenants/"+id, w.owner, ""), 204, "")
	before, err := w.store.Organization(t.Context(), w.org)
	if err != nil {
		t.Fatal(err)
	}
	w.want(w.do("POST", "/v1/tenants/"+other+":restore", w.owner, ""), 200, "")
	after, err := w.store.Organization(t.Context(), w.org)
	if err != nil || after.Revision == before.Revision || len(after.Restoring) != 0 {
		t.Errorf("the organization is %+v (%v) after a restore, which is not noted in it or has not ended", after, err)
	}
}

// An organization is deleted when it has no tenants, also none that could be restored; then none
// of its keys and members is good for anything, and its audit log says who did it.
func TestDeleteOrganization(t *testing.T) {
	w := newWorld(t)
	base := "/v1/organizations/" + w.org
	_, admin := w.newKey(tenancy.Access{Role: tenancy.RoleAdmin})
	member := w.signIn("ops@acme.example", "choose-a-good-one")
	for _, query := range []string{"?dry_run=true", ""} {
		w.want(w.do("DELETE", base+query, w.owner, ""), 409, "organization_has_tenants")
	}
	w.settle(true)
	w.want(w.do("DELETE", base, w.owner, ""), 409, "organization_has_tenants")
	for _, id := range []string{"acme", "second"} {
		long := time.Now().Add(-time.Hour)
		_, err := w.store.UpdateTenant(t.Context(), id, 0, func(r *tenancy.TenantRecord) error {
			r.State, r.Life = tenancy.StateDeleted, &tenancy.Life{Since: long, PurgeAt: long}
			return nil
		})
		var r *tenancy.TenantRecord
		if err == nil {
			r, err = w.store.BeginPurge(t.Context(), id, time.Now())
		}
		if err == nil {
			err = w.store.EndPurge(t.Context(), r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.want(w.do("DELETE", base, admin, ""), 403, "permission_missing")
	w.want(w.do("DELETE", base, w.beta, ""), 404, "organization_not_found")
	w.want(w.do("DELETE", base, w.owner, "", "If-Match", `"999999"`), 412, "revision_mismatch")
	w.want(w.do("DELETE", base+"?dry_run=true", w.owner, ""), 204, "")
	w.want(w.do("GET", base, w.owner, ""), 200, "")
	w.want(w.do("DELETE", base, w.owner, ""), 204, "")
	for _, secret := range []string{w.owner, admin} {
		w.want(w.do("GET", "/v1/me", secret, ""), 401, "api_key_invalid")
	}
	w.want(w.do("GET", "/v1/me", member, ""), 401, "token_invalid")
	for _, name := range []string{"organizations", "members", "api_keys"} {
		for _, value := range w.bucket(name) {
			if strings.Contains(value, w.org) {
				t.Errorf("the bucket %s has %s", name, value)
			}
		}
	}
	log, _, err := w.cfg.Audit.List(t.Context(), w.org, audit.Query{Operation: "delete-organization"}, 10)
	if err != nil || len(log) != 1 || log[0].Outcome != audit.Done || log[0].Actor.Kind != audit.ActorKey {
		t.Errorf("the audit log has %+v, %v", log, err)
	}
}
