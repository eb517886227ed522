// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"testing"

	"github.com/manormq/manor/tenancy/tenancytest"
)

func TestClientCAs(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/client-cas"
	r := f.do("GET", path, key, "")
	if v := f.want(r, 200, ""); len(v["items"].([]any)) != 0 || v["client_certs"] != "optional" {
		t.Errorf("at first: %v", v)
	}
	tag := r.header.Get("ETag")
	ca, other := tenancytest.NewCA(t, "ca"), tenancytest.NewCA(t, "other")
	body := func(v map[string]any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	good := body(map[string]any{
		"certificates": ca.PEM() + other.PEM(), "crl": ca.CRL(66), "client_certs": "required",
		"use_identity_as_username": "san", "certificate_authenticates": true,
	})
	if v := f.want(f.do("PUT", path+"?dry_run=true", key, good), 200, ""); v["revoked"] != 1.0 {
		t.Errorf("dry run: %v", v)
	}
	if tn, err := f.store.Tenant(t.Context(), "acme"); err != nil || tn.ClientCAs != nil {
		t.Errorf("a dry run has changed %+v, %v", tn, err)
	}
	r = f.do("PUT", path, key, good, "If-Match", tag)
	v := f.want(r, 200, "")
	item := v["items"].([]any)[0].(map[string]any)
	if len(v["items"].([]any)) != 2 || item["subject"] != "CN=ca" || len(item["sha256"].(string)) != 64 || v["client_certs"] != "required" {
		t.Errorf("got %v", v)
	}
	f.want(f.do("PUT", path, key, good, "If-Match", tag), 412, "revision_mismatch")
	first, err := f.store.Tenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	f.want(f.do("PUT", path, key, good), 200, "")
	if again, err := f.store.Tenant(t.Context(), "acme"); err != nil || again.ClientCAs.Revision <= first.ClientCAs.Revision {
		t.Errorf("revision %d after %d, %v", again.ClientCAs.Revision, first.ClientCAs.Revision, err)
	}
	for _, bad := range []string{
		`{"certificates":"x"}`, `{"crl":"x"}`, `{"client_certs":"required"}`, `{"use_identity_as_username":"cn"}`, `{"certificate_authenticates":true}`,
	} {
		f.want(f.do("PUT", path, key, bad), 400, "client_cas_invalid")
		f.want(f.do("PUT", path+"?dry_run=true", key, bad), 400, "client_cas_invalid")
	}
	for _, bad := range []string{`{"nothing":1}`, `{"client_certs":"never"}`, `{"use_identity_as_username":"dn"}`} {
		f.want(f.do("PUT", path, key, bad), 400, "request_invalid")
	}
	// The quota counts CAs.
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"client_cas":1}`), 200, "")
	for _, dry := range []string{"?dry_run=true", ""} {
		if v := f.want(f.do("PUT", path+dry, key, good), 409, "quota_exceeded"); v["quota"] != "client_cas" || v["limit"] != 1.0 {
			t.Errorf("got %v", v)
		}
	}
	f.want(f.do("PUT", path, key, body(map[string]any{"certificates": ca.PEM()})), 200, "")
	for _, q := range f.want(f.do("GET", "/v1/tenants/acme/quotas", key, ""), 200, "")["items"].([]any) {
		if q := q.(map[string]any); q["name"] == "client_cas" && q["usage"] != 1.0 {
			t.Errorf("quota %v", q)
		}
	}
	f.want(f.do("PUT", path, key, `{}`), 200, "")
	if tn, err := f.store.Tenant(t.Context(), "acme"); err != nil || tn.ClientCAs != nil {
		t.Errorf("taken away: %+v, %v", tn, err)
	}
}
