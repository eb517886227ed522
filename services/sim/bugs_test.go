// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	bugSeeds = flag.Int("bug-seeds", 50, "within how many seeds each planted bug must be found")
	allBugs  = flag.Bool("all-bugs", false, "plant all bugs, also those that take many seeds")
)

// root is the module's folder.
const root = "../.."

// bug is a change of the source: for each file the texts that another replaces.
type bug struct {
	name, why string
	changes   []change
}

type change struct{ file, old, new string }

// parseBug reads a file of testdata/bugs: why it is wrong, then "== FILE", and for
// each change "--", what is there, "++" and what comes in its place.
func parseBug(name, text string) bug {
	b := bug{name: name}
	var file string
	into := &b.why
	for line := range strings.Lines(text) {
		switch mark := strings.TrimSuffix(line, "\n"); {
		case strings.HasPrefix(mark, "== "):
			file = mark[3:]
		case mark == "--":
			b.changes = append(b.changes, change{file: file})
			into = &b.changes[len(b.changes)-1].old
		case mark == "++":
			into = &b.changes[len(b.changes)-1].new
		default:
			*into += line
		}
	}
	return b
}

// overlay writes the changed files and what go -overlay reads.
func (b bug) overlay(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	texts := map[string]string{}
	for _, c := range b.changes {
		if texts[c.file] == "" {
			text, err := os.ReadFile(filepath.Join(root, c.file))
			if err != nil {
				t.Fatal(err)
			}
			texts[c.file] = string(text)
		}
		old := strings.TrimSuffix(c.old, "\n")
		if n := strings.Count(texts[c.file], old); n != 1 {
			t.Fatalf("%s is %d times in %s, expected once:\n%s", b.name, n, c.file, old)
		}
		texts[c.file] = strings.Replace(texts[c.file], old, strings.TrimSuffix(c.new, "\n"), 1)
	}
	replace := map[string]string{}
	for file, text := range texts {
		from, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[from] = to
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// fromSeed says with which seed CI, which has few, begins: one of them finds the bug.
var fromSeed = regexp.MustCompile(`\(from ([0-9]+)\)`)

// foundFor says by what it is to be found, where it breaks other promises too: a part of that, or
// several with "|" between them.
var foundFor = regexp.MustCompile(`\(breaks ([^)]+)\)`)

// heldBy names the package and the test of a rule that no world needs as far as is known: that test has
// to fail.
var heldBy = regexp.MustCompile(`\(test (\S+) (\S+)\)`)

// wantFailure holds that a test of a package fails with the bug.
func (b bug) wantFailure(t *testing.T, overlay, pkg, test string) {
	t.Helper()
	cmd := exec.Command("go", "test", "-count=1", "-vet=off", "-timeout=1m", "-overlay", overlay, "-run", "^"+test+"$", pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("--- FAIL: "+test)) {
		t.Fatalf("%s of %s does not fail: %s\n%s", test, pkg, b.why, out)
	}
}

var foundBy = regexp.MustCompile(`(?m)seed ([0-9]+): (.*)$`)

// TestBugs plants the bugs of testdata/bugs, one at a time and outside the source,
// and sees that the worlds of some seeds find each.
func TestBugs(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the package for each bug")
	}
	files, err := filepath.Glob("testdata/bugs/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d bugs, error %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b := parseBug(strings.TrimSuffix(filepath.Base(file), ".txt"), string(text))
		t.Run(b.name, func(t *testing.T) {
			overlay := b.overlay(t)
			if m := heldBy.FindStringSubmatch(b.why); m != nil {
				b.wantFailure(t, overlay, m[1], m[2])
				return
			}
			if (strings.Contains(b.why, "(many seeds)") || strings.Contains(b.why, "(by hand)")) && !*allBugs {
				t.Skip("takes more seeds, or time, than CI has: make sim-bugs")
			}
			first := "1"
			if m := fromSeed.FindStringSubmatch(b.why); m != nil && !*allBugs {
				first = m[1]
			}
			world := "^TestSeeds$"
			if strings.Contains(b.why, "(sessions)") {
				world = "^TestSessions$"
			}
			if strings.Contains(b.why, "(placed)") {
				world = "^TestPlaced$"
			}
			runs, by := *bugSeeds, ""
			if strings.Contains(b.why, "(rough)") {
				world, runs = "^TestRough$", 5**bugSeeds
			}
			if strings.Contains(b.why, "(expiring)") {
				world, runs = "^TestExpiring$", 4**bugSeeds
			}
			if m := foundFor.FindStringSubmatch(b.why); m != nil {
				by = m[1]
			}
			cmd := exec.Command("go", "test", "-count=1", "-vet=off", "-timeout=10m", "-overlay", overlay, "-run", world,
				".", "-runs", fmt.Sprint(runs), "-seed", first, "-by", by)
			out, err := cmd.CombinedOutput()
			if bytes.Contains(out, []byte("[build failed]")) {
				t.Fatalf("does not compile:\n%s", out)
			}
			m := foundBy.FindSubmatch(out)
			panics := bytes.Contains(out, []byte("panic:")) && !bytes.Contains(out, []byte("panic: test timed out")) && by == ""
			if err == nil || m == nil && !panics {
				t.Fatalf("%d seeds from %s on did not find it; if the worlds have changed, make sim-bugs says which do: %s\n%s", *bugSeeds, first, b.why, out)
			}
			if m == nil {
				t.Logf("found: it panics")
				return
			}
			t.Logf("found by seed %s: %s", m[1], m[2])
		})
	}
}
