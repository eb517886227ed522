// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"testing"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

func testPolicies(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	ctx := t.Context()
	acme := must(s.EnsureTenant(ctx, "acme", store.EnsureOptions{}))(t)
	must(s.EnsureTenant(ctx, "beta", store.EnsureOptions{}))(t)
	set := must(tenancy.NewGrantSet(0, "default", []tenancy.GrantEntry{{Action: tenancy.ActionAll, Filter: "a/%c", At: "p.rego:3"}}))(t)
	add := func(r *tenancy.TenantRecord) *store.Policy {
		t.Helper()
		return must(s.AddPolicy(ctx, r, store.Policy{Files: map[string]string{"p.rego": "x"}, CreatedBy: "key_1"}, []*tenancy.GrantSet{set}))(t)
	}
	one := add(acme)
	if one.Revision != 1 || one.Grants != 1 || one.CreatedAt.IsZero() || len(one.Classes) != 1 {
		t.Errorf("made %+v", one)
	}
	// Two at the same time are two revisions, of which none holds.
	if two := add(acme); two.Revision != 2 {
		t.Errorf("made %+v", two)
	}
	if r := must(s.Tenant(ctx, "acme"))(t); r.Policy != nil {
		t.Errorf("the record names %+v", r.Policy)
	}
	if g := must(s.Grants(ctx, "acme", 1, "default"))(t); g.Entries[0].At != "p.rego:3" || g.Revision != tenancy.GrantRevision(1) {
		t.Errorf("grants %+v", g)
	}
	for _, err := range []error{
		func() error { _, err := s.Grants(ctx, "acme", 1, "other"); return err }(),
		func() error { _, err := s.Grants(ctx, "beta", 1, "default"); return err }(),
		func() error { _, err := s.Policy(ctx, "beta", 1); return err }(),
		func() error { _, err := s.Policy(ctx, "acme", 9); return err }(),
	} {
		if !errs.Is(err, errs.NotFound) {
			t.Errorf("%v, want NotFound", err)
		}
	}
	_, now, err := s.ChangeTenant(ctx, "acme", 0, store.LivePolicy(one, tenancy.OnRevokeDisconnect))
	if err != nil || now.Policy.Live() != 1 || now.Policy.OnRevoke != tenancy.OnRevokeDisconnect || now.Policy.Newest != 1 {
		t.Fatalf("live: %+v, %v", now.Policy, err)
	}
	three := add(now)
	if three.Revision != 3 {
		t.Errorf("made %d, want 3", three.Revision)
	}
	_, now, err = s.ChangeTenant(ctx, "acme", 0, store.ShadowPolicy(3))
	if err != nil || now.Policy.Live() != 1 || now.Policy.Shadow != 3 || now.Policy.Newest != 3 {
		t.Fatalf("shadow: %+v, %v", now.Policy, err)
	}
	_, now, err = s.ChangeTenant(ctx, "acme", 0, store.LivePolicy(three, ""))
	if err != nil || now.Policy.Live() != 3 || now.Policy.Shadow != 0 || now.Policy.OnRevoke != tenancy.OnRevokeDisconnect {
		t.Fatalf("live: %+v, %v", now.Policy, err)
	}
	_, now, err = s.ChangeTenant(ctx, "acme", 0, store.NoPolicy)
	if err != nil || now.Policy.Live() != 0 || now.Policy.Newest != 3 || now.Policy.Grant() != tenancy.DefaultGrant().Revision {
		t.Fatalf("none: %+v, %v", now.Policy, err)
	}
	// The old ones go, but for that which holds.
	_, now, err = s.ChangeTenant(ctx, "acme", 0, store.LivePolicy(one, ""))
	if err != nil {
		t.Fatal(err)
	}
	for range 52 {
		now.Policy.Newest = add(now).Revision
	}
	if err := s.PrunePolicies(ctx, now); err != nil {
		t.Fatal(err)
	}
	all := must(s.Policies(ctx, "acme"))(t)
	if len(all) != 51 || all[0].Revision != 55 || all[50].Revision != 1 || all[0].Files != nil {
		t.Errorf("%d are kept, from %d to %d", len(all), all[0].Revision, all[len(all)-1].Revision)
	}
	if _, err := s.Grants(ctx, "acme", 2, "default"); !errs.Is(err, errs.NotFound) {
		t.Errorf("grants of a revision that has gone: %v", err)
	}
	must(s.Grants(ctx, "acme", 1, "default"))(t)
	if all := must(s.Policies(ctx, "beta"))(t); len(all) != 0 {
		t.Errorf("beta has %d", len(all))
	}
}
