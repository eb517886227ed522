// SPDX-License-Identifier: Apache-2.0

package decide_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/policy"
	"github.com/manormq/manor/tenancy/store"
)

// house is an installation with a policy and a store.
type house struct {
	*testing.T
	dir   string
	reg   *prometheus.Registry
	i     *decide.Installation
	store *store.Store
}

func newHouse(t *testing.T, text string) *house {
	t.Helper()
	h := &house{T: t, dir: t.TempDir(), reg: prometheus.NewRegistry()}
	h.write(text)
	var err error
	if h.i, err = decide.OpenInstallation(t.Context(), decide.InstallationConfig{Dir: h.dir, Log: telemetry.Discard(), Registerer: h.reg, Every: 5 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if h.store, err = store.New(t.Context(), store.Config{Bus: mem.New(), Log: telemetry.Discard(), Region: "local", Limiter: h.i.Limiter()}); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) write(text string) {
	h.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, "house.rego"), []byte(text), 0o600); err != nil {
		h.Fatal(err)
	}
}

// run follows the files until the test ends.
func (h *house) run() {
	ctx, cancel := context.WithCancel(h.Context())
	done := make(chan error, 1)
	go func() { done <- h.i.Run(ctx, h.store) }()
	h.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.Error(err)
		}
	})
}

func (h *house) tenant(id, plan string) {
	h.Helper()
	if _, err := h.store.EnsureTenant(h.Context(), id, store.EnsureOptions{Plan: plan}); err != nil {
		h.Fatal(err)
	}
}

// connections are what a tenant may have, and whether its limits are held.
func (h *house) connections(id string) (n int64, held bool) {
	h.Helper()
	r, err := h.store.Tenant(h.Context(), id)
	if err != nil {
		h.Fatal(err)
	}
	l, err := r.Limits()
	if err != nil {
		h.Fatal(err)
	}
	return l.Connections, r.Held
}

func (h *house) want(id string, n int64, held bool) {
	h.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		got, is := h.connections(id)
		if got == n && is == held {
			return
		}
		if time.Now().After(end) {
			h.Fatalf("%s may have %d connections, held %v, want %d, %v", id, got, is, n, held)
		}
	}
}

const double = `package quota

limits.connections := 2 * input.limits.connections if input.plan in {"starter", "pro"}

limits.devices := 3 if input.plan == "free"
`

// The limits follow the plan, the overrides and the files; a file that is broken leaves
// the last good policy.
func TestInstallation_Follows(t *testing.T) {
	h := newHouse(t, double)
	h.tenant("acme", "starter")
	h.tenant("beta", "free")
	h.want("acme", 20_000, false)
	h.want("beta", 100, false)
	if _, err := h.store.SetOverrides(t.Context(), "acme", 0, map[string]int64{"connections": 7}); err != nil {
		t.Fatal(err)
	}
	h.want("acme", 14, false)
	if _, err := h.store.UpdateTenant(t.Context(), "beta", 0, func(r *tenancy.TenantRecord) error { r.Plan = "starter"; return nil }); err != nil {
		t.Fatal(err)
	}
	h.want("beta", 20_000, false)

	h.run()
	h.write(strings.ReplaceAll(double, "2 *", "3 *"))
	h.want("acme", 21, false)
	h.want("beta", 30_000, false)
	h.write("package quota\n\nlimits.conections := 5")
	for end := time.Now().Add(10 * time.Second); !h.broken(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody says that the files are broken")
		}
	}
	h.tenant("gamma", "starter")
	h.want("gamma", 30_000, false)
	h.write(double)
	h.want("gamma", 20_000, false)
	if h.broken() {
		t.Error("the files are said to be broken")
	}
}

// broken is what the gauge says.
func (h *house) broken() bool {
	return h.series("manor_installation_policy_broken", func(m *dto.Metric) bool { return m.GetGauge().GetValue() == 1 })
}

// counted is how often the entry has given that answer.
func (h *house) counted(entry, answer string) (n float64) {
	h.series("manor_installation_policy_total", func(m *dto.Metric) bool {
		if l := m.GetLabel(); l[0].GetValue() == answer && l[1].GetValue() == entry {
			n = m.GetCounter().GetValue()
		}
		return false
	})
	return n
}

// series reports whether f says so of one of a metric.
func (h *house) series(name string, f func(*dto.Metric) bool) bool {
	h.Helper()
	all, err := h.reg.Gather()
	if err != nil {
		h.Fatal(err)
	}
	for _, x := range all {
		if x.GetName() == name && slices.ContainsFunc(x.GetMetric(), f) {
			return true
		}
	}
	return false
}

// A policy that fails for a tenant opens nothing: it keeps what it had, whatever its
// overrides and its plan are now, and has what the policy says as soon as that is known.
func TestInstallation_FailsClosed(t *testing.T) {
	h := newHouse(t, `package quota

limits.connections := min({input.limits.connections, 50})

limits.devices := to_number(input.organization.name) if input.overrides.devices
`)
	h.tenant("acme", "starter")
	h.want("acme", 50, false)
	set := func(overrides map[string]int64) {
		t.Helper()
		if _, err := h.store.SetOverrides(t.Context(), "acme", 0, overrides); err != nil {
			t.Fatal(err)
		}
	}
	set(map[string]int64{"devices": 1, "connections": 1_000_000, "publish_rate": tenancy.Unlimited})
	h.want("acme", 50, true)
	r, err := h.store.Tenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if l, err := r.Limits(); err != nil || l.PublishRate != 5_000 || l.Devices != 50_000 {
		t.Errorf("limits are %+v, %v", l, err)
	}
	if n := h.counted("quota.limits", "failed"); n == 0 {
		t.Error("nobody counts that the policy has failed")
	}
	if _, err := h.store.UpdateTenant(t.Context(), "acme", 0, func(r *tenancy.TenantRecord) error { r.Plan = "none"; return nil }); err != nil {
		t.Fatal(err)
	}
	h.want("acme", 50, true)
	set(map[string]int64{"connections": 40})
	h.want("acme", 40, false)
}

// Without a policy what a former one has said goes.
func TestInstallation_Removed(t *testing.T) {
	h := newHouse(t, double)
	h.tenant("acme", "starter")
	h.want("acme", 20_000, false)
	none, err := decide.OpenInstallation(t.Context(), decide.InstallationConfig{Log: telemetry.Discard()})
	if err != nil || none.Limiter() != nil || none.Admits() {
		t.Fatal(none, err)
	}
	h.i = none
	if h.store, err = store.New(t.Context(), store.Config{Bus: h.store.Bus(), Log: telemetry.Discard(), Region: "local", Limiter: none.Limiter()}); err != nil {
		t.Fatal(err)
	}
	h.run()
	h.want("acme", 10_000, false)
}

func TestInstallation_Broken(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.rego"), []byte("package quota\n\nlimits := nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := decide.OpenInstallation(t.Context(), decide.InstallationConfig{Dir: dir, Log: telemetry.Discard()})
	if err == nil || !strings.Contains(err.Error(), "a.rego:3:11") {
		t.Errorf("got %v", err)
	}
}

func TestInstallation_Deny(t *testing.T) {
	h := newHouse(t, "package admission\n\ndeny contains \"no\" if input.operation == \"x\"\n\ndeny contains to_number(input.operation) if input.operation == \"fails\"")
	if !h.i.Admits() {
		t.Fatal("nobody is asked")
	}
	for operation, want := range map[string]string{"x": "[no] <nil>", "y": "[] <nil>"} {
		all, err := h.i.Deny(t.Context(), &policy.Admission{Operation: operation})
		if got := fmt.Sprint(all, err); got != want {
			t.Errorf("%s: %s, want %s", operation, got, want)
		}
	}
	if all, err := h.i.Deny(t.Context(), &policy.Admission{Operation: "fails"}); err == nil {
		t.Errorf("a policy that fails says %v", all)
	}
}
