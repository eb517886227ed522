// SPDX-License-Identifier: Apache-2.0

// Package storetest is the suite that the tenancy store passes on every bus. It
// owns the goroutines of its tests.
package storetest

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// clock is a clock that stands until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// Run runs the suite; open returns an empty bus that lives as long as the test.
func Run(t *testing.T, open func(t *testing.T) bus.Bus) {
	for name, f := range map[string]func(*testing.T, bus.Bus){
		"SignUp": testSignUp, "SignUpRace": testSignUpRace, "Reap": testReap, "Credentials": testCredentials,
		"Quota": testQuota, "Overrides": testOverrides, "EnsureTenant": testEnsureTenant, "Partitions": testPartitions, "Keys": testKeys, "Once": testOnce, "Tickets": testTickets,
		"KeyScope": testKeyScope, "KeyUse": testKeyUse, "KeyQuota": testKeyQuota, "Members": testMembers, "LastOwner": testLastOwner, "UsableOwner": testUsableOwner,
		"Policies": testPolicies, "Sessions": testSessions, "Verification": testVerification, "Organization": testOrganization,
		"Bans": testBans, "Flapped": testFlapped, "Domains": testDomains, "EventDays": testEventDays,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

func newStore(t *testing.T, b bus.Bus) (*store.Store, *clock) {
	t.Helper()
	c := &clock{t: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s, err := store.New(t.Context(), store.Config{Bus: b, Log: telemetry.Discard(), Region: "local", Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func signUp(tenant string) store.SignUp {
	return store.SignUp{
		Organization: "Acme", Email: "ops@acme.example", PasswordHash: "h", Tenant: tenant, Plan: "dev",
		Username: "default", CredentialHash: "$sha256$x",
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantCode(t *testing.T, err error, kind errs.Kind, code string) {
	t.Helper()
	if !errs.Is(err, kind) || errs.CodeOf(err) != code {
		t.Errorf("got %v (%v, %q), want %v, %q", err, errs.KindOf(err), errs.CodeOf(err), kind, code)
	}
}

func testSignUp(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	ctx := t.Context()
	if err := s.CheckTenantFree(ctx, "acme"); err != nil {
		t.Error(err)
	}
	out := must(s.SignUp(ctx, signUp("acme")))(t)
	if out.Tenant.State != tenancy.StateActive || out.Tenant.APIKey != "" || out.Tenant.Region != "local" || out.Tenant.Organization != out.Organization.ID {
		t.Errorf("tenant %+v", out.Tenant)
	}
	for _, p := range []struct{ id, prefix string }{
		{out.Organization.ID, "org_"}, {out.APIKey.ID, "key_"}, {out.Secret, "mk_"}, {out.Credential.ID, "cred_"},
	} {
		if !strings.HasPrefix(p.id, p.prefix) {
			t.Errorf("%s does not begin with %s", p.id, p.prefix)
		}
	}
	got := must(s.Tenant(ctx, "acme"))(t)
	if d := cmp.Diff(out.Tenant, got); d != "" {
		t.Error(d)
	}
	key := must(s.AuthenticateKey(ctx, out.Secret))(t)
	if key.Organization != out.Organization.ID {
		t.Errorf("the key is of %s", key.Organization)
	}
	c := must(s.Credential(ctx, "acme", "default"))(t)
	if d := cmp.Diff(out.Credential, c); d != "" {
		t.Error(d)
	}
	if org := must(s.Organization(ctx, out.Organization.ID))(t); org.Name != "Acme" || org.Email != "ops@acme.example" {
		t.Errorf("organization %+v", org)
	}
	_, err := s.SignUp(ctx, signUp("acme"))
	wantCode(t, err, errs.Conflict, "tenant_taken")
	wantCode(t, s.CheckTenantFree(ctx, "acme"), errs.Conflict, "tenant_taken")
	for _, id := range []string{"nobody", "", "../x", "a.b"} {
		_, err = s.Tenant(ctx, id)
		wantCode(t, err, errs.NotFound, "tenant_not_found")
	}
}

func testSignUpRace(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	const n = 8
	var wg sync.WaitGroup
	won := make(chan *store.SignedUp, n)
	for range n {
		wg.Go(func() {
			out, err := s.SignUp(t.Context(), signUp("acme"))
			if err == nil {
				won <- out
				return
			}
			wantCode(t, err, errs.Conflict, "tenant_taken")
		})
	}
	wg.Wait()
	close(won)
	if len(won) != 1 {
		t.Fatalf("%d sign-ups won", len(won))
	}
	out := <-won
	if c := must(s.Credential(t.Context(), "acme", "default"))(t); c.ID != out.Credential.ID {
		t.Error("the credential is of one that lost")
	}
}

// reserve makes of a tenant what it is in the middle of its sign-up.
func reserve(t *testing.T, b bus.Bus, r tenancy.TenantRecord) {
	t.Helper()
	r.State = tenancy.StateReserved
	tenants := must(b.Bucket(t.Context(), bus.BucketConfig{Name: tenancy.TenantsBucket}))(t)
	must(tenants.Put(t.Context(), r.ID, must(json.Marshal(r))(t), bus.Any))(t)
}

// testReap makes what a crash in the middle of a sign-up leaves behind.
func testReap(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	ctx := t.Context()
	must(s.SignUp(ctx, signUp("done")))(t)
	half := must(s.SignUp(ctx, signUp("half")))(t)
	reserve(t, b, tenancy.TenantRecord{ID: "half", Organization: half.Organization.ID, APIKey: half.APIKey.ID, Plan: "dev", CreatedAt: clock.now()})

	_, err := s.Tenant(ctx, "half")
	wantCode(t, err, errs.NotFound, "tenant_not_found")
	wantCode(t, s.CheckTenantFree(ctx, "half"), errs.Conflict, "tenant_taken")
	clock.move(4 * time.Minute)
	if n := must(s.Reap(ctx))(t); n != 0 {
		t.Errorf("%d removed too early", n)
	}
	clock.move(2 * time.Minute)
	if err := s.CheckTenantFree(ctx, "half"); err != nil {
		t.Errorf("after five minutes: %v", err)
	}
	if n := must(s.Reap(ctx))(t); n != 1 {
		t.Errorf("%d removed, want 1", n)
	}
	if _, err := s.AuthenticateKey(ctx, half.Secret); !errs.Is(err, errs.Denied) {
		t.Errorf("the key of a reaped sign-up: %v", err)
	}
	if _, err := s.Credential(ctx, "half", "default"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the credential of a reaped sign-up: %v", err)
	}
	must(s.Tenant(ctx, "done"))(t)
	must(s.SignUp(ctx, signUp("half")))(t)
}

func testCredentials(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	ctx := t.Context()
	tn := must(s.SignUp(ctx, signUp("acme")))(t).Tenant
	for _, name := range []string{"b", "a", "c/d:é"} {
		must(s.CreateCredential(ctx, tn, name, "$sha256$"+name))(t)
	}
	_, err := s.CreateCredential(ctx, tn, "a", "x")
	wantCode(t, err, errs.Conflict, "username_taken")
	_, err = s.CreateCredential(ctx, tn, "", "x")
	wantCode(t, err, errs.Invalid, "username_invalid")

	var names []string
	for cursor := ""; ; {
		page, next, err := s.Credentials(ctx, "acme", cursor, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page {
			names = append(names, c.Username)
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	if d := cmp.Diff([]string{"a", "b", "c/d:é", "default"}, names); d != "" {
		t.Error(d)
	}
	c := must(s.SetPassword(ctx, "acme", "a", "new"))(t)
	if c.Generation != 2 || c.Hash != "new" {
		t.Errorf("after a new password: %+v", c)
	}
	wantCode(t, s.DeleteCredential(ctx, "acme", "a", c.Revision-1), errs.Conflict, "revision_mismatch")
	if err := s.DeleteCredential(ctx, "acme", "a", c.Revision); err != nil {
		t.Error(err)
	}
	wantCode(t, s.DeleteCredential(ctx, "acme", "a", 0), errs.NotFound, "credential_not_found")
	if n := must(s.CountCredentials(ctx, "acme"))(t); n != 3 {
		t.Errorf("%d credentials, want 3", n)
	}
}

func testQuota(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	ctx := t.Context()
	must(s.SignUp(ctx, signUp("acme")))(t)
	tn := must(s.SetOverrides(ctx, "acme", 0, map[string]int64{"credentials": 2}))(t)
	must(s.CreateCredential(ctx, tn, "a", "x"))(t)
	for range 2 {
		_, err := s.CreateCredential(ctx, tn, "b", "x")
		want := &tenancy.ExceededError{Quota: "credentials", Limit: 2, Usage: 2}
		if d := cmp.Diff(want, err); d != "" {
			t.Error(d)
		}
		clock.move(2 * time.Minute) // the second time it is counted afresh
	}
}

func testOverrides(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	ctx := t.Context()
	first := must(s.SignUp(ctx, signUp("acme")))(t).Tenant
	r := must(s.SetOverrides(ctx, "acme", first.Revision, map[string]int64{"connections": 5, "publish_rate": 7}))(t)
	_, err := s.SetOverrides(ctx, "acme", first.Revision, nil)
	wantCode(t, err, errs.Conflict, "revision_mismatch")
	_, err = s.SetOverrides(ctx, "acme", 0, map[string]int64{"nothing": 1})
	wantCode(t, err, errs.Invalid, "quota_unknown")
	if l := must(r.Limits())(t); l.Connections != 5 || l.PublishRate != 7 {
		t.Errorf("limits %+v", l)
	}
	// A name that is missing goes back to the plan's value.
	r = must(s.SetOverrides(ctx, "acme", 0, map[string]int64{"connections": 6}))(t)
	if l := must(r.Limits())(t); l.Connections != 6 || l.PublishRate != tenancy.Unlimited {
		t.Errorf("limits %+v", l)
	}
	if r := must(s.SetState(ctx, "acme", tenancy.StateSuspended))(t); r.State != tenancy.StateSuspended || r.Overrides["connections"] != 6 {
		t.Errorf("suspended %+v", r)
	}
}

// A tenant has the partitions of the plan that it was made with, whatever changes later.
func testPartitions(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	ctx := t.Context()
	for plan, want := range map[string]int{"dev": 0, "free": 1, "starter": 4, "pro": 32} {
		in := signUp("by-" + plan)
		in.Plan = plan
		must(s.SignUp(ctx, in))(t)
		must(s.EnsureTenant(ctx, "own-"+plan, store.EnsureOptions{Plan: plan}))(t)
		for _, id := range []string{"by-" + plan, "own-" + plan} {
			r := must(s.UpdateTenant(ctx, id, 0, func(r *tenancy.TenantRecord) error {
				r.Plan = tenancy.PlanStarter
				return nil
			}))(t)
			if tenant := must(r.Tenant("localhost"))(t); tenant.Partitions != want || tenant.Plan != tenancy.PlanStarter {
				t.Errorf("%s has %d partitions, expected %d", id, tenant.Partitions, want)
			}
		}
	}
}

func testEnsureTenant(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	ctx := t.Context()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := s.EnsureTenant(ctx, "bench", store.EnsureOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r := must(s.Tenant(ctx, "bench"))(t)
	if l := must(r.Limits())(t); l != tenancy.NoLimits() {
		t.Errorf("limits %+v", l)
	}
	must(s.SignUp(ctx, signUp("acme")))(t)
	if r := must(s.EnsureTenant(ctx, "acme", store.EnsureOptions{}))(t); r.Plan != "dev" {
		t.Errorf("an existing tenant was changed: %+v", r)
	}
	_, err := s.EnsureTenant(ctx, "A", store.EnsureOptions{})
	wantCode(t, err, errs.Invalid, "tenant_invalid")
}

func testKeys(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	ctx := t.Context()
	k, secret, err := s.CreateAPIKey(ctx, "org_1")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(k.Hash, secret) || !strings.HasPrefix(secret, "mk_") {
		t.Errorf("secret %q", secret)
	}
	flipped := []byte(secret)
	flipped[len(flipped)-1] ^= 1
	for _, bad := range []string{"", "mk_", string(flipped), secret + "a", "xx_" + secret[3:], "mk_" + strings.Repeat(">", len(secret)-3)} {
		if _, err := s.AuthenticateKey(ctx, bad); !errs.Is(err, errs.Denied) {
			t.Errorf("%q: %v, want Denied", bad, err)
		}
	}
	must(s.AuthenticateKey(ctx, secret))(t)
	if err := s.DeleteAPIKey(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AuthenticateKey(ctx, secret); !errs.Is(err, errs.Denied) {
		t.Errorf("deleted key: %v, want Denied", err)
	}
}

func must2(o *store.Once, _ *store.Reply, err error) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		if err != nil || o == nil {
			t.Fatalf("got %v, %v", o, err)
		}
	}
}
