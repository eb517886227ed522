// SPDX-License-Identifier: Apache-2.0

package statements

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Citation is a place that names a statement.
type Citation struct {
	ID      string
	Version Version // "" if the place does not say
	File    string  // from the root of the repository
	Line    int
	Test    bool   // in a test or in a script of one, not in the code
	Func    string // the Go test or the script around it, "" if none
}

func (c Citation) String() string {
	of := ""
	if c.Version != "" {
		of = " of " + string(c.Version)
	}
	return fmt.Sprintf("%s:%d: %s%s", c.File, c.Line, c.ID, of)
}

// floors are the folders of the repository that have code.
var floors = []string{"infra", "tenancy", "billing", "gateway", "services", "terraform"}

// conform tests the product from outside: what is in it checks statements and
// implements none. Its data is scripts, as testdata is.
const conform = "services/conform"

// Scan returns all citations in the code and the tests below root, by file and
// line. This package's own folder is not looked at.
func Scan(root fs.FS) ([]Citation, error) {
	var out []Citation
	for _, floor := range floors {
		err := fs.WalkDir(root, floor, func(name string, d fs.DirEntry, err error) error {
			switch {
			case name == floor && errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "node_modules" || name == conform+"/statements"):
				return fs.SkipDir
			case d.IsDir():
				return nil
			}
			look, test := kind(name)
			if !look {
				return nil
			}
			text, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			out = append(out, scanFile(name, string(text), test)...)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// scripts is the folder of the scripts that are run against any broker. The Go
// beside them, and wire, run them: their own tests check nothing of a broker.
const scripts = conform + "/script/scripts/"

// kind reports whether a file can cite statements, and whether it is a test.
func kind(name string) (look, test bool) {
	ours := strings.HasPrefix(name, conform+"/")
	if runner := path.Dir(name); (runner == conform+"/script" || runner == conform+"/wire") && path.Ext(name) != ".txt" {
		return false, false
	}
	switch ext := path.Ext(name); {
	case strings.HasSuffix(name, "_test.go"):
		return true, true
	case ext == ".go":
		return !ours, false
	case ext == ".md" || ext == ".json":
		return false, false
	}
	return ours || strings.Contains(name, "/testdata/"), true
}

var (
	// continued is where a comment goes on in the next line.
	continued = regexp.MustCompile(`\n[ \t]*(?://|#)[ \t]*`)
	// cited is a citation in prose and data: a number, its neighbours, a
	// version. 3-8.3-4 is how 3.1.1 prints its 3.8.3-4.
	cited = regexp.MustCompile(`MQTT-(3-8\.3|\d+\.\d+(?:\.\d+)?)-(\d+)((?:(?:,|,?\s+and|\s+to)\s+-\d+)*)(?:\s+of\s+(3\.1\.1|5\.0))?`)
	// neighbour is one of the further numbers of cited.
	neighbour = regexp.MustCompile(`(to)?\s+-(\d+)`)
	// scriptLine begins a script.
	scriptLine = regexp.MustCompile(`(?m)^script ([a-z0-9-]+):`)
	// named is a citation in the name of a test.
	named = regexp.MustCompile(`_MQTT_(\d+)_(\d+)_(\d+)_(\d+)(?:_(V311|V5))?`)
)

func scanFile(name, text string, test bool) (out []Citation) {
	var around []span
	switch {
	case strings.HasPrefix(name, scripts):
		around = scriptSpans(text)
	case test && strings.HasSuffix(name, ".go"):
		around = testSpans(name, text)
	}
	add := func(offset int, section string, n int, version Version) {
		c := Citation{
			ID: "MQTT-" + section + "-" + strconv.Itoa(n), Version: version,
			File: name, Line: 1 + strings.Count(text[:offset], "\n"), Test: test,
		}
		for _, s := range around {
			if s.from <= offset && offset < s.to {
				c.Func = s.name
			}
		}
		out = append(out, c)
	}
	flat := continued.ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat(" ", len(s)) })
	eachCited(flat, add)
	for _, m := range named.FindAllStringSubmatchIndex(text, -1) {
		version := Version("")
		if m[10] >= 0 {
			version = map[string]Version{"V311": V311, "V5": V5}[text[m[10]:m[11]]]
		}
		section := text[m[2]:m[3]] + "." + text[m[4]:m[5]] + "." + text[m[6]:m[7]]
		add(m[0], section, atoi(text[m[8]:m[9]]), version)
	}
	return out
}

// Cited returns what a text cites, without the places.
func Cited(text string) (out []Citation) {
	eachCited(text, func(_ int, section string, n int, version Version) {
		out = append(out, Citation{ID: "MQTT-" + section + "-" + strconv.Itoa(n), Version: version})
	})
	return out
}

// eachCited calls add with every number that flat cites in prose.
func eachCited(flat string, add func(offset int, section string, n int, version Version)) {
	for _, m := range cited.FindAllStringSubmatchIndex(flat, -1) {
		section, n, version := flat[m[2]:m[3]], atoi(flat[m[4]:m[5]]), Version("")
		if m[8] >= 0 {
			version = Version(flat[m[8]:m[9]])
		}
		if section == "3-8.3" {
			section, version = "3.8.3", V311
		}
		add(m[0], section, n, version)
		for _, more := range neighbour.FindAllStringSubmatch(flat[m[6]:m[7]], -1) {
			next := atoi(more[2])
			first := next
			if more[1] != "" {
				first = min(n+1, next)
			}
			for n = first; n < next; n++ {
				add(m[0], section, n, version)
			}
			n = next
			add(m[0], section, n, version)
		}
	}
}

// atoi reads what a regular expression found to be digits. What is too long for
// an int is no statement either way.
func atoi(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// span is the bytes of a Go test with its comment.
type span struct {
	name     string
	from, to int
}

// scriptSpans finds the scripts of a file, each up to the next.
func scriptSpans(text string) (out []span) {
	for _, m := range scriptLine.FindAllStringSubmatchIndex(text, -1) {
		if n := len(out); n > 0 {
			out[n-1].to = m[0]
		}
		out = append(out, span{text[m[2]:m[3]], m[0], len(text)})
	}
	return out
}

// testSpans finds the tests of a file. Of one that does not parse it finds what
// it can: to complain is for the compiler.
func testSpans(name, text string) (out []span) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if f == nil || err != nil && len(f.Decls) == 0 {
		return nil
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") && !strings.HasPrefix(fn.Name.Name, "Fuzz") {
			continue
		}
		from := fn.Pos()
		if fn.Doc != nil {
			from = fn.Doc.Pos()
		}
		out = append(out, span{fn.Name.Name, fset.Position(from).Offset, fset.Position(fn.End()).Offset})
	}
	return out
}
