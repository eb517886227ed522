// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

func testKeyScope(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	ctx := t.Context()
	org := must(s.SignUp(ctx, signUp("acme")))(t).Organization.ID
	other := must(s.SignUp(ctx, signUp("beta")))(t).Organization.ID
	access := tenancy.Access{Permissions: []string{"usage:read"}, Tenants: []string{"acme"}}
	k, secret, err := s.AddAPIKey(ctx, org, store.NewKey{Name: "ci", Access: access, ExpiresAt: clock.now().Add(48 * time.Hour), CreatedBy: "key_x"})
	if err != nil {
		t.Fatal(err)
	}
	got := must(s.AuthenticateKey(ctx, secret))(t)
	if d := cmp.Diff(k, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(access, got.Access); d != "" {
		t.Error(d)
	}
	// Another organization does not see it.
	_, err = s.APIKey(ctx, other, k.ID)
	wantCode(t, err, errs.NotFound, "api_key_not_found")
	_, err = s.RemoveAPIKey(ctx, other, k.ID, 0)
	wantCode(t, err, errs.NotFound, "api_key_not_found")
	_, err = s.APIKey(ctx, org, org+"."+k.ID)
	wantCode(t, err, errs.NotFound, "api_key_not_found")

	// Two pages: that of the sign-up, and this one.
	page, next, err := s.APIKeys(ctx, org, "", 1)
	if err != nil || len(page) != 1 || next != page[0].ID || page[0].Name != "sign-up" || page[0].Role != tenancy.RoleOwner {
		t.Errorf("first page %+v, %q, %v", page, next, err)
	}
	page, next, err = s.APIKeys(ctx, org, next, 1)
	if err != nil || len(page) != 1 || next != "" || page[0].ID != k.ID {
		t.Errorf("second page %+v, %q, %v", page, next, err)
	}

	// Both secrets are good until the overlap ends.
	clock.move(24 * time.Hour)
	was, now, second, err := s.RotateAPIKey(ctx, org, k.ID, k.Revision, time.Hour)
	if err != nil || was.Hash != k.Hash || now.Previous.Hash != k.Hash || now.ID != k.ID {
		t.Fatalf("%+v, %+v, %v", was, now, err)
	}
	must(s.AuthenticateKey(ctx, secret))(t)
	must(s.AuthenticateKey(ctx, second))(t)
	_, _, _, err = s.RotateAPIKey(ctx, org, k.ID, k.Revision, time.Hour)
	wantCode(t, err, errs.Conflict, "revision_mismatch")
	clock.move(time.Hour)
	_, err = s.AuthenticateKey(ctx, secret)
	wantCode(t, err, errs.Denied, "api_key_expired")
	must(s.AuthenticateKey(ctx, second))(t)
	// Without an overlap the old one ends at once.
	_, _, third, err := s.RotateAPIKey(ctx, org, k.ID, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.AuthenticateKey(ctx, second)
	wantCode(t, err, errs.Denied, "api_key_invalid")
	must(s.AuthenticateKey(ctx, third))(t)
	// The key itself ends for every secret of it.
	clock.move(24 * time.Hour)
	_, err = s.AuthenticateKey(ctx, third)
	wantCode(t, err, errs.Denied, "api_key_expired")

	must(s.RemoveAPIKey(ctx, org, k.ID, 0))(t)
	_, err = s.AuthenticateKey(ctx, third)
	wantCode(t, err, errs.Denied, "api_key_invalid")
	if page, _, err := s.APIKeys(ctx, org, "", 10); err != nil || len(page) != 1 {
		t.Errorf("%d keys left, %v, want 1", len(page), err)
	}
}

func testKeyUse(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	second, err := store.New(t.Context(), store.Config{Bus: b, Region: "local", Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	use := func(s *store.Store, address string, want string) {
		t.Helper()
		s.UseKey(t.Context(), "key_1", address)
		if u := must(s.LastUse(t.Context(), "key_1"))(t); u.Address != want {
			t.Errorf("last use %+v, want from %s", u, want)
		}
	}
	if u := must(s.LastUse(t.Context(), "key_1"))(t); !u.At.IsZero() {
		t.Errorf("used before: %+v", u)
	}
	use(s, "192.0.2.1", "192.0.2.1")
	clock.move(30 * time.Second)
	use(s, "192.0.2.2", "192.0.2.1")
	use(second, "192.0.2.3", "192.0.2.1") // nor by another process
	clock.move(31 * time.Second)
	use(s, "192.0.2.4", "192.0.2.4")
	if u := must(s.LastUse(t.Context(), "key_1"))(t); !u.At.Equal(clock.now()) {
		t.Errorf("last use at %v, want %v", u.At, clock.now())
	}
}

func testKeyQuota(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	in := signUp("acme")
	in.Plan = tenancy.PlanFree
	org := must(s.SignUp(t.Context(), in))(t).Organization.ID
	var err error
	n := 1 // that of the sign-up
	for ; err == nil && n < 10; n++ {
		_, _, err = s.AddAPIKey(t.Context(), org, store.NewKey{Access: tenancy.Access{Role: tenancy.RoleViewer}})
	}
	var e *tenancy.ExceededError
	if !errors.As(err, &e) || e.Quota != "api_keys" || e.Limit != 5 || n != 6 {
		t.Errorf("%v after %d keys, want a quota of 5", err, n-1)
	}
}

func testOrganization(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	ctx := t.Context()
	in := signUp("acme")
	in.ID, in.Plan = store.NewOrganizationID(), tenancy.PlanStarter
	out := must(s.SignUp(ctx, in))(t)
	if out.Organization.ID != in.ID {
		t.Errorf("id %s, want %s", out.Organization.ID, in.ID)
	}
	was, now, err := s.ChangeOrganization(ctx, in.ID, out.Organization.Revision, func(o *store.Organization) error {
		o.Name = "Acme 2"
		return nil
	})
	if err != nil || was.Name != "Acme" || now.Name != "Acme 2" || now.Revision <= was.Revision || len(now.Tenants) != 1 {
		t.Errorf("%+v, %+v, %v", was, now, err)
	}
	_, _, err = s.ChangeOrganization(ctx, in.ID, was.Revision, func(*store.Organization) error { return nil })
	wantCode(t, err, errs.Conflict, "revision_mismatch")
	for _, id := range []string{"org_none", "", "a b", "org_.x"} {
		_, err = s.Organization(ctx, id)
		wantCode(t, err, errs.NotFound, "organization_not_found")
	}
	limit := func(want int64) {
		t.Helper()
		if n := must(s.OrganizationLimit(ctx, in.ID, "audit_days"))(t); n != want {
			t.Errorf("audit_days %d, want %d", n, want)
		}
	}
	limit(180)
	must(s.SetOverrides(ctx, "acme", 0, map[string]int64{"audit_days": 3}))(t)
	limit(3) // less than plan free has
	must(s.SetOverrides(ctx, "acme", 0, map[string]int64{"audit_days": tenancy.Unlimited}))(t)
	limit(tenancy.Unlimited)
}

// testLastOwner has two owners step down at once: one stays.
func testLastOwner(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	ctx := t.Context()
	out := must(s.SignUp(ctx, signUp("acme")))(t)
	org, first := out.Organization.ID, out.Owner.ID
	_, err := s.RemoveMember(ctx, org, first, 0)
	wantCode(t, err, errs.Conflict, "last_owner")
	_, _, err = s.SetAccess(ctx, org, first, 0, tenancy.Access{Role: tenancy.RoleAdmin})
	wantCode(t, err, errs.Conflict, "last_owner")
	_, token, err := s.Invite(ctx, org, "second@acme.example", first, tenancy.Access{Role: tenancy.RoleOwner})
	if err != nil {
		t.Fatal(err)
	}
	// Who has not accepted does not count.
	_, err = s.RemoveMember(ctx, org, first, 0)
	wantCode(t, err, errs.Conflict, "last_owner")
	second := must(s.Accept(ctx, must(s.Invited(ctx, token))(t), "h2"))(t)
	var all sync.WaitGroup
	failed := make(chan error, 2)
	for _, id := range []string{first, second.ID} {
		all.Go(func() {
			_, _, err := s.SetAccess(ctx, org, id, 0, tenancy.Access{Role: tenancy.RoleViewer})
			failed <- err
		})
	}
	all.Wait()
	one, two := <-failed, <-failed
	if (one == nil) == (two == nil) {
		t.Errorf("got %v and %v, want that one is refused", one, two)
	}
	owners := 0
	page, _, err := s.Members(ctx, org, "", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range page {
		if m.Role == tenancy.RoleOwner {
			owners++
		}
	}
	if owners != 1 {
		t.Errorf("%d owners left", owners)
	}
}

// testUsableOwner has an owner stay who may do everything: neither one who is
// limited to tenants nor an id without an owner behind it counts.
func testUsableOwner(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	ctx := t.Context()
	out := must(s.SignUp(ctx, signUp("acme")))(t)
	org, first := out.Organization.ID, out.Owner.ID
	join := func(email string, access tenancy.Access) *store.Member {
		t.Helper()
		_, token, err := s.Invite(ctx, org, email, first, access)
		if err != nil {
			t.Fatal(err)
		}
		return must(s.Accept(ctx, must(s.Invited(ctx, token))(t), "h"))(t)
	}
	limited := tenancy.Access{Role: tenancy.RoleOwner, Tenants: []string{"acme"}}
	second := join("second@acme.example", limited)
	viewer := join("viewer@acme.example", tenancy.Access{Role: tenancy.RoleViewer})
	// Such owners were listed once; and one is listed before it is written.
	if _, _, err := s.ChangeOrganization(ctx, org, 0, func(o *store.Organization) error {
		o.Owners = []string{first, second.ID, viewer.ID, "mem_gone"}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	_, err := s.RemoveMember(ctx, org, first, 0)
	wantCode(t, err, errs.Conflict, "last_owner")
	for _, access := range []tenancy.Access{limited, {Role: tenancy.RoleAdmin}} {
		_, _, err = s.SetAccess(ctx, org, first, 0, access)
		wantCode(t, err, errs.Conflict, "last_owner")
	}
	if _, _, err := s.SetAccess(ctx, org, second.ID, 0, tenancy.Access{Role: tenancy.RoleOwner}); err != nil {
		t.Error(err)
	}
	must(s.RemoveMember(ctx, org, first, 0))(t)
}

func testMembers(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	ctx := t.Context()
	out := must(s.SignUp(ctx, signUp("acme")))(t)
	org := out.Organization.ID
	other := must(s.SignUp(ctx, signUp("beta")))(t)
	if out.Owner.ID == other.Owner.ID {
		t.Error("one address is the same member in two organizations")
	}
	_, _, err := s.Invite(ctx, org, "OPS@acme.example", "", tenancy.Access{Role: tenancy.RoleViewer})
	wantCode(t, err, errs.Conflict, "member_exists")
	m, old, err := s.Invite(ctx, org, "Dev@acme.example", out.Owner.ID, tenancy.Access{Role: tenancy.RoleDeveloper})
	if err != nil || m.State != store.MemberInvited || m.Role != tenancy.RoleDeveloper {
		t.Fatalf("%+v, %v", m, err)
	}
	// A code is good for what its inviter gave, so another access is another code.
	_, _, err = s.SetAccess(ctx, org, m.ID, 0, tenancy.Access{Role: tenancy.RoleOwner})
	wantCode(t, err, errs.Conflict, "member_invited")
	// A second invitation ends the first.
	again, token, err := s.Invite(ctx, org, "dev@acme.example", out.Owner.ID, tenancy.Access{Role: tenancy.RoleViewer})
	if err != nil || again.ID != m.ID {
		t.Fatalf("%+v, %v", again, err)
	}
	for _, bad := range []string{old, "", "mi_", token + "x"} {
		_, err = s.Invited(ctx, bad)
		wantCode(t, err, errs.Denied, "invitation_invalid")
	}
	invited := must(s.Invited(ctx, token))(t)
	active := must(s.Accept(ctx, invited, "hash"))(t)
	if active.State != store.MemberActive || active.PasswordHash != "hash" || active.Role != tenancy.RoleViewer {
		t.Errorf("%+v", active)
	}
	_, err = s.Accept(ctx, invited, "another")
	wantCode(t, err, errs.Denied, "invitation_invalid")
	_, err = s.Invited(ctx, token)
	wantCode(t, err, errs.Denied, "invitation_invalid")
	if d := cmp.Diff(active, must(s.Member(ctx, org, active.ID))(t)); d != "" {
		t.Error(d)
	}
	_, err = s.Member(ctx, other.Organization.ID, active.ID)
	wantCode(t, err, errs.NotFound, "member_not_found")
	was, now, err := s.SetAccess(ctx, org, active.ID, active.Revision, tenancy.Access{Role: tenancy.RoleAdmin})
	if err != nil || was.Role != tenancy.RoleViewer || now.Role != tenancy.RoleAdmin {
		t.Errorf("%+v, %+v, %v", was, now, err)
	}
	_, err = s.RemoveMember(ctx, org, active.ID, active.Revision)
	wantCode(t, err, errs.Conflict, "revision_mismatch")
	must(s.RemoveMember(ctx, org, active.ID, 0))(t)
	if page, next, err := s.Members(ctx, org, "", 10); err != nil || len(page) != 1 || next != "" {
		t.Errorf("%+v, %q, %v", page, next, err)
	}
	// An invitation ends by itself.
	_, token, err = s.Invite(ctx, org, "late@acme.example", "", tenancy.Access{Role: tenancy.RoleViewer})
	if err != nil {
		t.Fatal(err)
	}
	clock.move(store.InvitationLife)
	_, err = s.Invited(ctx, token)
	wantCode(t, err, errs.Denied, "invitation_invalid")

	must(s.SetOverrides(ctx, "acme", 0, map[string]int64{"members": 3}))(t)
	for i := range 3 {
		_, _, err = s.Invite(ctx, org, fmt.Sprintf("m%d@acme.example", i), "", tenancy.Access{Role: tenancy.RoleViewer})
	}
	var e *tenancy.ExceededError
	if !errors.As(err, &e) || e.Quota != "members" || e.Limit != 3 {
		t.Errorf("got %v, want a quota of 3", err)
	}
}

func testSessions(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	ctx := t.Context()
	out := must(s.SignUp(ctx, signUp("acme")))(t)
	_, invitation, err := s.Invite(ctx, out.Organization.ID, "dev@acme.example", "", tenancy.Access{Role: tenancy.RoleDeveloper})
	if err != nil {
		t.Fatal(err)
	}
	m := must(s.Accept(ctx, must(s.Invited(ctx, invitation))(t), "h"))(t)
	x, token, err := s.StartSession(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	denied := func(token string) {
		t.Helper()
		_, _, err := s.AuthenticateToken(ctx, token)
		wantCode(t, err, errs.Denied, "token_invalid")
	}
	good := func(token string) *store.Member {
		t.Helper()
		_, got, err := s.AuthenticateToken(ctx, token)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := good(token); got.ID != m.ID || got.Role != tenancy.RoleDeveloper {
		t.Errorf("%+v", got)
	}
	flipped := []byte(token)
	flipped[len(flipped)-1] ^= 1
	for _, bad := range []string{"", "mt_", string(flipped), "mk_" + token[3:], token + "a"} {
		denied(bad)
	}
	// What a member may do is looked up each time.
	if _, _, err := s.SetAccess(ctx, m.Organization, m.ID, 0, tenancy.Access{Role: tenancy.RoleViewer}); err != nil {
		t.Fatal(err)
	}
	if got := good(token); got.Role != tenancy.RoleViewer {
		t.Errorf("%+v", got)
	}
	_, second, err := s.StartSession(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.EndSession(ctx, x.ID); err != nil {
		t.Fatal(err)
	}
	denied(token)
	good(second)
	must(s.RemoveMember(ctx, m.Organization, m.ID, 0))(t)
	denied(second)
	// Who is invited again has the same id, and is another member.
	_, invitation, err = s.Invite(ctx, m.Organization, m.Email, "", tenancy.Access{Role: tenancy.RoleOwner})
	if err != nil {
		t.Fatal(err)
	}
	again := must(s.Accept(ctx, must(s.Invited(ctx, invitation))(t), "h"))(t)
	if again.ID != m.ID {
		t.Errorf("id %s, want %s", again.ID, m.ID)
	}
	denied(second)
	_, fresh, err := s.StartSession(ctx, again)
	if err != nil {
		t.Fatal(err)
	}
	good(fresh)
	// One from before there were generations is of a member that has none.
	old := *again
	old.Generation = ""
	_, ungenerated, err := s.StartSession(ctx, &old)
	if err != nil {
		t.Fatal(err)
	}
	denied(ungenerated)
	_, third, err := s.StartSession(ctx, out.Owner)
	if err != nil {
		t.Fatal(err)
	}
	good(third) // nor has who signed up one
	clock.move(store.SessionLife)
	denied(third)
}

func testVerification(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	ctx := t.Context()
	want := store.Unverified{Organization: "Acme", Email: "ops@acme.example", PasswordHash: "h", Tenant: "acme", Plan: "dev"}
	keep := func() string {
		t.Helper()
		code, expires, err := s.KeepUnverified(ctx, want)
		if err != nil || !expires.Equal(clock.now().Add(store.VerificationLife)) {
			t.Fatalf("%v, %v", expires, err)
		}
		return code
	}
	code := keep()
	got := must(s.Unverified(ctx, code))(t)
	got.CreatedAt = time.Time{}
	if d := cmp.Diff(&want, got); d != "" {
		t.Error(d)
	}
	if err := s.CheckTenantFree(ctx, "acme"); err != nil {
		t.Errorf("it reserves the tenant: %v", err)
	}
	for _, bad := range []string{"", "mv_", code + "x"} {
		_, err := s.Unverified(ctx, bad)
		wantCode(t, err, errs.Denied, "code_invalid")
	}
	if err := s.ForgetUnverified(ctx, code); err != nil {
		t.Fatal(err)
	}
	_, err := s.Unverified(ctx, code)
	wantCode(t, err, errs.Denied, "code_invalid")
	code = keep()
	clock.move(store.VerificationLife)
	_, err = s.Unverified(ctx, code)
	wantCode(t, err, errs.Denied, "code_invalid")
}
