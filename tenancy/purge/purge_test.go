// SPDX-License-Identifier: Apache-2.0

package purge

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/domains"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/store"
)

// spy is a bus that remembers what buckets there are.
type spy struct {
	*mem.Bus
	mu    sync.Mutex
	names map[string]bool // guarded by mu
}

func (s *spy) Bucket(ctx context.Context, cfg bus.BucketConfig) (bus.Bucket, error) {
	s.mu.Lock()
	s.names[cfg.Name] = true
	s.mu.Unlock()
	return s.Bus.Bucket(ctx, cfg)
}

// region is brokers that have something of tenants.
type region struct {
	mu     sync.Mutex
	has    map[string]int64 // guarded by mu; sessions, by tenant
	why    error            // guarded by mu: they do not answer
	asked  int              // guarded by mu
	busy   int              // guarded by mu
	most   int              // guarded by mu; of busy
	before func()           // guarded by mu; runs at each question
}

func (r *region) Query(ctx context.Context, q link.Query) (*link.Answer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.Kind != link.QueryForget || q.Tenant == "" {
		return nil, errs.New(errs.Invalid, "what is %+v?", q)
	}
	if r.before != nil {
		r.before()
	}
	r.asked++
	r.busy++
	r.most = max(r.most, r.busy)
	r.mu.Unlock()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	r.mu.Lock()
	if r.busy--; ctx.Err() != nil {
		return nil, errs.New(errs.Unavailable, "the broker did not answer: %w", ctx.Err())
	}
	if r.why != nil {
		return nil, r.why
	}
	n := min(r.has[q.Tenant], 10)
	r.has[q.Tenant] -= n
	return &link.Answer{Found: n > 0, Usage: link.Usage{PersistentSessions: n, Retained: n}}, nil
}

// questions is how often brokers were asked, atOnce by how many at a time at most, and left what they
// have of a tenant.
func (r *region) questions() (n int) {
	r.set(func() { n = r.asked })
	return n
}

func (r *region) atOnce() (n int) {
	r.set(func() { n = r.most })
	return n
}

func (r *region) left(id string) (n int64) {
	r.set(func() { n = r.has[id] })
	return n
}

func (r *region) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// world is what tenants have, and processes that purge.
type world struct {
	*region
	t       *testing.T
	bus     *spy
	store   *store.Store
	audit   *audit.Log
	domains *domains.Service
	events  *events.Log
	org     string
	stops   []context.CancelFunc
	wg      sync.WaitGroup
	reg     *prometheus.Registry
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, bus: &spy{Bus: mem.New(), names: map[string]bool{}}, region: &region{has: map[string]int64{}}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	w.store, err = store.New(t.Context(), store.Config{Bus: w.bus, Log: telemetry.Discard(), Region: "test"})
	must(err)
	w.audit, err = audit.Open(t.Context(), audit.Config{Bus: w.bus, Log: telemetry.Discard(), Days: func(context.Context, string) (int64, error) { return 30, nil }})
	must(err)
	w.domains, err = domains.New(t.Context(), domains.Config{Store: w.store, Domain: "test", Log: telemetry.Discard()})
	must(err)
	w.events = events.NewLog(func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, w.bus) })
	up, err := w.store.SignUp(t.Context(), store.SignUp{
		Organization: "Acme", Email: "ops@acme.example", PasswordHash: "none", Tenant: "other", Plan: "dev", Username: "default", CredentialHash: "none",
	})
	must(err)
	w.org = up.Organization.ID
	t.Cleanup(func() {
		for _, stop := range w.stops {
			stop()
		}
		w.wg.Wait()
	})
	return w
}

// start starts a process.
func (w *world) start() (stop func()) {
	w.t.Helper()
	w.reg = prometheus.NewRegistry()
	s, err := New(w.t.Context(), Config{Store: w.store, Brokers: w.region, Domains: w.domains, Events: w.events, Audit: w.audit, Log: slog.New(slog.DiscardHandler), Registerer: w.reg})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stops = append(w.stops, cancel)
	w.wg.Go(func() { _ = s.Run(ctx) })
	return cancel
}

// furnish makes a tenant with something of every kind.
func (w *world) furnish(id string) {
	w.t.Helper()
	ctx := w.t.Context()
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	t, err := w.store.AddTenant(ctx, w.org, id, tenancy.PlanDev)
	must(err)
	for i := range 3 {
		_, err = w.store.CreateCredential(ctx, t, fmt.Sprint("user-", i), "none")
		must(err)
		_, _, err = w.store.PutDevice(ctx, t, tenancy.Device{Name: fmt.Sprint("press-", i), Groups: []string{"presses"}}, 0)
		must(err)
	}
	set, err := tenancy.NewGrantSet(0, tenancy.DefaultClass, nil)
	must(err)
	_, err = w.store.AddPolicy(ctx, t, store.Policy{Files: map[string]string{"p.rego": "package mqtt\n\ngrants := []"}}, []*tenancy.GrantSet{set})
	must(err)
	_, _, err = w.store.Ban(ctx, id, tenancy.Ban{Kind: tenancy.BanClientID, Value: "c1"})
	must(err)
	must(w.store.PutTokenKeys(ctx, &tenancy.KeySet{Tenant: id, URL: "https://issuer.example/jwks"}, bus.Absent))
	certificate, _, err := managedca.New("test", time.Now())
	must(err)
	_, err = w.store.AddManagedCA(ctx, id, certificate, []byte("sealed"))
	must(err)
	_, _, err = w.store.AddClaim(ctx, id, store.Claim{Username: "press-6", Days: 30, ExpiresAt: time.Now().Add(time.Hour)})
	must(err)
	_, err = w.store.StartOperation(ctx, id, "test", 1)
	must(err)
	must(w.store.PutCell(ctx, id, &store.Cell{Wanted: 4, Has: 1}))
	_, err = w.store.AddDomain(ctx, t, "mqtt."+id+".example", tenancy.CertificateUploaded)
	must(err)
	must(w.store.ClaimHost(ctx, id, "mqtt."+id+".example"))
	stream, err := events.Open(ctx, w.bus)
	must(err)
	for slot := range 8 {
		_, err = stream.Append(ctx, fmt.Sprintf("%s.%d", id, slot), []byte("{}"))
		must(err)
	}
	w.set(func() { w.has[id] = 25 })
}

// found are the keys and values of all buckets, and records of streams, that have a text in them,
// by bucket.
func (w *world) found(text string) map[string]int {
	w.t.Helper()
	found := map[string]int{}
	w.bus.mu.Lock()
	names := slices.Collect(maps.Keys(w.bus.names))
	w.bus.mu.Unlock()
	for _, name := range names {
		b, err := w.bus.Bus.Bucket(w.t.Context(), bus.BucketConfig{Name: name})
		if err != nil {
			w.t.Fatal(err)
		}
		all, _, err := bus.List(w.t.Context(), b, "", 1<<20)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range all {
			if strings.Contains(e.Key, text) || strings.Contains(string(e.Value), text) {
				found[name]++
			}
		}
	}
	stream, err := events.Open(w.t.Context(), w.bus)
	if err != nil {
		w.t.Fatal(err)
	}
	past, err := stream.Read(w.t.Context(), bus.Read{Filter: text + ".*", Most: 100})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(past) > 0 {
		found["events"] = len(past)
	}
	return found
}

func (w *world) change(id string, f func(*tenancy.TenantRecord) error) {
	w.t.Helper()
	if _, err := w.store.UpdateTenant(w.t.Context(), id, 0, f); err != nil {
		w.t.Fatal(err)
	}
}

// remove deletes a tenant with that grace.
func (w *world) remove(id string, grace time.Duration) {
	w.t.Helper()
	w.change(id, func(r *tenancy.TenantRecord) error { return r.Delete(time.Now(), grace) })
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// A deleted tenant has all that it had until its grace is over, and nothing a moment later, but
// for what the documentation says is kept. Others have theirs.
func TestPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		w.furnish("doomed")
		w.furnish("spared")
		spared := w.found("spared")
		w.remove("doomed", 24*time.Hour)
		before := w.found("doomed")
		after(24*time.Hour - time.Minute)
		before["claims"]-- // whose time is over
		if got := w.found("doomed"); w.questions() != 0 || got["credentials"] != 3 || got["devices"] != 3 || got["tenants"] != 1 || got["events"] != 8 {
			t.Errorf("before its time it has %v, and had %v; brokers were asked %d times", got, before, w.questions())
		}
		after(2 * time.Minute)
		if got := w.found("doomed"); len(got) != 2 || got["purged_tenants"] != 1 || got["audit"] != 1 {
			t.Errorf("it still has %v", got)
		}
		if w.left("doomed") != 0 || w.left("spared") != 25 {
			t.Errorf("brokers have %v", w.has)
		}
		delete(spared, "claims")
		got := w.found("spared")
		delete(got, "claims")
		if !maps.Equal(got, spared) {
			t.Errorf("spared has %v, and had %v", got, spared)
		}
		p, err := w.store.Purged(t.Context(), "doomed")
		want := map[string]int64{
			"sessions": 25, "retained_messages": 25, "credentials": 3, "devices": 3, "device_groups": 3, "policies": 2, "grants": 1, "bans": 1, "token_keys": 1,
			"managed_cas": 1, "operations": 1, "cells": 1, "domains": 1,
		}
		if err == nil {
			delete(p.Removed, "claims")
		}
		if err != nil || !maps.Equal(p.Removed, want) || p.DoneAt.IsZero() || p.Organization != w.org {
			t.Errorf("written down is %+v, %v; expected %v", p, err, want)
		}
		o, err := w.store.Organization(t.Context(), w.org)
		if err != nil || slices.Contains(o.Tenants, "doomed") {
			t.Errorf("its organization is %+v, %v", o, err)
		}
		records, _, err := w.audit.List(t.Context(), w.org, audit.Query{}, 10)
		if err != nil || len(records) != 1 || records[0].Operation != "purge-tenant-data" || records[0].Outcome != audit.Done || !strings.Contains(string(records[0].After), `"sessions":25`) {
			t.Errorf("the audit log has %+v, %v", records, err)
		}
		// The id is its organization's for ever.
		if err := w.store.CheckTenantFree(t.Context(), "doomed"); errs.CodeOf(err) != "tenant_taken" {
			t.Errorf("anybody may have the id: %v", err)
		}
		if _, err := w.store.SignUp(t.Context(), store.SignUp{Organization: "Thief", Email: "a@b.example", Tenant: "doomed", Plan: "dev", Username: "default", CredentialHash: "none"}); errs.CodeOf(err) != "tenant_taken" {
			t.Errorf("somebody has signed up with the id: %v", err)
		}
		if _, err := w.store.AddTenant(t.Context(), w.org, "doomed", tenancy.PlanDev); err != nil {
			t.Errorf("its organization may not have it again: %v", err)
		}
	})
}

// A tenant that is restored in time has everything; purged at once it is gone in the time that
// requests may take.
func TestPurge_Restored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		w.furnish("doomed")
		before := w.found("doomed")
		w.remove("doomed", time.Minute)
		after(59 * time.Second)
		w.change("doomed", func(r *tenancy.TenantRecord) error { return r.Restore(time.Now()) })
		after(30 * time.Minute)
		if got := w.found("doomed"); w.questions() != 0 || !maps.Equal(got, before) {
			t.Errorf("restored it has %v, and had %v", got, before)
		}
		w.remove("doomed", 24*time.Hour)
		w.change("doomed", func(r *tenancy.TenantRecord) error { return r.Purge(time.Now()) })
		after(DefaultSettle - time.Second)
		if w.questions() != 0 {
			t.Error("it is purged while requests may go on that found it active")
		}
		after(10 * time.Second)
		if _, err := w.store.Tenant(t.Context(), "doomed"); !errs.Is(err, errs.NotFound) {
			t.Errorf("it is not purged: %v", err)
		}
	})
}

// Brokers that do not answer are asked again, less and less often, and nothing of the store goes
// before they have forgotten the tenant. There is no way back by then.
func TestPurge_Again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		w.furnish("doomed")
		before := w.found("doomed")
		w.set(func() { w.why = errs.New(errs.Invalid, "b1 is down") })
		w.remove("doomed", time.Minute)
		after(20 * time.Minute)
		if got := w.found("doomed"); got["credentials"] != before["credentials"] || w.questions() < 5 || w.questions() > 12 {
			t.Errorf("brokers were asked %d times; it has %v", w.questions(), got)
		}
		r, err := w.store.Tenant(t.Context(), "doomed")
		if err != nil || errs.CodeOf(r.Restore(time.Now())) != "tenant_purging" {
			t.Errorf("it can be restored: %+v, %v", r, err)
		}
		w.set(func() { w.why = nil })
		after(longest + time.Minute)
		if got := w.found("doomed"); len(got) != 2 {
			t.Errorf("it still has %v", got)
		}
	})
}

// Of several processes one purges a tenant at a time, and where one ends in the middle of it
// another goes on, and counts what both have removed.
func TestPurge_Processes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var stops []func()
		for range 3 {
			stops = append(stops, w.start())
		}
		w.furnish("doomed")
		w.remove("doomed", time.Minute)
		after(time.Minute + 2500*time.Millisecond) // two portions of three
		for _, stop := range stops {
			stop()
		}
		after(time.Second)
		if w.left("doomed") == 0 || w.left("doomed") == 25 {
			t.Fatalf("the process ended when %d sessions were left", w.left("doomed"))
		}
		w.start()
		after(2 * time.Minute)
		if got := w.found("doomed"); len(got) != 2 || w.atOnce() != 1 {
			t.Errorf("it still has %v; %d processes purged it at once", got, w.atOnce())
		}
		if p, err := w.store.Purged(t.Context(), "doomed"); err != nil || p.Removed["sessions"] != 25 || p.Removed["credentials"] != 3 {
			t.Errorf("written down is %+v, %v", p, err)
		}
	})
}

// What an import makes of a tenant that is purged is removed when it is looked for next.
func TestPurge_Late(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		w.furnish("doomed")
		r, err := w.store.Tenant(t.Context(), "doomed")
		if err != nil {
			t.Fatal(err)
		}
		w.remove("doomed", time.Minute)
		after(2 * time.Minute)
		if _, err := w.store.CreateCredential(t.Context(), r, "late", "none"); err != nil {
			t.Fatal(err)
		}
		after(lookAgain)
		if got := w.found("doomed"); len(got) != 2 {
			t.Errorf("it still has %v", got)
		}
	})
}
