// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/services/bench"
)

// Every kind of revocation holds at two gateways within 2 s, also for clients that connect
// meanwhile, and the bench that measures it says so.
func TestRevocation_Bench(t *testing.T) {
	g := startGateways(t)
	site := &bench.Site{API: g.edges[0].api, Domain: devDomain}
	for n, edge := range g.edges {
		site.Gateways = append(site.Gateways, bench.SiteGateway{MQTT: edge.mqtt, MQTTS: g.mqtts[n]})
	}
	var out bytes.Buffer
	r := bench.Revocation{Tries: 12, AtOnce: 2, Limit: 2 * time.Second}
	if err := r.At(t.Context(), site, &out); err != nil {
		t.Fatal(err, &out)
	}
	for _, want := range []string{"\ncredential  ", "\ncertificate  ", "\nrevocation list  ", "\npolicy  ", "\nplan  ", "\ntenant  ", "\nall                  12"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("expected %q in\n%s", want, &out)
		}
	}
	t.Log("\n" + out.String())
}
