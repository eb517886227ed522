// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// Of a request whose process dies nothing is left in the way of the same request.
func testGivenUp(t *testing.T, b bus.Bus, s *store.Store, clock *clock) {
	ctx := t.Context()
	begin := func(key string) *store.Once {
		t.Helper()
		o, _, err := s.Begin(ctx, "me", key, []byte("request"))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	tenant := must(s.EnsureTenant(ctx, "given-up", store.EnsureOptions{}))(t)
	first := begin("dies")
	made := must(s.CreateCredential(first.Context(ctx), tenant, "dev", "$sha256$one"))(t)
	clock.move(14 * time.Second)
	_, _, err := s.Begin(ctx, "me", "dies", []byte("request"))
	wantCode(t, err, errs.Conflict, "idempotency_in_progress")
	clock.move(2 * time.Second)
	_, _, err = s.Begin(ctx, "me", "dies", []byte("something else"))
	wantCode(t, err, errs.Conflict, "idempotency_key_reused")
	again := begin("dies")
	_, err = s.CreateCredential(begin("other").Context(ctx), tenant, "dev", "$sha256$two")
	wantCode(t, err, errs.Conflict, "username_taken")
	_, err = s.CreateCredential(ctx, tenant, "dev", "$sha256$two")
	wantCode(t, err, errs.Conflict, "username_taken")
	remade := must(s.CreateCredential(again.Context(ctx), tenant, "dev", "$sha256$three"))(t)
	if remade.ID != made.ID || remade.Hash != "$sha256$three" || remade.Generation != 2 {
		t.Errorf("made again: %+v, after %+v", remade, made)
	}
	if n := must(s.CountCredentials(ctx, tenant.ID))(t); n != 1 {
		t.Errorf("%d credentials are counted, there is 1", n)
	}
	half := begin("signs-up")
	out := must(s.SignUp(half.Context(ctx), signUp("half")))(t)
	reserve(t, b, tenancy.TenantRecord{ID: "half", Organization: out.Organization.ID, APIKey: out.APIKey.ID, Plan: "dev", CreatedAt: clock.now(), Request: out.Credential.Request})
	wantCode(t, s.CheckTenantFree(ctx, "half"), errs.Conflict, "tenant_taken")
	wantCode(t, s.CheckTenantFree(half.Context(ctx), "half"), errs.Conflict, "tenant_taken")
	clock.move(16 * time.Second)
	half = begin("signs-up") // again
	_, err = s.SignUp(ctx, signUp("half"))
	wantCode(t, err, errs.Conflict, "tenant_taken")
	if err := s.CheckTenantFree(half.Context(ctx), "half"); err != nil {
		t.Error(err)
	}
	must(s.SignUp(half.Context(ctx), signUp("half")))(t)
	if err := first.Answer(ctx, store.Reply{Status: 201}); !errs.Is(err, errs.Conflict) {
		t.Errorf("the one that was given up answers: %v", err)
	}
	if err := again.Answer(ctx, store.Reply{Status: 201}); err != nil {
		t.Error(err)
	}
	// One that fails behind what it has made is made again at once, and not as another one.
	fails := begin("fails")
	must(s.CreateCredential(fails.Context(ctx), tenant, "late", "$sha256$one"))(t)
	if err := fails.GiveUp(ctx); err != nil {
		t.Fatal(err)
	}
	must(s.CreateCredential(begin("fails").Context(ctx), tenant, "late", "$sha256$two"))(t)
	// A day later the key is new, and the credential that it has made somebody's.
	clock.move(25 * time.Hour)
	replies := must(b.Bucket(ctx, bus.BucketConfig{Name: "replies"}))(t)
	for _, key := range must(replies.Keys(ctx, ""))(t) {
		if err := replies.Delete(ctx, key, bus.Any); err != nil { // as their time is over
			t.Fatal(err)
		}
	}
	_, err = s.CreateCredential(begin("dies").Context(ctx), tenant, "dev", "$sha256$four")
	wantCode(t, err, errs.Conflict, "username_taken")
}

func testOnce(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	ctx := t.Context()
	o, reply, err := s.Begin(ctx, "me", "k1", []byte("request"))
	if err != nil || reply != nil || o == nil {
		t.Fatalf("first: %v %v", reply, err)
	}
	_, _, err = s.Begin(ctx, "me", "k1", []byte("request"))
	wantCode(t, err, errs.Conflict, "idempotency_in_progress")
	want := store.Reply{Status: 201, ContentType: "application/json", Body: []byte(`{"password":"shown once"}`)}
	if err := o.Answer(ctx, want); err != nil {
		t.Fatal(err)
	}
	_, reply, err = s.Begin(ctx, "me", "k1", []byte("request"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&want, reply); d != "" {
		t.Error(d)
	}
	_, _, err = s.Begin(ctx, "me", "k1", []byte("other"))
	wantCode(t, err, errs.Conflict, "idempotency_key_reused")
	if o, reply, err := s.Begin(ctx, "you", "k1", []byte("request")); err != nil || reply != nil || o == nil {
		t.Errorf("another caller: %v %v", reply, err)
	}
	replies := must(b.Bucket(ctx, bus.BucketConfig{Name: "replies", TTL: 24 * time.Hour}))(t)
	for _, key := range must(replies.Keys(ctx, ""))(t) {
		if e := must(replies.Get(ctx, key))(t); strings.Contains(string(e.Value), "shown once") {
			t.Error("an answer is stored in plain text")
		}
	}
	// A request that failed may be made again; so may one that was forgotten.
	o, _, err = s.Begin(ctx, "me", "k2", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Forget(context.WithoutCancel(ctx)); err != nil {
		t.Fatal(err)
	}
	must2(s.Begin(ctx, "me", "k2", nil))(t)
	clock.move(6 * time.Minute)
	must2(s.Begin(ctx, "me", "k2", nil))(t)
	t.Run("given up", func(t *testing.T) { testGivenUp(t, b, s, clock) })
}
