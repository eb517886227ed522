// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/store"
	"github.com/manormq/manor/tenancy/tenancytest"
)

const fqdn = "mqtt.acme.example"

// authority issues certificates for 90 days, or refuses.
type authority struct {
	ca *tenancytest.CA

	mu      sync.Mutex
	why     error         // guarded by mu; of refusals
	takes   time.Duration // guarded by mu; an order
	asked   []time.Time   // guarded by mu
	forgets int           // guarded by mu
}

func (a *authority) Obtain(_ context.Context, name string) (chain, key []byte, err error) {
	a.mu.Lock()
	a.asked = append(a.asked, time.Now())
	n, why, takes := len(a.asked), a.why, a.takes
	a.mu.Unlock()
	time.Sleep(takes)
	if why != nil {
		return nil, nil, why
	}
	c, k := a.ca.Server(int64(n+1), time.Now().Add(90*24*time.Hour), name)
	return []byte(c), []byte(k), nil
}

func (a *authority) Forget(context.Context, string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forgets++
	return nil
}

func (a *authority) refuse(why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.why = why
}

func (a *authority) times() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// world is a tenant with some processes that see to its domains, in a bubble.
type world struct {
	t     *testing.T
	store *store.Store
	ca    *authority
	all   []*Service
	reg   *prometheus.Registry

	mu   sync.Mutex
	owns error // guarded by mu; what the DNS says
}

func newWorld(t *testing.T, processes int) *world {
	t.Helper()
	w := &world{t: t, ca: &authority{ca: tenancytest.NewCA(t, "test")}, reg: prometheus.NewRegistry()}
	var err error
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.store, err = store.New(t.Context(), store.Config{Bus: mem.New(), Log: telemetry.Discard(), Region: "local"})
	must(err)
	_, err = w.store.EnsureTenant(t.Context(), "acme", store.EnsureOptions{})
	must(err)
	sealer, err := managedca.NewSealer(make([]byte, 32))
	must(err)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for n := range processes {
		cfg := Config{Store: w.store, Sealer: sealer, Authority: w.ca, Domain: "localhost", Log: telemetry.Discard()}
		if n == 0 {
			cfg.Registerer = w.reg
		}
		s, err := New(t.Context(), cfg)
		must(err)
		s.owns = func(context.Context, *tenancy.Domain) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.owns
		}
		w.all = append(w.all, s)
		wg.Go(func() { _ = s.Run(ctx) })
	}
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
	return w
}

func (w *world) dns(says error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owns = says
}

// after lets time go by, and returns the domain as it is then.
func (w *world) after(d time.Duration) *tenancy.Domain {
	w.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	x, err := w.store.Domain(w.t.Context(), "acme", fqdn)
	if err != nil {
		w.t.Fatal(err)
	}
	return x
}

func (w *world) make(source string) {
	w.t.Helper()
	acme, err := w.store.Tenant(w.t.Context(), "acme")
	if err == nil {
		_, err = w.all[0].Create(w.t.Context(), acme, fqdn, source)
	}
	if err == nil {
		_, _, err = w.all[0].Verify(w.t.Context(), "acme", fqdn, 0)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// serial is that of the certificate that gateways show; empty for none.
func (w *world) serial() string {
	w.t.Helper()
	h, err := w.store.Host(w.t.Context(), fqdn)
	if errs.Is(err, errs.NotFound) || err == nil && h.Certificates == "" {
		return ""
	}
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := tenancy.NewCustomHost(h, w.all[0].cfg.Sealer.Open).Certificate()
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Leaf.SerialNumber.String()
}

func (w *world) metric(name, labels string) float64 {
	w.t.Helper()
	all, err := w.reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			var l []string
			for _, x := range m.GetLabel() {
				l = append(l, x.GetValue())
			}
			if f.GetName() == name && strings.Join(l, ",") == labels {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	w.t.Errorf("no metric %s %s", name, labels)
	return -1
}

const day = 24 * time.Hour

var errGone = errs.Coded(errs.Denied, "domain_unverified", "expected a TXT record")

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
		w.all[0].cfg.Authority = wrong{w.ca}
		w.make(tenancy.CertificateACME)
		if d := w.after(0); d.State != tenancy.DomainFailed || !strings.Contains(d.LastError, "other.example") || w.serial() != "" {
			t.Errorf("%+v", d)
		}
	})
}

type wrong struct{ *authority }

func (w wrong) Obtain(ctx context.Context, _ string) (chain, key []byte, err error) {
	return w.authority.Obtain(ctx, "other.example")
}

func TestNormalize(t *testing.T) {
	for name, want := range map[string]string{
		"mqtt.example.com":              "mqtt.example.com",
		" MQTT.Example.COM. ":           "mqtt.example.com",
		"bücher.example":                "xn--bcher-kva.example",
		"xn--bcher-kva.example":         "xn--bcher-kva.example",
		"a.eu1.mqtt.example":            "domain_reserved",
		"EU1.mqtt.example":              "domain_reserved",
		"xeu1.mqtt.example":             "xeu1.mqtt.example",
		"x.localhost":                   "domain_reserved",
		"":                              "domain_invalid",
		"com":                           "domain_invalid",
		"*.example.com":                 "domain_invalid",
		"a b.example.com":               "domain_invalid",
		"-a.example.com":                "domain_invalid",
		"a_b.example.com":               "domain_invalid",
		"a..b":                          "domain_invalid",
		"10.0.0.1":                      "domain_invalid",
		"[::1]":                         "domain_invalid",
		"1.2.3":                         "domain_invalid",
		"a.example.com:8883":            "domain_invalid",
		"https://a.example.com":         "domain_invalid",
		strings.Repeat("a", 64) + ".x":  "domain_invalid",
		strings.Repeat("a.", 118) + "x": "domain_invalid",
	} {
		got, err := Normalize(name, "eu1.mqtt.example.")
		if err != nil {
			got = errs.CodeOf(err)
		}
		if got != want {
			t.Errorf("%q: %s (%v), want %s", name, got, err, want)
		}
	}
}

func TestWait(t *testing.T) {
	for n, want := range map[int]time.Duration{0: time.Minute, 1: time.Minute, 2: 5 * time.Minute, 6: 12 * time.Hour, 100: 12 * time.Hour} {
		if got := wait(n); got != want {
			t.Errorf("after %d failures: %v, want %v", n, got, want)
		}
	}
}
