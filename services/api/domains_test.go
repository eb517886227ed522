// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy/domains"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// uploadBody is a certificate of own.acme.example.
var uploadBody = func() string {
	chain, key := tenancytest.NewCA(panicking{}, "test").Server(2, time.Now().Add(time.Hour), "own.acme.example")
	return upload(chain, key)
}()

// panicking is a test of its own, outside of any.
type panicking struct{ testing.TB }

func (panicking) Helper()           {}
func (panicking) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func upload(chain, key string) string {
	b, err := json.Marshal(map[string]string{"chain": chain, "key": key})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// publish makes the record that a domain asks for.
func (f *fixture) publish(domain map[string]any) {
	c := domain["challenge"].(map[string]any)
	f.names.Text(c["name"].(string), "v=spf1 -all", c["value"].(string))
}

// soon asks until it is not too soon to ask again.
func (f *fixture) soon(method, path, key string) response {
	f.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r := f.do(method, path, key, "")
		if r.status != 429 || time.Now().After(end) {
			return r
		}
	}
}

func TestDomains(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key, beta := f.signUp("acme"), f.signUp("beta")
	const base = "/v1/tenants/acme/domains"
	for _, bad := range []struct{ body, code string }{
		{`{"fqdn":"localhost"}`, "domain_invalid"},
		{`{"fqdn":"evil.localhost"}`, "domain_reserved"},
		{`{"fqdn":"beta.localhost."}`, "domain_reserved"},
		{`{"fqdn":"*.example.com"}`, "wildcard_not_issued"},
		{`{"fqdn":"*.com","certificate":"uploaded"}`, "domain_invalid"},
		{`{"fqdn":"*.co.uk","certificate":"uploaded"}`, "domain_invalid"},
		{`{"fqdn":"a.*.example.com","certificate":"uploaded"}`, "domain_invalid"},
		{`{"fqdn":"*.acme.localhost","certificate":"uploaded"}`, "domain_reserved"},
		{`{"fqdn":"192.0.2.1"}`, "domain_invalid"},
		{`{"fqdn":"a_b.example.com"}`, "domain_invalid"},
		{`{"fqdn":"a..example.com"}`, "domain_invalid"},
		{`{"fqdn":"` + strings.Repeat("a.", 120) + `example.com"}`, "domain_invalid"},
		{`{"fqdn":"mqtt.example.com","certificate":"magic"}`, "request_invalid"},
		{`{}`, "request_invalid"},
	} {
		f.want(f.do("POST", base, key, bad.body), 400, bad.code)
	}
	if v := f.want(f.do("POST", base+"?dry_run=true", key, `{"fqdn":"mqtt.example.com"}`), 200, ""); v["state"] != "pending" {
		t.Errorf("a dry run: %v", v)
	}
	d := f.want(f.do("POST", base, key, `{"fqdn":"MQTT.Bücher.Example."}`), 201, "")
	const fqdn = "mqtt.xn--bcher-kva.example"
	if d["fqdn"] != fqdn || d["state"] != "pending" || d["certificate"] != "acme" || d["not_after"] != nil {
		t.Errorf("made: %v", d)
	}
	if c := d["cname"].(map[string]any); c["value"] != "acme.localhost" || c["name"] != fqdn {
		t.Errorf("CNAME: %v", c)
	}
	f.want(f.do("POST", base, key, `{"fqdn":"`+fqdn+`"}`), 409, "domain_exists")
	if l := f.want(f.do("GET", base, key, ""), 200, "")["items"].([]any); len(l) != 1 {
		t.Errorf("listed: %v", l)
	}
	f.want(f.do("GET", base+"/other.example.com", key, ""), 404, "domain_not_found")
	f.want(f.do("POST", base+"/"+fqdn+":renew", key, ""), 409, "domain_unverified")

	// A claim keeps nobody else from theirs, and the record of one is none of another.
	other := f.want(f.do("POST", "/v1/tenants/beta/domains", beta, `{"fqdn":"`+fqdn+`"}`), 201, "")
	if other["challenge"].(map[string]any)["value"] == d["challenge"].(map[string]any)["value"] {
		t.Fatal("two tenants are told the same value")
	}
	f.publish(other)
	r := f.want(f.do("POST", base+"/"+fqdn+":verify", key, ""), 409, "domain_unverified")
	if !strings.Contains(r["detail"].(string), "v=spf1 -all") {
		t.Errorf("it is not told what was found: %v", r["detail"])
	}
	if v := f.want(f.do("POST", base+"/"+fqdn+":verify", key, ""), 429, "quota_exceeded"); v["retry_after"] == nil {
		t.Errorf("too soon: %v", v)
	}
	if v := f.want(f.do("GET", base+"/"+fqdn, key, ""), 200, ""); v["state"] != "pending" || v["last_error"] == nil {
		t.Errorf("after that: %v", v)
	}
	f.publish(d)
	if v := f.want(f.soon("POST", base+"/"+fqdn+":verify", key), 200, ""); v["state"] != "verified" || v["last_error"] != nil || v["next_renewal"] == nil {
		t.Errorf("verified: %v", v)
	}
	f.publish(other)
	f.want(f.soon("POST", "/v1/tenants/beta/domains/"+fqdn+":verify", beta), 409, "domain_taken")
	f.want(f.do("POST", base+"/"+fqdn+":renew", key, ""), 200, "")
	f.want(f.do("POST", base+"/"+fqdn+":renew", key, ""), 429, "quota_exceeded")
	f.want(f.do("PUT", base+"/"+fqdn+"/certificate", key, uploadBody), 409, "certificate_acme")

	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"domains":1}`), 200, "")
	if v := f.want(f.do("POST", base, key, `{"fqdn":"b.example.com"}`), 409, "quota_exceeded"); v["quota"] != "domains" || v["usage"] != 1.0 {
		t.Errorf("beyond the quota: %v", v)
	}
	f.want(f.do("DELETE", base+"/"+fqdn, key, "", "If-Match", `"1"`), 412, "revision_mismatch")
	f.want(f.do("DELETE", base+"/"+fqdn+"?dry_run=true", key, ""), 204, "")
	f.want(f.do("DELETE", base+"/"+fqdn, key, ""), 204, "")
	f.want(f.do("DELETE", base+"/"+fqdn, key, ""), 404, "domain_not_found")
	if v := f.want(f.soon("POST", "/v1/tenants/beta/domains/"+fqdn+":verify", beta), 200, ""); v["state"] != "verified" {
		t.Errorf("what was released: %v", v)
	}
	f.want(f.do("POST", base, key, `{"fqdn":"`+fqdn+`"}`), 201, "") // a claim, which takes nothing
}

func TestDomains_Uploaded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key := f.signUp("acme")
	const base, fqdn = "/v1/tenants/acme/domains", "own.acme.example"
	d := f.want(f.do("POST", base, key, `{"fqdn":"`+fqdn+`","certificate":"uploaded"}`), 201, "")
	f.want(f.do("PUT", base+"/"+fqdn+"/certificate", key, uploadBody), 409, "domain_unverified")
	f.publish(d)
	f.want(f.do("POST", base+"/"+fqdn+":verify", key, ""), 200, "")
	f.want(f.do("POST", base+"/"+fqdn+":renew", key, ""), 409, "certificate_uploaded")
	ca := tenancytest.NewCA(t, "other")
	good, goodKey := ca.Server(3, time.Now().Add(time.Hour), "x.example", fqdn)
	foreign, foreignKey := ca.Server(4, time.Now().Add(time.Hour), "other.example")
	ended, endedKey := ca.Server(5, time.Now().Add(-time.Minute), fqdn)
	for what, c := range map[string]struct{ chain, key, want string }{
		"no chain":        {"x", goodKey, "found none"},
		"no key":          {good, "x", "private key"},
		"another key":     {good, foreignKey, "private key"},
		"another name":    {foreign, foreignKey, "other.example"},
		"over":            {ended, endedKey, "has ended"},
		"key in chain":    {good + goodKey, goodKey, "PRIVATE KEY"},
		"a client's":      {clients(ca), clientKey, "private key"},
		"too much":        {strings.Repeat(good, 100), goodKey, ""},
		"too many of all": {strings.Repeat(good, 9), goodKey, "at most 8"},
	} {
		r := f.do("PUT", base+"/"+fqdn+"/certificate", key, upload(c.chain, c.key))
		if r.status != 400 || !strings.Contains(r.body, c.want) || strings.Contains(r.body, "BEGIN") {
			t.Errorf("%s: %d %.300s", what, r.status, r.body)
		}
	}
	v := f.want(f.do("PUT", base+"/"+fqdn+"/certificate", key, upload(good, goodKey)), 200, "")
	if v["state"] != "active" || v["issuer"] != "CN=other" || v["not_after"] == nil || strings.Contains(fmt.Sprint(v), "PRIVATE") {
		t.Errorf("uploaded: %v", v)
	}
	// The key is in no bucket in the clear.
	secret := strings.Split(goodKey, "\n")[1]
	for _, name := range []string{"domains", "hosts", "audit", "audit_pending", "replies"} {
		if all := strings.Join(f.bucket(name), " "); strings.Contains(all, secret) || strings.Contains(all, "PRIVATE") {
			t.Errorf("the key is in the bucket %s", name)
		}
	}
	if n := len(f.bucket("hosts")); n != 1 {
		t.Errorf("%d hosts are published", n)
	}
	f.want(f.do("DELETE", base+"/"+fqdn, key, ""), 204, "")
	if n := len(f.bucket("hosts")); n != 0 {
		t.Errorf("%d hosts are published of a domain that was deleted", n)
	}
}

// A wildcard is claimed, verified and served like another name; names below it and at its
// base are others' to verify all the same, and it takes no name from who has.
func TestDomains_Wildcard(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	acme, beta := f.signUp("acme"), f.signUp("beta")
	const base, others, wild = "/v1/tenants/acme/domains", "/v1/tenants/beta/domains", "*.devices.acme.example"
	ca := tenancytest.NewCA(t, "own")
	mine, mineKey := ca.Server(2, time.Now().Add(time.Hour), wild)
	below, belowKey := ca.Server(3, time.Now().Add(time.Hour), "press-1.devices.acme.example")

	d := f.want(f.do("POST", base, acme, `{"fqdn":"*.Devices.ACME.example.","certificate":"uploaded"}`), 201, "")
	if c := d["challenge"].(map[string]any); d["fqdn"] != wild || c["name"] != "_manor-challenge.devices.acme.example" || d["cname"].(map[string]any)["name"] != wild {
		t.Errorf("claimed: %v", d)
	}
	f.publish(d)
	f.want(f.do("POST", base+"/"+wild+":verify", acme, ""), 200, "")
	if r := f.want(f.do("PUT", base+"/"+wild+"/certificate", acme, upload(below, belowKey)), 400, "certificate_invalid"); !strings.Contains(fmt.Sprint(r["detail"]), wild) {
		t.Errorf("a certificate of one name: %v", r)
	}
	if v := f.want(f.do("PUT", base+"/"+url.PathEscape(wild)+"/certificate", acme, upload(mine, mineKey)), 200, ""); v["state"] != "active" {
		t.Errorf("uploaded: %v", v)
	}
	f.want(f.do("POST", base+"/"+wild+":renew", acme, ""), 409, "certificate_uploaded")

	// Another tenant: the same wildcard, the name that it is below, and one name below it.
	values := []string{d["challenge"].(map[string]any)["value"].(string)}
	for _, c := range []struct {
		name, code string
		status     int
	}{{wild, "domain_taken", 409}, {"devices.acme.example", "", 200}, {"press-1.devices.acme.example", "", 200}} {
		o := f.want(f.do("POST", others, beta, `{"fqdn":"`+c.name+`","certificate":"uploaded"}`), 201, "")
		if c.name == wild { // the record of the tenant that has it shows nothing of another one
			f.want(f.do("POST", others+"/"+c.name+":verify", beta, ""), 409, "domain_unverified")
		}
		challenge := o["challenge"].(map[string]any)
		values = append(values, challenge["value"].(string))
		f.names.Text(challenge["name"].(string), values...)
		f.want(f.soon("POST", others+"/"+c.name+":verify", beta), c.status, c.code)
	}
	f.want(f.do("PUT", others+"/press-1.devices.acme.example/certificate", beta, upload(below, belowKey)), 200, "")
	if v := f.want(f.do("GET", base+"/"+wild, acme, ""), 200, ""); v["state"] != "active" {
		t.Errorf("the wildcard, afterwards: %v", v)
	}
	f.want(f.do("DELETE", base+"/"+wild, acme, ""), 204, "")
	f.want(f.soon("POST", others+"/"+wild+":verify", beta), 200, "")
}

func clients(ca *tenancytest.CA) string {
	c := ca.Issue(9, "press-7")
	return tenancytest.PEM("CERTIFICATE", c.Certificate[0])
}

const clientKey = "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"

// What an installation without keys or a certificate authority says.
func TestDomains_Unavailable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sealed, ca bool
		source     string
		status     int
		code       string
	}{
		{false, false, "uploaded", 409, "domains_unavailable"},
		{true, false, "acme", 409, "acme_unavailable"},
		{true, false, "uploaded", 201, ""},
	} {
		f := newFixture(t, func(cfg *api.Config) {
			dc := domains.Config{Store: cfg.Store, Domain: "localhost", Log: cfg.Log}
			if c.sealed {
				dc.Sealer = cfg.Sealer
			}
			s, err := domains.New(t.Context(), dc)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Domains = s
		})
		f.want(f.do("POST", "/v1/tenants/acme/domains", f.signUp("acme"), `{"fqdn":"a.example.com","certificate":"`+c.source+`"}`), c.status, c.code)
	}
}
