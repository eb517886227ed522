// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/manormq/manor/tenancy/policy"
)

// What the compiler would take minutes or gigabytes for is refused before, with its place.
func TestCompile_Nesting(t *testing.T) {
	again := func(n int, f func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(f(i))
		}
		return b.String()
	}
	same := func(n int, s string) string { return strings.Repeat(s, n) }
	chain := func(n int) string {
		return "p if {\n" + again(n, func(i int) string { return fmt.Sprintf("\tx%d = x%d\n", i, i+1) }) + fmt.Sprintf("\tx%d = 1\n}", n)
	}
	for name, c := range map[string]struct{ rule, want string }{
		"brackets":                     {"x := " + same(65, "[") + "1" + same(65, "]"), "policy.rego:5:70: expected brackets to be nested at most 64 times"},
		"brackets that are well":       {"x := " + same(64, "[") + "1" + same(64, "]"), ""},
		"brackets that never end":      {"x := " + same(90_000, "(1+"), "policy.rego:5:198: expected brackets"},
		"in a template":                {`x := $"{` + same(64, "(") + "1" + same(64, ")") + `}"`, "expected brackets"},
		"comprehensions":               {"x := " + same(10, "[") + "1" + same(10, " | true]"), "expected comprehensions to be nested at most 4 times"},
		"comprehensions that are well": {"x := " + same(4, "[") + "1" + same(4, " | true]"), ""},
		"beside each other":            {"x := [" + same(50, "[y | y := 1],") + "1]", ""},
		"in texts":                     {"x := [\"" + same(100, `[|\"`) + "\", `" + same(100, "{|\"") + "`] # " + same(100, "[|"), ""},
		"in a template's text":         {`x := $"` + same(100, `[|\{`) + `"`, ""},
		"unions":                       {"x := " + same(10, "({1} | ") + "{2}" + same(10, ")"), ""},
		"a long body":                  {chain(2000), "policy.rego:6:2: expected at most 100 expressions and calls in a body, found 2001"},
		"many long bodies":             {again(20, func(int) string { return chain(98) + "\n\n" }), "takes too long to compile"},
		"a body that is well":          {chain(50), ""},
		"many rules":                   {again(5001, func(i int) string { return fmt.Sprintf("r%d := 1\n", i) }), "expected at most 5000 rules"},
		"a long chain of rules":        {again(4000, func(i int) string { return fmt.Sprintf("r%d := r%d\n", i, i+1) }) + "r4000 := 1", "name each other"},
		"rules that all name others": {
			again(500, func(i int) string { return fmt.Sprintf("a contains %d if b[_]\n\nb contains %d if c[_]\n", i, i) }) + "c contains 1", "name each other",
		},
		"rules of another package": {
			again(1500, func(i int) string {
				return fmt.Sprintf("a contains %d if some x in data.mqtt.b\n\nb contains %d if c[_]\n", i, i)
			}) + "c contains 1", "name each other",
		},
		"many grants": {again(2000, func(i int) string { return fmt.Sprintf("g contains %d if is(input.class)\n", i) }) + "is(x) if x == \"a\"", ""},
		"many ways":   {"f(a) := 1 if a\n" + same(5001, "else := 2 if { input.x }\n"), "expected at most 5000 rules"},
	} {
		t.Run(name, func(t *testing.T) {
			l := limits
			l.Bytes = -1
			_, err := policy.Compile(t.Context(), policy.Source{"policy.rego": "package mqtt\n\ngrants := []\n\n" + c.rule + "\n"}, l)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Compile: %.300v, expected %q", err, c.want)
			}
		})
	}
}
