// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

func TestAuthMethods(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/auth-methods"
	r := f.do("GET", path, key, "")
	if v := f.want(r, 200, ""); fmt.Sprint(v["methods"]) != "[certificate jwt password scram]" {
		t.Errorf("at first: %v", v)
	}
	tag := r.header.Get("ETag")
	f.want(f.do("PUT", path+"?dry_run=true", key, `{"methods":["jwt"]}`), 200, "")
	if v := f.want(f.do("GET", path, key, ""), 200, ""); len(v["methods"].([]any)) != 4 {
		t.Errorf("a dry run has changed %v", v)
	}
	if v := f.want(f.do("PUT", path, key, `{"methods":["jwt","password"]}`, "If-Match", tag), 200, ""); fmt.Sprint(v["methods"]) != "[jwt password]" {
		t.Errorf("got %v", v)
	}
	f.want(f.do("PUT", path, key, `{"methods":["jwt"]}`, "If-Match", tag), 412, "revision_mismatch")
	f.want(f.do("PUT", path+"?dry_run=true", key, `{"methods":["jwt"]}`, "If-Match", tag), 412, "revision_mismatch")
	f.want(f.do("PUT", path, key, `{"methods":["jwt","jwt"]}`), 400, "auth_methods_invalid")
	for _, bad := range []string{`{"methods":[]}`, `{"methods":["ldap"]}`, `{}`, `{"methods":null}`} {
		if r := f.do("PUT", path, key, bad); r.status != 400 {
			t.Errorf("%s: %d %s", bad, r.status, r.body)
		}
	}
	if tn, err := f.store.Tenant(t.Context(), "acme"); err != nil || fmt.Sprint(tn.AuthMethods) != "[jwt password]" {
		t.Errorf("%+v, %v", tn, err)
	}
}

func TestIssuers(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/jwt-issuers"
	if v := f.want(f.do("GET", path, key, ""), 200, ""); len(v["items"].([]any)) != 0 {
		t.Errorf("at first: %v", v)
	}
	from := tenancytest.NewIssuer(t, "https://issuer.example/")
	body := func(i map[string]any) string {
		b, err := json.Marshal(map[string]any{"items": []any{i}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	with := func(more map[string]any) map[string]any {
		i := map[string]any{"issuer": from.Name, "audience": []string{"manor"}, "jwks": from.JWKS()}
		for k, v := range more {
			if i[k] = v; v == nil {
				delete(i, k)
			}
		}
		return i
	}
	for _, dry := range []string{"?dry_run=true", ""} {
		v := f.want(f.do("PUT", path+dry, key, body(with(nil))), 200, "")
		item := v["items"].([]any)[0].(map[string]any)
		if item["issuer"] != from.Name || fmt.Sprint(item["keys"].(map[string]any)["ids"]) != "[1]" {
			t.Errorf("got %v", v)
		}
	}
	for name, x := range map[string]struct {
		body string
		code string
	}{
		"secret key":   {body(with(map[string]any{"jwks": `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`})), "issuers_invalid"},
		"no keys":      {body(with(map[string]any{"jwks": `{"keys":[]}`})), "issuers_invalid"},
		"both":         {body(with(map[string]any{"jwks_url": "https://issuer.example/"})), "issuers_invalid"},
		"neither":      {body(with(map[string]any{"jwks": nil})), "issuers_invalid"},
		"a file":       {body(with(map[string]any{"jwks": nil, "jwks_url": "file:///etc/passwd"})), "issuers_invalid"},
		"no name":      {body(with(map[string]any{"issuer": ""})), "issuers_invalid"},
		"HS256":        {body(with(map[string]any{"algorithms": []string{"HS256"}})), "request_invalid"},
		"none":         {body(with(map[string]any{"algorithms": []string{"none"}})), "request_invalid"},
		"no audience":  {body(with(map[string]any{"audience": []string{}})), "request_invalid"},
		"unknown":      {body(with(map[string]any{"secret": "x"})), "request_invalid"},
		"not a list":   {`{"items":{}}`, "request_invalid"},
		"nothing":      {`{}`, "request_invalid"},
		"twice":        {fmt.Sprintf(`{"items":[%s,%s]}`, strings.TrimSuffix(strings.TrimPrefix(body(with(nil)), `{"items":[`), `]}`), strings.TrimSuffix(strings.TrimPrefix(body(with(nil)), `{"items":[`), `]}`)), "issuers_invalid"},
		"keys is ours": {body(with(map[string]any{"keys": map[string]any{}})), "request_invalid"},
	} {
		t.Run(name, func(t *testing.T) { f.want(f.do("PUT", path, key, x.body), 400, x.code) })
	}
	withWord := f.do("PUT", path, key, body(with(map[string]any{"jwks": nil, "jwks_url": "https://user:wOrD123@issuer.example/jwks"})))
	if f.want(withWord, 400, "issuers_invalid"); strings.Contains(withWord.body, "wOrD123") {
		t.Errorf("the answer tells the password of the URL: %s", withWord.body)
	}
	// What was fetched is shown.
	byURL := body(with(map[string]any{"jwks": nil, "jwks_url": "https://issuer.example/jwks"}))
	if v := f.want(f.do("PUT", path, key, byURL), 200, ""); len(v["items"].([]any)[0].(map[string]any)["keys"].(map[string]any)["ids"].([]any)) != 0 {
		t.Errorf("got %v", v)
	}
	at := time.Now().UTC().Truncate(time.Second)
	if err := f.store.PutTokenKeys(t.Context(), &tenancy.KeySet{
		Tenant: "acme", URL: "https://issuer.example/jwks", JWKS: from.JWKS(), FetchedAt: at, TriedAt: at.Add(time.Minute), Problem: "away",
	}, 0); err != nil {
		t.Fatal(err)
	}
	v := f.want(f.do("GET", path, key, ""), 200, "")
	keys := v["items"].([]any)[0].(map[string]any)["keys"].(map[string]any)
	if fmt.Sprint(keys["ids"]) != "[1]" || keys["problem"] != "away" || keys["fetched_at"] != at.Format(time.RFC3339) {
		t.Errorf("got %v", keys)
	}
	f.want(f.do("PUT", path, key, `{"items":[]}`), 200, "")
}

func TestBans(t *testing.T) {
	f := newFixture(t)
	key, beta := f.signUp("acme"), f.signUp("beta")
	const path = "/v1/tenants/acme/bans"
	if v := f.want(f.do("GET", path, key, ""), 200, ""); len(v["items"].([]any)) != 0 || v["next"] != nil {
		t.Errorf("at first: %v", v)
	}
	soon := time.Now().Add(time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	good := `{"kind":"address","value":"10.1.2.3/8","reason":"scans","expires_at":"` + soon + `"}`
	dry := f.want(f.do("POST", path+"?dry_run=true", key, good), 200, "")
	if v := f.want(f.do("GET", path, key, ""), 200, ""); len(v["items"].([]any)) != 0 {
		t.Errorf("a dry run has made %v", v)
	}
	r := f.do("POST", path, key, good)
	v := f.want(r, 201, "")
	id, _ := v["id"].(string)
	if v["value"] != "10.0.0.0/8" || v["expires_at"] != soon || v["automatic"] != false || v["reason"] != "scans" || id == "" || dry["id"] != id || r.header.Get("ETag") == "" {
		t.Errorf("got %v after %v", v, dry)
	}
	if v := f.want(f.do("POST", path, key, `{"kind":"address","value":"10.0.0.0/8"}`), 200, ""); v["id"] != id || v["expires_at"] != nil {
		t.Errorf("made again: %v", v)
	}
	for _, x := range []string{`"kind":"client_id","value":"c/1 ü"`, `"kind":"username","value":"u"`, `"kind":"certificate","value":"serial:0A:0b"`} {
		f.want(f.do("POST", path, key, "{"+x+"}"), 201, "")
	}
	n := 0
	for next := "?limit=3"; next != ""; {
		v := f.want(f.do("GET", path+next, key, ""), 200, "")
		n += len(v["items"].([]any))
		if next = ""; v["next"] != nil {
			next = "?limit=3&cursor=" + v["next"].(string)
		}
	}
	if n != 4 {
		t.Errorf("%d bans are listed", n)
	}
	for _, x := range []struct{ body, code string }{
		{`{"kind":"address","value":"here"}`, "ban_invalid"},
		{`{"kind":"client_id","value":""}`, "ban_invalid"},
		{`{"kind":"certificate","value":"x"}`, "ban_invalid"},
		{`{"kind":"client_id","value":"x","reason":"` + strings.Repeat("x", 257) + `"}`, "ban_invalid"},
		{`{"kind":"client_id","value":"x","expires_at":"2020-01-01T00:00:00Z"}`, "ban_invalid"},
		{`{"kind":"topic","value":"x"}`, "request_invalid"},
		{`{"kind":"client_id"}`, "request_invalid"},
		{`{"kind":"client_id","value":"x","automatic":true}`, "request_invalid"},
		{`{"kind":"client_id","value":"x","expires_at":"tomorrow"}`, "request_invalid"},
	} {
		f.want(f.do("POST", path, key, x.body), 400, x.code)
	}
	// Another tenant's ban is none.
	f.want(f.do("DELETE", "/v1/tenants/beta/bans/"+id, beta, ""), 404, "ban_not_found")
	f.want(f.do("DELETE", path+"/nothing", key, ""), 404, "ban_not_found")
	f.want(f.do("DELETE", path+"/"+id, key, "", "If-Match", r.header.Get("ETag")), 412, "revision_mismatch")
	f.want(f.do("DELETE", path+"/"+id+"?dry_run=true", key, ""), 204, "")
	f.want(f.do("DELETE", path+"/"+id, key, ""), 204, "")
	f.want(f.do("DELETE", path+"/"+id, key, ""), 404, "ban_not_found")
}

func TestFlapping(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/flapping"
	if v := f.want(f.do("GET", path, key, ""), 200, ""); v["rule"] != nil {
		t.Errorf("at first: %v", v)
	}
	const good = `{"rule":{"connects":5,"window":10,"ban":60}}`
	f.want(f.do("PUT", path+"?dry_run=true", key, good), 200, "")
	if v := f.want(f.do("PUT", path, key, good), 200, ""); v["rule"].(map[string]any)["connects"] != 5.0 {
		t.Errorf("got %v", v)
	}
	for _, bad := range []string{`{"rule":{"connects":1,"window":10,"ban":60}}`, `{"rule":{"connects":5}}`, `{"rule":5}`, `{"rules":{}}`} {
		f.want(f.do("PUT", path, key, bad), 400, "request_invalid")
	}
	if tn, err := f.store.Tenant(t.Context(), "acme"); err != nil || *tn.Flapping != (tenancy.Flapping{Connects: 5, Window: 10, Ban: 60}) {
		t.Errorf("%+v, %v", tn, err)
	}
	if v := f.want(f.do("PUT", path, key, `{}`), 200, ""); v["rule"] != nil {
		t.Errorf("got %v", v)
	}
}

func TestAllowLists(t *testing.T) {
	f := newFixture(t, func(c *api.Config) { c.TrustedProxies = []string{"127.0.0.1"} })
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/ip-allow-lists"
	f.peer = "192.0.2.9:1000"
	const good = `{"mqtt":["10.0.0.0/8"],"api":["192.0.2.0/24","2001:db8::1"]}`
	// Nobody shuts the door from outside.
	for _, dry := range []string{"?dry_run=true", ""} {
		f.want(f.do("PUT", path+dry, key, `{"api":["10.0.0.0/8"]}`), 400, "allow_list_excludes_caller")
	}
	f.want(f.do("PUT", path, key, `{"mqtt":["x"]}`), 400, "allow_list_invalid")
	f.want(f.do("PUT", path, key, `{"api":["10.0.0.0/99"]}`), 400, "allow_list_invalid")
	f.want(f.do("PUT", path, key, `{"mqtt":[5]}`), 400, "request_invalid")
	f.want(f.do("PUT", path+"?dry_run=true", key, good), 200, "")
	if v := f.want(f.do("PUT", path, key, good), 200, ""); fmt.Sprint(v["mqtt"], v["api"]) != "[10.0.0.0/8] [192.0.2.0/24 2001:db8::1]" {
		t.Errorf("got %v", v)
	}
	for peer, want := range map[string]int{"192.0.2.1:1": 200, "[2001:db8::1]:1": 200, "[::ffff:192.0.2.1]:1": 200, "192.0.3.1:1": 403, "[2001:db8::2]:1": 403, "127.0.0.1:1": 403} {
		f.peer = peer
		r := f.do("GET", "/v1/tenants/acme", key, "")
		if r.status != want {
			t.Errorf("from %s: %d %s", peer, r.status, r.body)
		}
		if want == 403 {
			f.want(r, 403, "address_not_allowed")
			f.want(f.do("GET", "/v1/tenants/acme", key, "", "X-Forwarded-For", "192.0.2.1"), map[bool]int{true: 200, false: 403}[peer == "127.0.0.1:1"], "")
		}
	}
	f.peer = "192.0.2.9:1000"
	f.want(f.do("PUT", path, key, `{}`), 200, "")
	if tn, err := f.store.Tenant(t.Context(), "acme"); err != nil || tn.AllowList != nil {
		t.Errorf("%+v, %v", tn.AllowList, err)
	}
}
