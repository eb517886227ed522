// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"crypto/x509"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/domains/acme"
)

// window is a CA's suggestion: from and until are counted from now, and a moment between
// is drawn at each question.
func window(from, until, retry time.Duration) func(*x509.Certificate) (acme.Suggestion, error) {
	a, b := time.Now().Add(from).UTC(), time.Now().Add(until).UTC()
	return func(*x509.Certificate) (acme.Suggestion, error) {
		s := acme.Suggestion{From: a, Until: b, At: a.Add(rand.N(b.Sub(a)))}
		if retry > 0 {
			s.RetryAfter = time.Now().Add(retry)
		}
		return s, nil
	}
}

// A certificate is renewed in the window of its CA, at a moment that is chosen once; the
// CA is asked again when it wants, and a window that moves to the past, as before a
// revocation, has it renewed then.
func TestRun_SuggestedRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.ca.suggest(window(20*day, 25*day, 12*time.Hour))
		w.make(tenancy.CertificateACME)
		d := w.after(time.Second)
		chosen := d.Renewal.At
		if in := time.Until(chosen); d.State != tenancy.DomainActive || w.serial() != "2" || in < 19*day || in > 25*day {
			t.Fatalf("issued: %+v", d)
		}
		if in := time.Until(d.NextRenewal); in < 11*time.Hour || in > 12*time.Hour {
			t.Errorf("the CA is asked again in %v", in)
		}
		w.dns(errGone) // which is looked for at renewals only
		d = w.after(19 * day)
		if !d.Renewal.At.Equal(chosen) || w.serial() != "2" || d.State != tenancy.DomainActive || !d.AbsentSince.IsZero() {
			t.Errorf("after 19 days: %+v, chosen before %v", d, chosen)
		}
		if n := w.ca.questions(); n < 36 || n > 40 {
			t.Errorf("the CA was asked %d times in 19 days", n)
		}
		w.dns(nil)
		w.after(time.Until(chosen) - time.Second)
		if w.serial() != "2" {
			t.Error("renewed before the moment that was chosen")
		}
		w.ca.suggest(window(50*day, 60*day, 0))
		if d = w.after(time.Minute); w.serial() != "3" || d.Failures != 0 || time.Until(d.Renewal.At) < 49*day {
			t.Errorf("at that moment: %+v, serial %s", d, w.serial())
		}
		w.ca.suggest(window(-2*day, -day, 0))
		if w.after(5 * time.Hour); w.serial() != "3" {
			t.Error("renewed before the CA was asked again")
		}
		w.ca.suggest(window(-2*day, -day, 0))
		w.after(61 * time.Minute)
		if w.serial() == "3" {
			t.Error("not renewed though the window is over")
		}
	})
}

// A CA that does not answer, suggests nothing, or nonsense, changes little.
func TestRun_SuggestedNothing(t *testing.T) {
	for _, c := range []struct {
		name     string
		suggests func(*x509.Certificate) (acme.Suggestion, error)
		days     int // within which a certificate of 90 days is renewed
		asked    int // in the first 10 days
	}{
		{"no window", nil, 60, 0},
		{"no answer", func(*x509.Certificate) (acme.Suggestion, error) {
			return acme.Suggestion{}, errs.New(errs.Unavailable, "away")
		}, 60, 41},
		{"after the end", func(leaf *x509.Certificate) (acme.Suggestion, error) {
			at := leaf.NotAfter.Add(day)
			return acme.Suggestion{From: at, Until: at.Add(day), At: at, RetryAfter: leaf.NotAfter}, nil
		}, 81, 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				w.ca.suggest(c.suggests)
				w.make(tenancy.CertificateACME)
				d := w.after(10 * day)
				if n := w.ca.questions(); n < c.asked-1 || n > c.asked+1 {
					t.Errorf("asked %d times in 10 days, want %d; %+v", n, c.asked, d)
				}
				begun := time.Duration(c.days-11) * day
				if d = w.after(begun - time.Minute); w.serial() != "2" {
					t.Errorf("renewed before %d days: %+v", c.days-1, d)
				}
				if d = w.after(2 * day); w.serial() != "3" || d.Failures != 0 {
					t.Errorf("not renewed after %d days: %+v", c.days+1, d)
				}
			})
		})
	}
}

// A CA that wants to be asked all the time is asked once a minute.
func TestSuggested_Bounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		for retry, want := range map[time.Duration]time.Duration{-time.Hour: time.Minute, time.Second: time.Minute, time.Hour: time.Hour, 90 * day: day, 0: 6 * time.Hour} {
			w.ca.suggest(window(day, 2*day, 0))
			if retry != 0 {
				w.ca.suggest(func(*x509.Certificate) (acme.Suggestion, error) {
					return acme.Suggestion{From: time.Now(), Until: time.Now(), At: time.Now(), RetryAfter: time.Now().Add(retry)}, nil
				})
			}
			if got := time.Until(w.all[0].suggested(t.Context(), tenancy.Renewal{}, &x509.Certificate{}).Check); got != want {
				t.Errorf("Retry-After in %v: asked again in %v, want %v", retry, got, want)
			}
		}
	})
}
