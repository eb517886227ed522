// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/services/api/apitest"
	"github.com/manormq/manor/tenancy"
)

// joined invites somebody, who accepts and signs in; it returns the id and the
// token.
func (w *world) joined(email, role string, tenants ...string) (id, token string) {
	w.t.Helper()
	body := fmt.Sprintf(`{"email":"%s","role":"%s"}`, email, role)
	if len(tenants) > 0 {
		body = fmt.Sprintf(`{"email":"%s","role":"%s","tenants":["%s"]}`, email, role, strings.Join(tenants, `","`))
	}
	v := w.want(w.do("POST", "/v1/organizations/"+w.org+"/members", w.owner, body), 201, "")
	if v["state"] != "invited" {
		w.t.Errorf("got %v", v)
	}
	got := w.want(w.do("POST", "/v1/invitations:accept", "", fmt.Sprintf(`{"invitation":"%s","password":"a-good-password"}`, v["invitation"])), 200, "")
	if m := got["member"].(map[string]any); m["state"] != "active" || got["organization"].(map[string]any)["name"] != "Acme" {
		w.t.Errorf("got %v", got)
	}
	return v["id"].(string), w.signIn(email, "a-good-password")
}

func (w *world) signIn(email, password string) (token string) {
	w.t.Helper()
	v := w.want(w.do("POST", "/v1/auth/token", "", fmt.Sprintf(`{"organization":"%s","email":"%s","password":"%s"}`, w.org, email, password)), 201, "")
	return v["token"].(string)
}

func TestMembers(t *testing.T) {
	w := newWorld(t)
	base := "/v1/organizations/" + w.org + "/members"
	id, token := w.joined("dev@acme.example", "developer", "acme")
	// The token works as a key does, as far as the member may.
	w.want(w.do("POST", "/v1/tenants/acme/credentials", token, `{"username":"a"}`), 201, "")
	w.want(w.do("GET", "/v1/tenants/second", token, ""), 404, "tenant_not_found")
	w.want(w.do("GET", base, token, ""), 403, "scope_insufficient")
	v := w.want(w.do("GET", "/v1/me", token, ""), 200, "")
	if v["kind"] != "member" || v["id"] != id || v["email"] != "dev@acme.example" || v["role"] != "developer" || v["expires_at"] == nil {
		t.Errorf("got %v", v)
	}
	if rec := w.records("")[0]; rec["operation"] != "create-credential" || rec["actor"].(map[string]any)["id"] != id {
		t.Errorf("got %v", rec)
	}
	// What a member may do changes with the next request.
	r := w.do("GET", base+"/"+id, w.owner, "")
	w.want(w.do("PATCH", base+"/"+id, w.owner, `{"role":"viewer"}`, "If-Match", r.header.Get("ETag")), 200, "")
	w.want(w.do("PATCH", base+"/"+id, w.owner, `{"role":"viewer"}`, "If-Match", r.header.Get("ETag")), 412, "revision_mismatch")
	w.want(w.do("POST", "/v1/tenants/acme/credentials", token, `{"username":"b"}`), 403, "permission_missing")
	w.want(w.do("GET", "/v1/tenants/second", token, ""), 200, "")
	// Signing out ends this token, removing the member every one.
	second := w.signIn("dev@acme.example", "a-good-password")
	w.want(w.do("DELETE", "/v1/auth/token", token, ""), 204, "")
	w.want(w.do("GET", "/v1/me", token, ""), 401, "token_invalid")
	w.want(w.do("GET", "/v1/me", second, ""), 200, "")
	w.want(w.do("DELETE", base+"/"+id, w.owner, ""), 204, "")
	w.want(w.do("GET", "/v1/me", second, ""), 401, "token_invalid")
	w.want(w.do("DELETE", base+"/"+id, w.owner, ""), 404, "member_not_found")
	w.want(w.do("DELETE", "/v1/auth/token", w.owner, ""), 400, "not_signed_in")

	for _, c := range []struct{ method, path, body, code string }{
		{"POST", "", `{"email":"x","role":"viewer"}`, "email_invalid"},
		{"POST", "", `{"email":"x@acme.example","role":"king"}`, "request_invalid"},
		{"POST", "", `{"email":"x@acme.example"}`, "request_invalid"},
		{"POST", "", `{"email":"x@acme.example","role":"viewer","tenants":["beta"]}`, "tenant_unknown"},
		{"POST", "", `{"email":"x@acme.example","role":"viewer","tenants":["A!"]}`, "tenant_invalid"},
		{"POST", "", `{"email":"x@acme.example","role":"owner","tenants":["acme"]}`, "access_invalid"},
		{"PATCH", "/" + w.member, `{"role":"viewer","tenants":["beta"]}`, "tenant_unknown"},
		{"PATCH", "/" + w.member, `{"role":"owner","tenants":["acme"]}`, "access_invalid"},
	} {
		w.want(w.do(c.method, base+c.path, w.owner, c.body), 400, c.code)
	}
	w.want(w.do("POST", base, w.owner, `{"email":"OPS@acme.example","role":"viewer"}`), 409, "member_exists")
	w.want(w.do("GET", base+"/mem_nobody", w.owner, ""), 404, "member_not_found")
	// Who signed up is the last owner.
	owner := w.signIn("ops@acme.example", "choose-a-good-one")
	me := w.want(w.do("GET", "/v1/me", owner, ""), 200, "")["id"].(string)
	w.want(w.do("DELETE", base+"/"+me, owner, ""), 409, "last_owner")
	w.want(w.do("PATCH", base+"/"+me, owner, `{"role":"admin"}`), 409, "last_owner")
}

func TestInvitation_Refused(t *testing.T) {
	w := newWorld(t)
	accept := func(invitation, password string) response {
		return w.do("POST", "/v1/invitations:accept", "", fmt.Sprintf(`{"invitation":"%s","password":"%s"}`, invitation, password))
	}
	invite := func() string {
		v := w.want(w.do("POST", "/v1/organizations/"+w.org+"/members", w.owner, `{"email":"dev@acme.example","role":"developer"}`), 201, "")
		return v["invitation"].(string)
	}
	first := invite()
	second := invite()
	w.want(accept(first, "a-good-password"), 403, "invitation_invalid")
	w.want(accept("mi_nonsense", "a-good-password"), 403, "invitation_invalid")
	w.want(accept(second, "short"), 400, "password_invalid")
	w.want(w.do("POST", "/v1/auth/token", "", `{"organization":"`+w.org+`","email":"dev@acme.example","password":""}`), 401, "sign_in_failed")
	w.want(w.do("POST", "/v1/invitations:accept?dry_run=true", "", `{"invitation":"`+second+`","password":"a-good-password"}`), 200, "")
	w.want(accept(second, "a-good-password"), 200, "")
	w.want(accept(second, "another-password"), 403, "invitation_invalid")
	w.signIn("dev@acme.example", "a-good-password")
}

// TestSignIn_SaysNothing refuses somebody unknown as somebody with a wrong
// password, in words and in time.
func TestSignIn_SaysNothing(t *testing.T) {
	w := newWorld(t)
	v := apitest.Verifier(t)
	// Time is what hashes take: 30 ms each, a look-up a tenth of one.
	try := func(organization, email, password string) (r response, hashes uint64) {
		before := v.Hashed()
		r = w.do("POST", "/v1/auth/token", "", fmt.Sprintf(`{"organization":"%s","email":"%s","password":"%s"}`, organization, email, password))
		return r, v.Hashed() - before
	}
	w.signIn("ops@acme.example", "choose-a-good-one")
	w.want(w.do("POST", "/v1/organizations/"+w.org+"/members", w.owner, `{"email":"invited@acme.example","role":"viewer"}`), 201, "")
	wrong, n := try(w.org, "ops@acme.example", "wrong-password")
	if wrong.status != 401 || n != 1 {
		t.Fatalf("%d, %d hashes", wrong.status, n)
	}
	for _, c := range [][2]string{{w.org, "nobody@acme.example"}, {"org_none", "ops@acme.example"}, {"", ""}, {w.org, "invited@acme.example"}} {
		r, n := try(c[0], c[1], "wrong-password")
		if r.status != wrong.status || r.body != wrong.body || n != 1 {
			t.Errorf("%v is told from a wrong password: %s after %d hashes, %s", c, r.body, n, wrong.body)
		}
	}
}

func TestAPIKeys(t *testing.T) {
	w := newWorld(t)
	base := "/v1/organizations/" + w.org + "/api-keys"
	in := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	body := fmt.Sprintf(`{"name":"ci","permissions":["credentials:read","credentials:write"],"tenants":["acme"],"expires_at":"%s"}`, in.Format(time.RFC3339))
	r := w.do("POST", base, w.owner, body, "Idempotency-Key", "k1")
	v := w.want(r, 201, "")
	id, secret := v["id"].(string), v["secret"].(string)
	if again := w.do("POST", base, w.owner, body, "Idempotency-Key", "k1"); again.body != r.body {
		t.Errorf("again: %s, want %s", again.body, r.body)
	}
	if v["expires_at"] != in.Format(time.RFC3339) || v["name"] != "ci" || v["role"] != nil || fmt.Sprint(v["tenants"]) != "[acme]" || v["last_used_at"] != nil {
		t.Errorf("got %v", v)
	}
	w.peer = "203.0.113.7:1"
	w.want(w.do("GET", "/v1/tenants/acme/credentials", secret, ""), 200, "")
	w.peer = ""
	w.want(w.do("GET", "/v1/tenants/acme", secret, ""), 403, "permission_missing")
	w.want(w.do("GET", "/v1/tenants/second/credentials", secret, ""), 404, "tenant_not_found")
	r = w.do("GET", base+"/"+id, w.owner, "")
	v = w.want(r, 200, "")
	if v["last_used_at"] == nil || v["last_used_from"] != "203.0.113.7" || v["secret"] != nil || v["hash"] != nil {
		t.Errorf("got %v", v)
	}
	// The use of a key is no change of it.
	w.want(w.do("PATCH", base+"/"+id, w.owner, `{"name":"cd"}`, "If-Match", r.header.Get("ETag")), 200, "")
	w.want(w.do("PATCH", base+"/"+id, w.owner, `{"name":"ce"}`, "If-Match", r.header.Get("ETag")), 412, "revision_mismatch")

	rotated := w.want(w.do("POST", base+"/"+id+":rotate", w.owner, `{"overlap":"1h"}`), 200, "")
	second := rotated["secret"].(string)
	if second == secret || rotated["id"] != id || rotated["previous_until"] == nil || rotated["name"] != "cd" {
		t.Errorf("got %v", rotated)
	}
	for _, s := range []string{secret, second} {
		w.want(w.do("GET", "/v1/tenants/acme/credentials", s, ""), 200, "")
	}
	third := w.want(w.do("POST", base+"/"+id+":rotate", w.owner, `{"overlap":"0s"}`), 200, "")["secret"].(string)
	for _, s := range []string{secret, second} {
		w.want(w.do("GET", "/v1/tenants/acme/credentials", s, ""), 401, "api_key_invalid")
	}
	w.want(w.do("DELETE", base+"/"+id, w.owner, ""), 204, "")
	w.want(w.do("GET", "/v1/tenants/acme/credentials", third, ""), 401, "api_key_invalid")
	w.want(w.do("GET", base+"/"+id, w.owner, ""), 404, "api_key_not_found")

	for _, c := range []struct{ method, path, body, code string }{
		{"POST", "", `{"name":"","role":"viewer"}`, "api_key_name_invalid"},
		{"POST", "", `{"name":"x"}`, "access_invalid"},
		{"POST", "", `{"name":"x","role":"viewer","permissions":["usage:read"]}`, "access_invalid"},
		{"POST", "", `{"name":"x","permissions":["everything"]}`, "permission_unknown"},
		{"POST", "", `{"name":"x","permissions":["usage:read","usage:read"]}`, "access_invalid"},
		{"POST", "", `{"name":"x","role":"viewer","tenants":["beta"]}`, "tenant_unknown"},
		{"POST", "", `{"name":"x","role":"viewer","expires_at":"2020-01-01T00:00:00Z"}`, "expires_at_invalid"},
		{"PATCH", "/" + w.key, `{}`, "request_invalid"},
		{"PATCH", "/" + w.key, `{"expires_at":"2020-01-01T00:00:00Z"}`, "expires_at_invalid"},
		{"POST", "/" + w.key + ":rotate", `{"overlap":"soon"}`, "overlap_invalid"},
		{"POST", "/" + w.key + ":rotate", `{"overlap":"721h"}`, "overlap_invalid"},
		{"POST", "/" + w.key + ":rotate", `{"overlap":"-1s"}`, "overlap_invalid"},
	} {
		w.want(w.do(c.method, base+c.path, w.owner, c.body), 400, c.code)
	}
	w.want(w.do("PUT", "/v1/tenants/acme/quotas/overrides", w.owner, `{"api_keys":1}`), 200, "")
	w.want(w.do("PUT", "/v1/tenants/second/quotas/overrides", w.owner, `{"api_keys":2}`), 200, "")
	v = w.want(w.do("POST", base, w.owner, `{"name":"x","role":"viewer"}`), 409, "quota_exceeded")
	if v["quota"] != "api_keys" || v["limit"] != 2.0 || v["usage"] != 2.0 {
		t.Errorf("got %v", v)
	}
}

// TestAPIKeys_Foreign asks for the keys and members of another organization, by
// its id and by one's own.
func TestAPIKeys_Foreign(t *testing.T) {
	w := newWorld(t)
	beta := w.want(w.do("GET", "/v1/me", w.beta, ""), 200, "")
	for _, c := range []struct{ org, code string }{{w.org, "organization_not_found"}, {beta["organization"].(string), "not_found"}} {
		for _, what := range []string{"api-keys/" + w.key, "members/" + w.member} {
			for _, method := range []string{"GET", "DELETE"} {
				r := w.do(method, "/v1/organizations/"+c.org+"/"+what, w.beta, "")
				if r.status != 404 || !strings.Contains(r.body, c.code) {
					t.Errorf("%s %s of %s: %d %s", method, what, c.org, r.status, r.body)
				}
			}
		}
	}
	if _, err := w.store.APIKey(t.Context(), w.org, w.key); err != nil {
		t.Error(err)
	}
}

func TestOrganization(t *testing.T) {
	w := newWorld(t)
	path := "/v1/organizations/" + w.org
	r := w.do("GET", path, w.owner, "")
	v := w.want(r, 200, "")
	if v["name"] != "Acme" || v["email"] != "ops@acme.example" || v["owners"] != nil {
		t.Errorf("got %v", v)
	}
	v = w.want(w.do("PATCH", path, w.owner, `{"name":" Acme 2 "}`, "If-Match", r.header.Get("ETag")), 200, "")
	if v["name"] != "Acme 2" || v["email"] != "ops@acme.example" {
		t.Errorf("got %v", v)
	}
	w.want(w.do("PATCH", path, w.owner, `{"name":"x"}`, "If-Match", r.header.Get("ETag")), 412, "revision_mismatch")
	w.want(w.do("PATCH", path, w.owner, `{}`), 400, "request_invalid")
	w.want(w.do("PATCH", path, w.owner, `{"name":""}`), 400, "organization_invalid")
	w.want(w.do("PATCH", path, w.owner, `{"email":"x"}`), 400, "email_invalid")

	var ids []string
	cursor := ""
	for {
		v := w.want(w.do("GET", path+"/tenants?limit=1&cursor="+cursor, w.owner, ""), 200, "")
		for _, i := range v["items"].([]any) {
			ids = append(ids, i.(map[string]any)["id"].(string))
		}
		if v["next"] == nil {
			break
		}
		cursor = v["next"].(string)
	}
	if fmt.Sprint(ids) != "[acme second]" {
		t.Errorf("tenants %v", ids)
	}
	roles := w.want(w.do("GET", path+"/roles", w.owner, ""), 200, "")["items"].([]any)
	if len(roles) != len(tenancy.Roles()) || roles[0].(map[string]any)["name"] != "owner" {
		t.Errorf("roles %v", roles)
	}
}
