// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// One message that is missing anywhere is seen.
func TestAccounts(t *testing.T) {
	text := func(passed, received, sent string) string {
		return `# TYPE mqtt_gateway_tenant_publishes_total counter
mqtt_gateway_tenant_publishes_total{outcome="passed",tenant="bench-0"} ` + passed + `
mqtt_gateway_tenant_publishes_total{outcome="overload",tenant="bench-0"} 3
mqtt_gateway_tenant_publishes_total{outcome="passed",tenant="other"} 99
# TYPE mqtt_broker_tenant_messages_total counter
mqtt_broker_tenant_messages_total{outcome="received",tenant="bench-0"} ` + received + `
mqtt_broker_tenant_messages_total{outcome="unmatched",tenant="bench-0"} 1
mqtt_broker_tenant_messages_total{outcome="queued",tenant="bench-0"} 4
mqtt_broker_tenant_messages_total{outcome="queue_full",tenant="bench-0"} 2
mqtt_broker_tenant_messages_total{outcome="sent",tenant="bench-0"} ` + sent + "\n"
	}
	for body, want := range map[string]int64{
		text("10", "10", "7"): 0,
		text("9", "9", "6"):   1,
		text("10", "9", "6"):  1,
		text("10", "10", "6"): 1,
		text("10", "10", "8"): 1,
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
		all := []account{{sent: 13, fan: 1, edge: map[string]int64{}, core: map[string]int64{}}}
		if err := count(s.URL, all); err != nil {
			t.Fatal(err)
		}
		if got := all[0].missing(); got != want {
			t.Errorf("%s: missing %d, expected %d", all[0], got, want)
		}
		s.Close()
	}
}
