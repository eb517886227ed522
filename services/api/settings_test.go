// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"reflect"
	"testing"

	"github.com/manormq/manor/tenancy"
)

func TestSettings(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/settings"
	settings := func(r response) map[string]map[string]any {
		t.Helper()
		out := map[string]map[string]any{}
		for _, i := range f.want(r, 200, "")["items"].([]any) {
			s := i.(map[string]any)
			out[s["name"].(string)] = s
		}
		return out
	}
	r := f.do("GET", path, key, "")
	got := settings(r)
	if len(got) != reflect.TypeFor[tenancy.Settings]().NumField() || got["maximum_qos"]["value"] != 2.0 || got["maximum_qos"]["source"] != "default" {
		t.Errorf("%d settings, %v", len(got), got["maximum_qos"])
	}
	tag := r.header.Get("ETag")
	const body = `{"maximum_qos":1,"allowed_protocol_versions":["5"],"queue_type":"lifo"}`
	if got := settings(f.do("PUT", path+"?dry_run=true", key, body)); got["maximum_qos"]["value"] != 1.0 {
		t.Errorf("dry run: %v", got["maximum_qos"])
	}
	got = settings(f.do("PUT", path, key, body, "If-Match", tag))
	if got["maximum_qos"]["value"] != 1.0 || got["maximum_qos"]["source"] != "tenant" || got["queue_type"]["value"] != "lifo" || got["retry_interval"]["source"] != "default" {
		t.Errorf("got %v", got)
	}
	f.want(f.do("PUT", path, key, body, "If-Match", tag), 412, "revision_mismatch")
	for _, bad := range []string{
		`{"maximum_qos":3}`, `{"maximum_qos":"1"}`, `{"nothing":1}`, `{"queue_type":"heap"}`, `{"allowed_protocol_versions":["4"]}`, `{"allowed_protocol_versions":[]}`,
	} {
		f.want(f.do("PUT", path, key, bad), 400, "request_invalid")
	}
	f.want(f.do("PUT", path, key, `{"response_information":"a\u0001"}`), 400, "setting_invalid")
	// Publishing through the API is held to what clients are held to.
	settings(f.do("PUT", path, key, `{"maximum_qos":1,"retain_available":false}`))
	f.want(f.do("POST", "/v1/tenants/acme/publish", key, `{"topic":"t","qos":2}`), 409, "qos_not_supported")
	f.want(f.do("POST", "/v1/tenants/acme/publish", key, `{"topic":"t","qos":1,"retain":true}`), 409, "retain_not_supported")
	f.want(f.do("POST", "/v1/tenants/acme/publish", key, `{"topic":"t","qos":1}`), 200, "")
	// What is missing goes back to its default.
	if got := settings(f.do("PUT", path, key, `{}`)); got["maximum_qos"]["source"] != "default" {
		t.Errorf("got %v", got["maximum_qos"])
	}
}

// A credential has SCRAM keys beside a generated password, beside a chosen one on
// request, and may say what holds for its sessions.
func TestCredential_Session(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/credentials"
	for _, c := range []struct {
		body  string
		scram bool
	}{
		{`{"username":"generated"}`, true},
		{`{"username":"generated-without","scram":false}`, false},
		{`{"username":"chosen","password":"chosen-1"}`, false},
		{`{"username":"chosen-with","password":"chosen-1","scram":true}`, true},
	} {
		v := f.want(f.do("POST", path, key, c.body), 201, "")
		cred, err := f.store.Credential(t.Context(), "acme", v["username"].(string))
		if err != nil || (cred.SCRAM != nil) != c.scram {
			t.Errorf("%s: SCRAM %+v, %v", c.body, cred.SCRAM, err)
		}
	}
	f.want(f.do("POST", path, key, `{"username":"s","session":{"settings":{"queue_type":"lifo"},"quotas":{"topic_levels":3}}}`), 201, "")
	cred, err := f.store.Credential(t.Context(), "acme", "s")
	if err != nil || *cred.Session.Settings.QueueType != "lifo" || cred.Session.Quotas["topic_levels"] != 3 {
		t.Errorf("session %+v, %v", cred.Session, err)
	}
	r := f.do("PUT", path+"/s/session", key, `{"settings":{"max_inflight_messages":3}}`)
	f.want(r, 200, "")
	if cred, err = f.store.Credential(t.Context(), "acme", "s"); err != nil || *cred.Session.Settings.MaxInflightMessages != 3 || cred.Session.Quotas != nil || cred.Generation != 1 {
		t.Errorf("session %+v, %v", cred.Session, err)
	}
	f.want(f.do("PUT", path+"/s/session", key, `{}`, "If-Match", `"1"`), 412, "revision_mismatch")
	f.want(f.do("PUT", path+"/s/session", key, `{"quotas":{"connections":3}}`), 400, "quota_unknown")
	f.want(f.do("PUT", path+"/nobody/session", key, `{}`), 404, "credential_not_found")
	f.want(f.do("PUT", path+"/nobody/session?dry_run=true", key, `{}`), 404, "credential_not_found")
	f.want(f.do("POST", path, key, `{"username":"t","session":{"quotas":{"connections":3}}}`), 400, "quota_unknown")
	f.want(f.do("POST", path, key, `{"username":"t","session":{"settings":{"server_reference":"x"}}}`), 400, "setting_invalid")
	f.want(f.do("POST", path, key, `{"username":"t","session":{"settings":{"queue_type":"x"}}}`), 400, "request_invalid")
}
