// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// reachMost is how many ways from rule to rule the compiler may have to go: from each rule
// it goes all that are reached.
const reachMost = 2_000_000

// edgeWays is how many ways one from a rule to the next counts for: that is made, the others
// are only gone.
const edgeWays = 16

// group is the rules of one name, in whatever package: what is read here is not resolved yet.
type group struct {
	rules int
	// uses are how often its rules together name others.
	uses map[string]int
	// edges is what they come to, each use of a name as many as that has rules.
	edges int
}

// everything stands for what a reference names that leaves out which rule.
const everything = "*"

// tooFar reports whether the rules of modules reach each other in more than reachMost ways.
func tooFar(modules map[string]*ast.Module) bool {
	groups, total := map[string]*group{}, 0
	for _, m := range modules {
		for _, r := range m.Rules {
			total++
			name := headName(r)
			if groups[name] == nil {
				groups[name] = &group{uses: map[string]int{}}
			}
			groups[name].rules++
		}
	}
	groups[everything] = &group{rules: total, uses: map[string]int{}}
	for _, m := range modules {
		packages := map[string]bool{"data": true}
		for _, i := range m.Imports {
			packages[string(i.Name())] = true
		}
		for _, r := range m.Rules {
			g := groups[headName(r)]
			ast.WalkRefs(r, func(ref ast.Ref) bool {
				for name := range named(ref, packages) {
					if groups[name] != nil {
						g.uses[name]++
						groups[everything].uses[name]++
					}
				}
				return false
			})
			ast.WalkVars(r, func(v ast.Var) bool {
				if groups[string(v)] != nil && string(v) != headName(r) { // not the head
					g.uses[string(v)]++
					groups[everything].uses[string(v)]++
				}
				return false
			})
		}
	}
	for _, g := range groups {
		for name, n := range g.uses {
			g.edges += n * groups[name].rules
		}
	}
	ways := 0
	for name, g := range groups {
		if name == everything {
			continue
		}
		ways += edgeWays * g.edges
		seen, next := map[string]bool{name: true}, []*group{g}
		for len(next) > 0 {
			from := next[len(next)-1]
			next = next[:len(next)-1]
			for to := range from.uses {
				if seen[to] {
					continue
				}
				seen[to] = true
				next = append(next, groups[to])
				if ways += g.rules * max(groups[to].edges, 1); ways > reachMost {
					return true
				}
			}
		}
	}
	return ways > reachMost
}

// headName is the name of a rule, without what comes after it.
func headName(r *ast.Rule) string {
	if ref := r.Head.Ref(); len(ref) > 0 {
		if v, ok := ref[0].Value.(ast.Var); ok {
			return string(v)
		}
	}
	return string(r.Head.Name)
}

// named are the names in a reference that may be those of rules.
func named(ref ast.Ref, packages map[string]bool) map[string]bool {
	names := map[string]bool{}
	for i, t := range ref {
		switch v := t.Value.(type) {
		case ast.Var:
			if i > 0 && packages[headOf(ref)] {
				names[everything] = true
			}
		case ast.String:
			if packages[headOf(ref)] {
				names[string(v)] = true
			}
		}
	}
	return names
}

// headOf is the name that a reference begins with.
func headOf(ref ast.Ref) string {
	if v, ok := ref[0].Value.(ast.Var); ok {
		return string(v)
	}
	return ""
}
