// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

// reference is what grants mean, in Rego: OPA is asked about every topic name by
// itself. input.names are topic names, allowed the answers.
const reference = `package reference

grants := data.mqtt.grants

unsafe if {
	some c in ["+", "#", "/", "$"]
	contains(input.client.id, c)
}

unsafe if input.client.id == ""

deny(g) if g.effect == "deny"

# The filters that an entry stands for.
filters(g) := [split(g.filter, "/")] if not contains(g.filter, "%c")

filters(g) := [split(replace(g.filter, "%c", input.client.id), "/")] if {
	contains(g.filter, "%c")
	not unsafe
}

filters(g) := [] if {
	contains(g.filter, "%c")
	unsafe
	not deny(g)
}

filters(g) := [array.concat(array.slice(split(g.filter, "/"), 0, first), ["+", "#"])] if {
	contains(g.filter, "%c")
	unsafe
	deny(g)
	first := min([i | some i, l in split(g.filter, "/"); contains(l, "%c")])
}

level(l, _) if l == "+"

level(l, _) if l == "#"

level(l, w) if l == w

hidden(f, name) if {
	startswith(name, "$")
	f[0] in {"+", "#"}
}

matches(f, name) if {
	t := split(name, "/")
	not hidden(f, name)
	f[count(f) - 1] != "#"
	count(f) == count(t)
	every i, l in f { level(l, t[i]) }
}

matches(f, name) if {
	t := split(name, "/")
	not hidden(f, name)
	f[count(f) - 1] == "#"
	count(t) >= count(f) - 1
	every i, l in array.slice(f, 0, count(f) - 1) { level(l, t[i]) }
}

applies(action, name) := {g |
	some g in grants
	g.action in {action, "all"}
	object.get(g, "user", input.client.user) == input.client.user
	some f in filters(g)
	matches(f, name)
}

decides(action, name) := {g |
	all := applies(action, name)
	some g in all
	object.get(g, "priority", 0) == max([object.get(x, "priority", 0) | some x in all])
}

enough(g, qos, retain) if {
	object.get(g, "qos", 2) >= qos
	retain == false
}

enough(g, qos, retain) if {
	object.get(g, "qos", 2) >= qos
	object.get(g, "retain", true)
}

allowed contains [action, name, qos, retain] if {
	some action in ["publish", "subscribe"]
	some name in input.names
	all := decides(action, name)
	count([g | some g in all; deny(g)]) == 0
	some qos in [0, 1, 2]
	some retain in [true, false]
	some g in all
	not deny(g)
	enough(g, qos, retain)
	not server(action, name)
}

server(action, name) if {
	action == "publish"
	startswith(name, "$")
}
`

// randomPolicy is Rego with some grants, of which some are made for a class, or by
// iteration.
func randomPolicy(r *rand.Rand) string {
	var b strings.Builder
	b.WriteString("package mqtt\n\nclasses := {\"x\", \"y\"}\n\nconnect := {\"allow\": true, \"class\": \"x\"}\n\n")
	for range 1 + r.IntN(7) {
		g := map[string]any{"action": []string{"publish", "subscribe", "all"}[r.IntN(3)], "filter": randomFilter(r, []string{"a", "b", "", "+", "%c", "a%c"})}
		if strings.HasPrefix(g["filter"].(string), "$") {
			g["action"] = "subscribe"
		}
		if r.IntN(2) == 0 {
			g["priority"] = r.IntN(3)
		}
		if r.IntN(3) == 0 {
			g["user"] = []string{"u1", "u2"}[r.IntN(2)]
		}
		switch r.IntN(4) {
		case 0:
			g["effect"] = "deny"
		case 1:
			g["qos"] = r.IntN(3)
		case 2:
			g["retain"] = r.IntN(2) == 0
		}
		text, _ := json.Marshal(g)
		switch r.IntN(3) {
		case 0:
			fmt.Fprintf(&b, "grants contains %s if input.class == %q\n\n", text, []string{"x", "y"}[r.IntN(2)])
		case 1:
			fmt.Fprintf(&b, "grants contains object.union(%s, {\"priority\": p}) if {\n\tsome p in [%d, %d]\n}\n\n", text, r.IntN(2), r.IntN(3))
		default:
			fmt.Fprintf(&b, "grants contains %s\n\n", text)
		}
	}
	return b.String()
}

func randomFilter(r *rand.Rand, from []string) string {
	for {
		var all []string
		for range 1 + r.IntN(3) {
			all = append(all, from[r.IntN(len(from))])
		}
		if r.IntN(3) == 0 {
			all[len(all)-1] = "#"
		}
		if r.IntN(15) == 0 {
			all = append([]string{"$SYS"}, all[1:]...)
			all = append(all, "a")
			if i := len(all) - 2; all[i] == "#" {
				all = all[:i+1]
			}
		}
		if f := strings.Join(all, "/"); f != "" {
			return f
		}
	}
}

// TestNativeEqualsOPA is the soundness of grants: for random policies, clients,
// names and filters, what a gateway answers natively is what OPA says, and no filter
// is granted that matches a name which OPA denies, at the QoS that is granted.
func TestNativeEqualsOPA(t *testing.T) {
	words := []string{"a", "b", "c1", "ac1", "", "z"}
	var names []string
	for _, x := range append(words, "$SYS") {
		names = append(names, x)
		for _, y := range words {
			names = append(names, x+"/"+y)
			for _, z := range []string{"a", "c1", "z"} {
				names = append(names, x+"/"+y+"/"+z)
			}
		}
	}
	names = slices.DeleteFunc(names, func(s string) bool { return s == "" })
	policies, granted, answers := 20, 0, 0
	if testing.Short() {
		policies = 6
	}
	for seed := range uint64(policies) {
		r := rand.New(rand.NewPCG(seed, 7))
		text := randomPolicy(r)
		p := compile(t, policy.Source{"p.rego": text})
		ref, err := rego.New(rego.Query("data.reference.allowed"), rego.Module("p.rego", text), rego.Module("reference.rego", reference)).PrepareForEval(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, client := range []string{"c1", "a", "x/y", "+", ""} {
			class, user := []string{"x", "y"}[r.IntN(2)], []string{"u1", "u3"}[r.IntN(2)]
			s, err := p.Grants(t.Context(), policy.TenantInput{ID: "acme"}, class)
			if err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			g := s.Bind(&tenancy.Subject{ClientID: client, Username: user})
			results, err := ref.Eval(t.Context(), rego.EvalInput(map[string]any{"names": names, "class": class, "client": map[string]any{"id": client, "user": user}}))
			if err != nil {
				t.Fatal(err)
			}
			allowed := map[string]bool{}
			for _, x := range results[0].Expressions[0].Value.([]any) {
				allowed[fmt.Sprintf("%v|%v|%v|%v", x.([]any)...)] = true
			}
			opa := func(action, name string, qos mqtt.QoS, retain bool) bool {
				return allowed[fmt.Sprintf("%v|%v|%d|%v", action, name, uint8(qos), retain)]
			}
			where := func() string {
				return fmt.Sprintf("seed %d, class %s, client %q, user %s, policy\n%s", seed, class, client, user, text)
			}
			for _, name := range names {
				for _, qos := range []mqtt.QoS{0, 1, 2} {
					for _, retain := range []bool{false, true} {
						answers++
						if got, want := g.MayPublish([]byte(name), qos, retain), opa("publish", name, qos, retain); got != want {
							t.Fatalf("publish %q at %d, retain %v: native %v, OPA %v: %s", name, qos, retain, got, want, where())
						}
					}
				}
				if got, want := g.MayReceive([]byte(name)), opa("subscribe", name, 0, false); got != want {
					t.Fatalf("receive %q: native %v, OPA %v: %s", name, got, want, where())
				}
				// A name is a filter that matches itself: there the answers are the same.
				if most, got := g.MaySubscribe(name); got != opa("subscribe", name, 0, false) || got && !opa("subscribe", name, most, false) || got && most < 2 && opa("subscribe", name, most+1, false) {
					t.Fatalf("subscribe %q: native %v at %d: %s", name, got, most, where())
				}
			}
			for range 60 {
				filter := randomFilter(r, []string{"a", "b", "c1", "+", ""})
				most, ok := g.MaySubscribe(filter)
				if !ok {
					continue
				}
				granted++
				for _, name := range names {
					if topic.Match(filter, []byte(name)) && !opa("subscribe", name, most, false) {
						t.Fatalf("filter %q is granted at %d, and matches %q, which OPA denies: %s", filter, most, name, where())
					}
				}
			}
		}
	}
	t.Logf("%d answers for names, %d filters granted", answers, granted)
	if granted < policies {
		t.Errorf("only %d filters were granted: the test sees little", granted)
	}
}
