// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
)

const house = `package quota

# Who pays has twice what the plan and the overrides say.
limits.connections := 2 * input.limits.connections if input.plan == "starter"

limits.connections := to_number(input.plan) if input.overrides.devices == 1

limits.topic_levels := min({3, input.limits.topic_levels}) if input.plan == "starter"
`

// TestInstallation_Quota: what the installation's policy says of a quota is enforced at the
// gateway, within 2 s of a change of an override or of the files, and a policy that fails
// opens nothing.
func TestInstallation_Quota(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "house.rego"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(house)
	p := startProduct(t, func(o *options, _ *process) { o.policies = dir })
	free, paying := p.signUpTo(t, "free", "free"), p.signUpTo(t, "paying", "starter")
	const rates = `"connect_rate":-1,"connect_rate_client":-1`
	free.quota(`{"connections":1,` + rates + `}`)
	paying.quota(`{"connections":1,` + rates + `}`)
	free.mayHave(1)
	paying.mayHave(2)
	paying.quota(`{"connections":1000,"devices":1,` + rates + `}`) // fails
	paying.mayHave(2)
	paying.quota(`{"connections":1,` + rates + `}`)
	live := paying.device()
	if r := live.acked("a/b/c"); r.Failed() {
		t.Errorf("three levels: %v", r)
	}
	if r := live.acked("a/b/c/d"); r != mqtt.TopicNameInvalid {
		t.Errorf("four levels: %v", r)
	}
	write(strings.NewReplacer("2 *", "3 *", "{3,", "{2,").Replace(house))
	paying.within(func() string {
		if r := live.acked("a/b/c"); r != mqtt.TopicNameInvalid {
			return fmt.Sprintf("a live client is held to the former limit: %v", r)
		}
		return ""
	})
	_ = live.c.Close()
	paying.mayHave(3)
	free.mayHave(1)
}

// mayHave waits until the tenant may have exactly that many connections.
func (x *tenant) mayHave(want int) {
	x.Helper()
	x.withinTime(5*live, func() string {
		got := 0
		for got <= want {
			d, k := x.connect()
			defer func() { _ = d.c.Close() }()
			if k.Reason == mqtt.QuotaExceeded {
				break
			}
			got++
		}
		if got != want {
			return fmt.Sprintf("%s has %d connections, want %d", x.id, got, want)
		}
		return ""
	})
}

// TestInstallation_Admission: the whole product asks about changes.
func TestInstallation_Admission(t *testing.T) {
	dir := t.TempDir()
	text := "package admission\n\ndeny contains \"no credentials today\" if input.operation == \"create-credential\"\n"
	if err := os.WriteFile(filepath.Join(dir, "house.rego"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	x := startProduct(t, func(o *options, _ *process) { o.policies = dir }).signUp(t, "acme")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, x.p.api+"/v1/tenants/acme/credentials", strings.NewReader(`{"username":"a"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+x.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d, want 403", resp.StatusCode)
	}
}
