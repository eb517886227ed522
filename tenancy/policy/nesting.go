// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Bounds of the shape of a source. OPA's parser and compiler take time and memory out of all
// proportion to what is nested, and cannot be interrupted: it is refused before they see it.
const (
	// bracketsMost is how deeply brackets may be nested, comprehensionsMost how deeply those
	// with a | in them, such as comprehensions.
	bracketsMost       = 64
	comprehensionsMost = 4
	// RulesMost is how many rules a policy may have; partsMost how many expressions and calls
	// a body, of which the compiler looks for an order; workMost is for the sum of their third
	// powers, which is what that takes.
	RulesMost = 5000
	partsMost = 100
	workMost  = 8_000_000
)

// scanner goes over a source, and knows brackets from what is in texts and comments.
type scanner struct {
	name, text   string
	at           int
	line, column int
	open         []bracket
}

// bracket is one that is open, or a template string, in whose braces there is Rego.
type bracket struct {
	open byte
	// union: there is a | in it, as in a comprehension; inner is how deeply those are nested
	// in it.
	union bool
	inner int
}

// depth is how deeply comprehensions are nested in it, itself included.
func (b bracket) depth() int {
	if b.union {
		return b.inner + 1
	}
	return b.inner
}

// nesting says what is nested too deeply in a source, if anything is.
func nesting(name, text string) *Fault {
	s := &scanner{name: name, text: text, line: 1, column: 1}
	for s.at < len(s.text) {
		if f := s.step(); f != nil {
			return f
		}
	}
	return nil
}

// fault is what is wrong here.
func (s *scanner) fault(format string, args ...any) *Fault {
	return &Fault{File: s.name, Line: s.line, Column: s.column, Message: fmt.Sprintf(format, args...)}
}

// skip goes on by n bytes.
func (s *scanner) skip(n int) {
	for range min(n, len(s.text)-s.at) {
		if s.text[s.at] == '\n' {
			s.line, s.column = s.line+1, 0
		}
		s.at, s.column = s.at+1, s.column+1
	}
}

// within is the innermost bracket, 0 if none is open.
func (s *scanner) within() byte {
	if len(s.open) == 0 {
		return 0
	}
	return s.open[len(s.open)-1].open
}

// push opens a bracket.
func (s *scanner) push(c byte) *Fault {
	if len(s.open) >= bracketsMost {
		return s.fault("expected brackets to be nested at most %d times: make rules of what is inside", bracketsMost)
	}
	s.open = append(s.open, bracket{open: c})
	return nil
}

// pop closes the innermost bracket. What does not fit the parser says.
func (s *scanner) pop() *Fault {
	n := len(s.open)
	if n == 0 {
		return nil
	}
	depth := s.open[n-1].depth()
	s.open = s.open[:n-1]
	if n > 1 {
		s.open[n-2].inner = max(s.open[n-2].inner, depth)
	}
	return s.deep()
}

// deep says whether comprehensions are nested too deeply here, those that have ended in the
// ones that are open among them.
func (s *scanner) deep() *Fault {
	n := 0
	for i := len(s.open) - 1; i >= 0; i-- {
		s.open[i].inner = max(s.open[i].inner, n)
		n = s.open[i].depth()
	}
	if n > comprehensionsMost {
		return s.fault("expected comprehensions to be nested at most %d times: make rules of the inner ones", comprehensionsMost)
	}
	return nil
}

// step goes over what is next.
func (s *scanner) step() (f *Fault) {
	c := s.text[s.at]
	if in := s.within(); in == '"' || in == '`' {
		return s.template(c, in)
	}
	n := 1
	switch c {
	case '#':
		if n = strings.IndexByte(s.text[s.at:], '\n'); n < 0 {
			n = len(s.text)
		}
	case '"', '`':
		n = quoted(s.text[s.at:], c)
	case '$':
		if next := s.text[s.at+1:]; next != "" && (next[0] == '"' || next[0] == '`') {
			f, n = s.push(next[0]), 2
		}
	case '(', '[', '{':
		f = s.push(c)
	case ')', ']', '}':
		f = s.pop()
	case '|':
		f = s.union()
	}
	if f == nil {
		s.skip(n)
	}
	return f
}

// template goes over what is next in a template string.
func (s *scanner) template(c, quote byte) (f *Fault) {
	n := 1
	switch c {
	case '\\':
		n = 2
	case '{':
		f = s.push(c)
	case quote:
		f = s.pop()
	}
	if f == nil {
		s.skip(n)
	}
	return f
}

// union is a |, of a comprehension or not.
func (s *scanner) union() *Fault {
	if c := s.within(); c != '[' && c != '{' {
		return nil
	}
	s.open[len(s.open)-1].union = true
	return s.deep()
}

// quoted is how long a text is that begins here.
func quoted(text string, quote byte) int {
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == quote, quote == '"' && text[i] == '\n':
			return i + 1
		case text[i] == '\\' && quote == '"':
			i++
		}
	}
	return len(text)
}

// shape says what of parsed modules takes the compiler long, if anything does.
func shape(modules map[string]*ast.Module) *Fault {
	rules, work := 0, 0
	var f *Fault
	at := func(l *ast.Location, format string, args ...any) {
		if f != nil {
			return
		}
		f = &Fault{Message: fmt.Sprintf(format, args...)}
		if l != nil {
			f.File, f.Line, f.Column = l.File, l.Row, l.Col
		}
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		for _, r := range modules[name].Rules {
			for ; r != nil; r = r.Else {
				if rules++; rules > RulesMost {
					at(r.Location, "expected at most %d rules in all files: make data of what is alike", RulesMost)
					return f
				}
			}
		}
		ast.WalkBodies(modules[name], func(b ast.Body) bool {
			n := parts(b)
			work += n * n * n
			switch {
			case n > partsMost:
				at(b.Loc(), "expected at most %d expressions and calls in a body, found %d: make rules of some", partsMost, n)
			case work > workMost:
				at(b.Loc(), "the policy takes too long to compile: expected fewer rules with many expressions")
			}
			return f != nil
		})
	}
	if f == nil && tooFar(modules) {
		f = &Fault{Message: "the policy takes too long to compile: expected fewer rules that name each other, of which each reaches all that come after it"}
	}
	return f
}

// parts is how many expressions and calls a body has.
func parts(b ast.Body) (n int) {
	ast.NewGenericVisitor(func(x any) bool {
		switch x.(type) {
		case *ast.Expr, ast.Call:
			n++
		}
		return false
	}).Walk(b)
	return n
}
