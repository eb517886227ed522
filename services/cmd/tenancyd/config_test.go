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

// TestConfig_KeyFiles: files of keys are read by the check, so that what is wrong with
// them is not found by the start after it.
func TestConfig_KeyFiles(t *testing.T) {
	dir := t.TempDir()
	good, short, mac := filepath.Join(dir, "good"), filepath.Join(dir, "short"), filepath.Join(dir, "mac")
	for file, text := range map[string]string{good: strings.Repeat("k", 32), short: "nonsense", mac: "MDEyMzQ1Njc4OTAxMjM0NTY3ODk_-w==\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	missing := filepath.Join(dir, "missing")
	const acme = "secrets_key_file: %q\ndomains: {key_file: %q, acme: {enabled: true, directory: 'https://ca.example/dir', eab_key_id: k, eab_hmac_file: %q, ca_file: %q}}\n"
	for _, c := range []struct{ text, want string }{
		{fmt.Sprintf("secrets_key_file: %q\n", good), ""},
		{fmt.Sprintf("secrets_key_file: %q\n", missing), "secrets_key_file: expected a file with 32 random bytes"},
		{fmt.Sprintf("domains: {key_file: %q}\n", short), "domains.key_file: "},
		{fmt.Sprintf(acme, good, good, short, ""), "domains.acme.eab_hmac_file: expected an HMAC key"},
		{fmt.Sprintf(acme, good, good, missing, ""), "domains.acme.eab_hmac_file: expected a file"},
		{fmt.Sprintf(acme, good, good, mac, short), "domains.acme.ca_file: expected certificates in PEM"},
		{fmt.Sprintf(acme, good, good, mac, ""), ""},
	} {
		file := filepath.Join(dir, "tenancyd.yaml")
		if err := os.WriteFile(file, []byte("broker: {cert: a, key: b, ca: c}\n"+c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := node.CheckConfig(file, defaults())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q gives %v, expected %q", c.text, err, c.want)
		}
	}
}
