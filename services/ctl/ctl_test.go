// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/node"
)

func run(args ...string) (out string, code int) {
	root := New("/nowhere/manor")
	node.StrictUsage(root)
	var b bytes.Buffer
	root.SetOut(&b)
	root.SetErr(&b)
	root.SetArgs(args)
	err := root.Execute()
	if err != nil {
		b.WriteString(err.Error())
	}
	return b.String(), node.ExitCode(err)
}

func TestCommands(t *testing.T) {
	dir := t.TempDir()
	both := filepath.Join(dir, "both.yaml")
	if err := os.WriteFile(both, []byte("broker: {}\nnats: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	misspelt := filepath.Join(dir, "misspelt.yaml")
	if err := os.WriteFile(misspelt, []byte("listenrs: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken.yaml")
	if err := os.WriteFile(broken, []byte("broker: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"version", 0, "manor "},
		{"--help", 0, "bench"},
		{"bench --help", 0, "-window"},
		{"bench -h", 0, "-window"},
		{"bench compare -h", 0, "-save"},
		{"version -o json", 0, `"name":"manor"`},
		{"version -o yaml", 2, "expected human or json"},
		{"nonsense", 2, "unknown command"},
		{"verion", 2, "did you mean version?"},
		{"config nonsense", 2, "unknown command"},
		{"nonsense --help", 2, "unknown command"},
		{"quota nonsense --help", 2, "manor quota --help"},
		{"clint -h", 2, "did you mean client?"},
		{"client --help", 0, "disconnect"},
		{"client", 0, "disconnect"},
		{"client list --help", 0, "TENANT"},
		{"publish --help", 0, "--retain"},
		{"config check", 2, "accepts 1 arg(s)"},
		{"version now", 2, "manor version --help"},
		{"config check " + misspelt, 2, `for "listenrs", did you mean "listeners"?`},
		{"version --nonsense", 2, "unknown flag"},
		{"bench -s nonsense", 2, "no scenario"},
		{"bench -n x", 2, "invalid value"},
		{"config check " + both, 2, "--role"},
		{"config check " + broken, 2, "yaml"},
		{"config check " + filepath.Join(dir, "missing"), 2, "no such file"},
		{"config check --role cook " + both, 2, "expected gateway, broker or tenancy"},
	} {
		out, code := run(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("manor %s: exit code %d, want %d with %q in\n%s", c.args, code, c.code, c.want, out)
		}
	}
}

func TestRoleOf(t *testing.T) {
	for text, want := range map[string]string{
		"broker: {data: x}":                               "broker",
		"listeners: []\nnats: {}\nbroker: {}":             "gateway",
		"endpoints: {mqtt: 1}\nnats: {}\nbroker: {}":      "tenancy",
		"default_plan: pro\nnats: {urls: []}\nbroker: {}": "tenancy",
		"nats: {}": "",
	} {
		file := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := roleOf(file); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is of %q, %v, want %q", text, got, err, want)
		}
	}
}
