// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// The compiler gives each value a type, and compares types as the evaluation does values: all that they
// have, written out (see written.go). typesMost is how many parts a type may have, as typesBound adds
// them up: at least as many as it has.
const typesMost = 200_000

// typesBound is a stage before that in which types are found. Rules come in an order in which each
// follows those that it names.
func typesBound(c *ast.Compiler) *ast.Error {
	sorted, ok := c.Graph.Sort()
	if !ok {
		return nil // rules that name themselves are refused by another stage
	}
	of := map[string]int{} // by what rules are called
	for _, x := range sorted {
		r, ok := x.(*ast.Rule)
		if !ok {
			continue
		}
		name, over := r.Ref().GroundPrefix().String(), false
		for next := r; next != nil; next = next.Else {
			t := typeSizes{rules: of, vars: map[ast.Var]int{}}
			t.body(next.Body)
			of[name] += 1 + t.term(next.Head.Value) + t.term(next.Head.Key)
			over = over || t.over
		}
		if over || of[name] > typesMost {
			return ast.NewError(ast.CompileErr, r.Location, "expected values with at most %d parts, written out: what occurs in one twice counts twice", typesMost)
		}
	}
	return nil
}

// typeSizes adds up the parts of the types in a rule.
type typeSizes struct {
	rules map[string]int
	vars  map[ast.Var]int
	// over: one of the variables has more than typesMost.
	over bool
}

func (t *typeSizes) body(b ast.Body) {
	for _, e := range b {
		t.expr(e)
	}
}

func (t *typeSizes) expr(e *ast.Expr) {
	with := 1 // what is read of input or data has the type of what stands for it
	for _, w := range e.With {
		with += t.term(w.Value)
	}
	switch terms := e.Terms.(type) {
	case []*ast.Term:
		n := 0
		if !e.IsEquality() {
			n = t.term(terms[0]) // the function's, or 1
		}
		for _, operand := range terms[1:] {
			if v, ok := operand.Value.(ast.Var); !ok || t.vars[v] > 0 {
				n = min(n+t.term(operand), typesMost+1)
			}
		}
		n = min(with*max(n, 1), typesMost+1)
		t.over = t.over || n > typesMost
		for _, operand := range terms[1:] {
			for _, v := range varsOf(operand) {
				if name := v.Value.(ast.Var); t.vars[name] == 0 {
					t.vars[name] = n
				}
			}
		}
	case *ast.Term:
		t.term(terms)
	case *ast.Every:
		n := t.term(terms.Domain)
		for _, v := range []*ast.Term{terms.Key, terms.Value} {
			if v != nil {
				for _, x := range varsOf(v) {
					t.vars[x.Value.(ast.Var)] = n
				}
			}
		}
		t.body(terms.Body)
	case *ast.Not:
		t.body(terms.Body)
	case *ast.LogicalAnd:
		t.body(terms.Lhs)
		t.body(terms.Rhs)
	case *ast.LogicalOr:
		t.body(terms.Lhs)
		t.body(terms.Rhs)
	}
}

// term is how many parts the type of a term has at most.
func (t *typeSizes) term(x *ast.Term) (n int) {
	if x == nil {
		return 0
	}
	n = 1
	add := func(x *ast.Term) { n = min(n+t.term(x), typesMost+1) }
	switch v := x.Value.(type) {
	case ast.Var:
		n = max(t.vars[v], 1)
	case ast.Ref:
		n = t.ref(v)
	case *ast.Array:
		v.Foreach(add)
	case ast.Set:
		v.Foreach(add)
	case ast.Object:
		v.Foreach(func(k, e *ast.Term) { add(k); add(e) })
	case *ast.ArrayComprehension:
		t.body(v.Body)
		add(v.Term)
	case *ast.SetComprehension:
		t.body(v.Body)
		add(v.Term)
	case *ast.ObjectComprehension:
		t.body(v.Body)
		add(v.Key)
		add(v.Value)
	}
	return n
}

// ref is the type of what a reference may lead to: a part of a variable, of a rule, or several rules.
func (t *typeSizes) ref(r ast.Ref) int {
	if v, ok := r[0].Value.(ast.Var); ok && t.vars[v] > 0 {
		return t.vars[v]
	}
	if !r[0].Equal(ast.DefaultRootDocument) {
		return 1 // of the input, or a builtin
	}
	ground := r.GroundPrefix()
	for i := len(ground); i > 0; i-- {
		if n := t.rules[ground[:i].String()]; n > 0 {
			return n
		}
	}
	n, below := 1, ground.String()
	for name, size := range t.rules {
		if len(name) > len(below) && name[:len(below)] == below {
			n = min(n+size, typesMost+1)
		}
	}
	return n
}
