// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/decide"
)

func admits(t testing.TB, text string) func(*api.Config) {
	i := installed(t, text)
	return func(c *api.Config) { c.Admission = i }
}

// later refuses everything once the world is made.
type later struct {
	*decide.Installation
	on bool
}

func (l *later) Admits() bool { return l.on }

// asking are operations that are POST and change nothing.
var asking = []string{"publish", "test-policy", "explain-policy", "simulate-policy"}

// TestAdmission_Everything: a policy that refuses all stops each operation that writes,
// and each of its dry runs, and none that does not.
func TestAdmission_Everything(t *testing.T) {
	house := &later{Installation: installed(t, "package admission\n\ndeny contains \"nothing is changed today\"")}
	w := newWorld(t, func(c *api.Config) { c.Admission = house })
	_, token := w.joined("dev@acme.example", "developer")
	invited := w.want(w.do("POST", "/v1/organizations/"+w.org+"/members", w.owner, `{"email":"bob@acme.example","role":"viewer"}`), 201, "")
	w.prepare("create-claim")
	claim := w.want(w.do("POST", "/v1/tenants/acme/claims", w.owner, `{"username":"press-7"}`), 201, "")
	house.on = true
	routes := w.routes()
	before := w.dump()
	for _, id := range slices.Sorted(maps.Keys(accessTable)) {
		row, r := accessTable[id], routes[id]
		w.prepare(id)
		path := w.fill(r.path)
		switch {
		case r.method == "GET":
			continue
		case slices.Contains(asking, id):
			w.want(w.do(r.method, path, w.owner, row.body), 200, "")
			continue
		}
		for _, query := range []string{"?dry_run=true", ""} {
			v := w.want(w.do(r.method, path+query, w.owner, row.body), 403, "admission_denied")
			if !strings.Contains(fmt.Sprint(v["detail"]), "nothing is changed today") || fmt.Sprint(v["errors"]) != "[map[location:admission message:nothing is changed today]]" {
				t.Errorf("%s%s says %v", id, query, v)
			}
			if query == "" {
				if rec := w.records("")[0]; rec["operation"] != id || rec["outcome"] != "denied" || !strings.Contains(fmt.Sprint(rec["after"]), "nothing is changed today") {
					t.Errorf("%s: the audit log has %v", id, rec)
				}
			}
		}
	}
	w.want(w.do("DELETE", "/v1/auth/token", token, ""), 403, "admission_denied")
	w.prepare("create-claim")
	// Those that need no key.
	open := map[string]string{
		"sign-up":           `{"organization":"New","email":"ops@new.example","password":"correct-horse-battery","tenant":"new"}`,
		"verify-sign-up":    "", // see TestAdmission_SignUpByMail
		"accept-invitation": fmt.Sprintf(`{"invitation":"%s","password":"a-good-password"}`, invited["invitation"]),
		"sign-in":           fmt.Sprintf(`{"organization":"%s","email":"dev@acme.example","password":"a-good-password"}`, w.org),
		"redeem-claim":      fmt.Sprintf(`{"claim":"%s","csr":"%s"}`, claim["secret"], csr),
	}
	for path, item := range w.do("GET", "/v1/openapi.json", "", "").json(t)["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			op := op.(map[string]any)
			id := fmt.Sprint(op["operationId"])
			body, ok := open[id]
			switch {
			case op["security"] != nil || method == "get":
			case !ok:
				t.Errorf("there is no row for %s", id)
			case body != "":
				w.want(w.do(strings.ToUpper(method), path, "", body), 403, "admission_denied")
			}
		}
	}
	if after := w.dump(); after != before {
		t.Errorf("something has changed:\n%s\nwas\n%s", after, before)
	}
}

// dump is what the organization has, without managed CAs, which prepare makes.
func (w *world) dump() string {
	w.t.Helper()
	var b strings.Builder
	for _, path := range []string{
		"/v1/organizations/" + w.org, "/v1/organizations/" + w.org + "/tenants", "/v1/organizations/" + w.org + "/members", "/v1/organizations/" + w.org + "/api-keys",
		"/v1/tenants/acme", "/v1/tenants/acme/settings", "/v1/tenants/acme/credentials", "/v1/tenants/acme/policies", "/v1/tenants/acme/bans", "/v1/tenants/acme/devices", "/v1/tenants/acme/domains",
		"/v1/tenants/acme/quotas",
	} {
		r := w.do("GET", path, w.owner, "")
		if r.status != 200 {
			w.t.Fatalf("%s: %d %s", path, r.status, r.body)
		}
		v := r.json(w.t)
		items, _ := v["items"].([]any)
		for _, x := range items {
			if m, ok := x.(map[string]any); ok { // the owner's key is used all the time
				delete(m, "last_used_at")
				delete(m, "last_used_from")
				delete(m, "usage")
				delete(m, "headroom")
			}
		}
		text, err := json.Marshal(v)
		if err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s\n", path, text)
	}
	return b.String()
}

// TestAdmission_Sees: what the policy sees of a change, without its secrets.
func TestAdmission_Sees(t *testing.T) {
	w := newWorld(t, admits(t, `package admission

deny contains "owners only" if {
	input.operation == "create-credential"
	input.actor.kind == "key"
	input.actor.role == "admin"
	input.resource.kind == "credential"
	input.resource.tenant == "acme"
	input.resource.path == {"tenant": "acme"}
	input.method == "POST"
	input.old == null
}

deny contains sprintf("the password is %s", [input.new.password]) if {
	input.operation == "create-credential"
	input.new.username == "seen"
}

deny contains "not so many at once" if {
	input.operation == "replace-quota-overrides"
	not input.dry_run
	input.new.connections > 2 * object.get(input, ["old", "connections"], 10)
}

deny contains sprintf("it is %s", [input.old.state]) if {
	input.operation == "remove-member"
	input.resource.path.member == input.old.id
}
`))
	const credentials, quotas = "/v1/tenants/acme/credentials", "/v1/tenants/acme/quotas/overrides"
	_, admin := w.newKey(tenancy.Access{Role: tenancy.RoleAdmin})
	w.want(w.do("POST", credentials, admin, `{"username":"a"}`), 403, "admission_denied")
	w.want(w.do("POST", credentials, w.owner, `{"username":"a"}`), 201, "")
	v := w.want(w.do("POST", credentials, w.owner, `{"username":"seen","password":"hunter2-device"}`), 403, "admission_denied")
	if !strings.HasSuffix(fmt.Sprint(v["detail"]), "the password is [redacted]") {
		t.Errorf("got %v", v)
	}
	w.want(w.do("PUT", quotas, w.owner, `{"connections":21}`), 403, "admission_denied")
	w.want(w.do("PUT", quotas+"?dry_run=true", w.owner, `{"connections":21}`), 200, "")
	w.want(w.do("PUT", quotas, w.owner, `{"connections":20}`), 200, "")
	w.want(w.do("PUT", quotas, w.owner, `{"connections":40}`), 200, "")
	v = w.want(w.do("DELETE", "/v1/organizations/"+w.org+"/members/"+w.member, w.owner, ""), 403, "admission_denied")
	if !strings.HasSuffix(fmt.Sprint(v["detail"]), "it is active") {
		t.Errorf("got %v", v)
	}
	// An import that is too large to be looked at is refused too.
	var items []string
	for i := range 5_000 {
		items = append(items, fmt.Sprintf(`{"username":"%0200d","password":"hunter2-device"}`, i))
	}
	w.want(w.do("POST", credentials+":import", w.owner, `{"items":[`+strings.Join(items, ",")+`]}`), 403, "admission_denied")
}

// TestAdmission_Fails: a policy that cannot be followed refuses.
func TestAdmission_Fails(t *testing.T) {
	w := newWorld(t, admits(t, "package admission\n\ndeny contains to_number(input.new.username) if input.operation == \"create-credential\""))
	v := w.want(w.do("POST", "/v1/tenants/acme/credentials", w.owner, `{"username":"a"}`), 503, "admission_failed")
	if strings.Contains(fmt.Sprint(v["detail"]), "rego") {
		t.Errorf("the caller is told %v", v["detail"])
	}
	if _, err := w.store.Credential(t.Context(), "acme", "a"); err == nil {
		t.Error("the credential is there")
	}
	w.want(w.do("POST", "/v1/tenants/acme/bans", w.owner, `{"kind":"client_id","value":"c9"}`), 201, "")
}

// TestAdmission_SignUpByMail: a sign-up that will not be let through gets no code, and its
// tenant and plan are seen when the code comes, too.
func TestAdmission_SignUpByMail(t *testing.T) {
	var sent []string
	f := newFixture(t, admits(t, "package admission\n\ndeny contains \"no such tenant\" if startswith(input.new.tenant, \"bad\")\n\ndeny contains \"not that\" if {\n\tinput.operation == \"verify-sign-up\"\n\tinput.new.tenant == \"late\"\n}"), func(c *api.Config) {
		c.Mailer = mailerFunc(func(m api.Mail) { sent = append(sent, m.Text) })
	})
	ask := func(tenant string) response {
		return f.do("POST", "/v1/signup", "", `{"organization":"New","email":"ops@new.example","password":"correct-horse-battery","tenant":"`+tenant+`"}`)
	}
	f.want(ask("bad-one"), 403, "admission_denied")
	if len(sent) != 0 {
		t.Errorf("mails were sent: %q", sent)
	}
	f.want(ask("late"), 202, "")
	if len(sent) != 1 {
		t.Fatalf("mails were sent: %q", sent)
	}
	at := strings.Index(sent[0], "mv_")
	code := strings.Fields(sent[0][at:])[0]
	f.want(f.do("POST", "/v1/signup/verify", "", `{"code":"`+code+`"}`), 403, "admission_denied")
}

// mailerFunc is a Mailer.
type mailerFunc func(api.Mail)

func (f mailerFunc) Send(_ context.Context, m api.Mail) error {
	f(m)
	return nil
}
