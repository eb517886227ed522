// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"crypto/x509"
	"maps"
	"slices"
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
	"github.com/manormq/manor/tenancy/domains/acme"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/store"
	"github.com/manormq/manor/tenancy/tenancytest"
)

const fqdn = "mqtt.acme.example"

// authority issues certificates for 90 days, or refuses.
type authority struct {
	ca *tenancytest.CA

	mu      sync.Mutex
	why     error                // guarded by mu; of refusals
	takes   time.Duration        // guarded by mu; an order
	asked   []time.Time          // guarded by mu
	forgets int                  // guarded by mu
	instead string               // guarded by mu; the name that certificates are for, if not the one asked for
	names   []string             // guarded by mu; asked for
	busy    int                  // guarded by mu; orders under way
	most    int                  // guarded by mu; of busy
	kept    map[string][2]string // guarded by mu
	keeps   error                // guarded by mu; of Forget
	// suggests is what is said of a certificate; nil suggests nothing.
	suggests  func(leaf *x509.Certificate) (acme.Suggestion, error) // guarded by mu
	suggested int                                                   // guarded by mu; how often
}

func (a *authority) Suggested(_ context.Context, leaf *x509.Certificate) (acme.Suggestion, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.suggests == nil {
		return acme.Suggestion{}, errs.New(errs.NotFound, "nothing is suggested")
	}
	a.suggested++
	return a.suggests(leaf)
}

func (a *authority) suggest(f func(leaf *x509.Certificate) (acme.Suggestion, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.suggests, a.suggested = f, 0
}

func (a *authority) questions() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.suggested
}

func (a *authority) Obtain(_ context.Context, name string) (chain, key []byte, err error) {
	a.mu.Lock()
	a.asked, a.names = append(a.asked, time.Now()), append(a.names, name)
	n, why, takes := len(a.asked), a.why, a.takes
	a.busy++
	asked := name
	if a.instead != "" {
		name = a.instead
	}
	a.most = max(a.most, a.busy)
	a.mu.Unlock()
	time.Sleep(takes)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy--
	if why != nil {
		return nil, nil, why
	}
	c, k := a.ca.Server(int64(n+1), time.Now().Add(90*24*time.Hour), name)
	a.kept[asked] = [2]string{c, k}
	return []byte(c), []byte(k), nil
}

func (a *authority) Stored(_ context.Context, name string) (chain, key []byte, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := a.kept[name]
	if !ok {
		return nil, nil, errs.New(errs.NotFound, "nothing is kept")
	}
	return []byte(p[0]), []byte(p[1]), nil
}

func (a *authority) Forget(_ context.Context, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forgets++
	if a.keeps == nil {
		delete(a.kept, name)
	}
	return a.keeps
}

func (a *authority) Names(context.Context) ([]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.kept)), nil
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

	mu     sync.Mutex
	owns   error // guarded by mu; what the DNS says about the tenant's domains
	others error // guarded by mu; and about those of others
}

func newWorld(t *testing.T, processes int) *world {
	t.Helper()
	w := &world{t: t, ca: &authority{ca: tenancytest.NewCA(t, "test"), kept: map[string][2]string{}}, reg: prometheus.NewRegistry()}
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
		s.owns = func(_ context.Context, _ string, d *tenancy.Domain) error { return w.says(d) }
		s.stillOwns = func(_ context.Context, d *tenancy.Domain) error { return w.says(d) }
		w.all = append(w.all, s)
		wg.Go(func() { _ = s.Run(ctx) })
	}
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
	return w
}

func (w *world) says(d *tenancy.Domain) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.Tenant != "acme" {
		return w.others
	}
	return w.owns
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

// tenant is one that may have 100 domains.
func (w *world) tenant(id string) *tenancy.TenantRecord {
	w.t.Helper()
	r, err := w.store.EnsureTenant(w.t.Context(), id, store.EnsureOptions{})
	if err == nil && r.Overrides["domains"] == 0 {
		r, err = w.store.SetOverrides(w.t.Context(), id, 0, map[string]int64{"domains": 100})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// put makes a claim as it is in the store, even to a name that another tenant has.
func (w *world) put(t *tenancy.TenantRecord, name, source string) {
	w.t.Helper()
	if _, err := w.store.AddDomain(w.t.Context(), t, name, source); err != nil {
		w.t.Fatal(err)
	}
}

// claim has a tenant claim a name and verify it.
func (w *world) claim(tenant, name, source string) error {
	w.t.Helper()
	w.put(w.tenant(tenant), name, source)
	_, _, err := w.all[0].Verify(w.t.Context(), tenant, name, 0)
	return err
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
