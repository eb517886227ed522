// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/store"
)

// world is an organization with two tenants, acme and second, and another one
// with the tenant beta.
type world struct {
	*fixture
	// org is the id of the organization, owner and beta the keys of the
	// sign-ups.
	org, owner, beta string
	// key and member are such that many roles may change them.
	key, member string
	// operation, ban and claim are the ids of one of acme.
	operation, ban, claim string
	// domain is one of acme that is verified.
	domain string
	// tenants are those of the organization while houses has taken them out.
	tenants []string
}

func newWorld(t *testing.T, with ...func(*api.Config)) *world {
	t.Helper()
	w := &world{fixture: newFixture(t, with...)}
	w.owner = w.signUp("acme")
	beta, err := w.store.SignUp(t.Context(), store.SignUp{
		Organization: "Beta", Email: "ops@beta.example", PasswordHash: "none", Tenant: "beta", Plan: "dev", Username: "default", CredentialHash: "none",
	})
	if err != nil {
		t.Fatal(err)
	}
	w.beta = beta.Secret
	acme, err := w.store.Tenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	w.org = acme.Organization
	if _, err := w.store.EnsureTenant(t.Context(), "second", store.EnsureOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.UpdateTenant(t.Context(), "second", 0, func(r *tenancy.TenantRecord) error {
		r.Organization = w.org
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.store.ChangeOrganization(t.Context(), w.org, 0, func(o *store.Organization) error {
		o.Tenants = append(o.Tenants, "second")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.data.answer.Clients = []link.ClientInfo{{ClientID: "c1"}}
	w.key, _ = w.newKey(tenancy.Access{Role: tenancy.RoleViewer})
	m, _, err := w.store.Invite(t.Context(), w.org, "viewer@acme.example", "", tenancy.Access{Role: tenancy.RoleViewer})
	if err != nil {
		t.Fatal(err)
	}
	if m, err = w.store.Accept(t.Context(), m, "none"); err != nil {
		t.Fatal(err)
	}
	w.member = m.ID
	o, err := w.store.StartOperation(t.Context(), "acme", "test", 1)
	if err != nil {
		t.Fatal(err)
	}
	w.operation = o.ID
	set, err := tenancy.NewGrantSet(0, tenancy.DefaultClass, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n, live := range []bool{true, false} {
		p, err := w.store.AddPolicy(t.Context(), acme, store.Policy{Files: map[string]string{"p.rego": "package mqtt\n\ngrants := []"}}, []*tenancy.GrantSet{set})
		if err != nil || p.Revision != uint64(n+1) {
			t.Fatal(p, err)
		}
		then := store.ShadowPolicy(p.Revision)
		if live {
			then = store.LivePolicy(p, "")
		}
		if acme, err = w.store.UpdateTenant(t.Context(), "acme", 0, then); err != nil {
			t.Fatal(err)
		}
	}
	b, _, err := w.store.Ban(t.Context(), "acme", tenancy.Ban{Kind: tenancy.BanClientID, Value: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	w.ban = b.ID
	c, _, err := w.store.AddClaim(t.Context(), "acme", store.Claim{Username: "press-6", Days: 30, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	w.claim = c.ID
	w.ownDomain("mqtt.acme.example", tenancy.CertificateACME)
	w.ownDomain("own.acme.example", tenancy.CertificateUploaded)
	w.domain = "mqtt.acme.example"
	if _, _, err := w.store.PutDevice(t.Context(), acme, tenancy.Device{Name: "press-7", Groups: []string{"presses"}}, 0); err != nil {
		t.Fatal(err)
	}
	return w
}

// newKey makes a key behind the API's back.
func (w *world) newKey(a tenancy.Access) (id, secret string) {
	w.t.Helper()
	k, secret, err := w.store.AddAPIKey(w.t.Context(), w.org, store.NewKey{Name: "test", Access: a})
	if err != nil {
		w.t.Fatal(err)
	}
	return k.ID, secret
}

// prepare has acme be in the state that an operation needs, and gives it a managed CA behind the API's back, for the operations that need
// one, and takes it away for the one that makes it.
func (w *world) prepare(operation string) {
	w.t.Helper()
	if err := w.prepared(operation); err != nil {
		w.t.Fatal(err)
	}
}

// prepared is prepare where what was done before may be in the way.
func (w *world) prepared(operation string) error {
	w.t.Helper()
	w.houses(operation == "delete-organization")
	w.settle(operation == "restore-tenant" || operation == "purge-tenant")
	w.domain = "mqtt.acme.example"
	if operation == "replace-domain-certificate" {
		w.domain = "own.acme.example"
	}
	if operation == "verify-domain" {
		d, err := w.store.Domain(w.t.Context(), "acme", w.domain)
		if err != nil {
			w.t.Fatal(err)
		}
		w.names.Text(d.ChallengeName(), d.ChallengeValue())
	}
	_, err := w.store.ManagedCA(w.t.Context(), "acme")
	switch operation {
	case "create-managed-ca":
		if err == nil {
			_, err = w.store.RemoveManagedCA(w.t.Context(), "acme", 0)
		} else if errs.Is(err, errs.NotFound) {
			err = nil
		}
	case "get-managed-ca", "get-managed-ca-crl", "delete-managed-ca", "sign-certificate", "create-claim":
		if errs.Is(err, errs.NotFound) {
			certificate, key, failed := managedca.New("test", time.Now())
			if failed != nil {
				w.t.Fatal(failed)
			}
			add := func() (err error) {
				_, err = w.store.AddManagedCA(w.t.Context(), "acme", certificate, w.cfg.Sealer.Seal("managed CA of acme", key))
				return err
			}
			if err = add(); errs.Is(err, errs.Quota) { // acme has as many of its own as it may
				if _, err = w.store.SetClientCAs(w.t.Context(), "acme", 0, nil); err == nil {
					err = add()
				}
			}
		}
	default:
		return nil
	}
	return err
}

// houses takes the tenants out of the organization, or puts them there again.
func (w *world) houses(none bool) {
	w.t.Helper()
	if none == (w.tenants != nil) {
		return
	}
	was, _, err := w.store.ChangeOrganization(w.t.Context(), w.org, 0, func(o *store.Organization) error {
		o.Tenants, w.tenants = w.tenants, o.Tenants
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if !none {
		w.tenants = nil
	} else {
		w.tenants = was.Tenants
	}
}

// settle has acme be deleted, or active.
func (w *world) settle(deleted bool) {
	w.t.Helper()
	state := tenancy.StateActive
	if deleted {
		state = tenancy.StateDeleted
	}
	r, err := w.store.Tenant(w.t.Context(), "acme")
	if err == nil && (r.State != state || r.DeletionProtection) {
		_, err = w.store.UpdateTenant(w.t.Context(), "acme", 0, func(r *tenancy.TenantRecord) error {
			r.State, r.Life, r.DeletionProtection = state, nil, false
			if deleted {
				r.Life = &tenancy.Life{Before: tenancy.StateActive, PurgeAt: time.Now().Add(time.Hour)}
			}
			return nil
		})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// ownDomain gives acme a domain that is verified, behind the API's back.
func (w *world) ownDomain(fqdn, source string) {
	w.t.Helper()
	acme, err := w.store.Tenant(w.t.Context(), "acme")
	if err == nil {
		_, err = w.store.AddDomain(w.t.Context(), acme, fqdn, source)
	}
	if err == nil {
		err = w.store.ClaimHost(w.t.Context(), "acme", fqdn)
	}
	if err == nil {
		_, _, err = w.store.ChangeDomain(w.t.Context(), "acme", fqdn, 0, func(d *tenancy.Domain) error {
			d.State, d.VerifiedAt = tenancy.DomainVerified, time.Now()
			return nil
		})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// fill puts what the world has into the path of an operation.
func (w *world) fill(path string) string {
	return strings.NewReplacer("{organization}", w.org, "{tenant}", "acme", "{key}", w.key, "{member}", w.member,
		"{username}", "default", "{client_id}", "c1", "{operation}", w.operation, "{ban}", w.ban, "{claim}", w.claim, "{device}", "press-7", "{domain}", w.domain, "{revision}", "1").Replace(path)
}

// route is an operation as the OpenAPI document has it.
type route struct{ method, path string }

// routes are all operations by id, without those that need no key.
func (f *fixture) routes() map[string]route {
	f.t.Helper()
	all := map[string]route{}
	for path, item := range f.do("GET", "/v1/openapi.json", "", "").json(f.t)["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			op := op.(map[string]any)
			if op["security"] != nil {
				all[op["operationId"].(string)] = route{strings.ToUpper(method), path}
			}
		}
	}
	return all
}

// accessRow says who may, by the first letters of the roles, and what body makes
// the operation succeed.
type accessRow struct{ roles, body string }

var accessTable = map[string]accessRow{
	"get-organization":          {"oadbv", ""},
	"update-organization":       {"oa", `{"name":"Acme"}`},
	"delete-organization":       {"o", ""},
	"list-roles":                {"oadbv", ""},
	"create-tenant":             {"oa", `{"id":"third"}`},
	"list-organization-tenants": {"oadbv", ""},
	"list-members":              {"oadbv", ""},
	"get-member":                {"oadbv", ""},
	"invite-member":             {"oa", `{"email":"new@acme.example","role":"viewer"}`},
	"update-member":             {"oa", `{"role":"billing"}`},
	"remove-member":             {"oa", ""},
	"list-api-keys":             {"oad", ""},
	"get-api-key":               {"oad", ""},
	"create-api-key":            {"oa", `{"name":"x","role":"viewer"}`},
	"update-api-key":            {"oa", `{"name":"y"}`},
	"rotate-api-key":            {"oa", `{}`},
	"delete-api-key":            {"oa", ""},
	"list-audit":                {"oad", ""},
	"export-audit":              {"oad", ""},
	"verify-audit":              {"oad", ""},

	"get-tenant":                 {"oadbv", ""},
	"update-tenant":              {"oad", `{"display_name":"Acme"}`},
	"suspend-tenant":             {"oa", `{"reason":"unpaid"}`},
	"resume-tenant":              {"oa", ""},
	"delete-tenant":              {"o", ""},
	"restore-tenant":             {"o", ""},
	"purge-tenant":               {"o", ""},
	"replace-plan":               {"oa", `{"plan":"starter"}`},
	"list-settings":              {"oadbv", ""},
	"replace-settings":           {"oad", `{}`},
	"list-client-cas":            {"oadbv", ""},
	"replace-client-cas":         {"oad", `{}`},
	"list-policies":              {"oadv", ""},
	"get-policy":                 {"oadv", ""},
	"put-policy":                 {"oad", `{"files":{"p.rego":"package mqtt\n\ngrants := []"}}`},
	"import-policy":              {"oad", `{"format":"vmq_acl","text":"topic a"}`},
	"delete-policy":              {"oad", ""},
	"rollback-policy":            {"oad", `{"revision":1}`},
	"test-policy":                {"oadv", `{"files":{"p.rego":"package mqtt\n\ngrants := []"}}`},
	"explain-policy":             {"oadv", `{"topic":"a"}`},
	"simulate-policy":            {"oadv", `{"revision":1}`},
	"get-policy-shadow":          {"oadv", ""},
	"delete-policy-shadow":       {"oad", ""},
	"list-quotas":                {"oadbv", ""},
	"replace-quota-overrides":    {"oab", `{}`},
	"get-usage":                  {"oadbv", ""},
	"get-tenant-metrics":         {"oadbv", ""},
	"list-sources":               {"oadv", ""},
	"replace-passwd-source":      {"oad", `{"text":"# nobody"}`},
	"list-credentials":           {"oadv", ""},
	"create-credential":          {"oad", `{"username":"new"}`},
	"replace-credential-session": {"oad", `{}`},
	"delete-credential":          {"oad", ""},
	"import-credentials":         {"oad", `{"items":[{"username":"imported","password":"hunter2-device"}]}`},
	"get-operation":              {"oadv", ""},
	"get-auth-methods":           {"oadbv", ""},
	"replace-auth-methods":       {"oad", `{"methods":["password"]}`},
	"list-jwt-issuers":           {"oadbv", ""},
	"replace-jwt-issuers":        {"oad", `{"items":[]}`},
	"get-ip-allow-lists":         {"oadbv", ""},
	"replace-ip-allow-lists":     {"oad", `{"mqtt":["10.0.0.0/8"]}`},
	"get-flapping":               {"oadbv", ""},
	"replace-flapping":           {"oad", `{"rule":{"connects":5,"window":10,"ban":60}}`},
	"get-managed-ca":             {"oadbv", ""},
	"get-managed-ca-crl":         {"oadbv", ""},
	"create-managed-ca":          {"oad", ""},
	"delete-managed-ca":          {"oad", ""},
	"sign-certificate":           {"oad", `{"username":"press-7","csr":"` + csr + `"}`},
	"list-claims":                {"oadv", ""},
	"create-claim":               {"oad", `{"username":"press-7"}`},
	"delete-claim":               {"oad", ""},
	"list-devices":               {"oadv", ""},
	"get-device":                 {"oadv", ""},
	"replace-device":             {"oad", `{"groups":["presses"]}`},
	"delete-device":              {"oad", ""},
	"import-devices":             {"oad", `{"items":[{"name":"press-8"}]}`},
	"export-devices":             {"oadv", ""},
	"list-groups":                {"oadv", ""},
	"list-domains":               {"oadbv", ""},
	"get-domain":                 {"oadbv", ""},
	"create-domain":              {"oad", `{"fqdn":"new.example.com"}`},
	"delete-domain":              {"oad", ""},
	"verify-domain":              {"oad", ""},
	"renew-domain":               {"oad", ""},
	"replace-domain-certificate": {"oad", uploadBody},
	"list-bans":                  {"oadv", ""},
	"create-ban":                 {"oad", `{"kind":"client_id","value":"c2"}`},
	"delete-ban":                 {"oad", ""},
	"list-clients":               {"oadv", ""},
	"get-client":                 {"oadv", ""},
	"delete-client":              {"oad", ""},
	"list-client-subscriptions":  {"oadv", ""},
	"get-client-queue":           {"oadv", ""},
	"match-topic":                {"oadv", ""},
	"list-events":                {"oadv", ""},
	"follow-events":              {"oadv", ""},
	"get-client-timeline":        {"oadv", ""},
	"publish":                    {"oad", `{"topic":"a"}`},
	"list-retained":              {"oad", ""},
}

// ownOperations are about the caller.
var ownOperations = []string{"get-me", "sign-out", "list-plans"}

// TestAccess asks for every operation as every role, in every scope. A new
// operation without a row fails.
func TestAccess(t *testing.T) {
	w := newWorld(t)
	routes := w.routes()
	for id := range routes {
		if _, ok := accessTable[id]; !ok && !slices.Contains(ownOperations, id) {
			t.Errorf("accessTable has no row for the operation %s", id)
		}
	}
	type who struct {
		letter, secret string
		tenants        []string
	}
	var callers []who
	for _, role := range tenancy.Roles() {
		for _, tenants := range [][]string{nil, {"acme"}, {"second"}, {"second", "acme"}} {
			_, secret := w.newKey(tenancy.Access{Role: role, Tenants: tenants})
			callers = append(callers, who{role[:1], secret, tenants})
		}
	}
	ask := func(r route, body, key string) response {
		path := w.fill(r.path)
		switch {
		case r.method != "GET":
			path += "?dry_run=true"
		case strings.HasSuffix(path, ":stream"):
			path += "?for=1ms"
		case strings.HasSuffix(path, ":match"):
			path += "?topic=a"
		}
		return w.do(r.method, path, key, body)
	}
	for _, id := range slices.Sorted(maps.Keys(accessTable)) {
		row, r := accessTable[id], routes[id]
		if r.path == "" {
			t.Errorf("accessTable has a row for %s, which is no operation", id)
			continue
		}
		ofTenant := strings.Contains(r.path, "{tenant}")
		w.prepare(id)
		for _, c := range callers {
			got := ask(r, row.body, c.secret)
			want, code := 200, ""
			switch {
			case !ofTenant && c.tenants != nil:
				want, code = 403, "scope_insufficient"
			case ofTenant && c.tenants != nil && !slices.Contains(c.tenants, "acme"):
				want, code = 404, "tenant_not_found"
			case !strings.Contains(row.roles, c.letter):
				want, code = 403, "permission_missing"
			case id == "replace-plan" && c.tenants != nil: // it has quotas of the organization
				want, code = 403, "scope_insufficient"
			case r.method == "DELETE":
				want = 204
			}
			if got.status != want || code != "" && got.json(t)["code"] != code {
				t.Errorf("%s as %s in %v: %d %.200s, want %d %s", id, c.letter, c.tenants, got.status, got.body, want, code)
			}
		}
		notFound := "organization_not_found"
		if ofTenant {
			notFound = "tenant_not_found"
		}
		w.want(ask(r, row.body, w.beta), 404, notFound)
		w.want(ask(r, row.body, ""), 401, "api_key_missing")
		w.want(ask(r, row.body, w.owner+"x"), 401, "api_key_invalid")
		w.want(ask(r, row.body, "mt_"+w.owner[3:]), 401, "token_invalid")
		// Bad input, as the owner.
		w.want(w.do(r.method, w.fill(r.path)+"?nonsense=1", w.owner, row.body), 400, "request_invalid")
		if row.body != "" {
			bad := w.do(r.method, w.fill(r.path), w.owner, strings.Replace(row.body, "{", `{"nonsense":1`+strings.Repeat(",", min(1, len(row.body)-2)), 1))
			if id == "replace-quota-overrides" {
				w.want(bad, 400, "quota_unknown")
			} else {
				w.want(bad, 400, "request_invalid")
			}
		}
	}
	for _, id := range ownOperations {
		w.want(ask(routes[id], "", ""), 401, "api_key_missing")
	}
}

// TestAccess_Permissions has keys with one permission each: every operation needs
// exactly the one that the document says.
func TestAccess_Permissions(t *testing.T) {
	w := newWorld(t)
	secrets := map[string]string{}
	for _, p := range tenancy.Permissions() {
		_, secrets[p] = w.newKey(tenancy.Access{Permissions: []string{p}})
	}
	doc := w.do("GET", "/v1/openapi.json", "", "").json(t)["paths"].(map[string]any)
	for id, r := range w.routes() {
		needs, _ := doc[r.path].(map[string]any)[strings.ToLower(r.method)].(map[string]any)["x-permission"].(string)
		if needs == "" {
			if !slices.Contains(ownOperations, id) {
				t.Errorf("%s: the document does not say what it needs", id)
			}
			continue
		}
		for p, secret := range secrets {
			got := w.do(r.method, w.fill(r.path)+"?nonsense=1", secret, accessTable[id].body)
			// Who may is told that the request is bad.
			if want := map[bool]int{true: 400, false: 403}[p == needs]; got.status != want {
				t.Errorf("%s with %s: %d, want %d", id, p, got.status, want)
			}
		}
	}
}

// TestAccess_Escalation holds that nobody makes, or takes over, something more
// powerful than itself.
func TestAccess_Escalation(t *testing.T) {
	w := newWorld(t)
	base := "/v1/organizations/" + w.org
	_, admin := w.newKey(tenancy.Access{Role: tenancy.RoleAdmin})
	_, clerk := w.newKey(tenancy.Access{Permissions: []string{"keys:write", "members:write", "usage:read"}})
	ownerKey, _ := w.newKey(tenancy.Access{Role: tenancy.RoleOwner})
	owners, _, err := w.store.Members(t.Context(), w.org, "", 10)
	if err != nil {
		t.Fatal(err)
	}
	owner := owners[slices.IndexFunc(owners, func(m store.Member) bool { return m.Role == tenancy.RoleOwner })].ID
	for _, c := range []struct{ method, path, key, body string }{
		{"POST", "/api-keys", admin, `{"name":"x","role":"owner"}`},
		{"POST", "/api-keys", clerk, `{"name":"x","role":"viewer"}`},
		{"POST", "/api-keys", clerk, `{"name":"x","permissions":["usage:read","audit:read"]}`},
		{"POST", "/api-keys/" + ownerKey + ":rotate", admin, `{}`},
		{"PATCH", "/api-keys/" + ownerKey, admin, `{"name":"x"}`},
		{"DELETE", "/api-keys/" + ownerKey, admin, ""},
		{"POST", "/members", admin, `{"email":"x@acme.example","role":"owner"}`},
		{"POST", "/members", clerk, `{"email":"x@acme.example","role":"developer"}`},
		{"PATCH", "/members/" + owner, admin, `{"role":"viewer"}`},
		{"PATCH", "/members/" + w.member, admin, `{"role":"owner"}`},
		{"DELETE", "/members/" + owner, admin, ""},
	} {
		w.want(w.do(c.method, base+c.path, c.key, c.body), 403, "grant_exceeds")
	}
	w.want(w.do("POST", base+"/api-keys", clerk, `{"name":"x","permissions":["usage:read"]}`), 201, "")
	w.want(w.do("POST", base+"/api-keys", clerk, `{"name":"x","permissions":["usage:read"],"tenants":["acme"]}`), 201, "")
	w.want(w.do("POST", base+"/api-keys", admin, `{"name":"x","role":"admin"}`), 201, "")
	w.want(w.do("PATCH", base+"/members/"+w.member, w.owner, `{"role":"owner"}`), 200, "")
	// Who is invited as an owner is not invited again as somebody else by an admin.
	w.want(w.do("POST", base+"/members", w.owner, `{"email":"new@acme.example","role":"owner"}`), 201, "")
	w.want(w.do("POST", base+"/members", admin, `{"email":"new@acme.example","role":"viewer"}`), 403, "grant_exceeds")
}

// TestAccess_Invited holds that the code of an invitation is good for no more
// than who invited may give: an owner who means more makes another code.
func TestAccess_Invited(t *testing.T) {
	w := newWorld(t)
	base := "/v1/organizations/" + w.org + "/members"
	_, admin := w.newKey(tenancy.Access{Role: tenancy.RoleAdmin})
	invited := w.want(w.do("POST", base, admin, `{"email":"bob@acme.example","role":"viewer"}`), 201, "")
	path := base + "/" + invited["id"].(string)
	w.want(w.do("PATCH", path+"?dry_run=true", w.owner, `{"role":"owner"}`), 409, "member_invited")
	w.want(w.do("PATCH", path, w.owner, `{"role":"owner"}`), 409, "member_invited")
	w.want(w.do("POST", base, admin, `{"email":"bob@acme.example","role":"owner"}`), 403, "grant_exceeds")
	again := w.want(w.do("POST", base, w.owner, `{"email":"bob@acme.example","role":"owner"}`), 201, "")
	accept := func(v map[string]any) response {
		return w.do("POST", "/v1/invitations:accept", "", fmt.Sprintf(`{"invitation":"%s","password":"a-good-password"}`, v["invitation"]))
	}
	w.want(accept(invited), 403, "invitation_invalid")
	w.want(accept(again), 200, "")
	w.want(w.do("PATCH", path, w.owner, `{"role":"viewer"}`), 200, "")
}

// TestAccess_Expiry holds that a key that ends does not outlive itself by another
// key.
func TestAccess_Expiry(t *testing.T) {
	w := newWorld(t)
	base := "/v1/organizations/" + w.org + "/api-keys"
	ends := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	key := func(at time.Time) (id, secret string) {
		t.Helper()
		k, secret, err := w.store.AddAPIKey(t.Context(), w.org, store.NewKey{Name: "test", Access: tenancy.Access{Role: tenancy.RoleAdmin}, ExpiresAt: at})
		if err != nil {
			t.Fatal(err)
		}
		return k.ID, secret
	}
	id, secret := key(ends)
	later, _ := key(ends.Add(time.Second))
	sooner, _ := key(ends.Add(-time.Second))
	at := func(d time.Duration) string {
		return fmt.Sprintf(`"expires_at":"%s"`, ends.Add(d).Format(time.RFC3339))
	}
	for _, c := range []struct{ method, path, body string }{
		{"POST", "", `{"name":"x","role":"viewer"}`},
		{"POST", "", `{"name":"x","role":"viewer",` + at(time.Second) + `}`},
		{"PATCH", "/" + id, `{` + at(time.Second) + `}`},
		{"PATCH", "/" + w.key, `{` + at(time.Second) + `}`},
		{"POST", "/" + w.key + ":rotate", `{}`},
		{"POST", "/" + later + ":rotate", `{}`},
	} {
		for _, query := range []string{"?dry_run=true", ""} {
			w.want(w.do(c.method, base+c.path+query, secret, c.body), 403, "grant_exceeds")
		}
	}
	w.want(w.do("POST", base, secret, `{"name":"x","role":"viewer",`+at(0)+`}`), 201, "")
	w.want(w.do("PATCH", base+"/"+later, secret, `{`+at(0)+`}`), 200, "")
	w.want(w.do("PATCH", base+"/"+w.key, secret, `{"name":"x"}`), 200, "")
	w.want(w.do("POST", base+"/"+sooner+":rotate", secret, `{}`), 200, "")
	w.want(w.do("POST", base+"/"+id+":rotate", secret, `{}`), 200, "")
	// A key without an end, and a member, may make what never ends.
	_, forever := key(time.Time{})
	w.want(w.do("POST", base, forever, `{"name":"x","role":"viewer"}`), 201, "")
	_, token := w.joined("admin@acme.example", "admin")
	w.want(w.do("POST", base, token, `{"name":"x","role":"viewer"}`), 201, "")
}

func TestMe(t *testing.T) {
	w := newWorld(t)
	v := w.want(w.do("GET", "/v1/me", w.owner, ""), 200, "")
	if v["organization"] != w.org || v["kind"] != "key" || v["role"] != "owner" || v["expires_at"] != nil || !strings.HasPrefix(fmt.Sprint(v["id"]), "key_") {
		t.Errorf("got %v", v)
	}
	_, scoped := w.newKey(tenancy.Access{Permissions: []string{"usage:read"}, Tenants: []string{"acme"}})
	v = w.want(w.do("GET", "/v1/me", scoped, ""), 200, "")
	if fmt.Sprint(v["permissions"], v["tenants"]) != "[usage:read] [acme]" || v["role"] != nil {
		t.Errorf("got %v", v)
	}
}
