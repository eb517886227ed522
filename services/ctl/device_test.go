// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDeviceCommands(t *testing.T) {
	organizationOf(t)
	shown(t, "press-7 is in line-1, presses", "device", "set", "acme", "press-7", "--group", "presses,line-1", "--attribute", "hall=3")
	shown(t, "hall=3", "device", "show", "acme", "press-7")
	out, code := run("device", "export", "acme")
	if code != 0 {
		t.Fatal(out)
	}
	file := filepath.Join(t.TempDir(), "devices")
	if err := os.WriteFile(file, []byte(out+`{"name":"press-8","groups":["presses"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	shown(t, "1 made, 1 replaced", "device", "import", "acme", file)
	shown(t, "presses  2", "device", "groups", "acme")
	v := good(t, "device", "list", "acme", "--group", "line-1")
	if n := len(v["items"].([]any)); n != 1 {
		t.Errorf("got %v", v)
	}
	bad(t, 2, "expected lines", "device", "import", "acme", os.DevNull)
	bad(t, 2, "groups", "device", "set", "acme", "x", "--group", "a/b")
	shown(t, "is deleted", "device", "delete", "acme", "press-7")
	bad(t, 1, "no device", "device", "show", "acme", "press-7")
}
