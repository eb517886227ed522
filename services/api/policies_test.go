// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/services/api/apitest"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/remote"
)

const policies = "/v1/tenants/acme/policies"

// policyBody is a body with one file.
func policyBody(t testing.TB, text string, more ...any) string {
	t.Helper()
	v := map[string]any{"files": map[string]string{"policy.rego": text}}
	for i := 0; i+1 < len(more); i += 2 {
		v[more[i].(string)] = more[i+1]
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const onlyA = `package mqtt

grants contains {"action": "publish", "filter": "a/%c/#", "qos": 1}

grants contains {"action": "all", "filter": "a/x/secret", "effect": "deny", "priority": 1}
`

func TestPolicies(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	r := f.do("GET", policies, key, "")
	if v := f.want(r, 200, ""); len(v["items"].([]any)) != 0 || v["live"] != 0.0 {
		t.Errorf("at first: %v", v)
	}
	tag := r.header.Get("ETag")
	v := f.want(f.do("PUT", policies+"?dry_run=true", key, policyBody(t, onlyA)), 200, "")
	if v["grants"] != 2.0 || v["revision"] != 0.0 {
		t.Errorf("dry run: %v", v)
	}
	if v := f.want(f.do("GET", policies, key, ""), 200, ""); len(v["items"].([]any)) != 0 {
		t.Errorf("a dry run made %v", v)
	}
	v = f.want(f.do("PUT", policies, key, policyBody(t, onlyA, "description", "first", "on_revoke", "disconnect"), "If-Match", tag), 200, "")
	if v["revision"] != 1.0 || v["state"] != "live" || fmt.Sprint(v["classes"]) != "[default]" || v["created_by"] == nil {
		t.Errorf("made: %v", v)
	}
	f.want(f.do("PUT", policies, key, policyBody(t, onlyA), "If-Match", tag), 412, "revision_mismatch")
	// What gateways read is there with the record.
	tn, err := f.store.Tenant(t.Context(), "acme")
	if err != nil || tn.Policy.Revision != 1 || tn.Policy.OnRevoke != tenancy.OnRevokeDisconnect {
		t.Fatalf("the record has %+v, %v", tn.Policy, err)
	}
	set, err := f.store.Grants(t.Context(), "acme", 1, tenancy.DefaultClass)
	if err != nil || set.Entries[1].At != "policy.rego:3" {
		t.Errorf("grants %+v, %v", set, err)
	}
	v = f.want(f.do("GET", policies+"/1", key, ""), 200, "")
	if v["files"].(map[string]any)["policy.rego"] != onlyA || v["description"] != "first" {
		t.Errorf("got %v", v)
	}
	f.want(f.do("GET", policies+"/7", key, ""), 404, "policy_not_found")
	f.want(f.do("GET", policies+"/x", key, ""), 400, "request_invalid")
	// A second one, and back.
	f.want(f.do("PUT", policies, key, policyBody(t, "package mqtt\n\ngrants := []\n")), 200, "")
	v = f.want(f.do("POST", policies+":rollback", key, `{"revision":1}`), 200, "")
	if v["revision"] != 1.0 || v["state"] != "live" {
		t.Errorf("rolled back: %v", v)
	}
	f.want(f.do("POST", policies+":rollback", key, `{"revision":9}`), 404, "policy_not_found")
	f.want(f.do("POST", policies+":rollback", key, `{"revision":0}`), 400, "request_invalid")
	v = f.want(f.do("GET", policies, key, ""), 200, "")
	if items := v["items"].([]any); len(items) != 2 || v["live"] != 1.0 || v["on_revoke"] != "disconnect" || items[0].(map[string]any)["state"] != "kept" {
		t.Errorf("list: %v", v)
	}
	f.want(f.do("DELETE", policies, key, ""), 204, "")
	if v = f.want(f.do("GET", policies, key, ""), 200, ""); v["live"] != 0.0 || len(v["items"].([]any)) != 2 {
		t.Errorf("after the delete: %v", v)
	}
	// Numbers are not given again.
	if v = f.want(f.do("PUT", policies, key, policyBody(t, onlyA)), 200, ""); v["revision"] != 3.0 {
		t.Errorf("made: %v", v)
	}
}

func TestPolicies_Refused(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	for _, path := range []string{"", "?dry_run=true", ":test"} {
		method := map[bool]string{true: "POST", false: "PUT"}[path == ":test"]
		v := f.want(f.do(method, policies+path, key, policyBody(t, "package mqtt\n\ngrants contains )\n")), 400, "policy_invalid")
		if d := v["detail"].(string); !strings.HasPrefix(d, "policy.rego:3:") {
			t.Errorf("%s: the detail has no line: %s", path, d)
		}
		if at := v["errors"].([]any)[0].(map[string]any)["location"].(string); !strings.HasPrefix(at, "policy.rego:3:") {
			t.Errorf("%s: the location is %s", path, at)
		}
		f.want(f.do(method, policies+path, key, `{"files":{}}`), 400, "")
		f.want(f.do(method, policies+path, key, `{"files":{"../x.rego":"package mqtt"}}`), 400, "policy_invalid")
	}
	failing := policyBody(t, "package mqtt\n\ngrants := []\n\ntest_x if count(grants) == 1\n")
	v := f.want(f.do("PUT", policies, key, failing), 400, "policy_invalid")
	if !strings.HasPrefix(v["detail"].(string), "policy.rego:5:1: the test mqtt.test_x has failed") {
		t.Errorf("a failing test: %v", v)
	}
	v = f.want(f.do("POST", policies+":test", key, failing), 200, "")
	if v["failed"] != 1.0 || v["coverage"] == nil {
		t.Errorf("tests: %v", v)
	}
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"grants":1,"policy_bytes":100}`), 200, "")
	if v := f.want(f.do("PUT", policies, key, policyBody(t, onlyA)), 409, "quota_exceeded"); v["quota"] != "policy_bytes" {
		t.Errorf("quota: %v", v)
	}
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"grants":1}`), 200, "")
	if v := f.want(f.do("PUT", policies, key, policyBody(t, onlyA)), 409, "quota_exceeded"); v["quota"] != "grants" || v["usage"] != 2.0 {
		t.Errorf("quota: %v", v)
	}
	if v := f.want(f.do("GET", policies, key, ""), 200, ""); len(v["items"].([]any)) != 0 {
		t.Errorf("something was kept: %v", v)
	}
}

func TestPolicies_Explain(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	explain := func(body string) map[string]any {
		t.Helper()
		return f.want(f.do("POST", policies+":explain", key, body), 200, "")
	}
	if v := explain(`{"topic":"any"}`); v["allowed"] != true || v["revision"] != 0.0 {
		t.Errorf("the default: %v", v)
	}
	f.want(f.do("PUT", policies, key, policyBody(t, onlyA)), 200, "")
	v := explain(`{"client":{"id":"x"},"topic":"a/x/secret"}`)
	if entry := v["entry"].(map[string]any); v["allowed"] != false || entry["at"] != "policy.rego:5" || entry["effect"] != "deny" || v["revision"] != 1.0 {
		t.Errorf("got %v", v)
	}
	if v := explain(`{"client":{"id":"x"},"topic":"a/x/1","qos":2}`); v["allowed"] != false || !strings.Contains(v["why"].(string), "less than QoS 2") {
		t.Errorf("got %v", v)
	}
	if v := explain(`{"client":{"id":"x"},"topic":"a/x/1","qos":1}`); v["allowed"] != true || v["entry"].(map[string]any)["at"] != "policy.rego:3" {
		t.Errorf("got %v", v)
	}
	if v := explain(`{"client":{"id":"a/b"},"topic":"a/a/b"}`); v["allowed"] != false {
		t.Errorf("got %v", v)
	}
	if v := explain(`{"topic":"#","action":"subscribe"}`); v["allowed"] != false || !strings.Contains(v["why"].(string), "no entry allows") && !strings.Contains(v["why"].(string), "denied") {
		t.Errorf("got %v", v)
	}
	f.want(f.do("POST", policies+":explain", key, `{}`), 400, "topic_missing")
	f.want(f.do("POST", policies+":explain", key, `{"topic":"a","action":"fly"}`), 400, "request_invalid")
	f.want(f.do("POST", policies+":explain", key, `{"decision":"dec_x"}`), 404, "decision_not_found")
	f.want(f.do("POST", policies+":explain", key, `{"topic":"a","revision":5}`), 404, "policy_not_found")
	f.want(f.do("POST", policies+":simulate", key, `{}`), 400, "policy_missing")
	v = f.want(f.do("POST", policies+":simulate", key, policyBody(t, "package mqtt\n\ngrants := []\n", "questions",
		[]any{map[string]any{"client": map[string]any{"id": "x"}, "topic": "a/x/1"}, map[string]any{"topic": "b"}})), 200, "")
	if v["looked"] != 2.0 || v["changed"] != 1.0 || len(v["answers"].([]any)) != 2 {
		t.Errorf("simulated: %v", v)
	}
}

// answerGateways has gateways answered until stop is called, or the test ends.
func (f *fixture) answerGateways() (stop func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	ran := make(chan error, 1)
	go func() { ran <- f.cfg.Policies.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			f.t.Error(err)
		}
	})
	f.t.Cleanup(stop)
	return stop
}

// TestPolicies_Recorded: what a gateway tells is found by its id, and held against
// other policies.
func TestPolicies_Recorded(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	f.answerGateways()
	f.want(f.do("PUT", policies, key, policyBody(t, onlyA)), 200, "")
	f.want(f.do("PUT", policies, key, policyBody(t, "package mqtt\n\ngrants contains {\"action\": \"all\", \"filter\": \"b\"}\n", "shadow", true)), 200, "")
	decisions := tenancy.Decisions{Tenant: "acme"}
	for i, topic := range []string{"b", "a/c/1", "c"} {
		decisions.Items = append(decisions.Items, tenancy.Decision{
			ID: fmt.Sprintf("dec_%d", i), At: time.Now(), Revision: 1, Class: tenancy.DefaultClass, Client: tenancy.Subject{ClientID: "c"},
			Question: tenancy.Question{Action: tenancy.ActionPublish, Topic: topic}, Allowed: topic == "a/c/1",
		})
	}
	b, err := json.Marshal(decisions)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	for deadline := time.Now().Add(5 * time.Second); ; {
		// Run may not have subscribed yet.
		if err := f.bus.Publish(t.Context(), tenancy.DecisionsSubject, b); err != nil {
			t.Fatal(err)
		}
		if v = f.want(f.do("GET", policies+":shadow", key, ""), 200, ""); v["looked"] != 0.0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was heard")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if n := v["looked"].(float64); v["changed"].(float64) != n/3*2 || v["revision"] != 2.0 {
		t.Errorf("shadow: %v", v)
	}
	change := v["changes"].([]any)[0].(map[string]any)
	if change["topic"] != "b" || change["was"] != false || change["would"] != true || change["why"] != "allowed by the entry (policy.rego:3)" {
		t.Errorf("change: %v", change)
	}
	v = f.want(f.do("POST", policies+":explain", key, `{"decision":"dec_2"}`), 200, "")
	if v["allowed"] != false || v["revision"] != 1.0 || v["recorded"].(map[string]any)["topic"] != "c" {
		t.Errorf("explained: %v", v)
	}
	if v = f.want(f.do("POST", policies+":simulate", key, `{"revision":2}`), 200, ""); v["changed"].(float64) < 2 {
		t.Errorf("simulated: %v", v)
	}
	f.want(f.do("DELETE", policies+":shadow", key, ""), 204, "")
	f.want(f.do("GET", policies+":shadow", key, ""), 404, "shadow_not_found")
}

// TestPolicies_Check: mqtt.check is answered for gateways, and fails closed.
func TestPolicies_Check(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	stop := f.answerGateways()
	v := f.want(f.do("PUT", policies, key, policyBody(t, "package mqtt\n\ndynamic := true\n\ngrants := [{\"action\": \"publish\", \"filter\": \"#\"}]\n\ncheck := {\"allow\": true, \"ttl\": 5} if input.topic == \"a\"\n")), 200, "")
	if v["dynamic"] != true {
		t.Errorf("got %v", v)
	}
	v = f.want(f.do("POST", policies+":explain", key, `{"topic":"a"}`), 200, "")
	if v["allowed"] != true || !strings.HasSuffix(fmt.Sprint(v["why"]), "; mqtt.check is asked, too, and may deny it") {
		t.Errorf("explained: %v", v)
	}
	names, err := remote.New(remote.Config{Bus: f.bus, Verifier: apitest.Verifier(t), Domain: "localhost", Region: "local", Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(tenant string, revision uint64) (*tenancy.CheckAnswer, error) {
		return names.AskCheck(t.Context(), &tenancy.CheckQuestion{Tenant: tenant, Revision: revision, Items: []tenancy.CheckItem{{Action: "publish", Topic: "a"}, {Action: "publish", Topic: "b"}}})
	}
	var a *tenancy.CheckAnswer
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if a, err = ask("acme", 1); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if !a.Verdicts[0].Allow || a.Verdicts[0].TTL != 5 || a.Verdicts[1].Allow || a.Verdicts[1].Reason == "" {
		t.Errorf("got %+v", a)
	}
	if a, err := ask("acme", 4); err == nil {
		t.Errorf("a revision that is not there: %+v", a)
	}
	if a, err := ask("nobody", 1); err == nil {
		t.Errorf("a tenant that is not there: %+v", a)
	}
	stop()
	if _, err := names.AskCheck(t.Context(), &tenancy.CheckQuestion{Tenant: "acme", Revision: 1}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("nobody serves it: %v", err)
	}
}

// TestPolicies_Connect: mqtt.connect is answered for gateways, and fails closed.
func TestPolicies_Connect(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	f.answerGateways()
	f.want(f.do("PUT", policies, key, policyBody(t, `package mqtt

classes := {"x"}

connect := {"allow": true, "class": "x"} if input.client.user == "joe"

grants contains {"action": "publish", "filter": input.class}
`)), 200, "")
	ask := func(q tenancy.ConnectQuestion) (a tenancy.ConnectAnswer) {
		t.Helper()
		b, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			answer, err := f.bus.Request(t.Context(), tenancy.ConnectSubject, b)
			if err == nil {
				err = json.Unmarshal(answer, &a)
			}
			if err == nil {
				return a
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	if a := ask(tenancy.ConnectQuestion{Tenant: "acme", Revision: 1, Arrival: tenancy.Arrival{Client: tenancy.Subject{Username: "joe"}}}); !a.Allow || a.Class != "x" {
		t.Errorf("joe: %+v", a)
	}
	for _, q := range []tenancy.ConnectQuestion{
		{Tenant: "acme", Revision: 1, Arrival: tenancy.Arrival{Client: tenancy.Subject{Username: "eve"}}},
		{Tenant: "acme", Revision: 4},
		{Tenant: "nobody", Revision: 1},
	} {
		if a := ask(q); a.Allow || a.Why == "" && a.Reason == "" {
			t.Errorf("%+v: %+v", q, a)
		}
	}
	v := f.want(f.do("POST", policies+":explain", key, `{"client":{"user":"eve"},"topic":"x"}`), 200, "")
	if v["allowed"] != false || !strings.Contains(v["why"].(string), "mqtt.connect") {
		t.Errorf("explained: %v", v)
	}
}
