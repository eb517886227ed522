// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/node"
)

// typed runs a command with something on its standard input.
func typed(in string, args ...string) (out string, code int) {
	root := New("/nowhere/manor")
	node.StrictUsage(root)
	var b bytes.Buffer
	root.SetOut(&b)
	root.SetErr(&b)
	root.SetIn(strings.NewReader(in))
	root.SetArgs(args)
	err := root.Execute()
	if err != nil {
		b.WriteString(err.Error())
	}
	return b.String(), node.ExitCode(err)
}

// The life of a tenant by commands; what cannot be undone at once is asked for twice.
func TestTenantLife(t *testing.T) {
	organizationOf(t)
	shown(t, "acme is suspended: unpaid", "tenant", "suspend", "acme", "--reason", "unpaid")
	shown(t, "acme is suspended: unpaid, on plan dev", "tenant", "show", "acme")
	shown(t, "acme is active", "tenant", "resume", "acme")
	bad(t, 1, "tenant_not_deleted", "tenant", "restore", "acme")
	bad(t, 2, "expected --name or --protect", "tenant", "update", "acme")
	shown(t, "acme is changed; it cannot be deleted", "tenant", "update", "acme", "--protect", "--name", "Acme, production")
	bad(t, 1, "set deletion_protection to false first", "tenant", "delete", "acme", "--yes")
	shown(t, "it can be deleted", "tenant", "update", "acme", "--protect=false")
	for _, in := range []string{"", "y\n", "other\n"} {
		if out, code := typed(in, "tenant", "delete", "acme"); code != 2 || !strings.Contains(out, "nothing was done") {
			t.Errorf("after %q: exit code %d, %s", in, code, out)
		}
	}
	shown(t, "acme is active", "tenant", "show", "acme")
	if out, code := typed("acme\n", "tenant", "delete", "acme"); code != 0 || !strings.Contains(out, "acme is deleted") {
		t.Errorf("exit code %d, %s", code, out)
	}
	bad(t, 1, "tenant_deleted", "tenant", "show", "acme")
	if v := good(t, "tenant", "list", "--deleted"); len(v["items"].([]any)) != 1 {
		t.Errorf("deleted are %v", v)
	}
	shown(t, "acme is active", "tenant", "restore", "acme")
	bad(t, 1, "tenant_not_deleted", "tenant", "purge", "acme", "--yes")
	shown(t, "acme is deleted", "tenant", "delete", "acme", "--yes")
	shown(t, "acme is deleted; what it has is removed from", "tenant", "purge", "acme", "--yes")
}
