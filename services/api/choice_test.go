// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy"
)

// toldNothing makes an API as a tenancyd has it that was told nothing of plans.
func toldNothing(c *api.Config) {
	c.DefaultPlan, c.Plans, c.OverridesBeyondPlan = tenancy.PlanFree, nil, false
}

func TestPlans(t *testing.T) {
	for _, c := range []struct {
		name      string
		with      func(*api.Config)
		choosable string
		beyond    bool
	}{
		{"manor dev", func(*api.Config) {}, "dev free starter pro", true},
		{"told nothing", toldNothing, "free starter pro", false},
		{"told free", func(c *api.Config) { toldNothing(c); c.Plans = []string{"free"} }, "free", false},
		{"told none", func(c *api.Config) { toldNothing(c); c.Plans, c.DefaultPlan = []string{}, "starter" }, "starter", false},
	} {
		w := newFixture(t, c.with)
		signed := w.want(w.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, `,"plan":"dev"`, "")), 201, "")
		key := signed["api_key"].(map[string]any)["secret"].(string)
		v := w.want(w.do("GET", "/v1/plans", key, ""), 200, "")
		var choosable []string
		byDefault := 0
		for _, x := range v["items"].([]any) {
			p := x.(map[string]any)
			if p["choosable"].(bool) {
				choosable = append(choosable, p["name"].(string))
			}
			if p["default"].(bool) {
				byDefault++
			}
			if n := len(p["quotas"].(map[string]any)); n != len(tenancy.QuotaNames()) {
				t.Errorf("%s: %s has %d quotas", c.name, p["name"], n)
			}
		}
		if got := strings.Join(choosable, " "); got != c.choosable || byDefault != 1 || v["overrides_beyond_plan"] != c.beyond {
			t.Errorf("%s: %q may be chosen, expected %q; %d defaults, beyond %v", c.name, got, c.choosable, byDefault, v["overrides_beyond_plan"])
		}
		w.want(w.do("GET", "/v1/plans", "", ""), 401, "api_key_missing")
		w.want(w.do("GET", "/v1/plans?nonsense=1", key, ""), 400, "request_invalid")
	}
	if err := api.ValidatePlans([]string{"free", "none"}); err == nil {
		t.Error("the plan none may be chosen")
	}
}

// What is chosen through the API is held to what the installation offers, wherever a plan is
// named.
func TestPlans_NotOffered(t *testing.T) {
	f := newFixture(t, toldNothing)
	f.want(f.do("POST", "/v1/signup", "", signUpBody), 403, "plan_not_offered")
	key := f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, `"dev"`, `"starter"`)), 201, "")["api_key"].(map[string]any)["secret"].(string)
	org := f.want(f.do("GET", "/v1/me", key, ""), 200, "")["organization"].(string)
	for _, query := range []string{"?dry_run=true", ""} {
		f.want(f.do("POST", "/v1/organizations/"+org+"/tenants"+query, key, `{"id":"second","plan":"dev"}`), 403, "plan_not_offered")
		f.want(f.do("PUT", "/v1/tenants/acme/plan"+query, key, `{"plan":"dev"}`), 403, "plan_not_offered")
	}
	f.want(f.do("PUT", "/v1/tenants/acme/plan", key, `{"plan":"gold"}`), 400, "plan_unknown")
	f.want(f.do("PUT", "/v1/tenants/acme/plan", key, `{"plan":"pro"}`), 200, "")
	// A plan that the operator has given may be named again.
	if code, body := operatorDo(f, "PUT", "/tenants/acme/plan", `{"plan":"dev"}`); code != 200 || !strings.Contains(body, `"plan":"dev"`) {
		t.Errorf("%d %s", code, body)
	}
	f.want(f.do("PUT", "/v1/tenants/acme/plan", key, `{"plan":"dev"}`), 200, "")
	f.want(f.do("PUT", "/v1/tenants/acme/plan", key, `{"plan":"free"}`), 200, "")
}

// operatorDo asks at the operator listener.
func operatorDo(f *fixture, method, path, body string) (int, string) {
	r := httptest.NewRequest(method, api.OperatorPrefix+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	f.s.Operator().ServeHTTP(rec, r)
	return rec.Code, rec.Body.String()
}

// An owner narrows what the plan has, and no more; the operator gives what is beyond.
func TestOverrides_WithinThePlan(t *testing.T) {
	f := newFixture(t, toldNothing)
	key := f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, `"dev"`, `"starter"`)), 201, "")["api_key"].(map[string]any)["secret"].(string)
	const path = "/v1/tenants/acme/quotas/overrides"
	put := func(body string, status int, code string) {
		t.Helper()
		f.want(f.do("PUT", path+"?dry_run=true", key, body), status, code)
		f.want(f.do("PUT", path, key, body), status, code)
	}
	for _, body := range []string{`{"connections":10001}`, `{"connections":-1}`, `{"publish_rate":5,"keep_alive_minimum":9}`, `{"domains":2}`, `{"tenants":11}`} {
		put(body, 403, "override_exceeds_plan")
	}
	put(`{"connections":10000,"publish_rate":5,"keep_alive_minimum":60,"domains":0}`, 200, "")
	put(`{"conections":5}`, 400, "quota_unknown")
	// What the operator has given stays when other overrides change, and may go; it does not
	// grow, nor come back.
	if code, body := operatorDo(f, "POST", "/tenants/acme/quotas", `{"set":{"connections":50000,"delivery_rate":-1},"unset":["publish_rate"]}`); code != 200 || !strings.Contains(body, `"connections":50000`) || strings.Contains(body, "publish_rate") {
		t.Errorf("%d %s", code, body)
	}
	put(`{"connections":50000,"delivery_rate":-1,"fan_out":10}`, 200, "")
	put(`{"connections":50001,"delivery_rate":-1}`, 403, "override_exceeds_plan")
	put(`{"connections":50000}`, 200, "")
	put(`{"connections":50000,"delivery_rate":-1}`, 403, "override_exceeds_plan")
}

// A large plan for a moment leaves no override behind that is more than the next one has.
func TestOverrides_NotByAnotherPlan(t *testing.T) {
	f := newFixture(t, toldNothing)
	key := f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, `"dev"`, `"free"`)), 201, "")["api_key"].(map[string]any)["secret"].(string)
	const plan, overrides = "/v1/tenants/acme/plan", "/v1/tenants/acme/quotas/overrides"
	if code, body := operatorDo(f, "POST", "/tenants/acme/quotas", `{"set":{"devices":6000000}}`); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	f.want(f.do("PUT", plan, key, `{"plan":"pro"}`), 200, "")
	f.want(f.do("PUT", overrides, key, `{"devices":6000000,"connections":200000}`), 200, "")
	for _, query := range []string{"?dry_run=true", ""} {
		v := f.want(f.do("PUT", plan+query, key, `{"plan":"free"}`), 409, "overrides_exceed_plan")
		if d := v["detail"].(string); !strings.Contains(d, "connections") || strings.Contains(d, "devices") {
			t.Errorf("got %q", d)
		}
	}
	f.want(f.do("PUT", overrides, key, `{"devices":6000000,"connections":50}`), 200, "")
	f.want(f.do("PUT", plan, key, `{"plan":"free"}`), 200, "")
	// Nor does it when the operator takes the plan away: only what was beyond it stays.
	f.want(f.do("PUT", plan, key, `{"plan":"pro"}`), 200, "")
	f.want(f.do("PUT", overrides, key, `{"devices":6000000,"connections":200000}`), 200, "")
	if code, body := operatorDo(f, "PUT", "/tenants/acme/plan", `{"plan":"free"}`); code != 200 || !strings.Contains(body, `"overrides":{"devices":6000000}`) {
		t.Errorf("%d %s", code, body)
	}
}

// Deleted tenants do not count as tenants, and are kept for a while: so there are only so many.
func TestTenants_DeletedAgainAndAgain(t *testing.T) {
	f := newFixture(t, toldNothing)
	up := f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, `"dev"`, `"free"`)), 201, "")
	key, org := up["api_key"].(map[string]any)["secret"].(string), up["organization"].(map[string]any)["id"].(string)
	tenants := "/v1/organizations/" + org + "/tenants"
	f.want(f.do("DELETE", "/v1/tenants/acme", key, ""), 204, "")
	for _, id := range []string{"second", "third"} {
		f.want(f.do("POST", tenants, key, `{"id":"`+id+`"}`), 201, "")
		f.want(f.do("DELETE", "/v1/tenants/"+id, key, ""), 204, "")
	}
	f.want(f.do("POST", tenants, key, `{"id":"fourth"}`), 409, "tenants_deleted")
	f.want(f.do("POST", "/v1/tenants/third:restore", key, ""), 200, "")
}

func TestOperator_Gives(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"PUT", "/tenants/nobody/plan", `{"plan":"pro"}`, 404, "tenant_not_found"},
		{"PUT", "/tenants/acme/plan", `{"plan":"gold"}`, 400, "plan_unknown"},
		{"PUT", "/tenants/acme/plan", `{"name":"pro"}`, 400, "expected a body"},
		{"PUT", "/tenants/acme/plan", `{"plan":"none"}`, 200, `"plan":"none"`},
		{"POST", "/tenants/acme/quotas", `{}`, 400, "expected a body like"},
		{"POST", "/tenants/acme/quotas", `{"set":{"conections":1}}`, 400, "did you mean"},
		{"POST", "/tenants/acme/quotas", `{"unset":["conections"]}`, 400, "did you mean"},
		{"POST", "/tenants/acme/quotas", `{"set":{"connections":7}}`, 200, `"overrides":{"connections":7}`},
		{"POST", "/tenants/acme/quotas", `{"unset":["connections"]}`, 200, `"overrides":{}`},
		{"POST", "/tenants/nobody/suspend", `{"reason":"abuse"}`, 404, "tenant_not_found"},
		{"POST", "/tenants/acme/suspend", `{"reason":"a\u0001b"}`, 400, "control characters"},
		{"POST", "/tenants/acme/suspend", `{"because":"abuse"}`, 400, "expected a body"},
		{"POST", "/tenants/acme/suspend", `{"reason":"abuse"}`, 200, `"state":"suspended","reason":"abuse"`},
	} {
		if code, body := operatorDo(w.fixture, c.method, c.path, c.body); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %s, expected %d with %s", c.path, c.body, code, body, c.code, c.want)
		}
	}
	if v := w.want(w.do("GET", "/v1/tenants/acme", w.owner, ""), 200, ""); v["state"] != "suspended" || v["state_by"] != "operator" {
		t.Errorf("suspended by the operator: %v", v)
	}
	for _, verb := range []string{"resume", "suspend"} {
		w.want(w.do("POST", "/v1/tenants/acme:"+verb, w.owner, ""), 409, "suspended_by_operator")
	}
	w.want(w.do("DELETE", "/v1/tenants/acme", w.owner, ""), 204, "")
	w.want(w.do("POST", "/v1/tenants/acme:restore", w.owner, ""), 200, "")
	w.want(w.do("POST", "/v1/tenants/acme:resume", w.owner, ""), 409, "suspended_by_operator")
	if code, body := operatorDo(w.fixture, "POST", "/tenants/acme/resume", `{}`); code != 200 || !strings.Contains(body, `"state":"active"`) {
		t.Errorf("resumed: %d %s", code, body)
	}
	records := w.want(w.do("GET", "/v1/organizations/"+w.org+"/audit?limit=8", w.owner, ""), 200, "")["items"].([]any)
	for i, want := range []string{"resume-tenant", "", "", "suspend-tenant", "replace-quota-overrides", "replace-quota-overrides", "replace-plan"} {
		r := records[i].(map[string]any)
		if want == "" {
			continue // the owner's
		}
		if r["operation"] != want || r["actor"].(map[string]any)["kind"] != "operator" || r["outcome"] != "done" {
			t.Errorf("the audit log has %v", r)
		}
	}
	r := httptest.NewRequest(http.MethodPut, api.OperatorPrefix+"/tenants/acme/plan", strings.NewReader(`{"plan":"pro"}`))
	rec := httptest.NewRecorder()
	w.s.Operator().ServeHTTP(rec, r)
	if rec.Code != 400 {
		t.Errorf("a request that a page in a browser can send: %d %s", rec.Code, rec.Body)
	}
}
