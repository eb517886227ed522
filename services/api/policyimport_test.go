// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/tenancy"
)

func TestPolicies_Import(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	body := func(text string, more ...string) string {
		v := map[string]string{"format": "vmq_acl", "text": text}
		for i := 0; i+1 < len(more); i += 2 {
			v[more[i]] = more[i+1]
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	acl := body("topic read news/#\nuser alice\ntopic home/alice\ntopic read $share/g/jobs\npattern write d/%c\n", "description", "moved")
	v := f.want(f.do("POST", policies+":import?dry_run=true", key, acl), 200, "")
	if v["revision"] != 0.0 || v["grants"] != 4.0 {
		t.Errorf("dry run: %v", v)
	}
	v = f.want(f.do("POST", policies+":import", key, acl), 200, "")
	if v["revision"] != 1.0 || v["state"] != "live" || v["description"] != "moved" {
		t.Errorf("imported %v", v)
	}
	if notes := v["notes"].([]any); len(notes) != 1 || notes[0].(map[string]any)["line"] != 4.0 {
		t.Errorf("notes %v", notes)
	}
	// What was made is the text of the revision: it can be got, edited and pushed.
	text := v["files"].(map[string]any)["policy.rego"].(string)
	if got := f.want(f.do("GET", policies+"/1", key, ""), 200, "")["files"].(map[string]any)["policy.rego"]; got != text {
		t.Errorf("the revision has %v, the answer %s", got, text)
	}
	f.want(f.do("PUT", policies, key, policyBody(t, text+"\ngrants contains {\"action\": \"publish\", \"filter\": \"more\"}\n")), 200, "")
	// Gateways that do not know of entries for one user see none of them.
	e, err := f.store.Bus().Bucket(t.Context(), bus.BucketConfig{Name: tenancy.GrantsBucket})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := e.Get(t.Context(), tenancy.GrantsKey("acme", 1, tenancy.DefaultClass))
	if err != nil {
		t.Fatal(err)
	}
	var old struct{ Entries []tenancy.GrantEntry }
	if err := json.Unmarshal(stored.Value, &old); err != nil || len(old.Entries) != 2 {
		t.Errorf("an old gateway sees %s, %v", stored.Value, err)
	}
	v = f.want(f.do("POST", policies+":explain", key, `{"topic":"home/alice","client":{"user":"alice"},"revision":1}`), 200, "")
	if v["allowed"] != true || !strings.HasPrefix(v["entry"].(map[string]any)["at"].(string), "policy.rego:") {
		t.Errorf("alice: %v", v)
	}
	if v = f.want(f.do("POST", policies+":explain", key, `{"topic":"home/alice","client":{"user":"bob"},"revision":1}`), 200, ""); v["allowed"] != false {
		t.Errorf("bob: %v", v)
	}

	v = f.want(f.do("POST", policies+":import", key, body("topic a\n\nallow b\n")), 400, "policy_invalid")
	if d := v["detail"].(string); !strings.HasPrefix(d, "vmq.acl:3:1: expected a line that begins with topic, pattern, user or #") {
		t.Errorf("the detail is %s", d)
	}
	f.want(f.do("POST", policies+":import", key, `{"format":"mosquitto","text":"topic a"}`), 400, "request_invalid")
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"grants":3}`), 200, "")
	f.want(f.do("POST", policies+":import", key, acl), 409, "quota_exceeded")
	f.want(f.do("POST", policies+":import", key, acl, "If-Match", `"1"`), 412, "revision_mismatch")
}
