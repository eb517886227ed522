// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// read returns a file of the module.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDocs_Keys holds docs/store/keys.md to the kinds of key in the code.
func TestDocs_Keys(t *testing.T) {
	code := regexp.MustCompile(`Kind\w+ Kind = '(.)'`).FindAllStringSubmatch(read(t, "services/broker/partition/keys.go"), -1)
	table := regexp.MustCompile("(?m)^\\| `(.)` \\| \\w+ \\|").FindAllStringSubmatch(read(t, "docs/store/keys.md"), -1)
	if a, b := seconds(code), seconds(table); !slices.Equal(a, b) || len(a) == 0 {
		t.Errorf("the code has the kinds %q, docs/store/keys.md has %q", a, b)
	}
}

func seconds(matches [][]string) (out []string) {
	for _, m := range matches {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return out
}

// TestDocs_Dependencies holds docs/dependencies.md to what is imported, tests
// included.
func TestDocs_Dependencies(t *testing.T) {
	documented := regexp.MustCompile(`(?m)[a-z]+\.[a-z.]+/[a-zA-Z0-9./_-]+`).FindAllString(read(t, "docs/dependencies.md"), -1)
	used := map[string]bool{}
	for _, s := range sources(t) {
		for _, spec := range s.ast.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			first, _, _ := strings.Cut(path, "/")
			if !strings.Contains(first, ".") || strings.HasPrefix(path, strings.TrimSuffix(module, "/")) {
				continue
			}
			found := ""
			for _, d := range documented {
				if within(path, d) {
					found = d
				}
			}
			if found == "" {
				t.Errorf("%s imports %s, which docs/dependencies.md does not explain", s.name, path)
			}
			used[found] = true
		}
	}
	for _, d := range documented {
		if !used[d] {
			t.Errorf("docs/dependencies.md explains %s, which nothing imports", d)
		}
	}
}

// TestDocs_Links finds links between documents that lead nowhere.
func TestDocs_Links(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	files, err := filepath.Glob(filepath.Join(root(t), "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		more, err := filepath.Glob(filepath.Join(root(t), pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", file, m[1])
			}
		}
	}
}

// TestDocs_CodeNamed finds files that ARCHITECTURE.md names and that are not
// there.
func TestDocs_CodeNamed(t *testing.T) {
	named := regexp.MustCompile("`((?:infra|gateway|tenancy|services|docs)/[a-z0-9_/]+\\.(?:go|md|txt))`").FindAllStringSubmatch(read(t, "ARCHITECTURE.md"), -1)
	for _, m := range named {
		if _, err := os.Stat(filepath.Join(root(t), m[1])); err != nil {
			t.Error(fmt.Errorf("ARCHITECTURE.md names a file: %w", err))
		}
	}
	if len(named) < 10 {
		t.Errorf("ARCHITECTURE.md names %d files, want a map of the code", len(named))
	}
}
