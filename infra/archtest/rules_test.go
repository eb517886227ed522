// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	maxLines = 800
	spdx     = "// SPDX-License-Identifier: Apache-2.0\n\n"
)

// source is one Go file of the module.
type source struct {
	name string // from the root
	text []byte
	ast  *ast.File
	fset *token.FileSet
}

func (s source) test() bool { return strings.HasSuffix(s.name, "_test.go") }

func parseSource(t *testing.T, name string, text []byte) source {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return source{name, text, f, fset}
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	dir := root(t)
	for _, floor := range []string{"infra", "tenancy", "billing", "gateway", "services", "terraform"} {
		err := filepath.WalkDir(filepath.Join(dir, floor), func(file string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return fs.SkipAll
			}
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules") {
				return fs.SkipDir
			}
			if d.IsDir() || filepath.Ext(file) != ".go" {
				return nil
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, file)
			if err != nil {
				return err
			}
			all = append(all, parseSource(t, filepath.ToSlash(rel), text))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// broken returns the rules of one file that s breaks.
func broken(s source) []string {
	var out []string
	if !bytes.HasPrefix(s.text, []byte(spdx)) {
		out = append(out, "does not begin with the SPDX line and an empty line")
	}
	if bytes.Count(s.text, []byte("\n")) > maxLines {
		out = append(out, "is longer than 800 lines")
	}
	if s.test() {
		return out
	}
	for _, d := range s.ast.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.Name == "init" && !strings.HasPrefix(s.name, "infra/telemetry/") {
				out = append(out, "has an init function: pass what it sets up to New")
			}
		case *ast.GenDecl:
			if d.Tok == token.VAR {
				out = append(out, mutable(s, d)...)
			}
		}
	}
	return out
}

// mutable returns the variables of d that are neither errors nor tables: those
// without a value (unless embedded from a file), and those whose value is meant
// to change.
func mutable(s source, d *ast.GenDecl) []string {
	var out []string
	for _, spec := range d.Specs {
		v := spec.(*ast.ValueSpec)
		embedded := d.Doc != nil && strings.Contains(s.comment(d.Doc), "//go:embed") ||
			v.Doc != nil && strings.Contains(s.comment(v.Doc), "//go:embed")
		for i, name := range v.Names {
			if name.Name == "_" || embedded {
				continue
			}
			if i >= len(v.Values) {
				if len(v.Values) == 0 {
					out = append(out, "has the package variable "+name.Name+" without a value")
				}
				continue
			}
			if !constant(v.Values[i]) {
				out = append(out, "has the package variable "+name.Name+", which is neither an error nor a table")
			}
		}
	}
	return out
}

// comment is the text of a comment group with its directives.
func (s source) comment(g *ast.CommentGroup) string {
	var b strings.Builder
	for _, c := range g.List {
		b.WriteString(c.Text)
	}
	return b.String()
}

// constant reports whether e makes a value that nobody is meant to change: a
// composite literal that is not empty, or a call of a function (errors.New,
// regexp.MustCompile, a table's builder).
func constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.CompositeLit:
		if sel, ok := e.Type.(*ast.SelectorExpr); ok {
			pkg, _ := sel.X.(*ast.Ident)
			if pkg != nil && pkg.Name == "sync" && sel.Sel.Name == "Pool" {
				return true // what a pool holds means nothing
			}
			return pkg == nil || pkg.Name != "sync" && pkg.Name != "atomic"
		}
		return len(e.Elts) > 0
	case *ast.CallExpr:
		fun, ok := e.Fun.(*ast.Ident)
		return !ok || fun.Name != "make" && fun.Name != "new"
	case *ast.UnaryExpr:
		return e.Op != token.AND || constant(e.X)
	case *ast.BasicLit:
		return false // a constant, then
	}
	return true
}

func TestFiles(t *testing.T) {
	for _, s := range sources(t) {
		for _, why := range broken(s) {
			t.Errorf("%s %s", s.name, why)
		}
	}
}

func TestFiles_BrokenRulesAreSeen(t *testing.T) {
	for text, want := range map[string]string{
		"package p\n":                                                    "SPDX",
		spdx + "package p\n\nfunc init() {}\n":                           "init",
		spdx + "package p\n\nvar n int\n":                                "without a value",
		spdx + "package p\n\nvar n = 3\n":                                "neither",
		spdx + "package p\n\nvar m = map[string]int{}\n":                 "neither",
		spdx + "package p\n\nvar m = make(map[string]int)\n":             "neither",
		spdx + "package p\n\nimport \"sync\"\n\nvar mu = sync.Mutex{}\n": "neither",
		spdx + "package p\n" + strings.Repeat("\n", 800):                 "800",
		spdx + "package p\n\nvar errX = errors.New(\"x\")\n":             "",
		spdx + "package p\n\nvar names = map[int]string{1: \"a\"}\n":     "",
		spdx + "package p\n\nvar _ io.Reader = (*T)(nil)\n":              "",
		spdx + "package p\n\n//go:embed a.txt\nvar text string\n":        "",
		spdx + "package p\n\nfunc (t T) init() {}\n":                     "",
	} {
		got := strings.Join(broken(parseSource(t, "infra/p/p.go", []byte(text))), "; ")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestPackageDocs(t *testing.T) {
	docs := map[string]string{}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		dir := filepath.Dir(s.name)
		if s.ast.Doc != nil {
			docs[dir] += s.ast.Doc.Text()
		} else if _, ok := docs[dir]; !ok {
			docs[dir] = ""
		}
	}
	for dir, doc := range docs {
		if len(strings.Fields(doc)) < 8 {
			t.Errorf("%s has no package comment that says what it is", dir)
		}
	}
}

func TestNoExit(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || s.ast.Name.Name == "main" {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "os" && sel.Sel.Name == "Exit" {
				t.Errorf("%s ends the process: return an error, main decides", s.fset.Position(sel.Pos()))
			}
			return true
		})
	}
}
