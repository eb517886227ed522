// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/manormq/manor/tenancy/authn/password"
)

func TestSources(t *testing.T) {
	organizationOf(t)
	shown(t, "KIND", "credential", "sources", "acme")
	if v := good(t, "credential", "sources", "acme"); len(v["items"].([]any)) != 0 {
		t.Errorf("got %v", v)
	}
	_, hash, err := password.Generate()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "vmq.passwd")
	text := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text("a:" + hash + "\ndefault:" + hash + "\n")
	shown(t, "done: 1 users, 1 left as the API made them, 0 failed", "credential", "import", "acme", file, "--replace")
	shown(t, "vmq_passwd", "credential", "list", "acme")
	text("# nobody\n")
	shown(t, "done: 0 users", "credential", "import", "acme", file, "--replace")
	shown(t, "0 users, 0 skipped", "credential", "sources", "acme")
	text("a\n")
	bad(t, 2, "vmq.passwd:1:1: expected USER:", "credential", "import", "acme", file, "--replace")
	bad(t, 1, "no tenant", "credential", "sources", "other")
}
