// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"strings"
	"testing"

	"github.com/manormq/manor/infra/link"
)

// TestTenantMetrics holds that the metrics are those of the quotas, and no others' tenant's.
func TestTenantMetrics(t *testing.T) {
	f := newFixture(t)
	key, other := f.signUp("acme"), f.signUp("beta")
	f.data.answer.Usage = link.Usage{Connections: 3}
	const path = "/v1/tenants/acme/metrics"
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"connections":5,"publish_rate":-1}`), 200, "")
	r := f.do("GET", path, key, "")
	if got := r.header.Get("Content-Type"); r.status != 200 || !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Fatalf("%d %q, expected 200 and the text format of Prometheus", r.status, got)
	}
	for _, want := range []string{
		"# TYPE manor_quota_limit gauge",
		`manor_quota_limit{quota="connections",tenant="acme"} 5`, `manor_quota_usage{quota="connections",tenant="acme"} 3`, `manor_quota_limit{quota="publish_rate",tenant="acme"} +Inf`,
	} {
		if !strings.Contains(r.body, want+"\n") {
			t.Errorf("no line %q in\n%s", want, r.body)
		}
	}
	f.want(f.do("GET", path, other, ""), 404, "tenant_not_found")
}
