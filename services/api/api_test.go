// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/apitest"
	"github.com/manormq/manor/services/api/dataplane"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/domains/domainstest"
	"github.com/manormq/manor/tenancy/store"
)

// fakeData is a data plane of one test.
type fakeData struct {
	mu        sync.Mutex
	published []mqtt.Message
	tenants   []string
	queries   []link.Query
	answer    link.Answer
	code      mqtt.ReasonCode
	quota     string
	err       error
}

func (d *fakeData) Publish(_ context.Context, t *tenancy.Tenant, m mqtt.Message) (dataplane.Ack, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.published = append(d.published, m)
	d.tenants = append(d.tenants, t.ID)
	return dataplane.Ack{Reason: d.code, Quota: d.quota}, d.err
}

func (d *fakeData) Query(_ context.Context, q link.Query) (*link.Answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queries = append(d.queries, q)
	a := d.answer
	if q.Kind == link.QueryQueue && a.Next == "" {
		a.Next = "{}"
	}
	return &a, d.err
}

// fixture is an API with what is behind it.
type fixture struct {
	t     testing.TB
	s     *api.Server
	store *store.Store
	bus   *mem.Bus
	data  *fakeData
	cfg   api.Config
	// names is the DNS server that is asked about domains.
	names *domainstest.DNS
	// peer, if not empty, is where requests come from.
	peer string
}

func newFixture(t testing.TB, with ...func(*api.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, data: &fakeData{answer: link.Answer{Found: true}}}
	f.s, f.cfg, f.names = apitest.WithDNS(t, append([]func(*api.Config){func(c *api.Config) { c.Data = f.data }}, with...)...)
	f.store, f.bus = f.cfg.Store, f.cfg.Store.Bus().(*mem.Bus)
	return f
}

type response struct {
	status int
	header http.Header
	body   string
}

func (r response) json(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatalf("%v in %d %q", err, r.status, r.body)
	}
	return v
}

// do sends a request; headers are pairs.
func (f *fixture) do(method, path, key, body string, headers ...string) response {
	f.t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	if f.peer != "" {
		req.RemoteAddr = f.peer
	}
	w := httptest.NewRecorder()
	f.s.Handler().ServeHTTP(w, req)
	return response{w.Code, w.Header(), w.Body.String()}
}

func (f *fixture) want(r response, status int, code string) map[string]any {
	f.t.Helper()
	if r.status != status {
		f.t.Errorf("status %d, want %d: %.300s", r.status, status, r.body)
	}
	if r.body == "" {
		return nil
	}
	v := r.json(f.t)
	if code != "" {
		if v["code"] != code || v["type"] != "urn:manor:problem:"+code || v["status"] != float64(status) || v["detail"] == "" || v["title"] == "" {
			f.t.Errorf("problem %v, want code %s", v, code)
		}
		if ct := r.header.Get("Content-Type"); ct != "application/problem+json" {
			f.t.Errorf("Content-Type %q", ct)
		}
	}
	return v
}

const signUpBody = `{"organization":"Acme","email":"ops@acme.example","password":"choose-a-good-one","tenant":"acme","region":"local","plan":"dev"}`

func (f *fixture) signUp(tenant string) (key string) {
	f.t.Helper()
	v := f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, "acme", tenant)), 201, "")
	return v["api_key"].(map[string]any)["secret"].(string)
}

func TestSignUp(t *testing.T) {
	f := newFixture(t)
	v := f.want(f.do("POST", "/v1/signup", "", signUpBody), 201, "")
	secrets := map[string]string{}
	take := func(object, field, prefix string, length int) {
		m := v[object].(map[string]any)
		s := m[field].(string)
		if !strings.HasPrefix(s, prefix) || len(s) < length {
			t.Errorf("%s.%s is %q", object, field, s)
		}
		secrets[object+"."+field] = s
		m[field] = prefix + "…"
	}
	take("organization", "id", "org_", 20)
	take("api_key", "id", "key_", 20)
	take("api_key", "secret", "mk_", 40)
	take("credential", "password", "", 32)
	want := map[string]any{
		"organization": map[string]any{"id": "org_…", "name": "Acme"},
		"tenant": map[string]any{
			"id": "acme", "region": "local", "plan": "dev", "state": "active", "hostname": "acme.localhost",
			"endpoints": map[string]any{
				"mqtt": "mqtt://acme.localhost:1883", "mqtts": "mqtts://acme.localhost:8883",
				"ws": "ws://acme.localhost:8083/mqtt", "wss": "wss://acme.localhost:8084/mqtt",
			},
		},
		"api_key":    map[string]any{"id": "key_…", "secret": "mk_…"},
		"credential": map[string]any{"username": "default", "username_plain": "acme:default", "password": "…"},
	}
	if d := cmp.Diff(want, v); d != "" {
		t.Error(d)
	}
	// Region and plan may be left out.
	v = f.want(f.do("POST", "/v1/signup", "", `{"organization":"B","email":"a@b.example","password":"choose-a-good-one","tenant":"beta"}`), 201, "")
	if tn := v["tenant"].(map[string]any); tn["plan"] != "dev" || tn["region"] != "local" {
		t.Errorf("defaults: %v", tn)
	}
	// No secret is stored in the clear.
	for _, name := range []string{"organizations", "tenants", "credentials", "api_keys", "replies"} {
		for _, value := range f.bucket(name) {
			for what, s := range secrets {
				if strings.HasSuffix(what, ".id") {
					continue
				}
				if strings.Contains(value, s) || strings.Contains(value, "choose-a-good-one") {
					t.Errorf("%s is in bucket %s", what, name)
				}
			}
		}
	}
}

func TestSignUp_Refuses(t *testing.T) {
	f := newFixture(t)
	f.signUp("acme")
	body := func(replace ...string) string { return strings.NewReplacer(replace...).Replace(signUpBody) }
	for _, c := range []struct {
		name, body string
		status     int
		code       string
	}{
		{"taken", signUpBody, 409, "tenant_taken"},
		{"malformed tenant", body(`"acme"`, `"Acme!"`), 400, "tenant_invalid"},
		{"reserved tenant", body(`"acme"`, `"api"`), 400, "tenant_reserved"},
		{"email", body("ops@acme.example", "ops"), 400, "email_invalid"},
		{"short password", body("choose-a-good-one", "short"), 400, "password_invalid"},
		{"organization", body("Acme", ""), 400, "organization_invalid"},
		{"region", body("local", "mars"), 400, "region_unknown"},
		{"plan", body(`"dev"`, `"gold"`), 400, "plan_unknown"},
		{"plan none", body(`"dev"`, `"none"`), 400, "plan_unknown"},
		{"unknown field", body(`"plan"`, `"x":1,"plan"`), 400, "request_invalid"},
		{"missing field", `{"tenant":"beta"}`, 400, "request_invalid"},
		{"wrong type", body(`"Acme"`, `7`), 400, "request_invalid"},
		{"not JSON", `{"tenant":`, 400, "request_invalid"},
		{"nothing", ``, 400, "request_invalid"},
		{"null", `null`, 400, "request_invalid"},
		{"list", `[]`, 400, "request_invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := f.do("POST", "/v1/signup", "", c.body)
			f.want(r, c.status, c.code)
			if strings.Contains(r.body, "choose-a-good-one") {
				t.Error("the answer repeats the password")
			}
		})
	}
	f.want(f.do("POST", "/v1/signup?dry_run=true", "", body(`"acme"`, `"gamma"`)), 200, "")
	f.want(f.do("POST", "/v1/signup?dry_run=true", "", signUpBody), 409, "tenant_taken")
	f.want(f.do("POST", "/v1/signup?dry_rum=true", "", body(`"acme"`, `"gamma"`)), 400, "request_invalid")
	if _, err := f.store.Tenant(t.Context(), "gamma"); !errs.Is(err, errs.NotFound) {
		t.Errorf("a dry run made a tenant: %v", err)
	}
	if r := f.do("POST", "/v1/signup", "", signUpBody, "Content-Type", "text/plain"); r.status != 415 {
		t.Errorf("text/plain: %d %s", r.status, r.body)
	}
	// What curl -d sends is JSON all the same.
	f.want(f.do("POST", "/v1/signup", "", body(`"acme"`, `"delta"`), "Content-Type", "application/x-www-form-urlencoded"), 201, "")
	f.want(f.do("POST", "/v1/signup", "", `{"organization":"`+strings.Repeat("x", 2<<20)+`"}`), 413, "body_too_large")
}

func TestAuthorization(t *testing.T) {
	f := newFixture(t)
	acme, beta := f.signUp("acme"), f.signUp("beta")
	for _, path := range []string{"", "/quotas", "/usage", "/credentials", "/clients", "/clients/x", "/retained"} {
		r := f.do("GET", "/v1/tenants/acme"+path, "", "")
		f.want(r, 401, "api_key_missing")
		if r.header.Get("WWW-Authenticate") == "" {
			t.Error("no WWW-Authenticate")
		}
		f.want(f.do("GET", "/v1/tenants/acme"+path, acme+"x", ""), 401, "api_key_invalid")
		// A tenant of somebody else looks like one that does not exist.
		foreign := f.want(f.do("GET", "/v1/tenants/acme"+path, beta, ""), 404, "tenant_not_found")
		none := f.want(f.do("GET", "/v1/tenants/zzzz"+path, beta, ""), 404, "tenant_not_found")
		if d := strings.ReplaceAll(fmt.Sprint(foreign), "acme", "zzzz"); d != fmt.Sprint(none) {
			t.Errorf("told apart: %s and %s", foreign, none)
		}
	}
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/credentials", `{"username":"x"}`},
		{"DELETE", "/credentials/default", ""},
		{"PUT", "/quotas/overrides", `{}`},
		{"DELETE", "/clients/x", ""},
		{"POST", "/publish", `{"topic":"a"}`},
	} {
		f.want(f.do(c.method, "/v1/tenants/acme"+c.path, beta, c.body), 404, "tenant_not_found")
		f.want(f.do(c.method, "/v1/tenants/acme"+c.path, "", c.body), 401, "api_key_missing")
	}
	if len(f.data.published)+len(f.data.queries) != 0 {
		t.Error("a stranger reached the brokers")
	}
	f.want(f.do("GET", "/v1/tenants/acme", "", "", "Authorization", "Basic abc"), 401, "api_key_missing")
	f.want(f.do("GET", "/v1/nothing", acme, ""), 404, "path_unknown")
	f.want(f.do("PUT", "/v1/tenants/acme", acme, ""), 405, "method_not_allowed")
}

func TestTenant(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	r := f.do("GET", "/v1/tenants/acme", key, "")
	v := f.want(r, 200, "")
	if v["id"] != "acme" || v["hostname"] != "acme.localhost" || v["state"] != "active" || v["created_at"] == nil || r.header.Get("ETag") == "" {
		t.Errorf("got %v %v", v, r.header)
	}
}

func TestQuotas(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	f.data.answer.Usage = link.Usage{Connections: 3, RetainedBytes: 10, QueueBytes: 5}
	quotas := func(r response) map[string]map[string]any {
		t.Helper()
		out := map[string]map[string]any{}
		for _, i := range f.want(r, 200, "")["items"].([]any) {
			q := i.(map[string]any)
			out[q["name"].(string)] = q
		}
		return out
	}
	r := f.do("GET", "/v1/tenants/acme/quotas", key, "")
	q := quotas(r)
	if len(q) != len(tenancy.QuotaNames()) {
		t.Errorf("%d quotas", len(q))
	}
	for name, want := range map[string]map[string]any{
		"connections":    {"name": "connections", "limit": 250000.0, "usage": 3.0, "headroom": 249997.0, "source": "plan"},
		"publish_rate":   {"name": "publish_rate", "limit": -1.0, "usage": nil, "headroom": nil, "source": "plan"},
		"queue_messages": {"name": "queue_messages", "limit": 1000000.0, "usage": nil, "headroom": nil, "source": "plan"},
		"credentials":    {"name": "credentials", "limit": 5000000.0, "usage": 1.0, "headroom": 4999999.0, "source": "plan"},
		"storage_bytes":  {"name": "storage_bytes", "limit": float64(1 << 40), "usage": 15.0, "headroom": float64(1<<40 - 15), "source": "plan"},
	} {
		if d := cmp.Diff(want, q[name]); d != "" {
			t.Error(d)
		}
	}
	tag := r.header.Get("ETag")
	const path = "/v1/tenants/acme/quotas/overrides"
	r = f.do("PUT", path, key, `{"connections":5,"publish_rate_client":10}`, "If-Match", tag)
	q = quotas(r)
	if q["connections"]["limit"] != 5.0 || q["connections"]["source"] != "override" || q["publish_rate_client"]["limit"] != 10.0 {
		t.Errorf("got %v", q["connections"])
	}
	f.want(f.do("PUT", path, key, `{}`, "If-Match", tag), 412, "revision_mismatch")
	if v := f.want(f.do("PUT", path, key, `{}`, "If-Match", "nonsense"), 412, "revision_mismatch"); !strings.Contains(v["detail"].(string), "tenant acme") {
		t.Errorf("got %v", v)
	}
	f.want(f.do("PUT", path, key, `{"nothing":1}`), 400, "quota_unknown")
	if v := f.want(f.do("PUT", path, key, `{"conections":1}`), 400, "quota_unknown"); !strings.Contains(v["detail"].(string), `did you mean "connections"`) {
		t.Errorf("got %v", v)
	}
	for _, dry := range []string{"?dry_run=true", ""} {
		r = f.do("PUT", path+dry, key, `{"sinks":1,"webhooks":1,"connections":5}`)
		if got := r.header.Get("Quotas-Not-Enforced"); r.status != 200 || got != "webhooks, sinks" {
			t.Errorf("overrides%s that are not enforced: %d, %q", dry, r.status, got)
		}
		if r = f.do("PUT", path+dry, key, `{"connections":5}`); len(r.header["Quotas-Not-Enforced"]) != 0 {
			t.Errorf("overrides%s that are enforced: %v", dry, r.header)
		}
	}
	f.want(f.do("PUT", path, key, `{"connections":-7}`), 400, "limit_invalid")
	f.want(f.do("PUT", path, key, `{"connections":"5"}`), 400, "request_invalid")
	f.want(f.do("PUT", path, key, `{"connections":1.5}`), 400, "request_invalid")
	q = quotas(f.do("PUT", path+"?dry_run=true", key, `{"connections":9}`))
	if q["connections"]["limit"] != 9.0 {
		t.Errorf("dry run: %v", q["connections"])
	}
	q = quotas(f.do("PUT", path, key, `{"publish_rate_client":10}`))
	if q["connections"]["limit"] != 250000.0 || q["connections"]["source"] != "plan" {
		t.Errorf("a missing name does not go back to the plan: %v", q["connections"])
	}
	// With the brokers away limits are shown all the same.
	f.data.err = errs.New(errs.Unavailable, "away")
	if q := quotas(f.do("GET", "/v1/tenants/acme/quotas", key, "")); q["connections"]["usage"] != nil || q["connections"]["limit"] != 250000.0 {
		t.Errorf("brokers away: %v", q["connections"])
	}
}

func TestUsage(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	f.data.answer.Usage = link.Usage{Connections: 3}
	v := f.want(f.do("GET", "/v1/tenants/acme/usage?meter=connections&from=2020-01-01T00:00:00Z&step=1m", key, ""), 200, "")
	items := v["items"].([]any)
	point := items[0].(map[string]any)["points"].([]any)[0].(map[string]any)
	if len(items) != 1 || point["value"] != 3.0 || v["next"] != nil {
		t.Errorf("got %v", v)
	}
	v = f.want(f.do("GET", "/v1/tenants/acme/usage?meter=connections&to=2020-01-01T00:00:00Z", key, ""), 200, "")
	if p := v["items"].([]any)[0].(map[string]any)["points"].([]any); len(p) != 0 {
		t.Errorf("a past that is not kept: %v", p)
	}
	f.want(f.do("GET", "/v1/tenants/acme/usage?meter=happiness", key, ""), 400, "meter_unknown")
	f.want(f.do("GET", "/v1/tenants/acme/usage?step=soon", key, ""), 400, "step_invalid")
	f.want(f.do("GET", "/v1/tenants/acme/usage?from=2021-01-01T00:00:00Z&to=2020-01-01T00:00:00Z", key, ""), 400, "range_invalid")
}

func TestCredentials(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/credentials"
	v := f.want(f.do("POST", path, key, `{"username":"sensor-1"}`), 201, "")
	if len(v["password"].(string)) != 32 || !strings.HasPrefix(v["id"].(string), "cred_") || v["username"] != "sensor-1" {
		t.Errorf("generated: %v", v)
	}
	v = f.want(f.do("POST", path, key, `{"username":"a/b ü","password":"chosen-one"}`), 201, "")
	if _, shown := v["password"]; shown {
		t.Errorf("a chosen password is shown: %v", v)
	}
	f.want(f.do("POST", path, key, `{"username":"sensor-1"}`), 409, "username_taken")
	f.want(f.do("POST", path, key, `{"username":""}`), 400, "username_invalid")
	f.want(f.do("POST", path, key, `{"username":"x","password":"short"}`), 400, "password_invalid")
	f.want(f.do("POST", path, key, `{"username":"x","pasword":"misspelt"}`), 400, "request_invalid")
	f.want(f.do("POST", path+"?dry_run=true", key, `{"username":"dry"}`), 200, "")
	f.want(f.do("POST", path+"?dry_run=true", key, `{"username":"sensor-1"}`), 409, "username_taken")

	var names []string
	for next := "?limit=2"; next != ""; {
		v := f.want(f.do("GET", path+next, key, ""), 200, "")
		for _, i := range v["items"].([]any) {
			names = append(names, i.(map[string]any)["username"].(string))
		}
		next = ""
		if c, ok := v["next"].(string); ok {
			next = "?limit=2&cursor=" + c
		}
	}
	if d := cmp.Diff([]string{"a/b ü", "default", "sensor-1"}, names); d != "" {
		t.Error(d)
	}
	f.want(f.do("GET", path+"?limit=0", key, ""), 400, "request_invalid")
	f.want(f.do("GET", path+"?cursor=!", key, ""), 400, "cursor_invalid")
	f.want(f.do("GET", path+"?cursor=c2Vuc29y", key, ""), 400, "cursor_invalid") // base64, but a guess

	f.want(f.do("DELETE", path+"/a%2Fb%20%C3%BC?dry_run=true", key, ""), 204, "")
	f.want(f.do("DELETE", path+"/a%2Fb%20%C3%BC", key, "", "If-Match", `"1"`), 412, "revision_mismatch")
	f.want(f.do("DELETE", path+"/a%2Fb%20%C3%BC", key, ""), 204, "")
	f.want(f.do("DELETE", path+"/a%2Fb%20%C3%BC", key, ""), 404, "credential_not_found")

	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"credentials":2}`), 200, "")
	v = f.want(f.do("POST", path, key, `{"username":"one-too-many"}`), 409, "quota_exceeded")
	if v["quota"] != "credentials" || v["limit"] != 2.0 || v["usage"] != 2.0 {
		t.Errorf("got %v", v)
	}
}

func TestIdempotencyKey(t *testing.T) {
	f := newFixture(t)
	first := f.do("POST", "/v1/signup", "", signUpBody, "Idempotency-Key", "k-1")
	f.want(first, 201, "")
	again := f.do("POST", "/v1/signup", "", signUpBody, "Idempotency-Key", "k-1")
	if again.status != 201 || again.body != first.body || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("again: %d %s", again.status, again.body)
	}
	// A stranger with the same key signs up for another tenant.
	f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, "acme", "beta"), "Idempotency-Key", "k-1"), 201, "")

	key := first.json(t)["api_key"].(map[string]any)["secret"].(string)
	const path = "/v1/tenants/acme/credentials"
	one := f.do("POST", path, key, `{"username":"x"}`, "Idempotency-Key", "k-1")
	f.want(one, 201, "")
	two := f.do("POST", path, key, `{"username":"x"}`, "Idempotency-Key", "k-1")
	if two.body != one.body || two.header.Get("ETag") != one.header.Get("ETag") {
		t.Errorf("again: %s, want %s", two.body, one.body)
	}
	f.want(f.do("POST", path, key, `{"username":"y"}`, "Idempotency-Key", "k-1"), 409, "idempotency_key_reused")
	f.want(f.do("POST", path, key, `{"username":"z"}`, "Idempotency-Key", strings.Repeat("k", 256)), 400, "idempotency_key_invalid")
	// What failed on our side is tried again.
	f.data.err = errs.New(errs.Unavailable, "away")
	f.want(f.do("POST", "/v1/tenants/acme/publish", key, `{"topic":"a"}`, "Idempotency-Key", "k-2"), 503, "unavailable")
	f.data.err = nil
	f.want(f.do("POST", "/v1/tenants/acme/publish", key, `{"topic":"a"}`, "Idempotency-Key", "k-2"), 200, "")
	f.want(f.do("POST", "/v1/tenants/acme/publish", key, `{"topic":"a"}`, "Idempotency-Key", "k-2"), 200, "")
	if n := len(f.data.published); n != 2 {
		t.Errorf("published %d times, want 2 (one of them failed)", n)
	}
	// An answer is not shown to a key that has been deleted.
	k, err := f.store.AuthenticateKey(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.DeleteAPIKey(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	f.want(f.do("POST", path, key, `{"username":"x"}`, "Idempotency-Key", "k-1"), 401, "api_key_invalid")
}

func TestClients(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	f.data.answer.Clients = []link.ClientInfo{
		{ClientID: "$api-x-1", Labels: link.Labels{Listener: link.ListenerAPI}},
		{
			ClientID: "c1", Connected: true, ConnectedAt: 1000, Labels: link.Labels{Username: "u", Protocol: "5"},
			Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: 1}},
		},
	}
	f.data.answer.Next = "c1"
	v := f.want(f.do("GET", "/v1/tenants/acme/clients?limit=2", key, ""), 200, "")
	items := v["items"].([]any)
	c := items[0].(map[string]any)
	if len(items) != 1 || c["client_id"] != "c1" || c["connected"] != true || c["username"] != "u" ||
		c["connected_at"] != "1970-01-01T00:00:01Z" || c["disconnected_at"] != nil || v["next"] == nil {
		t.Errorf("got %v", v)
	}
	f.want(f.do("GET", "/v1/tenants/acme/clients?cursor="+v["next"].(string), key, ""), 200, "")
	f.data.answer.Clients = f.data.answer.Clients[1:]
	v = f.want(f.do("GET", "/v1/tenants/acme/clients/a%2Fb%3F", key, ""), 200, "")
	if v["subscriptions"].([]any)[0].(map[string]any)["filter"] != "a/#" {
		t.Errorf("got %v", v)
	}
	f.want(f.do("DELETE", "/v1/tenants/acme/clients/c1", key, ""), 204, "")
	f.want(f.do("DELETE", "/v1/tenants/acme/clients/c1?session=purge", key, ""), 204, "")
	f.want(f.do("DELETE", "/v1/tenants/acme/clients/c1?session=burn", key, ""), 400, "request_invalid")
	f.want(f.do("DELETE", "/v1/tenants/acme/clients/c1?dry_run=true", key, ""), 204, "")
	want := []link.Query{
		{Kind: link.QueryClients, Tenant: "acme", Limit: 2},
		{Kind: link.QueryClients, Tenant: "acme", Cursor: "c1", Limit: 100},
		{Kind: link.QueryClient, Tenant: "acme", ClientID: "a/b?"},
		{Kind: link.QueryKick, Tenant: "acme", ClientID: "c1"},
		{Kind: link.QueryKick, Tenant: "acme", ClientID: "c1", Purge: true},
		{Kind: link.QueryClient, Tenant: "acme", ClientID: "c1"},
	}
	if d := cmp.Diff(want, f.data.queries); d != "" {
		t.Error(d)
	}
	f.data.answer = link.Answer{}
	f.want(f.do("GET", "/v1/tenants/acme/clients/none", key, ""), 404, "client_not_found")
	f.want(f.do("DELETE", "/v1/tenants/acme/clients/$api-x-1", key, ""), 404, "client_not_found")
	// Our own channel is not there; a device that has such an id is.
	f.data.answer = link.Answer{Found: true, Clients: []link.ClientInfo{{ClientID: "$api-x-1", Labels: link.Labels{Listener: link.ListenerAPI}}}}
	f.want(f.do("GET", "/v1/tenants/acme/clients/$api-x-1", key, ""), 404, "client_not_found")
	f.want(f.do("DELETE", "/v1/tenants/acme/clients/$api-x-1", key, ""), 404, "client_not_found")
	if q := f.data.queries[len(f.data.queries)-1]; q.Kind != link.QueryClient {
		t.Errorf("our own channel was kicked: %+v", q)
	}
	f.data.answer.Clients[0].Labels.Listener = "mqtts"
	v = f.want(f.do("GET", "/v1/tenants/acme/clients", key, ""), 200, "")
	if len(v["items"].([]any)) != 1 {
		t.Errorf("a device hides behind its client id: %v", v)
	}
	f.want(f.do("GET", "/v1/tenants/acme/clients/$api-x-1", key, ""), 200, "")
	f.want(f.do("DELETE", "/v1/tenants/acme/clients/$api-x-1", key, ""), 204, "")
	if q := f.data.queries[len(f.data.queries)-1]; q.Kind != link.QueryKick {
		t.Errorf("the device was not kicked: %+v", q)
	}
	f.data.err = errs.New(errs.Unavailable, "away")
	r := f.do("GET", "/v1/tenants/acme/clients", key, "")
	f.want(r, 503, "unavailable")
	if r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestPublish(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/publish"
	v := f.want(f.do("POST", path, key, `{"topic":"a/b","payload":"hällo","qos":1,"retain":true}`), 200, "")
	if v["reason_code"] != 0.0 {
		t.Errorf("got %v", v)
	}
	f.data.code = mqtt.NoMatchingSubscribers
	v = f.want(f.do("POST", path, key, `{"topic":"a","payload_base64":"AAE=","qos":2,"properties":{"content_type":"x/y","message_expiry_interval":7,
		"correlation_data":"AQ==","user_properties":[{"name":"n","value":"1"},{"name":"n","value":"2"}]}}`), 200, "")
	if v["reason_code"] != 16.0 {
		t.Errorf("got %v", v)
	}
	f.want(f.do("POST", path, key, `{"topic":"a"}`), 200, "")
	want := []mqtt.Message{
		{Topic: []byte("a/b"), Payload: []byte("hällo"), QoS: 1, Retain: true},
		{
			Topic: []byte("a"), Payload: []byte{0, 1}, QoS: 2, Expiry: 7, HasExpiry: true,
			Properties: []byte("\x03\x00\x03x/y\x09\x00\x01\x01\x26\x00\x01n\x00\x011\x26\x00\x01n\x00\x012"),
		},
		{Topic: []byte("a")},
	}
	if d := cmp.Diff(want, f.data.published); d != "" {
		t.Error(d)
	}
	for _, c := range []struct {
		body   string
		status int
		code   string
	}{
		{`{"topic":""}`, 400, "topic_invalid"},
		{`{"topic":"a/#"}`, 400, "topic_invalid"},
		{`{"topic":"$SYS/x"}`, 403, "topic_forbidden"},
		{`{"topic":"a","qos":3}`, 400, "request_invalid"},
		{`{"topic":"a","payload":"x","payload_base64":"eA=="}`, 400, "payload_invalid"},
		{`{"topic":"a","payload_base64":"?"}`, 400, "payload_invalid"},
		{`{"topic":"a","payload_base64":"/w==","properties":{"payload_format_indicator":1}}`, 400, "payload_invalid"},
		{`{"topic":"a","properties":{"response_topic":"a/+"}}`, 400, "properties_invalid"},
		{`{"topic":"a","properties":{"nothing":1}}`, 400, "request_invalid"},
		{`{"topic":"a","payload":"` + strings.Repeat("x", 6<<20) + `"}`, 409, "quota_exceeded"},
	} {
		f.want(f.do("POST", path, key, c.body), c.status, c.code)
	}
	f.want(f.do("POST", path+"?dry_run=true", key, `{"topic":"dry"}`), 200, "")
	if len(f.data.published) != len(want) {
		t.Errorf("%d published, want %d", len(f.data.published), len(want))
	}
	f.data.code = mqtt.QuotaExceeded
	f.want(f.do("POST", path, key, `{"topic":"a","qos":1}`), 409, "quota_exceeded")
	// A retained message too many: also at QoS 0 the caller hears of it.
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"retained_messages":5,"retained_bytes":100}`), 200, "")
	for _, c := range []struct {
		usage              link.Usage
		quota              string
		limit, used, level float64
	}{
		{link.Usage{Retained: 5}, "retained_messages", 5, 5, 1},
		{link.Usage{Retained: 4, RetainedBytes: 95}, "retained_bytes", 100, 95, 1},
	} {
		f.data.answer.Usage = c.usage
		v = f.want(f.do("POST", path, key, `{"topic":"room","payload":"full","retain":true}`), 409, "quota_exceeded")
		if v["quota"] != c.quota || v["limit"] != c.limit || v["usage"] != c.used {
			t.Errorf("got %v, want %+v", v, c)
		}
		if m := f.data.published[len(f.data.published)-1]; float64(m.QoS) != c.level {
			t.Errorf("published at QoS %d", m.QoS)
		}
	}
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"retained_rate":7}`), 200, "")
	// The broker knows by which it refuses, whatever room there is by now.
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"retained_messages":5,"retained_rate":7}`), 200, "")
	for _, c := range []struct {
		named    string
		retained int64
		status   int
		quota    any
		limit    any
	}{
		{"retained_rate", 0, 429, "retained_rate", 7.0},
		{"retained_rate", 5, 429, "retained_rate", 7.0},
		{"retained_quota", 5, 409, "retained_messages", 5.0},
		{"retained_quota", 0, 409, "retained_messages", 5.0},
		{"", 5, 409, "retained_messages", 5.0},
		{"", 0, 409, nil, nil},
	} {
		f.data.quota, f.data.answer.Usage = c.named, link.Usage{Retained: c.retained}
		v = f.want(f.do("POST", path, key, `{"topic":"room","payload":"often","qos":1,"retain":true}`), c.status, "quota_exceeded")
		if v["quota"] != c.quota || v["limit"] != c.limit || (v["retry_after"] == 1.0) != (c.status == 429) {
			t.Errorf("got %v, want %+v", v, c)
		}
	}
	f.data.quota = ""
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"retained_messages":5,"retained_bytes":100}`), 200, "")
	f.data.answer.Usage, f.data.code = link.Usage{Retained: 4}, mqtt.Success
	f.want(f.do("POST", path, key, `{"topic":"room","payload":"free","retain":true}`), 200, "")
	if m := f.data.published[len(f.data.published)-1]; m.QoS != 0 {
		t.Errorf("with room for it published at QoS %d", m.QoS)
	}
	f.data.code, f.data.err = 0, errors.New("inside")
	if r := f.do("POST", path, key, `{"topic":"a","qos":1}`); r.status != 500 || strings.Contains(r.body, "inside") {
		t.Errorf("got %d %s", r.status, r.body)
	}
	if _, err := f.store.SetState(t.Context(), "acme", tenancy.StateSuspended); err != nil {
		t.Fatal(err)
	}
	f.want(f.do("POST", path, key, `{"topic":"a"}`), 403, "tenant_inactive")
}

func TestRetained(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	f.data.answer.Retained = []link.RetainedInfo{
		{StoredAt: 2000, Message: mqtt.Message{
			Topic: []byte("a/b"), Payload: []byte("text"), QoS: 1, HasExpiry: true, Expiry: 9,
			Properties: []byte("\x03\x00\x03x/y"),
		}},
		{Message: mqtt.Message{Topic: []byte("a/c"), Payload: []byte{0xff}}},
	}
	v := f.want(f.do("GET", "/v1/tenants/acme/retained?filter=a/%2B&limit=5", key, ""), 200, "")
	want := map[string]any{"next": nil, "items": []any{
		map[string]any{
			"topic": "a/b", "qos": 1.0, "payload": "text", "payload_base64": "dGV4dA==", "stored_at": "1970-01-01T00:00:02Z",
			"properties": map[string]any{"content_type": "x/y", "message_expiry_interval": 9.0},
		},
		map[string]any{"topic": "a/c", "qos": 0.0, "payload_base64": "/w==", "stored_at": nil},
	}}
	if d := cmp.Diff(want, v); d != "" {
		t.Error(d)
	}
	f.want(f.do("GET", "/v1/tenants/acme/retained", key, ""), 200, "")
	wantQ := []link.Query{
		{Kind: link.QueryRetained, Tenant: "acme", Filter: "a/+", Limit: 5},
		{Kind: link.QueryRetained, Tenant: "acme", Filter: "#", Limit: 100},
	}
	if d := cmp.Diff(wantQ, f.data.queries); d != "" {
		t.Error(d)
	}
	f.want(f.do("GET", "/v1/tenants/acme/retained?filter=a%23", key, ""), 400, "filter_invalid")
	f.want(f.do("GET", "/v1/tenants/acme/retained?filter=$share/g/a", key, ""), 400, "filter_invalid")
}

func TestLanding(t *testing.T) {
	f := newFixture(t)
	if r := f.do("GET", "/", "", ""); r.status != 200 || !strings.Contains(r.body, "<h1>Manor</h1>") || r.header.Get("Content-Security-Policy") == "" {
		t.Errorf("%d %v", r.status, r.header)
	}
	if r := f.do("GET", "/favicon.ico", "", ""); r.status != 404 {
		t.Errorf("elsewhere: %d", r.status)
	}
}

// TestBusDown holds that the API says so when the store cannot be reached.
func TestBusDown(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	f.bus.SetDown(true)
	f.want(f.do("GET", "/v1/tenants/acme", key, ""), 503, "unavailable")
	f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, "acme", "beta")), 503, "unavailable")
	f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, "acme", "beta"), "Idempotency-Key", "k"), 503, "unavailable")
}

// bucket returns the values of a bucket.
func (f *fixture) bucket(name string) []string {
	f.t.Helper()
	b, err := f.bus.Bucket(f.t.Context(), bus.BucketConfig{Name: name})
	if err != nil {
		f.t.Fatal(err)
	}
	keys, err := b.Keys(f.t.Context(), "")
	if err != nil {
		f.t.Fatal(err)
	}
	var out []string
	for _, k := range keys {
		e, err := b.Get(f.t.Context(), k)
		if err != nil {
			f.t.Fatal(err)
		}
		out = append(out, string(e.Value))
	}
	return out
}

// TestServe runs the real listener and throws random bytes at it.
func TestServe(t *testing.T) {
	f := newFixture(t)
	if err := f.s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.s.Run(ctx) }()
	garbage(t, f.s.Addr())
	resp, err := http.Get("http://" + f.s.Addr() + "/v1/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
		t.Errorf("%d %v", resp.StatusCode, err)
	}
	resp.Body.Close()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not stop")
	}
}

// FuzzRequest holds that no request ends the process or is answered with a
// failure of ours.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "/v1/signup", signUpBody, "k")
	f.Add("PUT", "/v1/tenants/acme/quotas/overrides", `{"connections":5}`, "")
	f.Add("POST", "/v1/tenants/acme/publish", `{"topic":"a","payload_base64":"AAE=","properties":{"user_properties":[{"name":"a","value":"b"}]}}`, "")
	f.Add("DELETE", "/v1/tenants/acme/credentials/%2F", "", "")
	f.Add("GET", "/v1/tenants/acme/usage?from=x", "", "")
	f.Add("POST", "/v1/organizations/org/api-keys", `{"name":"x","permissions":["usage:read"],"tenants":["acme"]}`, "")
	f.Add("PATCH", "/v1/organizations/org/members/mem_x", `{"role":"viewer"}`, "")
	f.Add("POST", "/v1/organizations/org/api-keys/key_x:rotate", `{"overlap":"1h"}`, "k")
	f.Add("GET", "/v1/organizations/org/audit?limit=1&cursor=x&from=2026-01-01T00:00:00Z", "", "")
	f.Add("POST", "/v1/tenants/acme/credentials:import", `{"items":[{"username":"a","hash":"$sha256$x"}]}`, "")
	f.Add("POST", "/v1/auth/token", `{"organization":"org","email":"a@b.c","password":"x"}`, "")
	f.Add("POST", "/v1/invitations:accept", `{"invitation":"mi_x","password":"x"}`, "")
	fx := newFixture(f)
	r, err := fx.store.EnsureTenant(f.Context(), "acme", store.EnsureOptions{})
	if err != nil {
		f.Fatal(err)
	}
	_, secret, err := fx.store.CreateAPIKey(f.Context(), r.Organization)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, target, body, idempotency string) {
		target = strings.Replace(target, "/organizations/org", "/organizations/"+r.Organization, 1)
		req, err := http.NewRequest(method, "http://x"+target, strings.NewReader(body))
		if err != nil {
			return
		}
		req.RequestURI = target
		req.Header.Set("Authorization", "Bearer "+secret)
		req.Header.Set("Content-Type", "application/json")
		if idempotency != "" {
			req.Header.Set("Idempotency-Key", idempotency)
		}
		w := httptest.NewRecorder()
		fx.s.Handler().ServeHTTP(w, req)
		if w.Code >= 500 {
			t.Errorf("%s %s: %d %s", method, target, w.Code, w.Body)
		}
	})
}
