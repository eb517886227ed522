// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

// functionsIn are the functions of a package of this module, as profiles name them behind
// the path of the package.
func functionsIn(t *testing.T, path string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", filepath.FromSlash(path), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no files, %v", path, err)
	}
	all := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			switch {
			case !ok:
			case f.Recv == nil:
				all[f.Name.Name] = true
			default:
				switch r := f.Recv.List[0].Type.(type) {
				case *ast.StarExpr:
					if of, ok := r.X.(*ast.Ident); ok {
						all["(*"+of.Name+")."+f.Name.Name] = true
					}
				case *ast.Ident:
					all[r.Name+"."+f.Name.Name] = true
				}
			}
		}
	}
	return all
}

// TestChecks_Exist: every function of the list is one, or the share that is measured would
// become less without anybody noticing.
func TestChecks_Exist(t *testing.T) {
	packages := map[string]map[string]bool{}
	for kind, names := range checks {
		for _, name := range names {
			slash := strings.LastIndex(name, "/")
			pack, function, _ := strings.Cut(name[slash+1:], ".")
			pack = name[:slash+1] + pack
			if packages[pack] == nil {
				packages[pack] = functionsIn(t, pack)
			}
			if !packages[pack][function] {
				t.Errorf("%s: %s has no function %s: list what does the check now", kind, pack, function)
			}
		}
	}
}

func TestCheckShares(t *testing.T) {
	f := func(name string) *profile.Function { return &profile.Function{Name: name} }
	stack := func(n int64, names ...string) *profile.Sample {
		s := &profile.Sample{Value: []int64{n, 0}}
		for _, name := range names {
			s.Location = append(s.Location, &profile.Location{Line: []profile.Line{{Function: f(name)}}})
		}
		return s
	}
	inlined := stack(5)
	inlined.Location = []*profile.Location{{Line: []profile.Line{{Function: f("time.Now")}, {Function: f(module + "gateway.charge")}}}}
	got, functions, samples := checkShares(&profile.Profile{Sample: []*profile.Sample{
		stack(80, "runtime.memmove", module+"gateway/conn.(*Conn).publish"),
		stack(10, "bytes.Equal", module+"gateway/conn.(*Conn).mayPublish", module+"gateway/conn.(*Conn).publish"),
		stack(4, module+"gateway/conn.beyondLimits[...]", module+"gateway/conn.(*Conn).checkSubscription"),
		inlined,
		stack(1, module+"gateway/conn.(*Conn).mayPublishElse"),
	}})
	if want := map[string]float64{authentication: 0, authorisation: .1, quotaChecks: .09}; samples != 100 || !maps.Equal(got, want) || functions["gateway.charge"] != .05 {
		t.Errorf("got %v, %v of %d samples, want %v of 100", got, functions, samples, want)
	}
	if got, _, samples := checkShares(&profile.Profile{}); samples != 0 || got[quotaChecks] != 0 {
		t.Errorf("of nothing: %v of %d", got, samples)
	}
}
