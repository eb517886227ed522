// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// csr is a certificate request in PEM, as a JSON string has it.
var csr = func() string {
	b, err := json.Marshal(tenancytest.Request())
	if err != nil {
		panic(err)
	}
	return strings.Trim(string(b), `"`)
}()

func TestManagedCA(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const base = "/v1/tenants/acme"
	sign := `{"username":"press-7","days":30,"csr":"` + csr + `"}`
	f.want(f.do("GET", base+"/managed-ca", key, ""), 404, "managed_ca_not_found")
	f.want(f.do("DELETE", base+"/managed-ca", key, ""), 404, "managed_ca_not_found")
	f.want(f.do("POST", base+"/certificates:sign", key, sign), 404, "managed_ca_not_found")
	f.want(f.do("POST", base+"/claims", key, `{"username":"x"}`), 404, "managed_ca_not_found")
	f.want(f.do("POST", base+"/managed-ca?dry_run=true", key, ""), 200, "")
	f.want(f.do("GET", base+"/managed-ca", key, ""), 404, "managed_ca_not_found")
	made := f.want(f.do("POST", base+"/managed-ca", key, ""), 201, "")
	f.want(f.do("POST", base+"/managed-ca", key, ""), 409, "managed_ca_exists")
	if v := f.want(f.do("GET", base+"/managed-ca", key, ""), 200, ""); v["certificate"] != made["certificate"] {
		t.Errorf("got %v", v)
	}
	cas := f.want(f.do("GET", base+"/client-cas", key, ""), 200, "")
	if len(cas["items"].([]any)) != 1 || cas["use_identity_as_username"] != "cn" || cas["certificate_authenticates"] != true {
		t.Errorf("client CAs: %v", cas)
	}
	// The key is in no bucket in the clear.
	for _, value := range f.bucket("managed_cas") {
		if strings.Contains(value, "PRIVATE") || !strings.Contains(value, `"sealed"`) {
			t.Errorf("stored: %s", value)
		}
	}
	if v := f.want(f.do("POST", base+"/certificates:sign?dry_run=true", key, sign), 200, ""); v["certificate"] != "" {
		t.Error("a dry run gives a certificate away")
	}
	v := f.want(f.do("POST", base+"/certificates:sign", key, sign), 201, "")
	block, _ := pem.Decode([]byte(v["certificate"].(string)))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	tn, err := f.store.Tenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	trust, err := tn.ClientCAs.Trust()
	if err != nil {
		t.Fatal(err)
	}
	if err := trust.Verify([]*x509.Certificate{c}, time.Now()); err != nil || tenancy.CertificateName("cn", c) != "press-7" || v["serial"] != c.SerialNumber.Text(16) {
		t.Errorf("%v: %v", v, err)
	}
	for _, bad := range []struct{ body, code string }{
		{`{"username":"press-7","csr":"x"}`, "csr_invalid"},
		{`{"username":"","csr":"` + csr + `"}`, "username_invalid"},
		{`{"username":"` + strings.Repeat("x", 65) + `","csr":"` + csr + `"}`, "username_invalid"},
		{`{"username":"x","days":399,"csr":"` + csr + `"}`, "request_invalid"},
		{`{"username":"x"}`, "request_invalid"},
	} {
		f.want(f.do("POST", base+"/certificates:sign", key, bad.body), 400, bad.code)
	}
	// A CA of one's own beside it, and the quota counts both.
	own := tenancytest.NewCA(t, "own")
	body, err := json.Marshal(map[string]any{"certificates": own.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	f.want(f.do("PUT", base+"/client-cas", key, string(body)), 200, "")
	f.want(f.do("POST", base+"/certificates:sign", key, sign), 409, "managed_ca_untrusted")
	f.want(f.do("DELETE", base+"/managed-ca?dry_run=true", key, ""), 204, "")
	f.want(f.do("DELETE", base+"/managed-ca", key, ""), 204, "")
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"client_cas":1}`), 200, "")
	f.want(f.do("POST", base+"/managed-ca", key, ""), 409, "quota_exceeded")
	f.want(f.do("GET", base+"/managed-ca", key, ""), 404, "managed_ca_not_found")
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{}`), 200, "")
	f.want(f.do("POST", base+"/managed-ca", key, ""), 201, "")
	cas = f.want(f.do("GET", base+"/client-cas", key, ""), 200, "")
	if len(cas["items"].([]any)) != 2 || cas["use_identity_as_username"] != nil {
		t.Errorf("beside the tenant's own: %v", cas)
	}
}

// An installation without a key for secrets has no managed CAs.
func TestManagedCA_Unavailable(t *testing.T) {
	f := newFixture(t, func(c *api.Config) { c.Sealer = nil })
	key := f.signUp("acme")
	f.want(f.do("POST", "/v1/tenants/acme/managed-ca", key, ""), 409, "managed_ca_unavailable")
}

func TestClaims(t *testing.T) {
	f := newFixture(t, func(c *api.Config) { c.Rates.ClaimsAddress = 40 })
	key, beta := f.signUp("acme"), f.signUp("beta")
	const path, redeem = "/v1/tenants/acme/claims", "/v1/claims:redeem"
	f.want(f.do("POST", "/v1/tenants/acme/managed-ca", key, ""), 201, "")
	claim := func(body string) (id, secret string) {
		t.Helper()
		v := f.want(f.do("POST", path, key, body), 201, "")
		return v["id"].(string), v["secret"].(string)
	}
	body := func(secret string) string { return `{"claim":"` + secret + `","csr":"` + csr + `"}` }
	if v := f.want(f.do("POST", path+"?dry_run=true", key, `{"username":"press-7"}`), 200, ""); v["secret"] != nil {
		t.Errorf("a dry run gives %v", v)
	}
	_, secret := claim(`{"username":"press-7","days":10}`)
	for _, name := range []string{"claims", "audit", "replies"} {
		if all := strings.Join(f.bucket(name), ""); strings.Contains(all, secret) {
			t.Errorf("the secret is in bucket %s", name)
		}
	}
	// What is refused does not use it up.
	f.want(f.do("POST", redeem, "", `{"claim":"`+secret+`","csr":"x"}`), 400, "csr_invalid")
	f.want(f.do("POST", redeem, "", `{"claim":"`+secret+`"}`), 400, "request_invalid")
	f.want(f.do("POST", redeem+"?dry_run=true", "", body(secret)), 200, "")
	v := f.want(f.do("POST", redeem, "", body(secret)), 201, "")
	if v["username"] != "press-7" || !strings.Contains(v["certificate"].(string), "BEGIN CERTIFICATE") {
		t.Errorf("got %v", v)
	}
	f.want(f.do("POST", redeem, "", body(secret)), 403, "claim_refused")
	for _, none := range []string{"", "x", "mc_", "mc_acme_", "mc_acme_x", "mc_nobody_" + secret[8:], "mc_beta_" + secret[8:], "mc_../x_y", strings.Repeat("x", 5000)} {
		f.want(f.do("POST", redeem, "", body(none)), 403, "claim_refused")
	}
	// Of many who try at once one has it.
	_, secret = claim(`{"username":"press-8"}`)
	var wg sync.WaitGroup
	var won atomic.Int64
	for range 8 {
		wg.Go(func() {
			if r := f.do("POST", redeem, "", body(secret)); r.status == 201 {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d certificates for one claim", won.Load())
	}
	// Listed, taken back, over.
	id, secret := claim(`{"username":"press-9"}`)
	if v := f.want(f.do("GET", path, key, ""), 200, ""); len(v["items"].([]any)) != 1 || v["items"].([]any)[0].(map[string]any)["id"] != id || strings.Contains(fmt.Sprint(v), secret) {
		t.Errorf("got %v", v)
	}
	f.want(f.do("DELETE", "/v1/tenants/beta/claims/"+id, beta, ""), 404, "claim_not_found")
	f.want(f.do("DELETE", path+"/"+id, key, "", "If-Match", `"99999"`), 412, "revision_mismatch")
	f.want(f.do("DELETE", path+"/"+id, key, ""), 204, "")
	f.want(f.do("DELETE", path+"/"+id, key, ""), 404, "claim_not_found")
	f.want(f.do("POST", redeem, "", body(secret)), 403, "claim_refused")
	for _, bad := range []struct{ body, code string }{
		{`{"username":""}`, "username_invalid"},
		{`{"username":"x","expires_at":"2020-01-01T00:00:00Z"}`, "claim_invalid"},
		{`{"username":"x","expires_at":"2999-01-01T00:00:00Z"}`, "claim_invalid"},
		{`{"username":"` + strings.Repeat("x", 65) + `"}`, "request_invalid"},
		{`{"username":"x","days":0.5}`, "request_invalid"},
	} {
		f.want(f.do("POST", path, key, bad.body), 400, bad.code)
	}
	_, secret = claim(`{"username":"press-10"}`)
	if _, err := f.store.SetState(t.Context(), "acme", tenancy.StateSuspended); err != nil {
		t.Fatal(err)
	}
	f.want(f.do("POST", redeem, "", body(secret)), 403, "claim_refused")
	// Guessing is slow.
	for n := 0; ; n++ {
		if r := f.do("POST", redeem, "", body("mc_acme_guess")); r.status == 429 {
			break
		} else if n > 40 {
			t.Fatal("nobody is stopped from guessing")
		}
	}
	if _, err := f.store.ClaimOf(t.Context(), "mc_acme_guess"); errs.CodeOf(err) != "claim_refused" {
		t.Error(err)
	}
}

// The revocation list of a managed CA has what is banned by its serial number, as long as
// that is, and is what a TLS server takes.
func TestManagedCA_CRL(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const base = "/v1/tenants/acme"
	f.want(f.do("GET", base+"/managed-ca/crl", key, ""), 404, "managed_ca_not_found")
	made := f.want(f.do("POST", base+"/managed-ca", key, ""), 201, "")
	block, _ := pem.Decode([]byte(made["certificate"].(string)))
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	list := func() *x509.RevocationList {
		t.Helper()
		r := f.do("GET", base+"/managed-ca/crl", key, "")
		if r.status != 200 || r.header.Get("Content-Type") != "application/pkix-crl" {
			t.Fatalf("%d %s", r.status, r.header.Get("Content-Type"))
		}
		l, err := x509.ParseRevocationList([]byte(r.body))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.CheckSignatureFrom(ca); err != nil {
			t.Error(err)
		}
		return l
	}
	if l := list(); len(l.RevokedCertificateEntries) != 0 {
		t.Errorf("%d are revoked", len(l.RevokedCertificateEntries))
	}
	v := f.want(f.do("POST", base+"/certificates:sign", key, `{"username":"press-7","csr":"`+csr+`"}`), 201, "")
	for _, ban := range []string{
		`{"kind":"certificate","value":"serial:` + v["serial"].(string) + `"}`,
		`{"kind":"certificate","value":"serial:4d","expires_at":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"}`,
		`{"kind":"certificate","value":"sha256:` + v["sha256"].(string) + `"}`,
		`{"kind":"username","value":"serial:5"}`,
	} {
		f.want(f.do("POST", base+"/bans", key, ban), 201, "")
	}
	l := list()
	if len(l.RevokedCertificateEntries) != 2 {
		t.Fatalf("%d are revoked", len(l.RevokedCertificateEntries))
	}
	for _, e := range l.RevokedCertificateEntries {
		if held := e.ReasonCode == 6; held != (e.SerialNumber.Text(16) == "4d") || !held && e.SerialNumber.Text(16) != v["serial"] {
			t.Errorf("%s: reason %d", e.SerialNumber.Text(16), e.ReasonCode)
		}
	}
	f.want(f.do("DELETE", base+"/managed-ca", key, ""), 204, "")
	f.want(f.do("GET", base+"/managed-ca/crl", key, ""), 404, "managed_ca_not_found")
}
