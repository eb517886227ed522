// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	mutate = flag.Bool("mutate", false, "take out each check that cites a statement, and run the tests of its package")
	only   = flag.String("only", "", "with -mutate: files that match this regular expression")
)

const root = "../../.."

// ids puts in what the scanner of citations must not take for some.
func ids(text string, before, after string) string {
	return regexp.MustCompile(`\{([0-9]+)\}`).ReplaceAllString(text, before+"MQTT"+"-1.1.1-$1"+after)
}

const sample = `package p

func f(a, b int) int {
	if a > 1 { // {1}
		return 1
	}
	// Why {2} {3}.
	if x := b; x > 1 && b > 2 {
		return 2
	}
	switch {
	case a == 3: // {4}
		return 3
	case b == 4:
		return 4 // {5}
	}
	b++ // {6}
	if b == 7 {
		a = 0 // {7}
	}
	return a
}

// g is of {8}.
func g(a int) bool {
	if a < 0 {
		return false
	}
	if a == 9 {
		a = 1
	}
	if a == 10 {
		return true
	}
	return a != 5
}

func h(a int) bool {
	return a == 1 || a == 2 // {9}
}

// None here.
func i(a int) bool { return a == 3 }

type t int // {10}
`

func TestFind(t *testing.T) {
	found, err := Find("p.go", []byte(ids(sample, "[", "]")))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range found {
		got = append(got, m.String())
		if _, err := parser.ParseFile(token.NewFileSet(), m.File, m.Text, 0); err != nil {
			t.Errorf("%s: %v", m, err)
		}
	}
	want := []string{
		"p.go:4: {1}: a > 1 never holds",
		"p.go:8: {2} {3}: x > 1 && b > 2 never holds",
		"p.go:12: {4}: a == 3 never holds",
		"p.go:14: {5}: b == 4 never holds",
		"p.go:17: {6}: b++ never done",
		"p.go:18: {7}: b == 7 never holds",
		"p.go:26: {8}: a < 0 never holds",
		"p.go:39: {9}: a == 1 || a == 2 negated",
	}
	for i := range want {
		want[i] = ids(want[i], "", "")
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !bytes.Contains(found[1].Text, []byte("if x := b; false && (x > 1 && b > 2) {")) {
		t.Errorf("the text is\n%s", found[1].Text)
	}
}

// all returns the mutants of the code, but not of conform, which tests it.
func all(t *testing.T) (out []Mutant) {
	t.Helper()
	match := regexp.MustCompile(*only)
	for _, floor := range []string{"infra", "tenancy", "gateway", "services"} {
		err := filepath.WalkDir(filepath.Join(root, floor), func(name string, d fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(root, name)
			switch {
			case err != nil:
				return err
			case d.IsDir() && (rel == "services/conform" || rel == "services/bench" || d.Name() == "node_modules"):
				return fs.SkipDir
			case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || !match.MatchString(rel):
				return nil
			}
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			found, err := Find(rel, text)
			out = append(out, found...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestThereAreChecks holds that the code's citations stand at checks that can be
// taken out.
func TestThereAreChecks(t *testing.T) {
	if n := len(all(t)); *only == "" && n < 55 {
		t.Errorf("%d checks cite a statement, expected 55 or more", n)
	}
}

// TestMutate takes out each check. It is the nightly target make mutate: it runs
// the tests of a package for each of its checks.
func TestMutate(t *testing.T) {
	if !*mutate {
		t.Skip("takes long: make mutate")
	}
	mutants := all(t)
	survived, broken := 0, 0
	start := time.Now()
	// A package that fails by itself would notice everything.
	whole := map[string]bool{}
	for _, m := range mutants {
		if dir := filepath.Dir(m.File); !whole[dir] {
			whole[dir] = true
			if failed, out, err := test(t, dir); failed || err != nil {
				t.Fatalf("the tests of %s fail with every check in its place: %v\n%s", dir, err, out)
			}
		}
		switch caught, compiled, err := run(t, m); {
		case err != nil:
			t.Fatalf("%s: %v", m, err)
		case !compiled:
			broken++
			t.Errorf("does not compile, so that it says nothing: %s", m)
		case !caught:
			survived++
			t.Errorf("no test of %s notices: %s", filepath.Dir(m.File), m)
		}
	}
	t.Logf("%d checks taken out in %s: %d noticed, %d not, %d that do not compile",
		len(mutants), time.Since(start).Round(time.Second), len(mutants)-survived-broken, survived, broken)
}

// run reports whether the short tests of the mutant's package fail.
func run(t *testing.T, m Mutant) (caught, compiled bool, err error) {
	dir := t.TempDir()
	file, err := filepath.Abs(filepath.Join(root, m.File))
	if err != nil {
		return false, false, err
	}
	replacement, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	text, err := json.Marshal(map[string]map[string]string{"Replace": {file: replacement}})
	if err != nil {
		return false, false, err
	}
	if err := os.WriteFile(replacement, m.Text, 0o600); err != nil {
		return false, false, err
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return false, false, err
	}
	failed, out, err := test(t, filepath.Dir(m.File), "-overlay", overlay)
	return failed, !bytes.Contains(out, []byte("[build failed]")), err
}

// test reports whether the short tests of a folder fail. A check that is missing
// may leave one waiting for ever, which is a failure too.
func test(t *testing.T, dir string, args ...string) (failed bool, out []byte, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	args = append([]string{"test", "-short", "-failfast", "-vet=off", "-count=1", "-timeout=4m"}, append(args, "./"+dir)...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	out, err = cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return false, out, fmt.Errorf("%w\n%s", err, out)
	}
	return err != nil, out, nil
}
