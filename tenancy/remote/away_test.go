// SPDX-License-Identifier: Apache-2.0

package remote_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/directory/directorytest"
	"github.com/manormq/manor/tenancy/remote"
)

// cutBus is a bus that a directory can be cut off from, while others change things.
type cutBus struct {
	bus.Bus
	deaf    sync.RWMutex // held for writing while watches tell nothing
	mute    atomic.Bool  // questions fail
	watches atomic.Int64 // those that are for everything
}

func (b *cutBus) Bucket(ctx context.Context, cfg bus.BucketConfig) (bus.Bucket, error) {
	k, err := b.Bus.Bucket(ctx, cfg)
	return &cutBucket{k, b}, err
}

type cutBucket struct {
	bus.Bucket
	bus *cutBus
}

func (k *cutBucket) Get(ctx context.Context, key string) (bus.Entry, error) {
	if k.bus.mute.Load() {
		return bus.Entry{}, errs.New(errs.Unavailable, "cut off")
	}
	return k.Bucket.Get(ctx, key)
}

func (k *cutBucket) Watch(ctx context.Context, w bus.Watch, f func(bus.Update)) error {
	if w.Prefix == "" {
		k.bus.watches.Add(1)
		defer k.bus.watches.Add(-1)
	}
	if current := w.Current; current != nil {
		w.Current = func(at time.Time) {
			if k.bus.deaf.TryRLock() { // else it has passed by, as the clock has
				defer k.bus.deaf.RUnlock()
				current(at)
			}
		}
	}
	return k.Bucket.Watch(ctx, w, func(u bus.Update) {
		k.bus.deaf.RLock()
		defer k.bus.deaf.RUnlock()
		f(u)
	})
}

// clock is moved by tests.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) move(d time.Duration) { c.ahead.Add(int64(d)) }

// TestAway_Limit holds that known clients are let in for 24 hours without the control
// plane, then nobody, with what operators see of it; and that once it answers again
// nobody is let in before all is known that was changed meanwhile.
func TestAway_Limit(t *testing.T) {
	ctx, b, c := t.Context(), &cutBus{Bus: mem.New()}, &clock{}
	s := newStore(t, b.Bus)
	secret := directorytest.SignUp(t, s, "acme")
	doomed := directorytest.AddCredential(t, s, "acme", "doomed")
	directorytest.SignUp(t, s, "beta")
	d, _ := start(t, remote.Config{Bus: b, Now: c.now})
	ready(t, d)
	r := prometheus.NewRegistry()
	d.Register(r)
	attempt := func(name, password string) error {
		_, err := directorytest.Attempt(ctx, d, "acme", name, password)
		return err
	}
	directorytest.Eventually(t, func() string { // both are kept
		if err := attempt("default", secret); err != nil || d.Kept() < 2 {
			return fmt.Sprint(d.Kept(), " kept, ", err)
		}
		return ""
	})
	if st := d.Status(); st.State != remote.StateReached || st.Tenants != 2 || *st.Age > 5 {
		t.Errorf("with the control plane: %+v", st)
	}

	told, hears := make(chan string, 1), atomic.Bool{}
	go func() {
		_ = d.Watch(ctx, func(ch tenancy.Change) {
			hears.Store(true)
			suspension(ctx, d, ch, told)
		})
	}()
	directorytest.Eventually(t, func() string { // what is told before it watches, it does not hear
		if !hears.Load() {
			directorytest.SignUp(t, s, fmt.Sprint("gamma-", time.Now().UnixNano()))
			return "a change was not told"
		}
		return ""
	})

	b.deaf.Lock()
	b.mute.Store(true)
	c.move(23 * time.Hour)
	if err := attempt("default", secret); err != nil {
		t.Errorf("after 23 h: %v", err)
	}
	if st := d.Status(); st.State != remote.StateAway || *st.Age < 23*3600 || st.Until.Sub(c.now()) > time.Hour {
		t.Errorf("after 23 h: %+v", st)
	}
	if err := d.Check(ctx); err != nil {
		t.Errorf("after 23 h the gateway is not healthy: %v", err)
	}
	if err := d.CheckContact(ctx); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "known clients are let in until") {
		t.Errorf("after 23 h the control plane is there: %v", err)
	}
	if err := attempt("stranger", "x"); errs.CodeOf(err) != tenancy.CodeControlPlaneAway {
		t.Errorf("an unknown name: %v", err)
	}
	c.move(2 * time.Hour)
	for _, name := range []string{"default", "stranger"} {
		if err := attempt(name, secret); !errs.Is(err, errs.Unavailable) || errs.CodeOf(err) != tenancy.CodeControlPlaneGone {
			t.Errorf("%s after 25 h: %v", name, err)
		}
	}
	if st := d.Status(); st.State != remote.StateGone {
		t.Errorf("after 25 h: %+v", st)
	}
	if err := d.Check(ctx); !errs.Is(err, errs.Unavailable) {
		t.Errorf("after 25 h the gateway is healthy: %v", err)
	}
	if limit := gathered(t, r, "mqtt_directory_limit_seconds")[""]; limit != 86400 {
		t.Errorf("the limit is %v s", limit)
	}
	if age := gathered(t, r, "mqtt_directory_age_seconds")[""]; age < 25*3600 || age > 25*3600+60 {
		t.Errorf("the age is %v s", age)
	}
	counts := gathered(t, r, "mqtt_directory_unanswered_total")
	if counts["credential"] != 1 || counts["all"] != 2 {
		t.Errorf("counted: %v", counts)
	}

	// Somebody else is not cut off, takes a credential away and suspends a tenant.
	if err := s.DeleteCredential(ctx, "acme", "doomed", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetState(ctx, "beta", tenancy.StateSuspended); err != nil {
		t.Fatal(err)
	}
	b.mute.Store(false) // the bus answers, and its watches have not told yet
	for _, name := range []string{"default", "nobody"} {
		if err := attempt(name, secret); errs.CodeOf(err) != tenancy.CodeControlPlaneGone {
			t.Errorf("%s before the changes were told: %v", name, err)
		}
	}
	b.deaf.Unlock()
	select {
	case what := <-told: // what a gateway finds that hears of it ends the connections
		if what != "" {
			t.Error(what)
		}
	case <-time.After(10 * time.Second):
		t.Error("it was not told that a tenant was suspended meanwhile")
	}
	directorytest.Eventually(t, func() string {
		if err := attempt("doomed", doomed); err == nil {
			t.Fatal("a deleted credential was let in when the control plane came back")
		}
		if err := attempt("default", secret); err != nil {
			return err.Error()
		}
		return ""
	})
	if st := d.Status(); st.State != remote.StateReached {
		t.Errorf("afterwards: %+v", st)
	}
}

// suspension tells what is found wrong of the tenant beta, which was suspended, when a
// change of it is told.
func suspension(ctx context.Context, d *remote.Directory, ch tenancy.Change, told chan<- string) {
	if ch.Kind != tenancy.TenantChanged || ch.Tenant != "beta" {
		return
	}
	what := ""
	if tn, err := d.Known(ctx, "beta"); err != nil || tn.State != tenancy.StateSuspended {
		what = fmt.Sprintf("told of a tenant that was suspended: found %+v, %v", tn, err)
	}
	select {
	case told <- what:
	default:
	}
}

// gathered are the values of a metric, by its label if it has one.
func gathered(t *testing.T, r *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range all {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				label := ""
				for _, l := range m.GetLabel() {
					label = l.GetValue()
				}
				out[label] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return out
}

// TestWatches holds that a node watches each bucket once, whatever the number of
// tenants and clients.
func TestWatches(t *testing.T) {
	b := &cutBus{Bus: mem.New()}
	s := newStore(t, b.Bus)
	d, _ := start(t, remote.Config{Bus: b})
	ready(t, d)
	for k := range 10 {
		tenant := fmt.Sprint("tenant-", k)
		secret := directorytest.SignUp(t, s, tenant)
		directorytest.Eventually(t, func() string {
			if _, err := directorytest.Attempt(t.Context(), d, tenant, "default", secret); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	const buckets = 7
	if n := b.watches.Load(); n != buckets {
		t.Errorf("%d watches of everything with 10 tenants, expected one for each of %d buckets", n, buckets)
	}
}

// TestAway_Grants holds that what a tenant's policy grants is read when it changes, and
// not at the next client only, where its clients come to this gateway.
func TestAway_Grants(t *testing.T) {
	b := mem.New()
	s := newStore(t, b)
	secret := directorytest.SignUp(t, s, "acme")
	d, _ := start(t, remote.Config{Bus: b})
	ready(t, d)
	if _, err := directorytest.Attempt(t.Context(), d, "acme", "default", secret); err != nil {
		t.Fatal(err)
	}
	tn := seen(t, d, livePolicy(t, s, false, tenancy.DefaultClass))
	directorytest.Eventually(t, func() string {
		b.SetDown(true)
		defer b.SetDown(false)
		if _, err := d.Authorize(t.Context(), tn, client("c")); err != nil {
			return err.Error()
		}
		return ""
	})
}

// TestAway_Registry holds that of a tenant whose clients come here all devices are known
// without the control plane, also that there are none of other names, and after a
// restart too.
func TestAway_Registry(t *testing.T) {
	ctx, b := t.Context(), mem.New()
	s := newStore(t, b)
	secret := directorytest.SignUp(t, s, "acme")
	acme, err := s.Tenant(ctx, "acme")
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string) {
		if _, _, err := s.PutDevice(ctx, acme, tenancy.Device{Name: name, Groups: []string{"group-of-" + name}}, 0); err != nil {
			t.Fatal(err)
		}
	}
	put("before")
	cfg := remote.Config{Bus: b, Snapshot: filepath.Join(t.TempDir(), "snapshot"), Key: make([]byte, 32)}
	d, stop := start(t, cfg)
	ready(t, d)
	if _, err := directorytest.Attempt(ctx, d, "acme", "default", secret); err != nil {
		t.Fatal(err)
	}
	look := func(d *remote.Directory) string {
		b.SetDown(true)
		defer b.SetDown(false)
		tn, err := d.Tenant(ctx, "acme")
		if err != nil {
			return err.Error()
		}
		for name, groups := range map[string]string{"before": "[group-of-before]", "after": "[group-of-after]", "default": "none"} {
			x, err := d.Device(ctx, tn, name)
			got := "none"
			if x != nil {
				got = fmt.Sprint(x.Groups)
			}
			if err != nil || got != groups {
				return fmt.Sprintf("%s: %s, %v", name, got, err)
			}
		}
		return ""
	}
	put("after")
	directorytest.Eventually(t, func() string { return look(d) })
	stop() // writes the snapshot
	b.SetDown(true)
	d, _ = start(t, cfg)
	if text := look(d); text != "" {
		t.Errorf("after a restart without the control plane: %s", text)
	}
}
