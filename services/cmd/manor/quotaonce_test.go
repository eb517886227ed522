// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// problem is what the API says when it refuses.
type problem struct{ Code, Quota, Detail string }

// asks is a request whose answer may be a problem.
func (x *tenant) asks(method, path, body string) (status int, p problem) {
	x.Helper()
	req, err := http.NewRequestWithContext(x.Context(), method, x.p.api+path, strings.NewReader(body))
	if err != nil {
		x.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+x.key)
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		x.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		x.Fatal(err)
	}
	return r.StatusCode, p
}

// conflicts is the test of a quota that one request is beyond: it is refused with 409 and
// the quota's name when the quota is low, and let through when it is high, each within the
// time that a change may take.
func conflicts(quota string, low, high int64, method, path, body string) func(x *tenant) {
	return func(x *tenant) {
		path := strings.ReplaceAll(path, "TENANT", x.id)
		if strings.Contains(path, "ORGANIZATION") {
			path = strings.ReplaceAll(path, "ORGANIZATION", x.organization())
		}
		body := strings.ReplaceAll(body, "TENANT", x.id)
		x.quota(fmt.Sprintf(`{%q:%d}`, quota, low))
		x.within(func() string {
			status, p := x.asks(method, path+"?dry_run=true", body)
			if status != http.StatusConflict || p.Code != "quota_exceeded" {
				return fmt.Sprintf("%d %+v", status, p)
			}
			return ""
		})
		if status, p := x.asks(method, path, body); status != http.StatusConflict || p.Quota != quota || !strings.Contains(p.Detail, quota) {
			x.Errorf("%d %+v, expected 409 and the quota's name", status, p)
		}
		x.quota(fmt.Sprintf(`{%q:%d}`, quota, high))
		x.within(func() string {
			if status, p := x.asks(method, path, body); status >= 300 {
				return fmt.Sprintf("%d %+v", status, p)
			}
			return ""
		})
	}
}

// connectRate is the test of a rate of CONNECTs: what is beyond a burst of five is refused
// with 0x9F and the quota's name, and nobody is when the rate has gone.
func connectRate(quota string, changes ...change) func(x *tenant) {
	return func(x *tenant) {
		x.quota(fmt.Sprintf(`{%q:1}`, quota))
		x.within(func() string { // those of a round come at once: who comes alone would wait its turn
			var round []*device
			for range 12 {
				x.n++
				p := &packet.Connect{
					Version: packet.V5, CleanStart: true, ClientID: fmt.Sprint("c", x.n), KeepAlive: 60,
					Username: x.id + ":default", HasUsername: true, Password: []byte(x.word), HasPassword: true,
				}
				for _, f := range changes {
					f(p)
				}
				d := x.dial()
				d.send(&packet.Packet{Type: packet.CONNECT, Connect: p})
				round = append(round, d)
			}
			refused := 0
			for _, d := range round {
				k := d.want(packet.CONNACK).Connack
				_ = d.c.Close()
				if k.Reason == mqtt.Success {
					continue
				}
				if refused++; k.Reason != mqtt.ConnectionRateExceeded || !strings.Contains(k.ReasonString, quota) {
					x.Fatalf("CONNACK %v %q, expected 0x9F and the quota's name", k.Reason, k.ReasonString)
				}
			}
			if refused == 0 {
				return "all are let in"
			}
			return ""
		})
		x.quota(`{}`)
		x.connack(func(k *packet.Connack) bool { return k.Reason == mqtt.Success }, changes...)
	}
}

const twoGrants = `{"files":{"policy.rego":"package mqtt\n\ngrants contains {\"effect\": \"allow\", \"action\": \"publish\", \"filter\": \"a\"}\n\ngrants contains {\"effect\": \"allow\", \"action\": \"publish\", \"filter\": \"b\"}\n"}}`

// onceRows are quotas that one request, or one client, is beyond.
var onceRows = map[string]func(x *tenant){
	"devices":      conflicts("devices", 0, 1, http.MethodPut, "/v1/tenants/TENANT/devices/press-7", `{}`),
	"domains":      conflicts("domains", 0, 1, http.MethodPost, "/v1/tenants/TENANT/domains", `{"fqdn":"TENANT.acme.example","certificate":"uploaded"}`),
	"tenants":      conflicts("tenants", 1, 2, http.MethodPost, "/v1/organizations/ORGANIZATION/tenants", `{"id":"TENANT-second","plan":"free"}`),
	"grants":       conflicts("grants", 1, 2, http.MethodPut, "/v1/tenants/TENANT/policies", twoGrants),
	"policy_bytes": conflicts("policy_bytes", 10, 10_000, http.MethodPut, "/v1/tenants/TENANT/policies", twoGrants),
	"client_cas": func(x *tenant) {
		body, err := json.Marshal(map[string]string{"certificates": tenancytest.NewCA(x, "ca").PEM() + tenancytest.NewCA(x, "other").PEM()})
		if err != nil {
			x.Fatal(err)
		}
		conflicts("client_cas", 1, 2, http.MethodPut, "/v1/tenants/TENANT/client-cas", string(body))(x)
	},
	"connect_rate":        connectRate("connect_rate"),
	"connect_rate_client": connectRate("connect_rate_client", clientID("same")),
}
