// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// A name with an uploaded certificate, or without any yet, is looked at too: nobody holds
// one for ever whose record is gone.
func TestRun_UploadedIsLookedAt(t *testing.T) {
	for _, c := range []struct {
		name    string
		uploads time.Duration
	}{{"nothing", 0}, {"a certificate of centuries", 200 * 365 * day}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				w.make(tenancy.CertificateUploaded)
				want := tenancy.DomainVerified
				if c.uploads > 0 {
					want = tenancy.DomainActive
					chain, key := w.ca.ca.Server(2, time.Now().Add(c.uploads), fqdn)
					if _, _, err := w.all[0].Upload(t.Context(), "acme", fqdn, 0, []byte(chain), []byte(key)); err != nil {
						t.Fatal(err)
					}
				}
				if d := w.after(35 * day); d.State != want || d.LastError != "" || time.Since(d.VerifiedAt) > 31*day {
					t.Errorf("the record is there: %+v", d)
				}
				w.dns(errs.New(errs.Unavailable, "the DNS did not answer"))
				if d := w.after(35 * day); !d.Owned() || !d.AbsentSince.IsZero() || d.LastError == "" || d.State != want && c.uploads > 0 {
					t.Errorf("without the DNS: %+v", d)
				}
				w.dns(nil)
				if d := w.after(day); d.State != want || d.LastError != "" || d.Failures != 0 {
					t.Errorf("with it: %+v", d)
				}
				if c.uploads > 0 {
					w.dns(errGone)
					if d := w.after(40 * day); d.State != tenancy.DomainFailed || w.serial() != "2" || d.AbsentSince.IsZero() {
						t.Errorf("absent for 10 days: %+v", d)
					}
					w.dns(nil)
					if d := w.after(day); d.State != tenancy.DomainActive || !d.AbsentSince.IsZero() || d.LastError != "" {
						t.Errorf("there again: %+v", d)
					}
				}
				w.dns(errGone)
				if d := w.after(46 * day); d.Owned() || w.serial() != "" || !d.NextRenewal.IsZero() {
					t.Errorf("absent for longer: %+v", d)
				}
			})
		})
	}
}

// A claimant whose record is there has a name whose holder's has been absent for a day.
func TestVerify_TakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.make(tenancy.CertificateACME)
		w.after(2 * time.Minute)
		w.put(w.tenant("beta"), fqdn, tenancy.CertificateACME)
		verify := func(code, says string) {
			t.Helper()
			time.Sleep(time.Minute)
			_, _, err := w.all[0].Verify(t.Context(), "beta", fqdn, 0)
			if errs.CodeOf(err) != code || err != nil && !strings.Contains(err.Error(), says) {
				t.Errorf("%v, want %q with %q", err, code, says)
			}
		}
		verify("domain_taken", "")
		w.dns(errGone)
		verify("domain_taken", "verify again then")
		w.dns(nil)
		verify("domain_taken", "") // there again, so it begins anew
		if d := w.after(25 * time.Hour); d.State != tenancy.DomainActive || !d.AbsentSince.IsZero() || w.serial() != "2" {
			t.Errorf("while it is there: %+v", d)
		}
		w.dns(errGone)
		verify("domain_taken", "verify again then")
		if d := w.after(23 * time.Hour); d.State != tenancy.DomainFailed || w.serial() != "2" {
			t.Errorf("before a day is over: %+v", d)
		}
		verify("domain_taken", "verify again then")
		w.after(time.Hour)
		verify("", "")
		if d := w.after(time.Minute); d.Owned() || d.LastError == "" {
			t.Errorf("who had it: %+v", d)
		}
		d, err := w.store.Domain(t.Context(), "beta", fqdn)
		if err != nil || d.State != tenancy.DomainActive || w.serial() != "3" {
			t.Errorf("who has it: %+v %v, serial %s", d, err, w.serial())
		}
	})
}

// A request that is given up does not leave a host without its domain.
func TestVerify_GivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		w.put(w.tenant("acme"), fqdn, tenancy.CertificateUploaded)
		w.all[0].owns = func(context.Context, string, *tenancy.Domain) error {
			cancel()
			return nil
		}
		if _, now, err := w.all[0].Verify(ctx, "acme", fqdn, 0); err != nil || now.State != tenancy.DomainVerified {
			t.Errorf("%+v %v", now, err)
		}
	})
}

// What was wrong with the record is forgotten when it is there; what the CA said is not.
func TestVerify_LastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.make(tenancy.CertificateACME)
		verify := func() *tenancy.Domain {
			time.Sleep(time.Minute)
			_, _, _ = w.all[0].Verify(t.Context(), "acme", fqdn, 0)
			return w.after(0)
		}
		w.dns(errGone)
		if d := verify(); d.LastError == "" || d.AbsentSince.IsZero() || d.State != tenancy.DomainActive {
			t.Errorf("%+v", d)
		}
		w.dns(nil)
		if d := verify(); d.LastError != "" || !d.AbsentSince.IsZero() || d.State != tenancy.DomainActive {
			t.Errorf("%+v", d)
		}
		w.ca.refuse(errs.New(errs.Denied, "the CA has refused (caa)"))
		w.after(61 * day)
		if d := verify(); !strings.Contains(d.LastError, "caa") || d.State != tenancy.DomainFailed {
			t.Errorf("%+v", d)
		}
	})
}

// A host that its domain lost is the tenant's again, if nobody else has it.
func TestRun_HostIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.make(tenancy.CertificateACME)
		w.after(time.Minute)
		if err := w.store.ReleaseHost(t.Context(), "acme", fqdn); err != nil {
			t.Fatal(err)
		}
		if d := w.after(61 * day); d.State != tenancy.DomainActive || w.serial() == "" {
			t.Errorf("%+v, serial %q", d, w.serial())
		}
		err := w.store.ReleaseHost(t.Context(), "acme", fqdn)
		if err == nil {
			err = w.claim("beta", fqdn, tenancy.CertificateUploaded)
		}
		if err != nil {
			t.Fatal(err)
		}
		if d := w.after(61 * day); d.Owned() {
			t.Errorf("another tenant has it: %+v", d)
		}
	})
}

// What is kept for a name goes with it, now or at the next sweep; that of another tenant
// stays.
func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.make(tenancy.CertificateACME)
		w.after(time.Minute)
		w.put(w.tenant("beta"), fqdn, tenancy.CertificateACME)
		if _, err := w.all[0].Delete(t.Context(), "beta", fqdn, 0); err != nil || w.ca.forgets != 0 {
			t.Errorf("a claim took what another tenant has: %v", err)
		}
		w.ca.mu.Lock()
		w.ca.keeps = errs.New(errs.Unavailable, "the bus is away")
		w.ca.mu.Unlock()
		if _, err := w.all[0].Delete(t.Context(), "acme", fqdn, 0); err != nil || w.ca.forgets != 1 {
			t.Errorf("%v, %d tries", err, w.ca.forgets)
		}
		w.ca.mu.Lock()
		w.ca.keeps = nil
		w.ca.mu.Unlock()
		time.Sleep(2 * sweepEvery)
		synctest.Wait()
		if names, err := w.ca.Names(t.Context()); err != nil || len(names) != 0 {
			t.Errorf("still kept: %v %v", names, err)
		}
	})
}

// A name that is released leaves nothing; one that was verified meanwhile stays.
func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.make(tenancy.CertificateACME)
		d := w.after(time.Minute)
		was := *d
		if err := w.all[0].release(t.Context(), &was, errGone); err != nil || w.ca.forgets != 1 {
			t.Errorf("%v, %d forgotten", err, w.ca.forgets)
		}
		if d = w.after(0); d.Owned() {
			t.Errorf("released: %+v", d)
		}
		if _, _, err := w.all[0].Verify(t.Context(), "acme", fqdn, 0); err != nil {
			t.Fatal(err)
		}
		d = w.after(time.Minute)
		was = *d
		if _, _, err := w.all[0].Verify(t.Context(), "acme", fqdn, 0); err != nil {
			t.Fatal(err)
		}
		if err := w.all[0].release(t.Context(), &was, errGone); err != nil {
			t.Fatal(err)
		}
		if d = w.after(time.Minute); d.State != tenancy.DomainActive || w.serial() == "" {
			t.Errorf("verified meanwhile: %+v, serial %q", d, w.serial())
		}
	})
}
