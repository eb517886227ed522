// SPDX-License-Identifier: Apache-2.0

package directorytest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/jwks"
	"github.com/manormq/manor/tenancy/store"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// within waits for a change to be known.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Live); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v: not %s", Live, what)
		}
	}
}

func testBans(t *testing.T, s *store.Store, d tenancy.Directory) {
	SignUp(t, s, "acme")
	SignUp(t, s, "beta")
	changes := Watch(t, s, d)
	banned := func(tenant string) bool {
		return d.Bans(tenant).Match(tenancy.Client{ClientID: "c1"}, time.Now()) != nil
	}
	b, _, err := s.Ban(t.Context(), "acme", tenancy.Ban{Kind: tenancy.BanClientID, Value: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	within(t, "banned", func() bool { return banned("acme") })
	if banned("beta") {
		t.Error("another tenant's client is banned")
	}
	changes.Want(t, tenancy.Change{Kind: tenancy.BansChanged, Tenant: "acme"})
	if _, err := s.Unban(t.Context(), "acme", b.ID, 0); err != nil {
		t.Fatal(err)
	}
	within(t, "the end of a ban", func() bool { return !banned("acme") })
}

func testFlapped(t *testing.T, s *store.Store, d tenancy.Directory) {
	SignUp(t, s, "acme")
	if _, err := s.UpdateTenant(t.Context(), "acme", 0, store.Flapping(&tenancy.Flapping{Connects: 5, Window: 10, Ban: 60})); err != nil {
		t.Fatal(err)
	}
	run(t, s.RunBans)
	// It is told again: who serves it may not be there yet.
	within(t, "banned", func() bool {
		d.Flapped(tenancy.Flap{Tenant: "acme", ClientID: "c1", Connects: 5})
		time.Sleep(20 * time.Millisecond)
		return d.Bans("acme").Match(tenancy.Client{ClientID: "c1"}, time.Now()) != nil
	})
}

// run runs a part until the test ends.
func run(t *testing.T, part func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func testTokens(t *testing.T, s *store.Store, d tenancy.Directory) {
	password := SignUp(t, s, "acme")
	SignUp(t, s, "beta")
	from, inline := tenancytest.NewIssuer(t, "https://issuer.example/"), tenancytest.NewIssuer(t, "inline")
	other := inline.Issuer()
	other.JWKSURL, other.JWKS, other.ClientIDClaim, other.PublishClaim, other.SubscribeClaim = "", inline.JWKS(), "cid", "pub", "sub_filters"
	f, err := jwks.New(jwks.Config{Store: s, Networks: []string{"127.0.0.1"}, Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	run(t, f.Run)
	if _, err := s.UpdateTenant(t.Context(), "acme", 0, store.Issuers([]tenancy.Issuer{from.Issuer(), other})); err != nil {
		t.Fatal(err)
	}
	try := func(tenant, username, password string) (*tenancy.Identity, error) {
		return d.Authenticate(t.Context(), tenancy.Attempt{
			Method: tenancy.AuthJWT, Tenant: &tenancy.Tenant{ID: tenant}, ClientID: "c1", Username: username, HasUsername: username != "", Password: []byte(password), HasPassword: password != "",
		})
	}
	within(t, "a token that is taken", func() bool {
		id, err := try("acme", "", from.Token("press-7", nil))
		return err == nil && id.Username == "press-7" && id.Issuer == from.Name && time.Until(id.Expires) > 59*time.Minute && id.Limit == nil && id.Claims["sub"] == "press-7" && id.Claims["iss"] == ""
	})
	for _, x := range []struct{ name, tenant, username, password, want string }{ // the code of the error
		{"the same user name", "acme", "press-7", from.Token("press-7", nil), ""},
		{"another user name", "acme", "press-8", from.Token("press-7", nil), tenancy.CodeTokenRefused},
		{"no password", "acme", "x", "", tenancy.CodePassed},
		{"a password", "acme", "default", password, tenancy.CodePassed},
		{"an issuer of nobody", "acme", "", tenancytest.NewIssuer(t, "nobody").Token("x", nil), tenancy.CodePassed},
		{"another tenant's issuer", "beta", "", from.Token("press-7", nil), tenancy.CodePassed},
		{"no tenant", "nowhere", "", from.Token("press-7", nil), tenancy.CodePassed},
		{"somebody who calls himself so", "acme", "", tenancytest.NewIssuer(t, from.Name).Token("x", nil), tenancy.CodeTokenRefused},
		{"expired", "acme", "", from.Token("x", map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}), tenancy.CodeTokenRefused},
		{"claims", "acme", "", inline.Token("x", map[string]any{"cid": "c1", "pub": "a", "sub_filters": []string{"b/#"}}), ""},
		{"another client id", "acme", "", inline.Token("x", map[string]any{"cid": "c2", "pub": "a", "sub_filters": "b"}), tenancy.CodeTokenRefused},
		{"no claim", "acme", "", inline.Token("x", map[string]any{"cid": "c1", "pub": "a"}), tenancy.CodeTokenRefused},
		{"a filter that is none", "acme", "", inline.Token("x", map[string]any{"cid": "c1", "pub": "a#", "sub_filters": "b"}), tenancy.CodeTokenRefused},
		{"publish to the server's", "acme", "", inline.Token("x", map[string]any{"cid": "c1", "pub": "$SYS/x", "sub_filters": "b"}), tenancy.CodeTokenRefused},
		{"subscribe to the server's", "acme", "", inline.Token("x", map[string]any{"cid": "c1", "pub": "a", "sub_filters": "$share/g/a"}), tenancy.CodeTokenRefused},
		{"an unknown key, inline", "acme", "", tenancytest.NewIssuer(t, "inline").TokenBy("1", "ES256", "x", nil), tenancy.CodeTokenRefused},
	} {
		id, err := try(x.tenant, x.username, x.password)
		if errs.CodeOf(err) != x.want || (err == nil) != (x.want == "") {
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
		if x.name == "claims" && err == nil {
			g := tenancy.DefaultGrant().Within(id.Limit)
			if !g.MayPublish([]byte("a"), 2, true) || g.MayPublish([]byte("b"), 0, false) {
				t.Error("the claims do not limit what is published")
			}
			for filter, want := range map[string]bool{"b/c": true, "a": false, "#": false} {
				if _, ok := g.MaySubscribe(filter); ok != want {
					t.Errorf("the claims allow to subscribe to %s: %v", filter, ok)
				}
			}
		}
	}
	// A rotation: the new key is asked for when the first token with it comes, so
	// that the second try is the last that may fail. The old one is good no more.
	old := from.Token("press-7", nil)
	from.Rotate("2")
	end := time.Now().Add(15 * time.Second)
	for {
		_, err := try("acme", "", from.Token("press-7", nil))
		if err == nil {
			break
		}
		if errs.CodeOf(err) != tenancy.CodeTokenKeyUnknown || time.Now().After(end) {
			t.Fatalf("after a rotation: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if _, err := try("acme", "", old); errs.CodeOf(err) != tenancy.CodeTokenKeyUnknown {
		t.Errorf("a token of the old key: %v", err)
	}
	// The issuer is away, and its keys are not.
	from.Break(true)
	if _, err := try("acme", "", from.Token("press-8", nil)); err != nil {
		t.Errorf("the issuer is away: %v", err)
	}
	if _, err := s.SetState(t.Context(), "acme", tenancy.StateSuspended); err != nil {
		t.Fatal(err)
	}
	within(t, "suspended", func() bool {
		_, err := try("acme", "", from.Token("press-8", nil))
		return errs.CodeOf(err) == tenancy.CodeTenantInactive
	})
}

func testMethods(t *testing.T, s *store.Store, d tenancy.Directory) {
	SignUp(t, s, "acme")
	change := func(f func(*tenancy.TenantRecord) error) {
		t.Helper()
		if _, err := s.UpdateTenant(t.Context(), "acme", 0, f); err != nil {
			t.Fatal(err)
		}
	}
	change(store.AuthMethods([]string{"password", "jwt"}))
	change(store.AllowList(&tenancy.AllowList{MQTT: []string{"10.0.0.0/8"}}))
	change(store.Flapping(&tenancy.Flapping{Connects: 5, Window: 10, Ban: 60}))
	within(t, "changed", func() bool {
		tn, err := d.Tenant(t.Context(), "acme")
		return err == nil && strings.Join(tn.Methods(), " ") == "password jwt" && len(tn.Networks) == 1 && tn.Flapping != nil && tn.Flapping.Connects == 5
	})
}

func testDevices(t *testing.T, s *store.Store, d tenancy.Directory) {
	SignUp(t, s, "acme")
	groups := func(name string) string {
		t.Helper()
		tn, err := d.Tenant(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		x, err := d.Device(t.Context(), tn, name)
		switch {
		case err != nil:
			t.Fatal(err)
		case x == nil:
			return "none"
		}
		return strings.Join(x.Groups, " ")
	}
	put := func(name string, in ...string) {
		t.Helper()
		r, err := s.Tenant(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.PutDevice(t.Context(), r, tenancy.Device{Name: name, Groups: in}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := groups("press-7"); got != "none" {
		t.Errorf("a tenant without a registry: %s", got)
	}
	changes := Watch(t, s, d)
	put("press-7", "presses", "line-1")
	within(t, "in its groups", func() bool { return groups("press-7") == "line-1 presses" })
	if got := groups("press-8"); got != "none" {
		t.Errorf("a device that is not there: %s", got)
	}
	// What is kept, also that there is none, changes with the registry.
	put("press-7", "old")
	put("press-8", "new")
	within(t, "in other groups", func() bool { return groups("press-7") == "old" && groups("press-8") == "new" })
	if _, err := s.RemoveDevice(t.Context(), "acme", "press-7", 0); err != nil {
		t.Fatal(err)
	}
	within(t, "gone", func() bool { return groups("press-7") == "none" })
	changes.Want(t, tenancy.Change{Kind: tenancy.DeviceChanged, Tenant: "acme", Username: "press-7"})
}
