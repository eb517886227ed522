// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/domains/acme"
)

// A tenant that deletes its domains and makes them again does not order more.
func TestRun_OrdersOfATenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		for n := range 15 {
			if n > 0 {
				if _, err := w.all[0].Delete(t.Context(), "acme", fqdn, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.claim("acme", fqdn, tenancy.CertificateACME); err != nil {
				t.Fatal(err)
			}
			w.after(time.Second)
		}
		d := w.after(0)
		if n := len(w.ca.times()); n != newHourly || d.State != tenancy.DomainVerified || d.Failures != 0 || d.LastError == "" {
			t.Errorf("%d orders; %+v", n, d)
		}
		if err := w.claim("beta", "mqtt.beta.example", tenancy.CertificateACME); err != nil {
			t.Fatal(err)
		}
		w.after(time.Second)
		if n := len(w.ca.times()); n != newHourly+1 {
			t.Errorf("%d orders with another tenant's", n)
		}
		if d := w.after(2 * time.Hour); d.State != tenancy.DomainActive || d.LastError != "" {
			t.Errorf("later: %+v", d)
		}
	})
}

// The rate limit of the account stops all orders until the CA takes them again, and is
// nobody's failure; that of a name is one of that name.
func TestRun_RateLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.ca.refuse(&acme.LimitedError{RetryAfter: time.Hour})
		w.make(tenancy.CertificateACME)
		w.after(time.Second)
		if err := w.claim("beta", "mqtt.beta.example", tenancy.CertificateACME); err != nil {
			t.Fatal(err)
		}
		d := w.after(50 * time.Minute)
		if n := len(w.ca.times()); n != 1 || d.State != tenancy.DomainVerified || d.Failures != 0 {
			t.Errorf("%d orders; %+v", n, d)
		}
		w.ca.refuse(nil)
		if d = w.after(15 * time.Minute); d.State != tenancy.DomainActive || len(w.ca.times()) != 3 {
			t.Errorf("%d orders; %+v", len(w.ca.times()), d)
		}
		w.ca.refuse(&acme.LimitedError{RetryAfter: 2 * time.Hour, Name: true})
		if _, _, err := w.all[0].Renew(t.Context(), "acme", fqdn, 0); err != nil {
			t.Fatal(err)
		}
		if d = w.after(time.Minute); d.State != tenancy.DomainFailed || time.Until(d.NextRenewal) < time.Hour {
			t.Errorf("of the name: %+v", d)
		}
		w.ca.refuse(nil)
		if err := w.claim("gamma", "mqtt.gamma.example", tenancy.CertificateACME); err != nil {
			t.Fatal(err)
		}
		if w.after(time.Minute); len(w.ca.times()) != 5 {
			t.Errorf("%d orders: another tenant's waits too", len(w.ca.times()))
		}
	})
}

// A tenant with many slow orders has one at a time, of all processes, and others go first
// who have waited longer.
func TestRun_TenantsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.ca.takes = 2 * time.Minute
		for n := range atOnce + 1 {
			if err := w.claim("acme", fmt.Sprintf("a%d.acme.example", n), tenancy.CertificateACME); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		for n := range 3 {
			if err := w.claim("beta", fmt.Sprintf("b%d.beta.example", n), tenancy.CertificateACME); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		w.ca.mu.Lock()
		names, most := slices.Clone(w.ca.names), w.ca.most
		w.ca.mu.Unlock()
		if len(names) != 2 || most != 2 || names[0][0] == names[1][0] {
			t.Errorf("under way: %v", names)
		}
		time.Sleep(20 * time.Minute)
		w.ca.mu.Lock()
		names, most = slices.Clone(w.ca.names), w.ca.most
		w.ca.mu.Unlock()
		if len(names) < atOnce || most != 2 {
			t.Errorf("%d at once: %v", most, names)
		}
		slices.Sort(names)
		if n := len(slices.Compact(names)); n < atOnce {
			t.Errorf("ordered twice: %v", names)
		}
	})
}

// A tenant that comes while all turns are taken is before those who have had theirs.
func TestRun_RoundRobin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.ca.takes = 2 * time.Minute
		claim := func(tenant string, n int) {
			t.Helper()
			if err := w.claim(tenant, fmt.Sprintf("d%d.%s.example", n, tenant), tenancy.CertificateACME); err != nil {
				t.Fatal(err)
			}
		}
		for tenant := range atOnce {
			for n := range 2 {
				claim(fmt.Sprint("early-", tenant), n)
			}
		}
		time.Sleep(time.Minute)
		claim("late", 0)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		w.ca.mu.Lock()
		defer w.ca.mu.Unlock()
		if len(w.ca.names) != 2*atOnce || !slices.Contains(w.ca.names, "d0.late.example") {
			t.Errorf("%d orders: %v", len(w.ca.names), w.ca.names)
		}
	})
}

// What is found out about a domain is not written to the one that was made in its place.
func TestRun_MadeAnewMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.ca.takes = 20 * time.Second
		w.make(tenancy.CertificateACME)
		w.after(10 * time.Second)
		if _, err := w.all[0].Delete(t.Context(), "acme", fqdn, 0); err != nil {
			t.Fatal(err)
		}
		if err := w.claim("acme", fqdn, tenancy.CertificateUploaded); err != nil {
			t.Fatal(err)
		}
		if d := w.after(time.Minute); d.State != tenancy.DomainVerified || !d.NotAfter.IsZero() || w.serial() != "" {
			t.Errorf("%+v, serial %q", d, w.serial())
		}
		// So it is with what is found out otherwise.
		d := w.after(0)
		old := *d
		old.Token = "another"
		if err := w.all[0].failed(t.Context(), &old, errGone, nil); !errs.Is(err, errs.NotFound) || w.after(0).State != tenancy.DomainVerified {
			t.Errorf("a failure of the old one: %v", err)
		}
	})
}

// A certificate that was ordered, and of which the domain does not know because the bus
// was away, is taken instead of another order.
func TestRun_TakesWhatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.make(tenancy.CertificateACME)
		w.after(2 * time.Hour)
		chain, key := w.ca.ca.Server(77, time.Now().Add(90*day), fqdn)
		w.ca.mu.Lock()
		w.ca.kept[fqdn] = [2]string{chain, key}
		w.ca.mu.Unlock()
		if _, _, err := w.all[0].Renew(t.Context(), "acme", fqdn, 0); err != nil {
			t.Fatal(err)
		}
		if d := w.after(time.Second); d.State != tenancy.DomainActive || w.serial() != "77" || len(w.ca.times()) != 1 {
			t.Errorf("%d orders, serial %s: %+v", len(w.ca.times()), w.serial(), d)
		}
	})
}
