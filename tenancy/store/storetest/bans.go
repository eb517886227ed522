// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

func testBans(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	for _, id := range []string{"acme", "beta"} {
		must(s.EnsureTenant(t.Context(), id, store.EnsureOptions{}))(t)
	}
	list := func(tenant string) (values []string) {
		t.Helper()
		for cursor := ""; ; {
			page, next, err := s.Bans(t.Context(), tenant, cursor, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range page {
				values = append(values, x.Value)
			}
			if cursor = next; next == "" {
				return values
			}
		}
	}
	ban := func(tenant, kind, value string, ends time.Time) (*tenancy.Ban, bool) {
		t.Helper()
		x, made, err := s.Ban(t.Context(), tenant, tenancy.Ban{Kind: kind, Value: value, ExpiresAt: ends})
		if err != nil {
			t.Fatal(err)
		}
		return x, made
	}
	soon := clock.now().Add(time.Minute)
	first, made := ban("acme", "address", "10.0.0.1/8", soon)
	if !made || first.Value != "10.0.0.0/8" || first.ID != tenancy.BanID("address", "10.0.0.0/8") {
		t.Errorf("%+v", first)
	}
	again, made := ban("acme", "address", "10.9.9.9/8", soon.Add(time.Minute))
	if made || again.ID != first.ID || !again.ExpiresAt.Equal(soon.Add(time.Minute)) || !again.CreatedAt.Equal(first.CreatedAt) {
		t.Errorf("%+v", again)
	}
	for _, v := range []string{"c1", "c2", "c3"} {
		ban("acme", "client_id", v, time.Time{})
	}
	ban("beta", "client_id", "c1", time.Time{})
	if got := list("acme"); len(got) != 4 {
		t.Errorf("%v", got)
	}
	if _, _, err := s.Ban(t.Context(), "acme", tenancy.Ban{Kind: "client_id", Value: "x", ExpiresAt: clock.now()}); errs.CodeOf(err) != "ban_invalid" {
		t.Errorf("an end that is over: %v", err)
	}
	if _, err := s.Unban(t.Context(), "acme", first.ID, first.Revision); errs.CodeOf(err) != "revision_mismatch" {
		t.Errorf("%v", err)
	}
	if _, err := s.Unban(t.Context(), "beta", first.ID, 0); !errs.Is(err, errs.NotFound) {
		t.Errorf("another tenant's: %v", err)
	}
	for _, odd := range []string{"", "x", "../acme", "ban_*", ">"} {
		if _, err := s.BanByID(t.Context(), "acme", odd); !errs.Is(err, errs.NotFound) {
			t.Errorf("%q: %v", odd, err)
		}
	}
	must(s.Unban(t.Context(), "acme", tenancy.BanID("client_id", "c2"), 0))(t)
	// What is over is not shown, and is removed.
	clock.move(3 * time.Minute)
	if got := list("acme"); len(got) != 2 {
		t.Errorf("%v", got)
	}
	if n := must(s.ReapBans(t.Context()))(t); n != 1 {
		t.Errorf("%d were removed", n)
	}
	if got := list("beta"); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func testFlapped(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	must(s.EnsureTenant(t.Context(), "acme", store.EnsureOptions{}))(t)
	flap := tenancy.Flap{Tenant: "acme", ClientID: "c1"}
	if got := must(s.Flapped(t.Context(), flap))(t); got != nil {
		t.Errorf("a tenant without a rule bans: %+v", got)
	}
	must(s.UpdateTenant(t.Context(), "acme", 0, store.Flapping(&tenancy.Flapping{Connects: 5, Window: 10, Ban: 60})))(t)
	// Of several gateways that tell at once one makes a ban.
	for _, want := range []struct {
		level int
		holds time.Duration
	}{{1, time.Minute}, {2, 2 * time.Minute}, {3, 4 * time.Minute}} {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := s.Flapped(t.Context(), flap); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got := must(s.BanByID(t.Context(), "acme", tenancy.BanID("client_id", "c1")))(t)
		if !got.Automatic || got.Level != want.level || !got.ExpiresAt.Equal(clock.now().Add(want.holds)) || got.Reason != "more than 5 connects in 10 s" {
			t.Errorf("%+v, want %+v", got, want)
		}
		clock.move(want.holds + time.Second)
		if n := must(s.ReapBans(t.Context()))(t); n != 0 {
			t.Error("its level is forgotten too soon")
		}
	}
	clock.move(3 * tenancy.FlappingDecay)
	if n := must(s.ReapBans(t.Context()))(t); n != 1 {
		t.Errorf("%d were removed", n)
	}
	// A ban that somebody has made stays as it is.
	if _, _, err := s.Ban(t.Context(), "acme", tenancy.Ban{Kind: "client_id", Value: "c1", Reason: "mine"}); err != nil {
		t.Fatal(err)
	}
	if got := must(s.Flapped(t.Context(), flap))(t); got.Automatic || got.Reason != "mine" || !got.ExpiresAt.IsZero() {
		t.Errorf("%+v", got)
	}
	for _, bad := range []tenancy.Flap{{Tenant: "nobody", ClientID: "c"}, {Tenant: "acme"}} {
		if _, err := s.Flapped(t.Context(), bad); err == nil {
			t.Errorf("%+v is banned", bad)
		}
	}
}
