// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/services/conform"
	"github.com/manormq/manor/tenancy"
)

var inRegion = flag.Bool("region", false, "hold the quotas on two gateways and three brokers as processes too, in TestQuotas_Region")

// startRegion starts two gateways, three brokers and the control plane, each a process of
// its own. Clients of a tenant connect to the gateways in turn.
func startRegion(t *testing.T) *product {
	t.Helper()
	bin := t.TempDir()
	if err := conform.Build(bin); err != nil {
		t.Fatal(err)
	}
	r := conform.Start(t, bin, "--data", t.TempDir(), "--listen-offset", conform.Offset(t), "--brokers", "3", "--gateways", "2", "--log-level", "error")
	p := &product{api: r.API}
	for _, x := range r.Processes {
		if x.Role == "gateway" {
			p.more = append(p.more, fmt.Sprintf("127.0.0.1:%d", x.Ports["mqtt"]))
		}
	}
	p.mqtt = p.more[0]
	return p
}

// regionRows are quotas that gateways divide among themselves: a client at one counts at
// the other.
var regionRows = map[string]func(x *tenant){
	"connections": func(x *tenant) {
		all := []*device{x.device(), x.device(), x.device()}
		x.quota(`{"connections":3}`)
		refused := func(k *packet.Connack) bool {
			return k.Reason == mqtt.QuotaExceeded && strings.Contains(k.ReasonString, "connections")
		}
		x.within(func() string {
			d, k := x.connect()
			if refused(k) {
				return ""
			}
			_ = d.c.Close()
			return fmt.Sprintf("CONNACK %v", k.Reason)
		})
		for range x.p.more { // at each, in turn
			if _, k := x.connect(); !refused(k) {
				x.Errorf("CONNACK %v %q", k.Reason, k.ReasonString)
			}
		}
		_ = all[0].c.Close()
		x.connack(func(k *packet.Connack) bool { return k.Reason == mqtt.Success })
	},
	"publish_rate": func(x *tenant) {
		// At both gateways; what may come at once is a second's.
		const rate, each = 20, 40
		x.quota(fmt.Sprintf(`{"publish_rate":%d}`, rate))
		all := []*device{x.device(), x.device()}
		x.within(func() string { // a change holds
			begun := time.Now()
			for range rate {
				for _, d := range all {
					d.publishAll("t", "x")
				}
			}
			if took := time.Since(begun); took < 700*time.Millisecond {
				return fmt.Sprintf("%d messages in %v", 2*rate, took)
			}
			return ""
		})
		begun := time.Now()
		for range each {
			for _, d := range all {
				d.publishAll("t", "x")
			}
		}
		if took, least := time.Since(begun), (2*each-rate)*time.Second/rate*9/10; took < least {
			x.Errorf("%d messages took %v at both gateways, expected at least %v with %d a second", 2*each, took, least, rate)
		}
	},
}

// allRows are those of TestQuotas_Region.
func allRows() map[string]func(x *tenant) {
	rows := maps.Clone(quotaRows)
	maps.Copy(rows, rateRows)
	maps.Copy(rows, regionRows)
	maps.Copy(rows, apiRows)
	maps.Copy(rows, onceRows)
	for _, name := range tenancy.QuotaNames() {
		if row := settingRows[name]; row != nil {
			rows[name] = row
		}
	}
	return rows
}

// The quotas that are held by gateways and brokers hold in a region as they do in one
// process, at whichever gateway a client is, and a change reaches live clients in 2 s.
func TestQuotas_Region(t *testing.T) {
	if !*inRegion {
		t.Skip("starts processes; asked for by -region")
	}
	p := startRegion(t)
	for name, row := range allRows() {
		t.Run(name, func(t *testing.T) {
			plan := tenancy.PlanDev
			if name == "fan_out" {
				plan = tenancy.PlanFree // of which a tenant has one partition, and so an exact count
			}
			row(p.signUpTo(t, "q-"+strings.ReplaceAll(name, "_", "-"), plan))
		})
	}
}
