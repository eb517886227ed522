// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"
)

// A value can be small in memory and large written out: each of d1 := [d0, d0], d2 := [d1, d1] … is
// twice as large as the one before. Where two such values are equal OPA compares all that
// they have, written out, in one step, which cannot be interrupted. So each value that a
// policy makes of others is looked at as it is made: the compiler is given a stage that puts a
// call of lookWritten behind each expression that makes one.

// writtenFactor is how many times as large as what a builtin may make a value may be, written out.
const writtenFactor = 4

// lookWritten is true. It ends the evaluation if its argument is too large.
var lookWritten = &ast.Builtin{
	Name:        "manor.written",
	Description: "True. The evaluation ends if the value is too large, written out.",
	Decl:        types.NewFunction(types.Args(types.A), types.B),
}

// registerWritten makes it known to OPA, for the whole process.
func registerWritten() *ast.Builtin {
	ast.RegisterBuiltin(lookWritten)
	topdown.RegisterBuiltinFunc(lookWritten.Name, func(c topdown.BuiltinContext, args []*ast.Term, iter func(*ast.Term) error) error {
		a := allowed(c.Context)
		most := &allowance{text: writtenFactor * a.text, elements: writtenFactor * a.elements}
		s, err := sizeOf(most, args...)
		if err == nil && s.over(most) {
			err = fmt.Errorf("expected a value of at most %d elements and %d bytes of text, written out: what occurs in it twice counts twice", most.elements, most.text)
		}
		if err != nil {
			return halt(c, "the value", err)
		}
		return iter(ast.InternedTerm(true))
	})
	return lookWritten
}

// boundWritten is the stage. It follows the one in which refs and comprehensions have got
// variables of their own, so that what is made is made of variables and constants.
func boundWritten(c *ast.Compiler) *ast.Error {
	for _, m := range c.Modules {
		for _, r := range m.Rules {
			for ; r != nil; r = r.Else {
				boundBodies(r.Body)
				r.Body = boundBody(r.Body, r.Head.Value, r.Head.Key)
			}
		}
	}
	return nil
}

// boundBodies does so in what is within a body: comprehensions, every and not.
func boundBodies(b ast.Body) {
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.ArrayComprehension:
			x.Body = boundBody(x.Body, x.Term)
		case *ast.SetComprehension:
			x.Body = boundBody(x.Body, x.Term)
		case *ast.ObjectComprehension:
			x.Body = boundBody(x.Body, x.Key, x.Value)
		case *ast.Every:
			x.Body = boundBody(x.Body)
		case *ast.Not:
			x.Body = boundBody(x.Body)
		case *ast.LogicalAnd:
			x.Lhs, x.Rhs = boundBody(x.Lhs), boundBody(x.Rhs)
		case *ast.LogicalOr:
			x.Lhs, x.Rhs = boundBody(x.Lhs), boundBody(x.Rhs)
		}
		return false
	}).Walk(b)
}

// boundBody returns the body with a look at what its equalities make, and at the end at what is
// made of it.
func boundBody(b ast.Body, made ...*ast.Term) ast.Body {
	out := make(ast.Body, 0, len(b)+1)
	look := func(at *ast.Expr, terms ...*ast.Term) {
		e := lookWritten.Expr(ast.ArrayTerm(terms...))
		e.Generated = true
		if at != nil {
			e.SetLocation(at.Location)
		}
		out.Append(e)
	}
	var last *ast.Expr
	for _, e := range b {
		out.Append(e)
		last = e
		if !e.IsEquality() || e.Negated {
			continue
		}
		if terms := e.Operands(); len(terms) == 2 && (makes(terms[0]) || makes(terms[1])) {
			if vars := append(varsOf(terms[0]), varsOf(terms[1])...); len(vars) > 0 {
				look(e, vars...)
			}
		}
	}
	for _, t := range made {
		if t != nil && makes(t) {
			look(last, t)
		}
	}
	return out
}

// makes reports whether a term makes a value of others.
func makes(t *ast.Term) bool {
	switch t.Value.(type) {
	case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
		return true
	case *ast.Array, ast.Object, ast.Set:
		return !t.IsGround()
	}
	return false
}

// varsOf are the variables of a term, without those within comprehensions.
func varsOf(t *ast.Term) (vars []*ast.Term) {
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
			return true
		case *ast.Term:
			if _, ok := x.Value.(ast.Var); ok {
				vars = append(vars, x)
			}
		}
		return false
	}).Walk(t)
	return vars
}
