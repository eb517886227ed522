// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
)

// records are the audit log of an organization as the API lists it, the newest
// first.
func (w *world) records(query string) []map[string]any {
	w.t.Helper()
	var all []map[string]any
	for _, i := range w.want(w.do("GET", "/v1/organizations/"+w.org+"/audit?"+query, w.owner, ""), 200, "")["items"].([]any) {
		all = append(all, i.(map[string]any))
	}
	return all
}

// auditRow is a request that changes something, and what its record says.
type auditRow struct {
	body, target  string
	before, after string // parts of the JSON; "-" means that there is none
}

var auditTable = map[string]auditRow{
	"update-organization": {`{"name":"Acme 2"}`, "organization", `"name":"Acme"`, `"name":"Acme 2"`},
	"create-tenant":       {`{"id":"third"}`, "tenant third", "-", `"plan":"dev"`},
	"invite-member":       {`{"email":"new@acme.example","role":"viewer"}`, "member new@acme.example", "-", `"state":"invited"`},
	"update-member":       {`{"role":"billing"}`, "member {member}", `"role":"viewer"`, `"role":"billing"`},
	"remove-member":       {"", "member {member}", `"email":"viewer@acme.example"`, "-"},
	"create-api-key":      {`{"name":"ci","role":"viewer"}`, "API key ci", "-", `"role":"viewer"`},
	"update-api-key":      {`{"name":"cd"}`, "API key {key}", `"name":"test"`, `"name":"cd"`},
	"rotate-api-key":      {`{}`, "API key {key}", `"id":"key_`, `"previous_until":`},
	"delete-api-key":      {"", "API key {key}", `"id":"key_`, "-"},

	"update-tenant":              {`{"display_name":"Acme 2","deletion_protection":true}`, "tenant", `"deletion_protection":false`, `"deletion_protection":true`},
	"suspend-tenant":             {`{"reason":"unpaid"}`, "tenant", `"state":"active"`, `"reason":"unpaid"`},
	"resume-tenant":              {"", "tenant", `"state":"active"`, `"state":"active"`},
	"delete-tenant":              {"", "tenant", `"state":"active"`, `"purge_at":"`},
	"restore-tenant":             {"", "tenant", `"state":"deleted"`, `"state":"active"`},
	"purge-tenant":               {"", "tenant", `"state":"deleted"`, `"purge_at":"`},
	"replace-plan":               {`{"plan":"starter"}`, "plan", `{"plan":"dev"}`, `{"plan":"starter"}`},
	"replace-settings":           {`{"queue_type":"lifo"}`, "settings", "-", `"lifo"`},
	"replace-client-cas":         {`{}`, "client CAs", "-", "-"},
	"put-policy":                 {`{"files":{"p.rego":"package mqtt\n\ngrants := []"}}`, "policy", `"revision":1`, `"revision":3`},
	"import-policy":              {`{"format":"vmq_acl","text":"topic a"}`, "policy", `"revision":1`, `"revision":3`},
	"delete-policy":              {"", "policy", `"revision":1`, `"newest":2`},
	"rollback-policy":            {`{"revision":2}`, "policy", `"revision":1`, `"revision":2`},
	"delete-policy-shadow":       {"", "policy", `"shadow":2`, `"revision":1`},
	"replace-quota-overrides":    {`{"connections":5}`, "quota overrides", "null", `{"connections":5}`},
	"create-credential":          {`{"username":"new","password":"hunter2-device"}`, "credential new", "-", `"username":"new"`},
	"replace-credential-session": {`{}`, "session of credential default", "-", `{}`},
	"delete-credential":          {"", "credential default", `"username":"default"`, "-"},
	"replace-passwd-source":      {`{"text":"# nobody"}`, "vmq_passwd file with 0 users", "-", `"kind":"apply-source"`},
	"import-credentials":         {`{"items":[{"username":"new","password":"hunter2-device"}]}`, "import of 1 credentials", "-", `"total":1`},
	"replace-auth-methods":       {`{"methods":["jwt","password"]}`, "auth methods", "null", `["jwt","password"]`},
	"replace-jwt-issuers":        {`{"items":[{"issuer":"https://issuer.example/","audience":["a"],"jwks_url":"https://issuer.example/jwks"}]}`, "JWT issuers", "null", `"https://issuer.example/jwks"`},
	"replace-ip-allow-lists":     {`{"mqtt":["10.0.0.0/8"]}`, "IP allow-lists", "-", `{"mqtt":["10.0.0.0/8"]}`},
	"replace-flapping":           {`{"rule":{"connects":5,"window":10,"ban":60}}`, "flapping", "-", `"connects":5`},
	"create-managed-ca":          {"", "managed CA", "-", "BEGIN CERTIFICATE"},
	"delete-managed-ca":          {"", "managed CA", "BEGIN CERTIFICATE", "-"},
	"sign-certificate":           {`{"username":"press-7","csr":"` + csr + `"}`, "certificate of press-7", "-", `"serial"`},
	"create-claim":               {`{"username":"press-7"}`, "claim of press-7", "-", `"username":"press-7"`},
	"delete-claim":               {"", "claim {claim}", `"username":"press-6"`, "-"},
	"replace-device":             {`{"groups":["old"]}`, "device press-7", `["presses"]`, `["old"]`},
	"delete-device":              {"", "device press-7", `["presses"]`, "-"},
	"import-devices":             {`{"items":[{"name":"press-8"}]}`, "import of 1 devices", "-", `"made":1`},
	"create-ban":                 {`{"kind":"username","value":"u","reason":"lost"}`, "ban " + tenancy.BanID("username", "u"), "-", `"reason":"lost"`},
	"delete-ban":                 {"", "ban {ban}", `"value":"c1"`, "-"},
	"create-domain":              {`{"fqdn":"new.example.com"}`, "domain new.example.com", "-", `"state":"pending"`},
	"delete-domain":              {"", "domain {domain}", `"state":"verified"`, "-"},
	"verify-domain":              {"", "domain {domain}", `"verified"`, `"verified"`},
	"renew-domain":               {"", "domain {domain}", `"next_renewal":null`, `"next_renewal":"`},
	"replace-domain-certificate": {uploadBody, "domain {domain}", `"not_after":null`, `"state":"active"`},
	"delete-client":              {"", "client c1", "-", `{"session":"keep"}`},
}

// changeNothing are operations with another method than GET that nobody records.
var changeNothing = []string{"publish", "sign-out", "delete-organization", // see TestDeleteOrganization
	"test-policy", "explain-policy", "simulate-policy"}

// TestAudit_EveryChange makes each change once, and finds it recorded once, with
// who made it, from where, and what was there before and after. A new operation
// that changes something and has no row fails.
func TestAudit_EveryChange(t *testing.T) {
	for id, r := range newWorld(t).routes() {
		if _, ok := auditTable[id]; !ok && r.method != "GET" && !slices.Contains(changeNothing, id) {
			t.Errorf("auditTable has no row for the operation %s", id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(auditTable)) {
		t.Run(id, func(t *testing.T) {
			w := newWorld(t)
			row, r := auditTable[id], w.routes()[id]
			w.prepare(id)
			begun := len(w.records(""))
			path := w.fill(r.path)
			// Neither a dry run nor a refusal is a change.
			if got := w.do(r.method, path+"?dry_run=true", w.owner, row.body); got.status >= 300 {
				t.Fatalf("dry run: %d %s", got.status, got.body)
			}
			w.do(r.method, path, w.owner, row.body, "If-Match", `"999999"`)
			w.do(r.method, path, w.beta, row.body)
			if id != "create-tenant" && id != "invite-member" && id != "create-api-key" && id != "create-credential" && id != "import-credentials" && id != "replace-passwd-source" && id != "delete-client" && id != "create-ban" && id != "import-devices" && id != "sign-certificate" && id != "create-claim" && id != "create-managed-ca" && id != "create-domain" && id != "verify-domain" && id != "renew-domain" {
				if got := len(w.records("")); got != begun {
					t.Fatalf("%d records of what changed nothing", got-begun)
				}
			} else {
				w = newWorld(t) // those have no If-Match
				w.prepare(id)
				path = w.fill(r.path)
			}
			got := w.do(r.method, path, w.owner, row.body)
			if got.status >= 300 {
				t.Fatalf("%d %s", got.status, got.body)
			}
			all := w.records("")
			if len(all) != begun+1 {
				t.Fatalf("%d records, want 1", len(all)-begun)
			}
			rec := all[0]
			if rec["operation"] != id || rec["method"] != r.method || rec["outcome"] != "done" || rec["address"] != "192.0.2.1" ||
				rec["target"] != w.fill(row.target) {
				t.Errorf("got %v", rec)
			}
			if actor := rec["actor"].(map[string]any); actor["kind"] != "key" || actor["id"] != w.want(w.do("GET", "/v1/me", w.owner, ""), 200, "")["id"] {
				t.Errorf("actor %v", actor)
			}
			if of := strings.Contains(r.path, "{tenant}"); of != (rec["tenant"] == "acme") {
				t.Errorf("tenant %v", rec["tenant"])
			}
			for name, want := range map[string]string{"before": row.before, "after": row.after} {
				v, ok := rec[name]
				text, err := json.Marshal(v)
				if err != nil || want == "-" && ok && v != nil || want != "-" && !bytes.Contains(text, []byte(want)) {
					t.Errorf("%s is %s, want %s", name, text, want)
				}
			}
			if v := w.want(w.do("GET", "/v1/organizations/"+w.org+"/audit:verify", w.owner, ""), 200, ""); v["valid"] != true || v["last"] != float64(begun+1) {
				t.Errorf("verify: %v", v)
			}
		})
	}
}

// TestAudit_SignUp is what comes before there is a key.
func TestAudit_SignUp(t *testing.T) {
	w := newWorld(t)
	all := w.records("")
	if len(all) != 1 || all[0]["operation"] != "sign-up" || all[0]["actor"].(map[string]any)["kind"] != "sign-up" || all[0]["n"] != 1.0 {
		t.Errorf("got %v", all)
	}
}

// TestAudit_Secrets makes everything that has a secret, and finds none in the
// audit log, nor anywhere else in what is stored.
func TestAudit_Secrets(t *testing.T) {
	w := newWorld(t)
	base := "/v1/organizations/" + w.org
	secrets := []string{w.owner, w.beta, "choose-a-good-one", "hunter2-device", "a-good-password"}
	take := func(r response, names ...string) string {
		v := w.want(r, r.status, "")
		if r.status >= 300 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		for _, n := range names {
			s, _ := v[n].(string)
			if len(s) < 20 {
				t.Fatalf("no %s in %s", n, r.body)
			}
			secrets = append(secrets, s)
		}
		return secrets[len(secrets)-1]
	}
	take(w.do("POST", base+"/api-keys", w.owner, `{"name":"x","role":"viewer"}`), "secret")
	take(w.do("POST", base+"/api-keys/"+w.key+":rotate", w.owner, `{}`), "secret")
	invitation := take(w.do("POST", base+"/members", w.owner, `{"email":"dev@acme.example","role":"developer"}`), "invitation")
	take(w.do("POST", "/v1/invitations:accept", "", `{"invitation":"`+invitation+`","password":"a-good-password"}`))
	token := take(w.do("POST", "/v1/auth/token", "", `{"organization":"`+w.org+`","email":"dev@acme.example","password":"a-good-password"}`), "token")
	take(w.do("POST", "/v1/tenants/acme/credentials", token, `{"username":"a"}`), "password")
	take(w.do("POST", "/v1/tenants/acme/credentials", token, `{"username":"b","password":"hunter2-device"}`))
	names := []string{
		"audit", "audit_heads", "audit_pending", "organizations", "tenants", "credentials", "api_keys", "key_uses", "members", "invitations",
		"sign_ins", "verifications", "operations", "replies", "domains", "hosts",
	}
	for _, name := range names {
		for _, value := range w.bucket(name) {
			for _, s := range secrets {
				if strings.Contains(value, s) {
					t.Errorf("a secret is in bucket %s: %s", name, value)
				}
			}
		}
	}
	if n := strings.Count(strings.Join(w.bucket("audit"), ""), audit.Redacted); n < 5 {
		t.Errorf("%d secrets are redacted, want those of two sign-ups, two keys, an invitation and a token", n)
	}
}

func TestAudit_List(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.want(w.do("PUT", "/v1/tenants/acme/quotas/overrides", w.owner, fmt.Sprintf(`{"connections":%d}`, i)), 200, "")
	}
	w.want(w.do("POST", "/v1/organizations/"+w.org+"/api-keys", w.owner, `{"name":"x","role":"viewer"}`), 201, "")
	count := func(query string, want int) {
		t.Helper()
		if got := len(w.records(query)); got != want {
			t.Errorf("%s: %d records, want %d", query, got, want)
		}
	}
	count("", 7)
	count("tenant=acme", 6)
	count("operation=replace-quota-overrides", 5)
	count("operation=nothing", 0)
	count("actor="+w.key, 0)
	count("from=2020-01-01T00:00:00Z&to=2021-01-01T00:00:00Z", 0)
	// Pages.
	seen, cursor := 7.0, ""
	for {
		v := w.want(w.do("GET", "/v1/organizations/"+w.org+"/audit?limit=2&cursor="+cursor, w.owner, ""), 200, "")
		for _, i := range v["items"].([]any) {
			if n := i.(map[string]any)["n"]; n != seen {
				t.Errorf("record %v, want %v", n, seen)
			}
			seen--
		}
		if v["next"] == nil {
			break
		}
		cursor = v["next"].(string)
	}
	if seen != 0 {
		t.Errorf("%v records are in no page", seen)
	}
	w.want(w.do("GET", "/v1/organizations/"+w.org+"/audit?cursor=x", w.owner, ""), 400, "cursor_invalid")
	w.want(w.do("GET", "/v1/organizations/"+w.org+"/audit?from=2021-01-01T00:00:00Z&to=2020-01-01T00:00:00Z", w.owner, ""), 400, "range_invalid")
	w.want(w.do("GET", "/v1/organizations/"+w.org+"/audit?from=x", w.owner, ""), 400, "request_invalid")
}

// TestAudit_Export takes the log away, and checks it there.
func TestAudit_Export(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.want(w.do("PUT", "/v1/tenants/acme/quotas/overrides", w.owner, `{}`), 200, "")
	}
	r := w.do("GET", "/v1/organizations/"+w.org+"/audit:export", w.owner, "")
	if r.status != 200 || r.header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("%d %v %s", r.status, r.header, r.body)
	}
	c, err := audit.VerifyExport(strings.NewReader(r.body))
	if err != nil || c.First != 1 || c.Last != 4 {
		t.Errorf("%+v, %v", c, err)
	}
	v := w.want(w.do("GET", "/v1/organizations/"+w.org+"/audit:verify", w.owner, ""), 200, "")
	if v["valid"] != true || v["head"] != c.Head {
		t.Errorf("got %v, want the head %s", v, c.Head)
	}
	// What is changed behind the API's back is seen.
	b, err := w.bus.Bucket(t.Context(), bus.BucketConfig{Name: "audit"})
	if err != nil {
		t.Fatal(err)
	}
	key := w.org + ".0000000000000002"
	e, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), key, bytes.Replace(e.Value, []byte("192.0.2.1"), []byte("192.0.2.2"), 1), bus.Any); err != nil {
		t.Fatal(err)
	}
	v = w.want(w.do("GET", "/v1/organizations/"+w.org+"/audit:verify", w.owner, ""), 200, "")
	if v["valid"] != false || !strings.Contains(fmt.Sprint(v["problem"]), "audit record 2") {
		t.Errorf("got %v", v)
	}
}

// failing is a bus whose audit buckets fail when told.
type failing struct {
	bus.Bus
	notes, records bool
}

type failingBucket struct {
	bus.Bucket
	fails *bool
}

func (f *failing) Bucket(ctx context.Context, cfg bus.BucketConfig) (bus.Bucket, error) {
	b, err := f.Bus.Bucket(ctx, cfg)
	switch cfg.Name {
	case "audit":
		return &failingBucket{b, &f.records}, err
	case "audit_pending":
		return &failingBucket{b, &f.notes}, err
	}
	return b, err
}

func (f *failingBucket) Put(ctx context.Context, key string, value []byte, at bus.Revision) (bus.Revision, error) {
	if *f.fails {
		return 0, errs.New(errs.Unavailable, "away")
	}
	return f.Bucket.Put(ctx, key, value, at)
}

// TestAudit_Order holds that nothing is changed without a note, and nothing
// answered without a record.
func TestAudit_Order(t *testing.T) {
	f := &failing{}
	w := newWorld(t, func(c *api.Config) {
		f.Bus = c.Store.Bus()
		var err error
		if c.Audit, err = audit.Open(t.Context(), audit.Config{Bus: f, Log: c.Log, Days: c.Store.AuditDays}); err != nil {
			t.Fatal(err)
		}
	})
	const path = "/v1/tenants/acme/quotas/overrides"
	overrides := func() int64 {
		r, err := w.store.Tenant(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		return r.Overrides["connections"]
	}
	f.notes = true
	w.want(w.do("PUT", path, w.owner, `{"connections":5}`), 503, "unavailable")
	if n := overrides(); n != 0 {
		t.Errorf("changed without a note: %d", n)
	}
	f.notes, f.records = false, true
	w.want(w.do("PUT", path, w.owner, `{"connections":6}`), 503, "audit_unavailable")
	if n := overrides(); n != 6 {
		t.Errorf("overrides %d, want 6", n)
	}
	if n := len(w.bucket("audit_pending")); n != 1 {
		t.Errorf("%d notes, want 1", n)
	}
	f.records = false
	if n := len(w.records("operation=replace-quota-overrides")); n != 0 {
		t.Errorf("%d records so far", n)
	}
}

// TestAddress is where a request comes from, as the audit log says it.
func TestAddress(t *testing.T) {
	for _, c := range []struct{ peer, forwarded, want string }{
		{"192.0.2.1:1234", "", "192.0.2.1"},
		{"192.0.2.1:1234", "203.0.113.9", "192.0.2.1"}, // whoever says so
		{"10.0.0.1:1234", "", "10.0.0.1"},
		{"10.0.0.1:1234", "203.0.113.9", "203.0.113.9"},
		{"10.0.0.1:1234", "198.51.100.1, 203.0.113.9", "203.0.113.9"}, // the first is what the client says
		{"10.0.0.1:1234", "198.51.100.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"},
		{"10.0.0.1:1234", "nonsense", "10.0.0.1"},
		{"[2001:db8::1]:1234", "203.0.113.9", "203.0.113.9"},
		{"[::ffff:10.0.0.1]:1", "203.0.113.9", "203.0.113.9"},
	} {
		w := newWorld(t, func(c *api.Config) { c.TrustedProxies = []string{"10.0.0.0/8", "2001:db8::1"} })
		w.peer = c.peer
		w.want(w.do("PUT", "/v1/tenants/acme/quotas/overrides", w.owner, `{}`, "X-Forwarded-For", c.forwarded), 200, "")
		if got := w.records("operation=replace-quota-overrides")[0]["address"]; got != c.want {
			t.Errorf("%s, %s: %v, want %s", c.peer, c.forwarded, got, c.want)
		}
	}
	if err := api.ValidateProxies([]string{"10.0.0.0/33"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("got %v, want Invalid", err)
	}
}

// TestAudit_ExportBreaksOff sees an export that cannot be finished break off.
func TestAudit_ExportBreaksOff(t *testing.T) {
	w := newWorld(t)
	b, err := w.bus.Bucket(t.Context(), bus.BucketConfig{Name: "audit"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), w.org+".0000000000000002", []byte("no JSON"), bus.Any); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: w.s.Handler()}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	req, err := http.NewRequest("GET", "http://"+ln.Addr().String()+"/v1/organizations/"+w.org+"/audit:export", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.owner)
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		_, err = new(bytes.Buffer).ReadFrom(resp.Body)
		resp.Body.Close()
	}
	if err == nil || errors.Is(err, http.ErrServerClosed) {
		t.Errorf("got %v, want an answer that breaks off", err)
	}
}
