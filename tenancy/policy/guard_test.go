// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// A builtin that panics in a test of a policy fails that test: OPA runs tests in goroutines
// of its own, where nothing else would catch it.
func TestTest_Panic(t *testing.T) {
	const name = "units.parse"
	before := topdown.GetBuiltin(name)
	t.Cleanup(func() { topdown.RegisterBuiltinFunc(name, before) })
	topdown.RegisterBuiltinFunc(name, guarded(name, 1, nil, func(topdown.BuiltinContext, []*ast.Term, func(*ast.Term) error) error {
		panic("the builtin is broken")
	}))
	p, err := Compile(t.Context(), Source{"policy.rego": "package mqtt\n\ngrants := []\n\ntest_it if units.parse(\"1\") == 1\n\ntest_well if true\n"}, Limits{Bytes: 1000, Grants: 1})
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Test(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Passed != 1 || r.Failed != 1 || r.Tests[0].Outcome != "error" || !strings.Contains(r.Tests[0].Message, "the builtin is broken") {
		t.Errorf("tests: %+v", r.Tests)
	}
}

// Every builtin that a bound is said for is one that policies have.
func TestBoundsAreOfBuiltins(t *testing.T) {
	allowed := map[string]bool{}
	for _, b := range capabilities.Builtins {
		allowed[b.Name] = true
	}
	for name := range bounds {
		if !allowed[name] || topdown.GetBuiltin(name) == nil {
			t.Errorf("%s: expected a builtin that policies may use", name)
		}
	}
}
