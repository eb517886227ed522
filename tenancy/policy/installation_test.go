// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

// twice gives paying organizations twice the connections, and bounds overrides of others.
const twice = `package quota

paying if input.plan in {"starter", "pro"}

limits.connections := 2 * input.limits.connections if paying

limits[name] := 10 if {
	not paying
	some name, value in input.overrides
	name == "devices"
	value > 10
}
`

func install(t testing.TB, text string) *policy.Installation {
	t.Helper()
	p, err := policy.CompileInstallation(t.Context(), policy.Source{"house.rego": text})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestInstallation_Limits(t *testing.T) {
	p := install(t, twice)
	if !p.HasLimits || p.HasAdmission {
		t.Errorf("limits %v, admission %v", p.HasLimits, p.HasAdmission)
	}
	for _, c := range []struct {
		plan      string
		overrides map[string]int64
		want      map[string]int64
	}{
		{"starter", nil, map[string]int64{"connections": 20_000}},
		{"starter", map[string]int64{"connections": 7}, map[string]int64{"connections": 14}},
		{"free", nil, nil},
		{"free", map[string]int64{"devices": 5}, nil},
		{"free", map[string]int64{"devices": 5_000}, map[string]int64{"devices": 10}},
		{"dev", map[string]int64{"devices": 5_000}, map[string]int64{"devices": 10}},
	} {
		got, err := p.Limits(t.Context(), &tenancy.TenantRecord{ID: "acme", Plan: c.plan, State: tenancy.StateActive, Overrides: c.overrides}, "Acme")
		if err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%s with %v: %v, %v, want %v", c.plan, c.overrides, got, err, c.want)
		}
	}
}

func TestInstallation_Input(t *testing.T) {
	p := install(t, `package quota

limits.devices := 1 if {
	input.tenant == "acme"
	input.state == "suspended"
	input.organization == {"id": "org_1", "name": "Acme"}
	input.limits.publish_rate == -1
	input.overrides == {}
}

limits.members := 1 if input.organization.name == "Other"
`)
	got, err := p.Limits(t.Context(), &tenancy.TenantRecord{ID: "acme", Organization: "org_1", Plan: "dev", State: tenancy.StateSuspended}, "Acme")
	if err != nil || !maps.Equal(got, map[string]int64{"devices": 1}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// What is wrong is refused with the file and line before it is ever live.
func TestInstallation_Refused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"does not compile", "package quota\n\nlimits.devices := x", "house.rego:3:"},
		{"nothing", "package quota\n\nother := 1", "expected the rule limits in package quota"},
		{"network", "package admission\n\ndeny contains \"x\" if http.send({}).x", "house.rego:3:"},
		{"unknown", "package quota\n\n# A comment.\nlimits.conections := 5", `house.rego:4:1: quota.limits: there is no quota named "conections"`},
		{"negative", "package quota\n\nlimits[\"devices\"] := -5 if input.plan == \"free\"", "house.rego:3:1: quota.limits: expected 0 to"},
		{"unlimited by arithmetic", "package quota\n\nlimits.devices := 199 - input.limits.devices if input.plan == \"free\"", "house.rego:3:1: quota.limits: the quota devices is limited to 200, and a policy cannot make it unlimited"},
		{"fraction", "package quota\n\nlimits.devices := input.limits.devices / 3", "house.rego:3:1: quota.limits: expected a whole number for the quota devices, found"},
		{"a string", "package quota\n\nlimits.devices := \"5\"", `house.rego:3:1: quota.limits: expected a whole number for the quota devices, found the string "5"`},
		{"no object", "package quota\n\nlimits := 5", "quota.limits: expected an object"},
		{"undefined", "package quota\n\nlimits := {\"devices\": 5} if input.plan == \"pro\"", "quota.limits: expected an object of limits by the names of quotas, found nothing"},
		{"fails", "package quota\n\nlimits := {\"devices\": to_number(input.plan)}", "house.rego:3:"},
		{"a condition, not a set", "package admission\n\ndeny if input.operation == \"x\"", "admission.deny is undefined, expected a set of strings"},
		{"a text, not a set", "package admission\n\ndeny := \"no\"", "admission.deny: expected a set of strings"},
		{"its tests", "package quota\n\nlimits.devices := 5\n\ntest_six if limits.devices == 6", "house.rego:5:1: the test quota.test_six has failed"},
	} {
		_, err := policy.CompileInstallation(t.Context(), policy.Source{"house.rego": c.text})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// A policy that goes on for ever, for a tenant that nobody has tried, is cut off.
func TestInstallation_Time(t *testing.T) {
	p := install(t, `package quota

limits.devices := n if {
	input.tenant == "slow"
	xs := [to_number(x) | some x in split(input.organization.name, "")]
	n := count([1 | some i in xs; some j in xs; some k in xs; some l in xs; i + j == k + l])
}

limits.members := 1 if input.tenant != "slow"
`)
	_, err := p.Limits(t.Context(), &tenancy.TenantRecord{ID: "slow", Plan: "free"}, strings.Repeat("1", 300))
	if err == nil || !strings.Contains(err.Error(), "takes longer than") {
		t.Errorf("got %v", err)
	}
}

func TestInstallation_Deny(t *testing.T) {
	p := install(t, `package admission

deny contains msg if {
	input.operation == "create-tenant"
	not startswith(input.new.id, "acme-")
	msg := sprintf("tenants of %s begin with acme-", [input.resource.organization])
}

deny contains "not at all" if input.actor.role == "viewer"

deny contains 7 if input.operation == "broken"

deny contains to_number(input.operation) if input.operation == "fails"

deny contains "" if input.operation == "empty"
`)
	ask := func(a *policy.Admission) ([]string, error) { return p.Deny(t.Context(), a) }
	body := func(id string) map[string]any { return map[string]any{"id": id} }
	for _, c := range []struct {
		a    policy.Admission
		want []string
		fail string
	}{
		{a: policy.Admission{Operation: "create-tenant", New: body("acme-1")}},
		{a: policy.Admission{Operation: "create-tenant", New: body("x"), Resource: policy.AdmissionResource{Organization: "org_1"}}, want: []string{"tenants of org_1 begin with acme-"}},
		{a: policy.Admission{Operation: "create-tenant", New: body("x"), Actor: policy.AdmissionActor{Role: "viewer"}}, want: []string{"not at all", "tenants of  begin with acme-"}},
		{a: policy.Admission{Operation: "empty"}, want: []string{"refused by the installation's policy (data.admission.deny)"}},
		{a: policy.Admission{Operation: "broken"}, fail: "expected a set of strings"},
		{a: policy.Admission{Operation: "fails"}, fail: "house.rego:13:"},
	} {
		got, err := ask(&c.a)
		slices.Sort(got)
		if c.fail != "" {
			if err == nil || !strings.Contains(err.Error(), c.fail) {
				t.Errorf("%s: got %v, %v, want %q", c.a.Operation, got, err, c.fail)
			}
		} else if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, %v, want %q", c.a.Operation, got, err, c.want)
		}
	}
	undefined := install(t, "package admission\n\ndeny := {\"x\"} if input.operation != \"y\"")
	if _, err := undefined.Deny(t.Context(), &policy.Admission{Operation: "y"}); err == nil {
		t.Error("an undefined deny lets a change through")
	}
}

func TestReadSource(t *testing.T) {
	dir := t.TempDir()
	if _, err := policy.ReadSource(dir); err == nil || !strings.Contains(err.Error(), "at least one file *.rego") {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"a.rego", "b.rego", "c.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := policy.ReadSource(dir)
	if err != nil || !maps.Equal(s, policy.Source{"a.rego": "a.rego", "b.rego": "b.rego"}) {
		t.Errorf("got %v, %v", s, err)
	}
}

// TestInstallation_Documented: the examples of docs/policies.md are such policies, and
// bound what is unlimited, too.
func TestInstallation_Documented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "policies.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*policy.Installation{}
	for _, name := range []string{"quota", "admission"} {
		examples := strings.Split(string(text), "\n    package "+name+"\n")[1:]
		if len(examples) == 0 {
			t.Fatalf("there is no example of package %s", name)
		}
		for i, rest := range examples {
			code := "package " + name + "\n"
			for line := range strings.SplitSeq(rest, "\n") {
				own, ok := strings.CutPrefix(line, "    ")
				if !ok && line != "" {
					break
				}
				code += own + "\n"
			}
			if example := install(t, code); i == 0 {
				found[name] = example
			} else {
				found[name+" of strangers"] = example
			}
		}
	}
	strangers := found["admission of strangers"]
	if strangers == nil {
		t.Fatal("there is no example for an installation where strangers sign up")
	}
	for _, c := range []struct {
		operation string
		body      map[string]any
		denied    bool
	}{
		{"replace-plan", map[string]any{"plan": "free"}, true},
		{"replace-quota-overrides", map[string]any{"connections": 7}, true},
		{"sign-up", map[string]any{"plan": "dev"}, true},
		{"sign-up", map[string]any{"plan": "free"}, false},
		{"create-credential", map[string]any{"username": "x"}, false},
	} {
		if all, err := strangers.Deny(t.Context(), &policy.Admission{Operation: c.operation, New: c.body}); err != nil || len(all) > 0 != c.denied {
			t.Errorf("%s %v: %q, %v", c.operation, c.body, all, err)
		}
	}
	for devices, want := range map[int64]map[string]int64{
		5: nil, 1000: nil, 5_000: {"devices": 1000}, tenancy.Unlimited: {"devices": 1000},
	} {
		r := &tenancy.TenantRecord{ID: "acme", Plan: tenancy.PlanFree, State: tenancy.StateActive, Overrides: map[string]int64{"devices": devices}}
		if got, err := found["quota"].Limits(t.Context(), r, "Acme"); err != nil || !maps.Equal(got, want) {
			t.Errorf("%d devices: %v, %v, want %v", devices, got, err, want)
		}
	}
}

// BenchmarkInstallation is what a write of a tenant, and a change through the API, cost.
func BenchmarkInstallation(b *testing.B) {
	limits := install(b, twice)
	admission := install(b, "package admission\n\ndeny contains \"no\" if {\n\tinput.operation == \"create-tenant\"\n\tnot startswith(input.new.id, \"acme-\")\n}\n")
	b.Run("limits", func(b *testing.B) {
		r := &tenancy.TenantRecord{ID: "acme", Plan: "starter", Overrides: map[string]int64{"connections": 7}}
		for b.Loop() {
			if _, err := limits.Limits(b.Context(), r, "Acme"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("deny", func(b *testing.B) {
		a := &policy.Admission{Operation: "create-tenant", New: map[string]any{"id": "acme-1"}}
		for b.Loop() {
			if all, err := admission.Deny(b.Context(), a); err != nil || len(all) > 0 {
				b.Fatal(all, err)
			}
		}
	})
}
