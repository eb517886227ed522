// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

// TestWrittenIsBounded compares values that are small in memory and, written out, larger than
// any memory: OPA would do so for years, in one step. They are refused as they are made, or
// by their types, which the compiler would compare in the same way.
func TestWrittenIsBounded(t *testing.T) {
	again := func(n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i) + "\n")
		}
		return b.String()
	}
	twice := doubled(60) + strings.ReplaceAll(doubled(60), "d", "e")
	for name, c := range map[string]struct{ define, body, want string }{
		"rules that are equal":   {twice, `d60 == e60`, "written out"},
		"rules that are unified": {twice, `x := d60; x = e60`, "written out"},
		"a member of a set":      {twice, `s := {d60}; s[e60]`, "written out"},
		"a key of an object":     {twice, `s := {d60: 1}; s[e60] == 1`, "written out"},
		"variables":              {"", "d0 := [1]; e0 := [1]\n" + again(45, func(i int) string { return fmt.Sprintf("d%d := [d%d, d%d]; e%d := [e%d, e%d]", i+1, i, i, i+1, i, i) }) + "d45 == e45", "written out"},
		"patterns": {"", "d0 := [1]; e0 := [1]\n" + again(60, func(i int) string {
			return fmt.Sprintf("[d%d, e%d] = [{d%d, [d%d]}, {e%d, [e%d]}]", i+1, i+1, i, i, i, i)
		}) + "d60 == e60", "written out"},
		"objects of comprehension": {"", "d0 := [1]; e0 := [1]\n" + again(15, func(i int) string {
			return fmt.Sprintf("d%d := [d%d | some _ in [1, 2, 3]]; e%d := [e%d | some _ in [1, 2, 3]]", i+1, i, i+1, i)
		}) + "d15 == e15", "written out"},
		"functions":              {"f(x) := {\"a\": x, \"b\": x}\n", "d := " + strings.Repeat("f(", 40) + "1" + strings.Repeat(")", 40) + "\ne := " + strings.Repeat("f(", 40) + "1" + strings.Repeat(")", 40) + "\nd == e", "written out"},
		"functions of functions": {"f(x) := [x, x]\ng(x) := f(f(f(f(f(f(f(f(x))))))))\nh(x) := g(g(g(g(g(g(g(g(x))))))))\n", `h(1) == h(1)`, "written out"},
		"in every":               {twice, `every x in [1] { d60 == e60 }`, "written out"},
		"negated":                {twice, `not d60 == e60`, "written out"},
		"elements of a rule":     {"d contains [x, x] if some x in numbers\nnumbers := [n | some n in [1, 2, 3]]\n", `count(d) == 3`, ""},
		"large, and not beyond":  {"d := [x | some _ in n; some x in n]\ne := [x | some _ in n; some x in n]\nn := split(\"" + strings.Repeat("0", 90) + "\", \"\")\n", `d == e; [d, d] == [e, e]`, ""},
		"what policies do":       {"roles := {\"a\": [\"x\"]}\n", `some role in roles.a; o := {"role": role, "all": [r | some r in roles.a]}; o.role == "x"; o.all == ["x"]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := "package mqtt\n\ngrants contains {\"action\": \"all\", \"filter\": \"#\"}\n\n" + c.define + "\nconnect := {\"allow\": true} if {\n" + c.body + "\n}\n"
			p, err := policy.Compile(t.Context(), policy.Source{"policy.rego": text}, policy.Limits{Bytes: 512 << 10, Grants: 10, Time: time.Second})
			if err != nil { // it is its types that are as large
				if c.want == "" || !strings.Contains(err.Error(), c.want) {
					t.Fatal(err)
				}
				return
			}
			got := p.Admit(t.Context(), policy.TenantInput{}, &tenancy.Arrival{})
			if c.want == "" && !got.Allow || c.want != "" && (got.Allow || !strings.Contains(got.Why, c.want)) {
				t.Errorf("answered %.300v, expected %q", got, c.want)
			}
		})
	}
}
