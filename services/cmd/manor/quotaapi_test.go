// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/tenancy"
)

// exceeds makes things of a quota until the API refuses one, which it must do with 409, and
// does not refuse when the quota is one more.
func (x *tenant) exceeds(quota, path string, body func(n int) string) {
	x.Helper()
	made := 0
	for limit := 3; limit < 5; limit++ {
		x.quota(fmt.Sprintf(`{%q:%d}`, quota, limit))
		for {
			status, code := x.refused(http.MethodPost, path, body(made))
			if status == http.StatusConflict && code == "quota_exceeded" {
				break
			}
			if status >= 300 || made > limit {
				x.Fatalf("%d made with the limit %d: %d %s", made, limit, status, code)
			}
			made++
		}
		if least := limit - 2; made < least { // a sign-up has one of some
			x.Errorf("%d could be made with the limit %d", made, limit)
		}
	}
	if made > 4 {
		x.Errorf("%d could be made with the limit 4", made)
	}
}

// organization is the id of the tenant's organization.
func (x *tenant) organization() string {
	x.Helper()
	var t struct{ Organization string }
	x.do("GET", "/v1/tenants/"+x.id, "", &t)
	return t.Organization
}

// apiRows are quotas that the API holds by itself.
var apiRows = map[string]func(x *tenant){
	"credentials": func(x *tenant) {
		x.exceeds("credentials", "/v1/tenants/"+x.id+"/credentials", func(n int) string { return fmt.Sprintf(`{"username":"u%d"}`, n) })
	},
	"api_keys": func(x *tenant) {
		x.exceeds("api_keys", "/v1/organizations/"+x.organization()+"/api-keys", func(n int) string { return fmt.Sprintf(`{"name":"k%d","role":"viewer"}`, n) })
	},
	"members": func(x *tenant) {
		x.exceeds("members", "/v1/organizations/"+x.organization()+"/members", func(n int) string {
			return fmt.Sprintf(`{"email":"m%d@acme.example","role":"viewer"}`, n)
		})
	},
	"api_rate": func(x *tenant) {
		x.quota(`{"api_rate":5}`)
		x.within(func() string {
			status, code := x.refused(http.MethodGet, "/v1/tenants/"+x.id, "")
			if status == http.StatusTooManyRequests && code == "quota_exceeded" {
				return ""
			}
			return fmt.Sprintf("%d %s", status, code)
		})
		answered, begun := 0, time.Now()
		for time.Since(begun) < 2*time.Second {
			if status, _ := x.refused(http.MethodGet, "/v1/tenants/"+x.id, ""); status == http.StatusOK {
				answered++
			}
			time.Sleep(10 * time.Millisecond)
		}
		if answered < 8 || answered > 22 { // those of two seconds may be left
			x.Errorf("%d requests answered in 2 s, expected 10 to 20", answered)
		}
	},
}

func TestQuotas_API(t *testing.T) {
	p := startProduct(t)
	rows := maps.Clone(apiRows)
	maps.Copy(rows, onceRows)
	maps.Copy(rows, rateRows)
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row(p.signUp(t, "q-"+strings.ReplaceAll(name, "_", "-")))
		})
	}
}

// notInRegion are the quotas without a row in TestQuotas_Region, and why.
var notInRegion = map[string]string{
	"policy_time_ms": "one request of the API: tenancy/policy TestGrants_Time",
	"event_days":     "by the hour: tenancy/events TestQuota_EventDays",
	"audit_days":     "by the hour: tenancy/audit TestLog_Prune",
	"webhooks":       "not yet", "sinks": "not yet", "rules": "not yet", "bridges": "not yet", "traces": "not yet", "backups": "not yet",
}

// Each quota has a row in TestQuotas_Region, or it is said why not.
func TestQuotas_RegionHasAll(t *testing.T) {
	rows := allRows()
	for _, name := range tenancy.QuotaNames() {
		if (rows[name] == nil) == (notInRegion[name] == "") {
			t.Errorf("%s: expected a row of TestQuotas_Region or why it has none, and not both", name)
		}
	}
}
