// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/node"
)

// TestConfig_PolicyDir: a policy that does not compile is found by the check of the
// configuration, with its file and line.
func TestConfig_PolicyDir(t *testing.T) {
	for _, c := range []struct{ rego, want string }{
		{"package quota\n\nlimits.devices := 5\n", ""},
		{"package quota\n\nlimits.devics := 5\n", `house.rego:3:1: quota.limits: there is no quota named "devics"`},
		{"package admission\n\ndeny contains msg if true\n", "house.rego:3:"},
		{"", "expected a folder with at least one file *.rego"},
	} {
		dir := t.TempDir()
		if c.rego != "" {
			if err := os.WriteFile(filepath.Join(dir, "house.rego"), []byte(c.rego), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(dir, "tenancyd.yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, "broker: {cert: a, key: b, ca: c}\npolicy_dir: %q\n", dir), 0o600); err != nil {
			t.Fatal(err)
		}
		err := node.CheckConfig(file, defaults())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q gives %v, expected %q", c.rego, err, c.want)
		}
	}
}
