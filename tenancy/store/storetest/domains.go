// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// testDomains holds that of those who claim a name one gets it, once it is verified.
func testDomains(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	ctx := t.Context()
	const fqdn = "mqtt.acme.example"
	tenants := []string{"domain-a", "domain-b", "domain-c"}
	for _, id := range tenants {
		r, err := s.EnsureTenant(ctx, id, store.EnsureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.AddDomain(ctx, r, fqdn, tenancy.CertificateACME)
		if err != nil || d.State != tenancy.DomainPending || d.Revision == 0 || len(d.Token) < 20 || d.Owned() {
			t.Fatalf("%+v %v", d, err)
		}
		if _, err := s.AddDomain(ctx, r, fqdn, tenancy.CertificateACME); errs.CodeOf(err) != "domain_exists" {
			t.Errorf("twice: %v", err)
		}
	}
	var won atomic.Pointer[string]
	var wg sync.WaitGroup
	for _, id := range tenants {
		wg.Go(func() {
			switch err := s.ClaimHost(ctx, id, fqdn); {
			case err == nil:
				if !won.CompareAndSwap(nil, &id) {
					t.Error("two tenants have the name")
				}
			case errs.CodeOf(err) != "domain_taken":
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	wg.Wait()
	owner := *won.Load()
	if err := s.ClaimHost(ctx, owner, fqdn); err != nil {
		t.Errorf("again: %v", err)
	}
	if h, err := s.Host(ctx, fqdn); err != nil || h.Tenant != owner || h.Certificates != "" {
		t.Errorf("%+v %v", h, err)
	}
	late, err := s.EnsureTenant(ctx, "domain-d", store.EnsureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddDomain(ctx, late, fqdn, tenancy.CertificateACME); err != nil {
		t.Errorf("a claim to a name that another tenant has: %v", err)
	}
	if err := s.ClaimHost(ctx, late.ID, fqdn); errs.CodeOf(err) != "domain_taken" {
		t.Errorf("a name that another tenant has: %v", err)
	}
	if _, err := s.RemoveDomain(ctx, late.ID, fqdn, 0); err != nil {
		t.Error(err)
	}
	for _, id := range tenants {
		err := s.ChangeHost(ctx, id, fqdn, func(h *tenancy.Host) { h.Certificates = id })
		if (err == nil) != (id == owner) || err != nil && !errs.Is(err, errs.NotFound) {
			t.Errorf("%s changes what %s has: %v", id, owner, err)
		}
		if id == owner {
			continue
		}
		if _, err := s.RemoveDomain(ctx, id, fqdn, 0); err != nil { // which is not the other's
			t.Error(err)
		}
	}
	if h, err := s.Host(ctx, fqdn); err != nil || h.Certificates != owner {
		t.Errorf("%+v %v", h, err)
	}
	d, err := s.Domain(ctx, owner, fqdn)
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if _, _, err := s.ChangeDomain(ctx, owner, fqdn, 0, func(*tenancy.Domain) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a change that ends: %v", err)
	}
	if _, _, err := s.ChangeDomain(ctx, owner, fqdn, d.Revision+1, func(*tenancy.Domain) error { return nil }); errs.CodeOf(err) != "revision_mismatch" {
		t.Errorf("at another revision: %v", err)
	}
	was, now, err := s.ChangeDomain(ctx, owner, fqdn, d.Revision, func(d *tenancy.Domain) error {
		d.State = tenancy.DomainVerified
		return nil
	})
	if err != nil || was.State != tenancy.DomainPending || now.State != tenancy.DomainVerified || now.Revision <= was.Revision {
		t.Errorf("%+v %+v %v", was, now, err)
	}
	if _, err := s.RemoveDomain(ctx, owner, fqdn, d.Revision); errs.CodeOf(err) != "revision_mismatch" {
		t.Errorf("removed at another revision: %v", err)
	}
	if _, err := s.RemoveDomain(ctx, owner, fqdn, now.Revision); err != nil {
		t.Error(err)
	}
	if _, err := s.Host(ctx, fqdn); !errs.Is(err, errs.NotFound) {
		t.Errorf("a name that was released: %v", err)
	}
	if err := s.ClaimHost(ctx, "domain-d", fqdn); err != nil {
		t.Errorf("released: %v", err)
	}
	testOrphan(t, s, clock)
	testDomainPages(t, s, late)
}

// testOrphan holds that a host is free whose tenant has no verified domain of that name,
// as a process leaves it that ends between the two records.
func testOrphan(t *testing.T, s *store.Store, clock *clock) {
	ctx := t.Context()
	const fqdn = "orphan.example"
	claim := func(tenant, code string) {
		t.Helper()
		if err := s.ClaimHost(ctx, tenant, fqdn); errs.CodeOf(err) != code || (err == nil) != (code == "") {
			t.Errorf("%s: %v, want %q", tenant, err, code)
		}
	}
	claim("domain-a", "")
	claim("domain-b", "domain_taken") // domain-a may be on its way
	clock.move(2 * time.Minute)
	claim("domain-b", "")
	r, err := s.EnsureTenant(ctx, "domain-b", store.EnsureOptions{})
	if err == nil {
		_, err = s.AddDomain(ctx, r, fqdn, tenancy.CertificateACME)
	}
	if err != nil {
		t.Fatal(err)
	}
	clock.move(2 * time.Minute)
	claim("domain-a", "") // of two that have not verified it
	claim("domain-b", "domain_taken")
	clock.move(2 * time.Minute)
	claim("domain-b", "")
	if _, _, err := s.ChangeDomain(ctx, "domain-b", fqdn, 0, func(d *tenancy.Domain) error {
		d.State = tenancy.DomainVerified
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	clock.move(2 * time.Minute)
	claim("domain-a", "domain_taken")
}

// testDomainPages holds pages, and the quota.
func testDomainPages(t *testing.T, s *store.Store, late *tenancy.TenantRecord) {
	ctx := t.Context()
	late, err := s.SetOverrides(ctx, late.ID, 0, map[string]int64{"domains": 3})
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq("c.example a.example b.example d.example") {
		_, err := s.AddDomain(ctx, late, name, tenancy.CertificateUploaded)
		var e *tenancy.ExceededError
		if over := name == "d.example"; over != errors.As(err, &e) || over && (e.Quota != "domains" || e.Limit != 3 || e.Usage != 3) || !over && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var all []string
	cursor := ""
	for {
		page, next, err := s.Domains(ctx, late.ID, cursor, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page {
			all = append(all, d.FQDN)
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	if got := strings.Join(all, " "); got != "a.example b.example c.example" {
		t.Errorf("listed: %s", got)
	}
	if n, err := s.CountDomains(ctx, late.ID); n != 3 || err != nil {
		t.Errorf("counted: %d %v", n, err)
	}
}
