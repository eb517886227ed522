// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/mail"
	"github.com/manormq/manor/services/api/mail/mailtest"
	"github.com/manormq/manor/tenancy/store"
)

// mailed is a world that sends its mails to a server of the test.
func mailed(t *testing.T, with ...func(*api.Config)) (*fixture, *mailtest.Server) {
	t.Helper()
	m, server := mailer(t)
	return newFixture(t, append(with, func(c *api.Config) { c.Mailer = m })...), server
}

// mailer is one that sends to a server of the test.
func mailer(t *testing.T) (api.Mailer, *mailtest.Server) {
	t.Helper()
	server := mailtest.Start(t, mailtest.Options{})
	m, err := mail.New(mail.Config{Address: server.Addr, From: "noreply@manor.example", TLS: mail.None})
	if err != nil {
		t.Fatal(err)
	}
	return m, server
}

// found returns what the pattern is in the newest mail to that address.
func found(t *testing.T, s *mailtest.Server, to, pattern string) string {
	t.Helper()
	all := s.Mails()
	if len(all) == 0 || all[len(all)-1].To != to {
		t.Fatalf("mails: %+v, want one to %s", all, to)
	}
	text := strings.ReplaceAll(all[len(all)-1].Message, "=\r\n", "")
	m := regexp.MustCompile(pattern).FindString(text)
	if m == "" {
		t.Fatalf("no %s in %s", pattern, text)
	}
	return m
}

const codePattern = `mv_[a-z2-7]{32}`

// TestSignUp_Verified signs up with a code that comes by SMTP.
func TestSignUp_Verified(t *testing.T) {
	f, server := mailed(t)
	v := f.want(f.do("POST", "/v1/signup", "", signUpBody), 202, "")
	if v["api_key"] != nil || v["credential"] != nil || v["verification"].(map[string]any)["email"] != "ops@acme.example" {
		t.Errorf("got %v", v)
	}
	code := found(t, server, "ops@acme.example", codePattern)
	// Nothing is made, or told, before the code comes back.
	if err := f.store.CheckTenantFree(t.Context(), "acme"); err != nil {
		t.Error(err)
	}
	if n := len(f.bucket("organizations")) + len(f.bucket("members")) + len(f.bucket("audit")); n != 0 {
		t.Errorf("%d things are there", n)
	}
	if stored := strings.Join(f.bucket("verifications"), ""); strings.Contains(stored, code) || strings.Contains(stored, "choose-a-good-one") {
		t.Errorf("stored in the clear: %s", stored)
	}
	verify := func(code string) response {
		return f.do("POST", "/v1/signup/verify", "", `{"code":"`+code+`"}`)
	}
	f.want(verify("mv_nonsense"), 403, "code_invalid")
	f.want(f.do("POST", "/v1/signup/verify", "", `{}`), 400, "request_invalid")
	f.want(f.do("POST", "/v1/signup/verify?dry_run=true", "", `{"code":"`+code+`"}`), 200, "")
	v = f.want(verify(code), 201, "")
	key := v["api_key"].(map[string]any)["secret"].(string)
	f.want(f.do("GET", "/v1/tenants/acme", key, ""), 200, "")
	f.want(verify(code), 403, "code_invalid")
	// Of two who want the same tenant the faster has it.
	f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, "acme", "beta")), 202, "")
	one := found(t, server, "ops@beta.example", codePattern)
	f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, `"acme"`, `"beta"`)), 202, "")
	two := found(t, server, "ops@acme.example", codePattern)
	f.want(verify(two), 201, "")
	f.want(verify(one), 409, "tenant_taken")
	// Without its mail a sign-up is refused, and leaves nothing.
	server.Refuse(errors.New("no such user"))
	before := len(f.bucket("verifications"))
	f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, "acme", "gamma")), 503, "mail_unavailable")
	if n := len(f.bucket("verifications")); n != before {
		t.Errorf("%d codes are left, want %d", n, before)
	}
}

// TestSignUp_VerifiedLate comes with the code after its time.
func TestSignUp_VerifiedLate(t *testing.T) {
	f, server := mailed(t)
	f.want(f.do("POST", "/v1/signup", "", signUpBody), 202, "")
	code := found(t, server, "ops@acme.example", codePattern)
	late, err := store.New(t.Context(), store.Config{Bus: f.bus, Region: "local", Now: func() time.Time { return time.Now().Add(store.VerificationLife) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Unverified(t.Context(), code); errs.CodeOf(err) != "code_invalid" {
		t.Errorf("got %v, want code_invalid", err)
	}
}

// TestInvitation_Mailed invites by mail: whoever invites does not see it.
func TestInvitation_Mailed(t *testing.T) {
	f, server := mailed(t)
	f.want(f.do("POST", "/v1/signup", "", signUpBody), 202, "")
	v := f.want(f.do("POST", "/v1/signup/verify", "", `{"code":"`+found(t, server, "ops@acme.example", codePattern)+`"}`), 201, "")
	org, key := v["organization"].(map[string]any)["id"].(string), v["api_key"].(map[string]any)["secret"].(string)
	r := f.do("POST", "/v1/organizations/"+org+"/members", key, `{"email":"dev@acme.example","role":"developer"}`)
	f.want(r, 201, "")
	invitation := found(t, server, "dev@acme.example", `mi_[a-z2-7]{32}`)
	if strings.Contains(r.body, invitation) || strings.Contains(r.body, `"invitation"`) {
		t.Errorf("the answer has the invitation: %s", r.body)
	}
	f.want(f.do("POST", "/v1/invitations:accept", "", `{"invitation":"`+invitation+`","password":"a-good-password"}`), 200, "")
}

// TestRates holds what strangers may ask to its bounds.
func TestRates(t *testing.T) {
	now := time.Now()
	clock := func(c *api.Config) {
		c.Now = func() time.Time { return now }
		c.Rates = api.Rates{SignUpsAddress: 3, SignUps: 5, SignInsAddress: 4}
	}
	f, _ := mailed(t, clock)
	signUp := func(peer, email string) response {
		f.peer = peer
		return f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, "ops@acme.example", email))
	}
	limited := func(r response) {
		t.Helper()
		v := f.want(r, 429, "rate_limited")
		if v["retry_after"] == nil || r.header.Get("Retry-After") == "" {
			t.Errorf("it does not say when: %v", v)
		}
	}
	for i := range 3 {
		f.want(signUp("192.0.2.1:1", fmt.Sprintf("a%d@acme.example", i)), 202, "")
	}
	limited(signUp("192.0.2.1:2", "a4@acme.example"))
	// Codes count too, so that none can be tried out.
	limited(f.do("POST", "/v1/signup/verify", "", `{"code":"mv_x"}`))
	// Other addresses are not held up, but one e-mail address is.
	f.want(signUp("[2001:db8::1]:1", "x@acme.example"), 202, "")
	f.want(signUp("[2001:db8::2]:1", "x@acme.example"), 202, "")
	// All together: five a minute.
	limited(signUp("192.0.2.9:1", "y@acme.example"))
	now = now.Add(time.Minute)
	f.want(signUp("192.0.2.9:1", "X@acme.example"), 202, "")
	limited(signUp("192.0.2.10:1", "x@acme.example"))
	// A third sign-up of that /64, whatever the address; then no more.
	f.want(signUp("[2001:db8::3]:1", "z@acme.example"), 202, "")
	limited(signUp("[2001:db8::4]:1", "zz@acme.example"))
	now = now.Add(time.Hour)
	f.want(signUp("192.0.2.1:1", "b@acme.example"), 202, "")

	signIn := func(peer, email string) response {
		f.peer = peer
		return f.do("POST", "/v1/auth/token", "", `{"organization":"org_x","email":"`+email+`","password":"wrong-password"}`)
	}
	for range 4 {
		f.want(signIn("192.0.2.1:1", "a@acme.example"), 401, "sign_in_failed")
	}
	limited(signIn("192.0.2.1:1", "b@acme.example")) // by address
	limited(signIn("192.0.2.2:1", "a@acme.example")) // by member
	now = now.Add(15 * time.Second)
	f.want(signIn("192.0.2.1:1", "b@acme.example"), 401, "sign_in_failed")
	limited(f.do("POST", "/v1/invitations:accept", "", `{"invitation":"mi_x","password":"a-good-password"}`))
}
