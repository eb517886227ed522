// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// Plan is a set of default limits under a name.
type Plan struct {
	Name   string
	Limits Limits
	// Partitions is among how many partitions of a region a tenant's sessions are spread
	// that is made with the plan; 0 is all. A tenant that changes to a plan of more grows to as
	// many (docs/adr/0057); one that changes to a plan of fewer keeps what it has.
	Partitions int
}

// MaxPartitions is as many partitions as a region may have.
const MaxPartitions = 65535

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
	tib = int64(1) << 40

	minute = int64(60)
	hour   = 60 * minute
	day    = 24 * hour
)

// planRow is one quota in the three sold plans, as they stand next to each
// other in a price list.
type planRow struct {
	name               string
	free, starter, pro int64
}

var planRows = []planRow{
	{"connections", 100, 10_000, 250_000},
	{"connect_rate", 5, 200, 2_000},
	{"connect_rate_client", 1, 1, 1},
	{"publish_rate", 100, 5_000, 100_000},
	{"publish_rate_client", 20, 200, 5_000},
	{"delivery_rate", 200, 20_000, 400_000},
	{"bytes_in_rate", mib, 50 * mib, 500 * mib},
	{"bytes_out_rate", mib, 50 * mib, 500 * mib},
	{"bytes_in_rate_client", 64 * kib, 512 * kib, 8 * mib},
	{"bytes_out_rate_client", 64 * kib, 512 * kib, 8 * mib},
	{"packet_size", 64 * kib, 256 * kib, 5 * mib},
	{"topic_length", 256, 512, 1_024},
	{"topic_levels", 16, 32, 64},
	{"topic_level_length", 128, 256, 512},
	{"topic_alias_maximum", 10, 32, 128},
	{"receive_maximum", 20, 100, 1_000},
	{"subscriptions_client", 50, 200, 2_000},
	{"subscriptions_request", 20, 50, 200},
	{"subscriptions", 5_000, 500_000, 10_000_000},
	{"shared_groups", 10, 500, 5_000},
	{"shared_group_members", 20, 200, 1_000},
	{"wildcard_root", 1, 1, 1},
	{"fan_out", 1_000, 50_000, 1_000_000},
	{"persistent_sessions", 100, 10_000, 1_000_000},
	{"session_expiry", day, 7 * day, 30 * day},
	{"queue_messages", 500, 5_000, 50_000},
	{"queue_bytes", mib, 16 * mib, 256 * mib},
	{"storage_bytes", 100 * mib, 10 * gib, tib},
	{"retained_messages", 1_000, 100_000, 5_000_000},
	{"retained_bytes", 10 * mib, gib, 50 * gib},
	{"retained_rate", 50, 1_000, 20_000},
	{"retained_subscribe", 1_000, 10_000, 100_000},
	{"keep_alive_minimum", 15, 10, 5},
	{"keep_alive_maximum", 1_200, 3_600, maxU16},
	{"will_delay", 5 * minute, hour, 7 * day},
	// A will payload has at most 65,535 bytes on the wire [MQTT-3.1.3.4].
	{"will_size", 16 * kib, 32 * kib, maxU16},
	{"devices", 200, 50_000, 5_000_000},
	{"credentials", 200, 50_000, 5_000_000},
	{"client_cas", 1, 5, 50},
	{"grants", 100, 2_000, 10_000},
	{"policy_bytes", 16 * kib, 64 * kib, 512 * kib},
	{"policy_time_ms", 5, 10, 20},
	{"webhooks", 1, 5, 50},
	{"sinks", 1, 10, 100},
	{"rules", 2, 20, 200},
	{"bridges", 0, 2, 20},
	{"api_rate", 5, 20, 200},
	{"tenants", 1, 10, 100},
	{"members", 3, 20, 500},
	{"api_keys", 5, 50, 500},
	{"domains", 0, 1, 20},
	{"event_days", 7, 14, 30},
	{"audit_days", 30, 180, 400},
	{"traces", 1, 3, 20},
	{"backups", 1, 7, 35},
}

// unboundedInDev are the limits of plan dev that are not there: every rate, and
// what would get in the way of trying things out at home.
var unboundedInDev = []string{
	"connect_rate", "connect_rate_client", "publish_rate", "publish_rate_client", "delivery_rate",
	"bytes_in_rate", "bytes_out_rate", "bytes_in_rate_client", "bytes_out_rate_client", "retained_rate", "api_rate",
	"keep_alive_minimum", "keep_alive_maximum",
}

// Names of the plans.
const (
	PlanDev     = "dev"
	PlanFree    = "free"
	PlanStarter = "starter"
	PlanPro     = "pro"
	// PlanNone limits nothing. It is for tenants that an operator makes; it
	// cannot be signed up for.
	PlanNone = "none"
)

// plans is built once from the rows; a Plan is handed out as a copy.
var plans = makePlans()

func makePlans() map[string]Plan {
	var free, starter, pro Limits
	for _, r := range planRows {
		f := findQuota(r.name).field
		*f(&free), *f(&starter), *f(&pro) = r.free, r.starter, r.pro
	}
	dev := pro
	for _, name := range unboundedInDev {
		*findQuota(name).field(&dev) = Unlimited
	}
	dev.QueueMessages, dev.QueueBytes = 1_000_000, gib
	m := map[string]Plan{}
	for _, p := range []Plan{{PlanDev, dev, 0}, {PlanFree, free, 1}, {PlanStarter, starter, 4}, {PlanPro, pro, 32}, {PlanNone, NoLimits(), 0}} {
		m[p.Name] = p
	}
	return m
}

// PlanNames returns the names of the plans that can be signed up for.
func PlanNames() []string { return []string{PlanDev, PlanFree, PlanStarter, PlanPro} }

// PlanByName returns the plan of that name. The error is Invalid with Code
// "plan_unknown".
func PlanByName(name string) (Plan, error) {
	p, ok := plans[name]
	if !ok {
		return Plan{}, errs.Coded(errs.Invalid, "plan_unknown", "expected one of the plans %s, %s, found %q", strings.Join(PlanNames(), ", "), PlanNone, name)
	}
	return p, nil
}
