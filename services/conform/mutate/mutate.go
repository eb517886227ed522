// SPDX-License-Identifier: Apache-2.0

// Package mutate takes checks out of the code, one at a time, to see whether the
// tests of the check's own package notice (mutation testing: DeMillo, Lipton and
// Sayward, "Hints on Test Data Selection", 1978). A check is what a comment with a
// normative id of MQTT stands at. The source carries no switches for it: a Mutant
// is a text, for go test -overlay. All of it may be called concurrently.
package mutate

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// Mutant is one file with one check taken out.
type Mutant struct {
	File string
	Line int
	IDs  string // the statements that are cited there
	What string // what was done
	Text []byte // the file
}

func (m Mutant) String() string { return fmt.Sprintf("%s:%d: %s: %s", m.File, m.Line, m.IDs, m.What) }

var id = regexp.MustCompile(`\[?MQTT-[0-9]+\.[0-9]+\.[0-9]+-[0-9]+`)

// Find returns the mutants of a file, by line. The error is that of the parser.
func Find(file string, text []byte) ([]Mutant, error) {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, text, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	f := finder{fset: fset, file: file, text: text, done: map[token.Pos]bool{}}
	for _, group := range tree.Comments {
		var ids []string
		for _, s := range id.FindAllString(group.Text(), -1) {
			ids = append(ids, strings.TrimPrefix(s, "["))
		}
		if len(ids) == 0 {
			continue
		}
		f.ids = strings.Join(slices.Compact(ids), " ")
		f.comment(tree, group)
	}
	slices.SortStableFunc(f.found, func(a, b Mutant) int { return a.Line - b.Line })
	return f.found, nil
}

type finder struct {
	fset  *token.FileSet
	file  string
	text  []byte
	ids   string
	found []Mutant
	done  map[token.Pos]bool
}

// comment finds what group stands at: the statement on its line, or on the next;
// of a function's own comment, every if of it that refuses.
func (f *finder) comment(tree *ast.File, group *ast.CommentGroup) {
	for _, d := range tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		if fn.Doc == group {
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				if s, ok := n.(*ast.IfStmt); ok && refuses(s.Body) {
					f.condition(s.Cond)
				}
				return true
			})
			return
		}
		if group.Pos() < fn.Body.Pos() || group.End() > fn.Body.End() {
			continue
		}
		f.inside(fn, f.line(group.Pos()), f.line(group.End()))
		return
	}
}

func (f *finder) line(p token.Pos) int { return f.fset.Position(p).Line }

// inside handles a comment on those lines of a function.
func (f *finder) inside(fn *ast.FuncDecl, first, last int) {
	var path, at []ast.Node // at: the innermost that begins there, below its parents
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		if n == nil {
			path = path[:len(path)-1]
			return true
		}
		path = append(path, n)
		switch n.(type) {
		case ast.Stmt:
			if l := f.line(n.Pos()); l == first || l == last+1 && (at == nil || f.line(at[len(at)-1].Pos()) != first) {
				if _, block := n.(*ast.BlockStmt); !block && (at == nil || f.line(at[len(at)-1].Pos()) != l) {
					at = slices.Clone(path)
				}
			}
		}
		return true
	})
	for i, n := range slices.Backward(at) {
		switch s := n.(type) {
		case *ast.IfStmt:
			f.condition(s.Cond)
			return
		case *ast.CaseClause:
			if len(s.List) > 0 && tagless(at, i) {
				for _, e := range s.List {
					f.condition(e)
				}
				return
			}
		case *ast.ReturnStmt:
			if len(s.Results) == 1 && boolean(s.Results[0]) {
				f.replace(s.Results[0], "!(", ")", "negated")
				return
			}
		case *ast.FuncLit:
			return
		}
	}
	if len(at) == 0 {
		return
	}
	switch s := at[len(at)-1].(type) {
	case *ast.ExprStmt, *ast.IncDecStmt:
		f.remove(s)
	case *ast.AssignStmt:
		if s.Tok != token.DEFINE {
			f.remove(s)
		}
	}
}

// refuses reports whether a block ends its function, and not with true, nil or
// nothing else, which would be a way around the checks.
func refuses(b *ast.BlockStmt) bool {
	if len(b.List) == 0 {
		return false
	}
	r, ok := b.List[len(b.List)-1].(*ast.ReturnStmt)
	if !ok || len(r.Results) == 0 {
		return ok && len(b.List) > 1
	}
	last, ok := r.Results[len(r.Results)-1].(*ast.Ident)
	return !ok || last.Name != "true" && last.Name != "nil"
}

// tagless reports whether the case at path[i] is of a switch without a tag.
func tagless(path []ast.Node, i int) bool {
	for i--; i >= 0; i-- {
		switch s := path[i].(type) {
		case *ast.SwitchStmt:
			return s.Tag == nil
		case *ast.TypeSwitchStmt, *ast.SelectStmt:
			return false
		}
	}
	return false
}

func boolean(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return e.Op == token.LAND || e.Op == token.LOR || e.Op == token.EQL || e.Op == token.NEQ ||
			e.Op == token.LSS || e.Op == token.LEQ || e.Op == token.GTR || e.Op == token.GEQ
	case *ast.UnaryExpr:
		return e.Op == token.NOT
	case *ast.ParenExpr:
		return boolean(e.X)
	}
	return false
}

// condition has a check never hold. What it uses stays in use.
func (f *finder) condition(e ast.Expr) { f.replace(e, "false && (", ")", "never holds") }

func (f *finder) replace(n ast.Node, before, after, what string) {
	from, to := f.fset.Position(n.Pos()).Offset, f.fset.Position(n.End()).Offset
	f.add(n, slices.Concat(f.text[:from], []byte(before), f.text[from:to], []byte(after), f.text[to:]), what)
}

// remove has a statement never be done.
func (f *finder) remove(n ast.Node) { f.replace(n, "if false { ", " }", "never done") }

func (f *finder) add(n ast.Node, text []byte, what string) {
	if f.done[n.Pos()] {
		return
	}
	f.done[n.Pos()] = true
	from, to := f.fset.Position(n.Pos()), f.fset.Position(n.End())
	code := strings.Join(strings.Fields(string(f.text[from.Offset:to.Offset])), " ")
	f.found = append(f.found, Mutant{File: f.file, Line: from.Line, IDs: f.ids, What: code + " " + what, Text: text})
}
