// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// An operator takes a name from the tenant that has it: it is free, the domain is pending,
// and the audit log of the tenant's organization says so.
func TestOperator_ReleaseDomain(t *testing.T) {
	w := newWorld(t)
	h := w.s.Operator()
	post := func(kind, body string) (int, string) {
		r := httptest.NewRequest(http.MethodPost, "/tenancy/v1/domains:release", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec.Code, rec.Body.String()
	}
	for _, c := range []struct {
		kind, body string
		code       int
		want       string
	}{
		{"text/plain", `{"fqdn":"mqtt.acme.example"}`, 400, "application/json"},
		{"application/json", `{"fqdn":""}`, 400, "expected a body like"},
		{"application/json", `{"name":"x"}`, 400, "expected a body like"},
		{"application/json", `{"fqdn":"*.example"}`, 400, ""},
		{"application/json", `{"fqdn":"free.acme.example"}`, 404, "domain_not_found"},
		{"application/json", `{"fqdn":"MQTT.acme.example"}`, 200, `"tenant":"acme"`},
		{"application/json", `{"fqdn":"mqtt.acme.example"}`, 404, "domain_not_found"},
	} {
		if code, body := post(c.kind, c.body); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s, want %d with %q", c.body, code, body, c.code, c.want)
		}
	}
	if _, err := w.store.Host(t.Context(), "mqtt.acme.example"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the name is not free: %v", err)
	}
	d, err := w.store.Domain(t.Context(), "acme", "mqtt.acme.example")
	if err != nil || d.State != tenancy.DomainPending || !strings.Contains(d.LastError, "the operator of this installation has released the name") {
		t.Errorf("the domain is %+v, %v", d, err)
	}
	records := w.want(w.do("GET", "/v1/organizations/"+w.org+"/audit?limit=1", w.owner, ""), 200, "")["items"].([]any)
	if r := records[0].(map[string]any); r["operation"] != "release-domain" || r["target"] != "domain mqtt.acme.example" || r["outcome"] != "done" || r["actor"].(map[string]any)["kind"] != "operator" {
		t.Errorf("the audit log has %v", r)
	}
	// Who shows that it is theirs has it again.
	w.names.Text(d.ChallengeName(), d.ChallengeValue())
	w.want(w.do("POST", "/v1/tenants/acme/domains/mqtt.acme.example:verify", w.owner, ""), 200, "")
}
