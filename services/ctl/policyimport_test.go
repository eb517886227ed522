// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPolicyCommands_Import(t *testing.T) {
	organizationOf(t)
	acl := filepath.Join(t.TempDir(), "vmq.acl")
	text := func(text string) {
		t.Helper()
		if err := os.WriteFile(acl, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text("topic read news/#\nuser alice\ntopic write a%b\n")
	shown(t, "the file is good: 2 grants", "policy", "import", "acme", acl, "--dry-run")
	shown(t, `"filter":"a%%b","user":"alice"} # 3`, "policy", "import", "acme", acl, "--dry-run", "--print")
	shown(t, "revision 1 is live: 2 grants", "policy", "import", "acme", acl, "--format", "vmq_acl")
	shown(t, "allow publish a%%b for the user \"alice\", priority 0", "policy", "explain", "acme", "publish", "a%b", "--user", "alice")
	text("topic\n")
	bad(t, 2, "vmq.acl:1:1: expected topic [read|write|readwrite] FILTER", "policy", "import", "acme", acl)
	bad(t, 2, "no such file", "policy", "import", "acme", acl+"x")
}
