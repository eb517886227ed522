// SPDX-License-Identifier: Apache-2.0

// Package directorytest is the suite that every tenancy.Directory passes. It
// owns the goroutines of its tests.
package directorytest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/store"
)

// Live is how soon a change must be known.
const Live = 2 * time.Second

// Open returns an empty store and a directory over it, whose host names end
// with .test; both live as long as the test.
type Open func(t *testing.T) (*store.Store, tenancy.Directory)

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, f := range map[string]func(*testing.T, *store.Store, tenancy.Directory){
		"Tenant": testTenant, "Host": testHost, "Authenticate": testAuthenticate, "JustCreated": testJustCreated,
		"Delete": testDelete, "Password": testPassword, "Overrides": testOverrides, "State": testState, "Isolation": testIsolation,
		"Exchange": testExchange, "Settings": testSettings, "ClientCAs": testClientCAs, "Tickets": testTickets,
		"Bans": testBans, "Flapped": testFlapped, "Tokens": testTokens, "Methods": testMethods, "Devices": testDevices,
	} {
		t.Run(name, func(t *testing.T) {
			s, d := open(t)
			f(t, s, d)
		})
	}
}

// SignUp makes a tenant with the credential "default" and returns its password.
func SignUp(t *testing.T, s *store.Store, tenant string) string {
	t.Helper()
	secret, hash, err := password.Generate()
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.SignUp(t.Context(), store.SignUp{
		Organization: tenant, Email: "ops@" + tenant + ".example", PasswordHash: hash, Tenant: tenant, Plan: "dev",
		Username: "default", CredentialHash: hash,
	})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// AddCredential adds a credential with a generated password and returns that.
func AddCredential(t *testing.T, s *store.Store, tenant, username string) string {
	t.Helper()
	secret, hash, err := password.Generate()
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Tenant(t.Context(), tenant)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateCredential(t.Context(), r, username, hash); err != nil {
		t.Fatal(err)
	}
	return secret
}

// Attempt tries to authenticate.
func Attempt(ctx context.Context, d tenancy.Directory, tenant, username, secret string) (*tenancy.Identity, error) {
	t, err := d.Tenant(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return d.Authenticate(ctx, tenancy.Attempt{
		Tenant: t, ClientID: "c", Username: username, HasUsername: username != "", Password: []byte(secret), HasPassword: secret != "",
	})
}

// Eventually calls f until it returns "" or Live has passed.
func Eventually(t *testing.T, f func() string) {
	t.Helper()
	deadline := time.Now().Add(Live)
	for {
		why := f()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %s", Live, why)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Changes collects what a directory's Watch tells.
type Changes struct {
	mu  sync.Mutex
	all []tenancy.Change // guarded by mu
}

// Watch begins to collect; it ends with the test. It makes a tenant "canary" of
// its own to see that the directory tells.
func Watch(t *testing.T, s *store.Store, d tenancy.Directory) *Changes {
	t.Helper()
	c := &Changes{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Watch(ctx, func(ch tenancy.Change) { // ends with ctx
			c.mu.Lock()
			defer c.mu.Unlock()
			c.all = append(c.all, ch)
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	if _, err := s.EnsureTenant(t.Context(), "canary", store.EnsureOptions{}); err != nil {
		t.Fatal(err)
	}
	Eventually(t, func() string {
		if _, err := s.SetOverrides(t.Context(), "canary", 0, nil); err != nil {
			return err.Error()
		}
		if !c.has(tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "canary"}) {
			return "the watch tells nothing"
		}
		return ""
	})
	return c
}

// Want waits until the change was told.
func (c *Changes) Want(t *testing.T, want tenancy.Change) {
	t.Helper()
	Eventually(t, func() string {
		if c.has(want) {
			return ""
		}
		return fmt.Sprintf("%+v was not told", want)
	})
}

func (c *Changes) has(want tenancy.Change) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.all, want)
}

func wantKind(t *testing.T, err error, kind errs.Kind) {
	t.Helper()
	if !errs.Is(err, kind) {
		t.Errorf("got %v (%v), want %v", err, errs.KindOf(err), kind)
	}
}

func testTenant(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	for _, id := range []string{"acme", "", "no such", "x.y"} {
		_, err := d.Tenant(ctx, id)
		wantKind(t, err, errs.NotFound)
	}
	SignUp(t, s, "fresh")
	tn, err := d.Tenant(ctx, "fresh")
	if err != nil {
		t.Fatalf("right after sign-up: %v", err)
	}
	if tn.ID != "fresh" || tn.Hostname != "fresh.test" || !tn.Active() || tn.Plan != "dev" || tn.Limits.QueueMessages != 1_000_000 || tn.Grant == nil {
		t.Errorf("got %+v", tn)
	}
}

func testHost(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	SignUp(t, s, "acme")
	for _, host := range []string{"acme.test", "ACME.Test", "acme.test."} {
		tn, err := d.TenantByHost(ctx, host)
		if err != nil || tn.ID != "acme" {
			t.Errorf("%s: %v %v", host, tn, err)
		}
	}
	for _, host := range []string{"", "test", ".test", "other.test", "acme.example", "a.acme.test", "acmetest", "acme.test.evil"} {
		_, err := d.TenantByHost(ctx, host)
		wantKind(t, err, errs.NotFound)
	}
}

func testAuthenticate(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	secret := SignUp(t, s, "acme")
	for range 2 { // from the bus, then from what is kept
		id, err := Attempt(ctx, d, "acme", "default", secret)
		if err != nil {
			t.Fatal(err)
		}
		if id.Tenant.ID != "acme" || id.Username != "default" || !id.Grant.MayPublish([]byte("a"), 0, false) || id.Grant.MayPublish([]byte("$SYS/a"), 0, false) {
			t.Errorf("got %+v", id)
		}
		_, err = Attempt(ctx, d, "acme", "default", "wrong")
		wantKind(t, err, errs.Denied)
		_, err = Attempt(ctx, d, "acme", "default", "")
		wantKind(t, err, errs.Denied)
		_, err = Attempt(ctx, d, "acme", "", secret)
		wantKind(t, err, errs.Denied)
		_, err = Attempt(ctx, d, "acme", "nobody", secret)
		wantKind(t, err, errs.NotFound)
		_, err = Attempt(ctx, d, "acme", "bad\x00name", secret)
		wantKind(t, err, errs.NotFound)
	}
}

// testJustCreated holds that a device that was refused a moment ago gets in as
// soon as its credential is there.
func testJustCreated(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	SignUp(t, s, "acme")
	for i := range 20 {
		name := fmt.Sprintf("sensor-%d", i)
		_, err := Attempt(ctx, d, "acme", name, "early")
		wantKind(t, err, errs.NotFound)
		secret := AddCredential(t, s, "acme", name)
		Eventually(t, func() string {
			if _, err := Attempt(ctx, d, "acme", name, secret); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	secret := AddCredential(t, s, "acme", "new")
	if _, err := Attempt(ctx, d, "acme", "new", secret); err != nil {
		t.Errorf("at once: %v", err)
	}
}

func testDelete(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	SignUp(t, s, "acme")
	changes := Watch(t, s, d)
	secret := AddCredential(t, s, "acme", "a/b:é")
	if _, err := Attempt(ctx, d, "acme", "a/b:é", secret); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteCredential(ctx, "acme", "a/b:é", 0); err != nil {
		t.Fatal(err)
	}
	changes.Want(t, tenancy.Change{Kind: tenancy.CredentialGone, Tenant: "acme", Username: "a/b:é"})
	_, err := Attempt(ctx, d, "acme", "a/b:é", secret)
	wantKind(t, err, errs.NotFound)
	// One that nobody here has asked about may be connected all the same.
	AddCredential(t, s, "acme", "never seen")
	if err := s.DeleteCredential(ctx, "acme", "never seen", 0); err != nil {
		t.Fatal(err)
	}
	changes.Want(t, tenancy.Change{Kind: tenancy.CredentialGone, Tenant: "acme", Username: "never seen"})
	// Made again it is another one.
	secret2 := AddCredential(t, s, "acme", "a/b:é")
	Eventually(t, func() string {
		if _, err := Attempt(ctx, d, "acme", "a/b:é", secret2); err != nil {
			return err.Error()
		}
		return ""
	})
	_, err = Attempt(ctx, d, "acme", "a/b:é", secret)
	wantKind(t, err, errs.Denied)
}

func testPassword(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	old := SignUp(t, s, "acme")
	changes := Watch(t, s, d)
	if _, err := Attempt(ctx, d, "acme", "default", old); err != nil {
		t.Fatal(err)
	}
	secret, hash, err := password.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetPassword(ctx, "acme", "default", hash); err != nil {
		t.Fatal(err)
	}
	changes.Want(t, tenancy.Change{Kind: tenancy.CredentialGone, Tenant: "acme", Username: "default"})
	_, err = Attempt(ctx, d, "acme", "default", old)
	wantKind(t, err, errs.Denied)
	if _, err := Attempt(ctx, d, "acme", "default", secret); err != nil {
		t.Error(err)
	}
}

func testOverrides(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	SignUp(t, s, "acme")
	changes := Watch(t, s, d)
	before, err := d.Tenant(ctx, "acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetOverrides(ctx, "acme", 0, map[string]int64{"connections": 5}); err != nil {
		t.Fatal(err)
	}
	changes.Want(t, tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"})
	Eventually(t, func() string {
		after, err := d.Tenant(ctx, "acme")
		if err == nil && after.Limits.Connections == 5 && after.Revision > before.Revision {
			return ""
		}
		return fmt.Sprintf("%+v %v", after, err)
	})
	if before.Limits.Connections != 250_000 {
		t.Error("what was handed out was changed")
	}
}

func testState(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	secret := SignUp(t, s, "acme")
	if _, err := Attempt(ctx, d, "acme", "default", secret); err != nil {
		t.Fatal(err)
	}
	changes := Watch(t, s, d)
	if _, err := s.SetState(ctx, "acme", tenancy.StateSuspended); err != nil {
		t.Fatal(err)
	}
	changes.Want(t, tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"})
	Eventually(t, func() string {
		if tn, err := d.Tenant(ctx, "acme"); err != nil || tn.Active() {
			return fmt.Sprintf("suspended: %+v %v", tn, err)
		}
		return ""
	})
	_, err := Attempt(ctx, d, "acme", "default", secret)
	wantKind(t, err, errs.Denied)
	if errs.CodeOf(err) != tenancy.CodeTenantInactive {
		t.Errorf("with the right password: %v, want code %s", err, tenancy.CodeTenantInactive)
	}
	// A stranger does not learn that there is such a tenant.
	for _, name := range []string{"default", "nobody"} {
		if _, err := Attempt(ctx, d, "acme", name, "wrong"); err == nil || errs.CodeOf(err) == tenancy.CodeTenantInactive {
			t.Errorf("%s with a wrong password: %v", name, err)
		}
	}
	if _, err := s.SetState(ctx, "acme", tenancy.StateDeleted); err != nil {
		t.Fatal(err)
	}
	Eventually(t, func() string {
		if _, err := d.Tenant(ctx, "acme"); !errs.Is(err, errs.NotFound) {
			return fmt.Sprintf("deleted: %v", err)
		}
		return ""
	})
}

func testIsolation(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	acme, beta := SignUp(t, s, "acme"), SignUp(t, s, "beta")
	for _, c := range []struct{ tenant, secret string }{{"acme", beta}, {"beta", acme}} {
		_, err := Attempt(ctx, d, c.tenant, "default", c.secret)
		wantKind(t, err, errs.Denied)
	}
	if _, err := Attempt(ctx, d, "beta", "default", beta); err != nil {
		t.Error(err)
	}
}
