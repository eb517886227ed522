// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// A certificate is renewed when two thirds of its life are over; while the CA refuses,
// the one that there is goes on, and the CA is asked less and less often.
func TestRun_Renews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.make(tenancy.CertificateACME)
		d := w.after(0)
		if d.State != tenancy.DomainActive || d.Issuer != "CN=test" || w.serial() != "2" || len(w.ca.times()) != 1 {
			t.Fatalf("issued: %+v, serial %s", d, w.serial())
		}
		if left := time.Until(d.NextRenewal); left < 59*day || left > 61*day {
			t.Errorf("renewed in %v", left)
		}
		if d = w.after(59 * day); w.serial() != "2" {
			t.Errorf("too soon: %+v", d)
		}
		if d = w.after(2 * day); d.State != tenancy.DomainActive || w.serial() != "3" || time.Since(d.VerifiedAt) > 2*day {
			t.Errorf("renewed: %+v, serial %s", d, w.serial())
		}
		w.ca.refuse(errs.New(errs.Denied, "the CA has refused (rateLimited): too many certificates"))
		d = w.after(61 * day)
		if d.State != tenancy.DomainFailed || !strings.Contains(d.LastError, "too many certificates") || d.Failures < 4 || w.serial() != "3" {
			t.Errorf("refused: %+v, serial %s", d, w.serial())
		}
		asked := w.ca.times()[2:]
		for n := range min(len(asked)-1, len(backoff)) {
			if got := asked[n+1].Sub(asked[n]); got < backoff[n] || got > backoff[n]+time.Minute {
				t.Errorf("after failure %d it is tried again in %v, want %v", n+1, got, backoff[n])
			}
		}
		w.ca.refuse(nil)
		if d = w.after(12 * time.Hour); d.State != tenancy.DomainActive || d.Failures != 0 || d.LastError != "" || w.serial() == "3" {
			t.Errorf("again: %+v, serial %s", d, w.serial())
		}
		if n := w.metric("manor_domain_certificates_total", "issued,acme"); n != 3 {
			t.Errorf("%v are counted as issued", n)
		}
		if n := w.metric("manor_domain_certificate_expiry_timestamp_seconds", ""); n != float64(d.NotAfter.Unix()) {
			t.Errorf("the first end is %v, want %v", n, d.NotAfter.Unix())
		}
		if w.metric("manor_domains", "active") != 1 || w.metric("manor_domains", "failed") != 0 {
			t.Error("the domain is not counted as active")
		}
		if _, err := w.all[0].Delete(t.Context(), "acme", fqdn, 0); err != nil || w.serial() != "" || w.ca.forgets != 1 {
			t.Errorf("deleted: %v", err)
		}
	})
}

// Of several processes one asks the CA.
func TestRun_OneOfSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.ca.takes = 20 * time.Second // longer than a lock may stand still
		w.make(tenancy.CertificateACME)
		if d := w.after(time.Minute); d.State != tenancy.DomainActive || len(w.ca.times()) != 1 {
			t.Errorf("%s; the CA was asked %d times", d.State, len(w.ca.times()))
		}
		if w.after(61 * day); len(w.ca.times()) != 2 {
			t.Errorf("the CA was asked %d times for the renewal", len(w.ca.times())-1)
		}
	})
}

// A domain that is its tenant's no longer is not renewed; it is free when its certificate
// has ended.
func TestRun_Lost(t *testing.T) {
	for _, source := range []string{tenancy.CertificateACME, tenancy.CertificateUploaded} {
		t.Run(source, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				w.make(source)
				if source == tenancy.CertificateUploaded {
					chain, key := w.ca.ca.Server(2, time.Now().Add(90*day), fqdn)
					if _, _, err := w.all[0].Upload(t.Context(), "acme", fqdn, 0, []byte(chain), []byte(key)); err != nil {
						t.Fatal(err)
					}
				}
				w.after(time.Minute)
				w.dns(errs.New(errs.Unavailable, "the DNS did not answer"))
				d := w.after(91 * day) // which does not mean that it is lost
				if d.State != tenancy.DomainFailed || w.serial() != "2" {
					t.Errorf("without the DNS: %+v, serial %s", d, w.serial())
				}
				w.dns(nil)
				if d = w.after(13 * time.Hour); (d.State == tenancy.DomainActive) != (source == tenancy.CertificateACME) || w.serial() == "" {
					t.Errorf("with the DNS: %+v, serial %s", d, w.serial())
				}
				w.dns(errGone)
				d = w.after(61 * day)
				if source == tenancy.CertificateACME {
					if d.State != tenancy.DomainFailed || w.serial() != "3" || len(w.ca.times()) != 2 {
						t.Errorf("the record is gone: %+v, serial %s", d, w.serial())
					}
					d = w.after(31 * day)
				}
				if d.State != tenancy.DomainPending || w.serial() != "" || !d.NextRenewal.IsZero() || d.LastError == "" {
					t.Errorf("lost: %+v", d)
				}
				if _, err := w.store.Host(t.Context(), fqdn); !errs.Is(err, errs.NotFound) {
					t.Errorf("the name is still taken: %v", err)
				}
				w.dns(nil)
				if _, _, err := w.all[0].Verify(t.Context(), "acme", fqdn, 0); err != nil {
					t.Errorf("again: %v", err)
				}
			})
		})
	}
}

// An upload is the renewal of an uploaded certificate: the name has to be the tenant's
// still.
func TestUpload_VerifiesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.make(tenancy.CertificateUploaded)
		chain, key := w.ca.ca.Server(2, time.Now().Add(90*day), fqdn)
		upload := func() error {
			_, _, err := w.all[0].Upload(t.Context(), "acme", fqdn, 0, []byte(chain), []byte(key))
			return err
		}
		w.after(time.Hour)
		for _, c := range []struct {
			says error
			kind errs.Kind
		}{{errGone, errs.Conflict}, {errs.New(errs.Unavailable, "the DNS did not answer"), errs.Unavailable}} {
			w.dns(c.says)
			if err := upload(); !errs.Is(err, c.kind) || w.serial() != "" {
				t.Errorf("with %v: %v, serial %q", c.says, err, w.serial())
			}
		}
		w.dns(nil)
		if err := upload(); err != nil || w.serial() != "2" {
			t.Errorf("%v, serial %q", err, w.serial())
		}
		if d := w.after(0); time.Since(d.VerifiedAt) != 0 || d.State != tenancy.DomainActive {
			t.Errorf("%+v", d)
		}
	})
}

// A domain that is deleted while the CA is asked leaves nothing.
func TestRun_DeletedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.ca.takes = 20 * time.Second
		w.make(tenancy.CertificateACME)
		w.after(10 * time.Second)
		if _, err := w.all[1].Delete(t.Context(), "acme", fqdn, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, err := w.store.Host(t.Context(), fqdn); !errs.Is(err, errs.NotFound) || w.ca.forgets != 2 || len(w.ca.times()) != 1 {
			t.Errorf("the host: %v; %d certificates forgotten, %d asked for", err, w.ca.forgets, len(w.ca.times()))
		}
		if d, err := w.store.Domain(t.Context(), "acme", fqdn); !errs.Is(err, errs.NotFound) {
			t.Errorf("it is there again: %+v %v", d, err)
		}
	})
}

// What the CA gives is looked at before it is shown.
func TestRun_WrongCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.ca.mu.Lock()
		w.ca.instead = "other.example"
		w.ca.mu.Unlock()
		w.make(tenancy.CertificateACME)
		if d := w.after(0); d.State != tenancy.DomainFailed || !strings.Contains(d.LastError, "other.example") || w.serial() != "" {
			t.Errorf("%+v", d)
		}
	})
}

func TestWait(t *testing.T) {
	for n, want := range map[int]time.Duration{0: time.Minute, 1: time.Minute, 2: 5 * time.Minute, 6: 12 * time.Hour, 100: 12 * time.Hour} {
		if got := wait(n); got != want {
			t.Errorf("after %d failures: %v, want %v", n, got, want)
		}
	}
}
