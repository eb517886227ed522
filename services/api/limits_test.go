// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/store"
)

// installed makes an installation with that policy the one that is asked.
func installed(t testing.TB, text string) *decide.Installation {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "house.rego"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := decide.OpenInstallation(t.Context(), decide.InstallationConfig{Dir: dir, Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestQuotas_Policy: the quotas say that a limit comes from the installation's policy, also
// in a dry run, and that they are held while it fails.
func TestQuotas_Policy(t *testing.T) {
	house := installed(t, `package quota

limits.connections := 2 * input.limits.connections if input.limits.connections > 0

limits.devices := to_number(input.plan) if input.overrides.devices == 1
`)
	f := newFixture(t, func(c *api.Config) {
		var err error
		if c.Store, err = store.New(t.Context(), store.Config{Bus: c.Store.Bus(), Log: telemetry.Discard(), Region: "local", Limiter: house.Limiter()}); err != nil {
			t.Fatal(err)
		}
	})
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/quotas"
	of := func(r response, name string) string {
		v := f.want(r, 200, "")
		for _, x := range v["items"].([]any) {
			if q := x.(map[string]any); q["name"] == name {
				return fmt.Sprint(int64(q["limit"].(float64)), " ", q["source"], " ", v["held"])
			}
		}
		return "nothing"
	}
	overrides := func(query, body string) response { return f.do("PUT", path+"/overrides"+query, key, body) }
	for _, c := range []struct {
		what, quota string
		r           response
		want        string
	}{
		{"the plan", "devices", f.do("GET", path, key, ""), "5000000 plan <nil>"},
		{"the policy", "connections", f.do("GET", path, key, ""), "500000 policy <nil>"},
		{"a dry run", "connections", overrides("?dry_run=true", `{"connections":4}`), "8 policy <nil>"},
		{"after it", "connections", f.do("GET", path, key, ""), "500000 policy <nil>"},
		{"an override", "devices", overrides("", `{"devices":4,"connections":4}`), "4 override <nil>"},
		{"and the policy", "connections", f.do("GET", path, key, ""), "8 policy <nil>"},
		{"a failure", "connections", overrides("", `{"devices":1,"connections":1000}`), "8 policy true"},
		{"a failure leaves the others", "devices", f.do("GET", path, key, ""), "4 policy true"},
		{"the end of it", "connections", overrides("", `{}`), "500000 policy <nil>"},
	} {
		if got := of(c.r, c.quota); got != c.want {
			t.Errorf("%s: %s is %s, want %s", c.what, c.quota, got, c.want)
		}
	}
}
