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
