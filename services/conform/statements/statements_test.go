// SPDX-License-Identifier: Apache-2.0

package statements_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/services/conform/statements"
)

var update = flag.Bool("update", false, "write docs/conformance.md")

// ceilings are the statements that nothing cites (open), and those that apply
// and that no test cites (untested, open ones included). They are lowered with
// every statement that is gained and never raised.
var ceilings = map[statements.Version]struct{ open, untested int }{
	statements.V311: {2, 3},
	statements.V5:   {2, 3},
}

func load(t *testing.T) *statements.Set {
	t.Helper()
	s, err := statements.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestConformance holds docs/conformance.md to the citations in the repository,
// the citations to the statements that there are, and the gaps to those that
// are known. Run it with -update after a change.
func TestConformance(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	citations, err := statements.Scan(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	table, unknown := load(t).Table(citations)
	for _, c := range unknown {
		t.Errorf("%s is not a statement: see services/conform/statements for those that are", c)
	}
	for v, ceiling := range ceilings {
		c := statements.CountOf(table, v)
		hold(t, v, "that nothing cites", c.Open, ceiling.open)
		hold(t, v, "without a test that cites them", c.Untested(), ceiling.untested)
	}
	want, err := statements.Document(table)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "docs", "conformance.md")
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/conformance.md is stale: go test ./services/conform/statements -update")
	}
}

func hold(t *testing.T, v statements.Version, what string, got, ceiling int) {
	t.Helper()
	switch {
	case got > ceiling:
		t.Errorf("MQTT %s has %d statements %s, at most %d are allowed: a citation was lost", v, got, what, ceiling)
	case got < ceiling:
		t.Errorf("MQTT %s has %d statements %s: lower the ceiling from %d, so that it stays so", v, got, what, ceiling)
	}
}

// TestLoad_Complete knows the size of both appendices B.
func TestLoad_Complete(t *testing.T) {
	table, _ := load(t).Table(nil)
	for v, want := range map[statements.Version]int{statements.V311: 141, statements.V5: 251} {
		if c := statements.CountOf(table, v); c.All != want {
			t.Errorf("MQTT %s has %d statements, want %d", v, c.All, want)
		}
	}
	for _, r := range table {
		if r.Party == statements.Client && r.NotApplicable == "" {
			t.Errorf("%s of %s speaks of the client: na.tsv has no word on what the server does", r.ID, r.Version)
		}
	}
}

func TestParse_Refuses(t *testing.T) {
	const good = "MQTT-1.5.4-1\tboth\tText.\n"
	for _, c := range []struct{ v311, v5, na, want string }{
		{"", "MQTT-1.5.4-1\tboth\n", "", "mqtt5.tsv:1 has 2 columns, expected 3"},
		{"", "# note\nMQTT-1.5.4-1\tbroker\tText.\n", "", `mqtt5.tsv:2: MQTT-1.5.4-1 has the party "broker"`},
		{"", "1.5.4-1\tboth\tText.\n", "", "expected an identifier"},
		{"", good + good, "", "mqtt5.tsv:2: MQTT-1.5.4-1 stands twice"},
		{"", "MQTT-1.5.4-1\tboth\t Text.\n", "", "empty or padded"},
		{"MQTT-1.5.3-1\tboth\tMQTT-1.5.4-9\tText.\n", good, "", "names MQTT-1.5.4-9, expected a statement of 5.0"},
		{"", good, "MQTT-1.5.4-1\t3.1.1\twhy\n", "na.tsv:1: MQTT-1.5.4-1 of 3.1.1 is not a statement"},
	} {
		if _, err := statements.Parse(c.v311, c.v5, c.na); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %q, %q: %v, want %q", c.v311, c.v5, c.na, err, c.want)
		}
	}
}

func TestScan(t *testing.T) {
	root := fstest.MapFS{
		"infra/a/a.go": {Data: []byte("package a\n\n// A is one [MQTT-3.1.2-24, -25], two [MQTT-3.3.2-8 to\n// -10] and [MQTT-3.1.2-22 of 3.1.1].\n" +
			"// Sections are no statements [MQTT-3.1.2.11.3] [MQTT-4.7, 4.8].\nfunc A() {}\n")},
		"infra/a/a_test.go": {Data: []byte("package a\n\nvar shared = \"MQTT-3-8.3-4\"\n\n// TestA is [MQTT-1.5.4-1].\nfunc TestA(t *testing.T) {\n\t_ = \"MQTT-4.2-1\"\n}\n\n" +
			"func TestB_MQTT_3_3_1_2(t *testing.T) {}\n\nfunc TestC_MQTT_3_1_2_22_V311(t *testing.T) {}\n")},
		"gateway/testdata/b.txt":             {Data: []byte("# [MQTT-4.6.0-2,\n# -3 of 3.1.1]\n")},
		"services/conform/c.go":              {Data: []byte("package conform // [MQTT-1.5.4-1]\n")},
		"services/conform/scripts/c.txt":     {Data: []byte("MQTT-1.5.4-2 of 5.0\n")},
		"services/conform/statements/x.go":   {Data: []byte("package statements // [MQTT-1.5.4-1]\n")},
		"services/conform/js/node_modules/m": {Data: []byte("MQTT-1.5.4-1\n")},
		"infra/a/notes.txt":                  {Data: []byte("MQTT-1.5.4-1\n")},
		"docs/d.go":                          {Data: []byte("package d // [MQTT-1.5.4-1]\n")},
	}
	citations, err := statements.Scan(root)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range citations {
		text := c.String()
		if c.Test {
			text += " test " + c.Func
		}
		got = append(got, text)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{
		"gateway/testdata/b.txt:1: MQTT-4.6.0-2 of 3.1.1 test ",
		"gateway/testdata/b.txt:1: MQTT-4.6.0-3 of 3.1.1 test ",
		"infra/a/a.go:3: MQTT-3.1.2-24",
		"infra/a/a.go:3: MQTT-3.1.2-25",
		"infra/a/a.go:3: MQTT-3.3.2-10",
		"infra/a/a.go:3: MQTT-3.3.2-8",
		"infra/a/a.go:3: MQTT-3.3.2-9",
		"infra/a/a.go:4: MQTT-3.1.2-22 of 3.1.1",
		"infra/a/a_test.go:10: MQTT-3.3.1-2 test TestB_MQTT_3_3_1_2",
		"infra/a/a_test.go:12: MQTT-3.1.2-22 of 3.1.1 test TestC_MQTT_3_1_2_22_V311",
		"infra/a/a_test.go:3: MQTT-3.8.3-4 of 3.1.1 test ",
		"infra/a/a_test.go:5: MQTT-1.5.4-1 test TestA",
		"infra/a/a_test.go:7: MQTT-4.2-1 test TestA",
		"services/conform/scripts/c.txt:1: MQTT-1.5.4-2 of 5.0 test ",
	}, got); diff != "" {
		t.Errorf("citations (-want +got):\n%s", diff)
	}
}

// TestTable follows a citation without a version to what it means, and each
// statement to its status.
func TestTable(t *testing.T) {
	s, err := statements.Parse(
		"MQTT-1.0.0-1\tboth\tMQTT-1.0.0-1\tThe same.\nMQTT-1.0.0-2\tboth\tMQTT-1.0.0-3\tElsewhere.\nMQTT-1.0.0-4\tboth\t-\tOnly here.\n",
		"MQTT-1.0.0-1\tboth\tThe same.\nMQTT-1.0.0-2\tclient\tAnother.\nMQTT-1.0.0-3\tboth\tThird.\nMQTT-1.0.0-5\tserver\tFifth.\n",
		"MQTT-1.0.0-2\t5.0\ta client's\n",
	)
	if err != nil {
		t.Fatal(err)
	}
	table, unknown := s.Table([]statements.Citation{
		{ID: "MQTT-1.0.0-1", File: "a/a_test.go", Test: true, Func: "TestA"},
		{ID: "MQTT-1.0.0-2", File: "a/a.go"},
		{ID: "MQTT-1.0.0-3", File: "b/b.go"},
		{ID: "MQTT-1.0.0-4", File: "b/testdata/b.txt", Test: true},
		{ID: "MQTT-1.0.0-5", Version: statements.V311, File: "c/c.go", Line: 7},
	})
	if len(unknown) != 1 || unknown[0].String() != "c/c.go:7: MQTT-1.0.0-5 of 3.1.1" {
		t.Errorf("unknown %v, want the one of c/c.go", unknown)
	}
	var got []string
	for _, r := range table {
		got = append(got, strings.Join([]string{string(r.Version), r.ID, r.Where(), r.How()}, " | "))
	}
	if diff := cmp.Diff([]string{
		"3.1.1 | MQTT-1.0.0-1 |  | `a.TestA`",
		"3.1.1 | MQTT-1.0.0-2 | `b`, as 1.0.0-3 of 5.0 | **no test**",
		"3.1.1 | MQTT-1.0.0-4 |  | `b/testdata/b.txt`",
		"5.0 | MQTT-1.0.0-1 |  | `a.TestA`",
		"5.0 | MQTT-1.0.0-2 | `a` | not applicable: a client's",
		"5.0 | MQTT-1.0.0-3 | `b` | **no test**",
		"5.0 | MQTT-1.0.0-5 |  | **not yet cited**",
	}, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	want := statements.Count{Version: statements.V5, All: 4, Tested: 1, CodeOnly: 1, NotApplicable: 1, Open: 1}
	if c := statements.CountOf(table, statements.V5); c != want || c.Untested() != 2 {
		t.Errorf("counts %+v, want %+v and 2 untested", c, want)
	}
}
