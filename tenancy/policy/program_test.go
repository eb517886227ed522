// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

const sensors = `package mqtt

classes := {"sensor", "operator"}

connect := {"allow": true, "class": "sensor"} if not startswith(input.client.user, "op-")

connect := {"allow": true, "class": "operator"} if {
	startswith(input.client.user, "op-")
	net.cidr_contains("10.0.0.0/8", input.ip)
}

grants contains {"action": "publish", "filter": "sensors/%c/#", "qos": 1} if input.class == "sensor"

grants contains {"action": "subscribe", "filter": concat("/", ["commands", kind, "%c"])} if {
	input.class == "sensor"
	some kind in ["set", "get"]
}

grants contains {"action": "all", "filter": "#"} if input.class == "operator"

grants contains {"action": "all", "filter": "secret/#", "effect": "deny", "priority": 10}
`

const sensorTests = `package mqtt_test

import data.mqtt

test_sensor if {
	some g in mqtt.grants with input as {"class": "sensor"}
	g.filter == "sensors/%c/#"
}

test_operator_from_outside if {
	not mqtt.connect with input as {"client": {"user": "op-1"}, "ip": "192.0.2.1"}
}
`

var limits = policy.Limits{Bytes: 64 << 10, Grants: 100, Time: 100 * time.Millisecond}

func compile(t testing.TB, s policy.Source) *policy.Program {
	t.Helper()
	p, err := policy.Compile(t.Context(), s, limits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProgram(t *testing.T) {
	p := compile(t, policy.Source{"policy.rego": sensors, "policy_test.rego": sensorTests})
	if got := strings.Join(p.Classes, " "); got != "operator sensor" || !p.Connect {
		t.Errorf("classes %s, connect %v", got, p.Connect)
	}
	s, err := p.Grants(t.Context(), policy.TenantInput{ID: "acme"}, "sensor")
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]string{}
	for _, e := range s.Entries {
		at[e.Filter] = e.At
	}
	for filter, want := range map[string]string{"sensors/%c/#": "policy.rego:12", "commands/set/%c": "policy.rego:14", "commands/get/%c": "policy.rego:14", "secret/#": "policy.rego:21"} {
		if at[filter] != want {
			t.Errorf("%s was made at %q, want %q", filter, at[filter], want)
		}
	}
	g := s.Bind(&tenancy.Subject{ClientID: "c1"})
	if !g.MayPublish([]byte("sensors/c1/t"), 1, false) || g.MayPublish([]byte("sensors/c2/t"), 1, false) || g.MayPublish([]byte("secret/x"), 0, false) {
		t.Error("the grants are not those of the policy")
	}
	x := g.Explain(tenancy.Question{Action: tenancy.ActionPublish, Topic: "secret/x"})
	if x.Allowed || x.Entry == nil || x.Entry.At != "policy.rego:21" {
		t.Errorf("explained by %+v", x)
	}
	for _, c := range []struct {
		user, ip string
		want     tenancy.ConnectAnswer
	}{
		{"joe", "192.0.2.1", tenancy.ConnectAnswer{Allow: true, Class: "sensor"}},
		{"op-1", "10.1.2.3", tenancy.ConnectAnswer{Allow: true, Class: "operator"}},
		{"op-1", "192.0.2.1", tenancy.ConnectAnswer{Reason: "the tenant's policy does not let this client in: mqtt.connect is undefined for it"}},
	} {
		if got := p.Admit(t.Context(), policy.TenantInput{}, &tenancy.Arrival{Client: tenancy.Subject{Username: c.user}, IP: c.ip}); got != c.want {
			t.Errorf("%s from %s: %+v, want %+v", c.user, c.ip, got, c.want)
		}
	}
	r, err := p.Test(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Passed != 2 || r.Failed != 0 || r.Coverage <= 0 || r.Coverage >= 100 || len(r.Files) != 2 || len(r.Files[0].NotCovered) == 0 || r.Err() != nil {
		t.Errorf("tests: %+v", r)
	}
}

// TestAdmit_FailsClosed: whatever goes wrong denies, and says why.
func TestAdmit_FailsClosed(t *testing.T) {
	for name, c := range map[string]struct{ rule, why string }{
		"not an object":   {`connect := true`, "expected an object"},
		"unknown field":   {`connect := {"allow": true, "klass": "default"}`, "unknown field"},
		"allow is text":   {`connect := {"allow": "yes"}`, "expected an object"},
		"unknown class":   {`connect := {"allow": true, "class": "x"}`, "does not have"},
		"builtin error":   {`connect := {"allow": true} if to_number(input.client.user) == 1`, "mqtt.connect:"},
		"conflict":        {"connect := {\"allow\": true} if input.ip\nconnect := {\"allow\": false} if input.ip", "mqtt.connect:"},
		"takes for ever":  {`connect := {"allow": true} if count([1 | some i in xs; some j in xs; some k in xs; some l in xs; i + j + k + l == -1]) == 0` + "\nxs := [to_number(x) | some x in split(\"" + strings.TrimSpace(strings.Repeat("1 ", 300)) + `", " ")]`, "policy_time_ms"},
		"says no":         {`connect := {"allow": false, "reason": "not you"}`, ""},
		"nothing is said": {`connect := {"reason": "x"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := policy.Compile(t.Context(), policy.Source{"p.rego": "package mqtt\n\ngrants := []\n\n" + c.rule + "\n"}, policy.Limits{Bytes: -1, Grants: -1, Time: 5 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			got := p.Admit(t.Context(), policy.TenantInput{}, &tenancy.Arrival{IP: "192.0.2.1", Client: tenancy.Subject{Username: "u"}})
			if got.Allow || !strings.Contains(got.Why, c.why) || (c.why == "") != (got.Why == "") {
				t.Errorf("got %+v, want a denial that says %q", got, c.why)
			}
		})
	}
}

// TestCompile_Refuses: what is wrong is named with its file and line.
func TestCompile_Refuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"syntax":            {"package mqtt\n\ngrants contains {", "p.rego:3"},
		"unsafe":            {"package mqtt\n\ngrants contains {\"action\": \"all\", \"filter\": x}", "p.rego:3"},
		"a shift":           {"package mqtt\n\ngrants contains bits.lsh(1, 4611686018427387904)", "p.rego:3:17: undefined function bits.lsh"},
		"network":           {"package mqtt\n\ngrants contains http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"})", "p.rego:3:17: undefined function http.send"},
		"clock":             {"package mqtt\n\ngrants contains 1 if time.now_ns() > 0", "undefined function time.now_ns"},
		"chance":            {"package mqtt\n\ngrants contains rand.intn(\"a\", 5)", "undefined function rand.intn"},
		"environment":       {"package mqtt\n\ngrants contains opa.runtime()", "undefined function opa.runtime"},
		"names":             {"package mqtt\n\ngrants contains net.lookup_ip_addr(\"localhost\")", "undefined function net.lookup_ip_addr"},
		"many numbers":      {"package mqtt\n\ngrants := numbers.range(1, 1000000000)", "undefined function numbers.range"},
		"recursion":         {"package mqtt\n\ngrants contains x if some x in grants", "recursive"},
		"no grants":         {"package mqtt\n\nfoo := 1", "expected the rule grants"},
		"other package":     {"package other\n\ngrants := []", "expected the rule grants"},
		"empty":             {"", "p.rego"},
		"no classes":        {"package mqtt\n\ngrants := []\n\nclasses := set()", "expected 1 to 64 classes"},
		"classes of nobody": {"package mqtt\n\ngrants := []\n\nclasses := {\"x\"}", "without mqtt.connect"},
		"old Rego":          {"package mqtt\n\ngrants[x] { x := 1 }", "p.rego:3"},
	} {
		_, err := policy.Compile(t.Context(), policy.Source{"p.rego": c.text}, limits)
		var f *policy.FaultsError
		if !errors.As(err, &f) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for name, s := range map[string]policy.Source{"none": nil, "path": {"../p.rego": "package mqtt"}, "kind": {"p.json": "{}"}} {
		if _, err := policy.Compile(t.Context(), s, limits); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
	var quota *tenancy.ExceededError
	if _, err := policy.Compile(t.Context(), policy.Source{"p.rego": "package mqtt\n#" + strings.Repeat("x", 70<<10)}, limits); !errors.As(err, &quota) || quota.Quota != "policy_bytes" {
		t.Errorf("too large: %v", err)
	}
}

func TestGrants_Refuses(t *testing.T) {
	for name, c := range map[string]struct{ rule, want string }{
		"filter":     {`grants contains {"action": "all", "filter": "a/#/b"}`, "p.rego:3"},
		"typo":       {`grants contains {"action": "all", "filter": "a", "prio": 1}`, `p.rego:3:1: mqtt.grants: expected an object`},
		"at":         {`grants contains {"action": "all", "filter": "a", "at": "x"}`, "expected an object"},
		"not object": {`grants contains "a/#"`, "p.rego:3"},
		"server":     {`grants contains {"action": "all", "filter": "$SYS/#"}`, "the server's"},
		"fails":      {`grants contains {"action": "all", "filter": sprintf("%d", [to_number("x")])}`, "p.rego:3"},
		"not a set":  {`grants := {"a": 1}`, "expected a set"},
		"many": {`grants contains {"action": "all", "filter": x} if { some x in split("` + strings.TrimSpace(func() (s string) {
			for i := range 101 {
				s += string(rune('a'+i%26)) + strings.Repeat("x", i/26) + " "
			}
			return s
		}()) + `", " ") }`, "the quota grants of 100"},
	} {
		p := compile(t, policy.Source{"p.rego": "package mqtt\n\n" + c.rule + "\n"})
		if _, err := p.Grants(t.Context(), policy.TenantInput{}, "default"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestGrants_Time: a policy that takes longer than its quota is refused when it is
// pushed.
func TestGrants_Time(t *testing.T) {
	text := "package mqtt\n\nxs := [to_number(x) | some x in split(\"" + strings.TrimSpace(strings.Repeat("1 ", 120)) + "\", \" \")]\n\n" +
		"grants contains {\"action\": \"all\", \"filter\": \"a\"} if count([1 | some i in xs; some j in xs; some k in xs; i + j + k > 5]) == 0\n"
	p, err := policy.Compile(t.Context(), policy.Source{"p.rego": text}, policy.Limits{Bytes: -1, Grants: -1, Time: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Grants(t.Context(), policy.TenantInput{}, "default"); err == nil || !strings.Contains(err.Error(), "policy_time_ms") {
		t.Errorf("got %v", err)
	}
}

func TestReport_Err(t *testing.T) {
	p := compile(t, policy.Source{"p.rego": "package mqtt\n\ngrants := []\n", "p_test.rego": "package mqtt_test\n\nimport data.mqtt\n\ntest_x if {\n\tcount(mqtt.grants) == 7\n}\n"})
	r, err := p.Test(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "p_test.rego:5:1: the test mqtt_test.test_x has failed") {
		t.Errorf("got %v", err)
	}
}
