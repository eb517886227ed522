// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPolicyCommands(t *testing.T) {
	organizationOf(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad(t, 1, "has no policy of its own", "policy", "show", "acme")
	good1 := file("policy.rego", "package mqtt\n\ngrants contains {\"action\": \"publish\", \"filter\": \"a/%c\"}\n")
	file("policy_test.rego", "package mqtt_test\n\nimport data.mqtt\n\ntest_one if count(mqtt.grants) == 1\n")
	shown(t, "pass  mqtt_test.test_one (policy_test.rego:5)", "policy", "test", "acme", dir)
	shown(t, "the policy is good: 1 grants", "policy", "push", "acme", dir, "--dry-run")
	shown(t, "revision 1 is live: 1 grants in 1 classes (default); 1 tests passed", "policy", "push", "acme", dir, "--description", "first")
	shown(t, "# policy.rego, revision 1", "policy", "show", "acme")
	shown(t, "first", "policy", "list", "acme")
	shown(t, "allowed under revision 1, class \"default\": allowed by the entry\npolicy.rego:3: allow publish a/%c, priority 0", "policy", "explain", "acme", "publish", "a/x", "--client", "x")
	shown(t, "denied under revision 1", "policy", "explain", "acme", "publish", "a/y", "--client", "x")
	bad(t, 1, "no such decision", "policy", "explain", "acme", "dec_x")

	wrong := t.TempDir()
	broken := filepath.Join(wrong, "broken.rego")
	if err := os.WriteFile(broken, []byte("package mqtt\n\ngrants contains http.send({})\n\nx := foo(1)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bad(t, 2, "broken.rego:3:17: undefined function http.send", "policy", "push", "acme", broken)
	bad(t, 2, "broken.rego:5:6: ", "policy", "test", "acme", broken)
	bad(t, 2, "two files are called", "policy", "push", "acme", good1, good1)
	bad(t, 2, "files that end with .rego", "policy", "push", "acme", t.TempDir())
	failing := filepath.Join(wrong, "policy_test.rego")
	if err := os.WriteFile(failing, []byte("package mqtt\n\ngrants := []\n\ntest_x if count(grants) == 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bad(t, 2, "1 tests have failed", "policy", "test", "acme", failing)
	bad(t, 2, "policy_test.rego:5:1: the test mqtt.test_x has failed", "policy", "push", "acme", failing)

	if err := os.WriteFile(failing, []byte("package mqtt\n\ngrants := []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shown(t, "revision 2 is shadow", "policy", "push", "acme", failing, "--shadow")
	shown(t, "0 of 0 decisions would change", "policy", "shadow", "acme")
	shown(t, "0 of 0 decisions would change", "policy", "simulate", "acme", "--revision", "2")
	shown(t, "0 of 0 decisions would change", "policy", "simulate", "acme", failing)
	shown(t, "no revision is looked at", "policy", "shadow", "acme", "--end")
	bad(t, 1, "no revision of the policy is looked at", "policy", "shadow", "acme")
	shown(t, "revision 2 is live", "policy", "rollback", "acme", "2")
	bad(t, 2, "expected the number of a revision", "policy", "rollback", "acme", "x")
	shown(t, "the default holds", "policy", "reset", "acme")
	if v := good(t, "policy", "list", "acme"); len(v["items"].([]any)) != 2 {
		t.Errorf("got %v", v)
	}
}
