// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
)

var update = flag.Bool("update", false, "write docs/openapi.json, docs/quotas.md and docs/settings.md")

// TestOpenAPI holds docs/openapi.json to what is served. Run it with -update
// after a change.
func TestOpenAPI(t *testing.T) {
	f := newFixture(t)
	r := f.do("GET", "/v1/openapi.json", "", "")
	v := r.json(t)
	if v["openapi"] != "3.1.0" {
		t.Errorf("openapi %v", v["openapi"])
	}
	for _, p := range []string{
		"post /v1/signup", "post /v1/tenants/{tenant}/credentials", "get /v1/tenants/{tenant}/credentials",
		"delete /v1/tenants/{tenant}/credentials/{username}", "get /v1/tenants/{tenant}", "get /v1/tenants/{tenant}/quotas",
		"put /v1/tenants/{tenant}/quotas/overrides", "get /v1/tenants/{tenant}/usage", "get /v1/tenants/{tenant}/clients",
		"get /v1/tenants/{tenant}/clients/{client_id}", "delete /v1/tenants/{tenant}/clients/{client_id}",
		"get /v1/tenants/{tenant}/settings", "put /v1/tenants/{tenant}/settings", "put /v1/tenants/{tenant}/credentials/{username}/session",
		"post /v1/tenants/{tenant}/publish", "get /v1/tenants/{tenant}/retained",
	} {
		method, path, _ := strings.Cut(p, " ")
		ops, ok := v["paths"].(map[string]any)[path].(map[string]any)
		if !ok || ops[method] == nil {
			t.Errorf("no %s", p)
		}
	}
	if strings.Contains(r.body, "ErrorModel") || strings.Contains(r.body, `"422"`) {
		t.Error("huma's own errors are described")
	}
	for _, p := range []string{"/v1/tenants/{tenant}/credentials", "/v1/signup", "/v1/signup/verify"} {
		post := v["paths"].(map[string]any)[p].(map[string]any)["post"].(map[string]any)
		if post["responses"].(map[string]any)["200"] == nil || post["responses"].(map[string]any)["201"] == nil {
			t.Errorf("POST %s: expected 200 of a dry run and 201", p)
		}
	}
	actor := v["components"].(map[string]any)["schemas"].(map[string]any)["Actor"].(map[string]any)
	kinds := actor["properties"].(map[string]any)["kind"].(map[string]any)["enum"]
	if want := []any{audit.ActorKey, audit.ActorMember, audit.ActorSignUp, audit.ActorClaim, audit.ActorOperator}; !cmp.Equal(kinds, any(want)) {
		t.Errorf("kinds of actors %v, want %v", kinds, want)
	}
	golden(t, "openapi.json", []byte(r.body))
}

// TestOpenAPI_Methods asks for what a path has not.
func TestOpenAPI_Methods(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/v1/openapi.json", "GET, HEAD"},
		{"GET", "/v1/signup", "POST"},
		{"PATCH", "/v1/tenants/acme/credentials", "GET, POST"},
		{"PUT", "/v1/tenants/acme/clients/a%2Fb", "GET, DELETE"},
	} {
		r := f.do(c.method, c.path, "", "")
		f.want(r, 405, "method_not_allowed")
		if got := r.header.Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got, c.allow)
		}
	}
	if r := f.do("HEAD", "/v1/openapi.json", "", ""); r.status != 200 || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("HEAD: %d %v", r.status, r.header)
	}
}

// TestOpenAPI_Quotas holds docs/quotas.md to the table of what is enforced.
func TestOpenAPI_Quotas(t *testing.T) {
	text := api.QuotasDocument()
	for _, name := range tenancy.QuotaNames() {
		if !bytes.Contains(text, []byte("\n| `"+name+"` | ")) {
			t.Errorf("docs/quotas.md has no %s", name)
		}
	}
	golden(t, "quotas.md", text)
}

// TestOpenAPI_Settings holds docs/settings.md to the table of settings.
func TestOpenAPI_Settings(t *testing.T) { golden(t, "settings.md", api.SettingsDocument()) }

// golden compares a document of docs with what it should be, and writes it with
// -update.
func golden(t *testing.T, name string, want []byte) {
	t.Helper()
	file := filepath.Join("..", "..", "docs", name)
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/%s is stale: go test ./services/api -run TestOpenAPI -update", name)
	}
}
