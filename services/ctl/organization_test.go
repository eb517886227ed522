// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/apitest"
	"github.com/manormq/manor/services/api/client"
	"github.com/manormq/manor/tenancy/domains/domainstest"
)

// organizationOf signs up at an API of the test, at which the commands then ask
// with its key.
func organizationOf(t *testing.T, with ...func(*api.Config)) *client.SignedUp {
	t.Helper()
	up, _ := organizationWithDNS(t, with...)
	return up
}

// organizationWithDNS is organizationOf, and returns the DNS server that the API asks.
func organizationWithDNS(t *testing.T, with ...func(*api.Config)) (*client.SignedUp, *domainstest.DNS) {
	t.Helper()
	s, _, names := apitest.WithDNS(t, with...)
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	c, err := client.New(client.Config{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	up, err := c.SignUp(t.Context(), client.SignUp{Organization: "Acme", Email: "ops@acme.example", Password: "choose-a-good-one", Tenant: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(apiEnv, srv.URL)
	t.Setenv(keyEnv, up.APIKey.Secret)
	return up, names
}

// good runs a command that has to do its work, and returns its JSON.
func good(t *testing.T, args ...string) map[string]any {
	t.Helper()
	out, code := run(append(args, "-o", "json")...)
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); code != 0 || err != nil {
		t.Fatalf("manor %s: exit code %d, %s", strings.Join(args, " "), code, out)
	}
	return v
}

func bad(t *testing.T, code int, want string, args ...string) {
	t.Helper()
	if out, got := run(args...); got != code || !strings.Contains(out, want) {
		t.Errorf("manor %s: exit code %d, want %d with %q in %s", strings.Join(args, " "), got, code, want, out)
	}
}

func shown(t *testing.T, want string, args ...string) {
	t.Helper()
	bad(t, 0, want, args...)
}

func TestOrganizationCommands(t *testing.T) {
	up := organizationOf(t)
	if v := good(t, "organization", "show"); v["organization"] != up.Organization.ID || v["role"] != "owner" {
		t.Errorf("got %v", v)
	}
	shown(t, "with role owner, tenants all, until never", "organization", "show")
	shown(t, "is Acme 2, ops@acme.example", "organization", "update", "--name", "Acme 2")
	shown(t, "developer", "organization", "roles")
	shown(t, "acme.localhost", "tenant", "list")
	shown(t, "acme is active, on plan dev", "tenant", "show", "acme")
	shown(t, "acme-test is made, on plan free, at acme-test.localhost", "tenant", "create", "acme-test", "--plan", "free")
	bad(t, 1, "is taken", "tenant", "create", "acme-test")
	shown(t, "acme-test is on plan starter; it is to have 4 partitions: it is looked at in a moment", "tenant", "plan", "acme-test", "starter")
	shown(t, "on plan starter in region local, at acme-test.localhost; it is to have 4 partitions", "tenant", "show", "acme-test")
	bad(t, 2, "plan_unknown", "tenant", "plan", "acme-test", "gold")
	shown(t, "starter  yes        no       4           10000", "plan", "list")
	shown(t, "QUOTA                  LIMIT", "quota", "list", "acme")
	if v := good(t, "quota", "list", "acme"); v["items"].([]any)[0].(map[string]any)["name"] != "connections" {
		t.Errorf("got %v", v)
	}
	bad(t, 1, "no tenant", "quota", "list", "nobody")

	v := good(t, "credential", "create", "acme", "sensor-1")
	if len(v["password"].(string)) < 20 {
		t.Errorf("got %v", v)
	}
	shown(t, "sensor-1", "credential", "list", "acme")
	shown(t, "sensor-1 is deleted", "credential", "delete", "acme", "sensor-1")
	bad(t, 1, "there is no credential", "credential", "delete", "acme", "sensor-1")

	hashes := filepath.Join(t.TempDir(), "hashes")
	if err := os.WriteFile(hashes, []byte("# two\na:b:$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW\n\ndefault:$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shown(t, "done: 1 made, 1 there already, 0 failed", "credential", "import", "acme", hashes)
	shown(t, "a:b", "credential", "list", "acme")
	bad(t, 2, "expected lines", "credential", "import", "acme", os.DevNull)

	m := good(t, "member", "invite", "dev@acme.example", "--role", "developer", "--tenant", "acme")
	if m["state"] != "invited" || m["invitation"] == nil {
		t.Errorf("got %v", m)
	}
	id := m["id"].(string)
	shown(t, "dev@acme.example  developer  acme", "member", "list")
	bad(t, 1, "member_invited", "member", "update", id, "--role", "viewer")
	shown(t, "is removed", "member", "remove", id)
	bad(t, 2, "--role", "member", "invite", "x@acme.example")
	owner := good(t, "member", "list")["items"].([]any)[0].(map[string]any)["id"].(string)
	shown(t, "is owner, tenants all", "member", "update", owner, "--role", "owner")
	bad(t, 1, "last_owner", "member", "remove", owner)

	k := good(t, "key", "create", "ci", "--permission", "usage:read,tenants:read", "--tenant", "acme", "--expires", "1h")
	shown(t, "ci", "key", "list")
	rotated := good(t, "key", "rotate", k["id"].(string), "--overlap", "10m")
	if rotated["secret"] == k["secret"] || rotated["previous_until"] == nil {
		t.Errorf("got %v", rotated)
	}
	// The new key, from a file.
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(rotated["secret"].(string)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shown(t, "acme is active", "tenant", "show", "acme", "--api-key-file", file)
	bad(t, 1, "permission_missing", "credential", "list", "acme", "--api-key-file", file)
	bad(t, 1, "scope_insufficient", "member", "list", "--api-key-file", file)
	shown(t, "is deleted", "key", "delete", k["id"].(string))
	bad(t, 1, "api_key_invalid", "tenant", "show", "acme", "--api-key-file", file)
	bad(t, 1, "api_key_not_found", "key", "rotate", k["id"].(string))

	shown(t, "create-api-key", "audit", "list", "--operation", "create-api-key")
	if n := len(good(t, "audit", "list", "--limit", "2")["items"].([]any)); n != 2 {
		t.Errorf("%d records", n)
	}
	check := good(t, "audit", "verify")
	export := filepath.Join(t.TempDir(), "audit.ndjson")
	shown(t, "", "audit", "export", export)
	if got := good(t, "audit", "verify", export, "--head", check["head"].(string)); got["valid"] != true || got["last"] != check["last"] {
		t.Errorf("got %v, want %v", got, check)
	}
	bad(t, 1, "another hash", "audit", "verify", export, "--head", "x")
	b, err := os.ReadFile(export)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(export, []byte(strings.Replace(string(b), "key ci", "key xx", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	bad(t, 1, "NOT whole", "audit", "verify", export)
	bad(t, 2, "file exists", "audit", "export", export)

	t.Setenv(keyEnv, "")
	bad(t, 2, "expected an API key", "key", "list")
	t.Setenv(keyEnv, "mk_x")
	t.Setenv(apiEnv, "nowhere")
	bad(t, 2, "expected the URL of the API", "key", "list")
	t.Setenv(apiEnv, "http://127.0.0.1:1")
	bad(t, 1, "cannot be reached", "key", "list")
}
