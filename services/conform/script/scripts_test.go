// SPDX-License-Identifier: Apache-2.0

package script

import (
	_ "embed"
	"slices"
	"strings"
	"testing"

	"github.com/manormq/manor/services/conform/statements"
	"github.com/manormq/manor/services/conform/wire"
)

// unseen are the statements that no script can see, and why.
//
//go:embed unseen.tsv
var unseen string

// TestScripts_Statements holds the scripts to cite statements that there are, of
// versions that they are on, and every statement to be cited by a script on its
// version, unless a server cannot break it (na.tsv) or it is not to be seen from
// outside (unseen.tsv).
func TestScripts_Statements(t *testing.T) {
	scripts, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	set, err := statements.Load()
	if err != nil {
		t.Fatal(err)
	}
	type key struct {
		version statements.Version
		id      string
	}
	cited := map[key]bool{}
	for _, s := range scripts {
		for _, c := range s.cites {
			for _, one := range c.all {
				found := set.Resolve(one)
				if len(found) == 0 {
					t.Errorf("%s:%d: there is no %s %s", s.File, c.line, one.ID, one.Version)
				}
				for _, st := range found {
					cited[key{st.Version, st.ID}] = true
					v := map[statements.Version]wire.Version{statements.V311: wire.V311, statements.V5: wire.V5}[st.Version]
					if !slices.Contains(s.Versions, v) {
						t.Errorf("%s:%d: %s is cited of %s, which the script is not on", s.File, c.line, st.ID, st.Version)
					}
				}
			}
		}
	}
	why := map[key]string{}
	for line := range strings.Lines(unseen) {
		c := strings.Split(strings.TrimSpace(line), "\t")
		if line == "\n" || strings.HasPrefix(line, "#") {
			continue
		}
		if len(c) != 3 {
			t.Fatalf("unseen.tsv: %q: expected number, version and reason", line)
		}
		k := key{statements.Version(c[1]), "MQTT-" + c[0]}
		if found := set.Resolve(statements.Citation{ID: k.id, Version: k.version}); len(found) == 0 || found[0].NotApplicable != "" {
			t.Errorf("unseen.tsv: %s of %s is no statement that applies", c[0], c[1])
		}
		if cited[k] {
			t.Errorf("unseen.tsv: a script cites %s of %s: take it off", c[0], c[1])
		}
		why[k] = c[2]
	}
	table, _ := set.Table(nil)
	for _, r := range table {
		if k := (key{r.Version, r.ID}); !cited[k] && r.NotApplicable == "" && why[k] == "" {
			t.Errorf("no script cites %s of %s: %s", r.ID, r.Version, r.Text)
		}
	}
}
