// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// account is what Manor's counters say about the messages of one tenant.
type account struct {
	name string
	// sent is what the generators sent, received what they got.
	sent, received int64
	// edge are the PUBLISH packets by outcome at the gateways, core what became of
	// them at the brokers.
	edge, core map[string]int64
	// fan is how many get a publish.
	fan int64
}

// missing is how many messages are not accounted for: between generators and
// gateways, gateways and brokers, and publishes and deliveries.
func (a account) missing() int64 {
	came := int64(0)
	for _, n := range a.edge {
		came += n
	}
	deliveries := int64(0)
	for outcome, n := range a.core {
		switch outcome {
		case "received", "own", "unmatched", "queued":
		default:
			deliveries += n
		}
	}
	abs := func(n int64) int64 { return max(n, -n) }
	n := abs(a.sent-came) + abs(a.edge["passed"]-a.core["received"])
	if a.fan == 1 { // else a subscriber that hangs up first changes how many there are
		n += abs(a.core["received"] - a.core["unmatched"] - deliveries)
	}
	return n
}

func (a account) String() string {
	list := func(m map[string]int64) string {
		var out []string
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if m[k] != 0 {
				out = append(out, fmt.Sprintf("%s %d", k, m[k]))
			}
		}
		return strings.Join(out, ", ")
	}
	return fmt.Sprintf("%s: generators sent %d, got %d; gateways: %s; broker: %s; not accounted for: %d",
		a.name, a.sent, a.received, list(a.edge), list(a.core), a.missing())
}

// accounts asks Manor's processes what they have counted of the loud tenant and of
// the quiet one. It waits for what is under way.
func (r overloaded) accounts(operators []string) ([]account, error) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		all := []account{
			{name: "loud", fan: int64(r.loud.Extra["fan"]), edge: map[string]int64{}, core: map[string]int64{}},
			{name: "quiet", fan: 1, edge: map[string]int64{}, core: map[string]int64{}},
		}
		for i, results := range [][]*Result{{r.capacity, r.loud}, {r.probe, r.alone, r.beside}} {
			for _, res := range results {
				all[i].sent += int64(res.Extra["sent"])
				all[i].received += int64(res.Extra["received"])
			}
		}
		for _, url := range operators {
			if err := count(url, all); err != nil {
				return nil, err
			}
		}
		whole := !slices.ContainsFunc(all, func(a account) bool { return a.missing() != 0 })
		if whole || time.Now().After(end) {
			return all, nil
		}
	}
}

// count adds what one process has counted; bench-i is the tenant of all[i].
func count(operator string, all []account) (err error) {
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Get(operator + "/metrics")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return fmt.Errorf("%s/metrics: %w", operator, err)
	}
	for i, a := range all {
		add := func(family string, to map[string]int64) {
			for _, m := range families[family].GetMetric() {
				if label(m, "tenant") == fmt.Sprintf("bench-%d", i) {
					to[label(m, "outcome")] += int64(m.GetCounter().GetValue())
				}
			}
		}
		add("mqtt_gateway_tenant_publishes_total", a.edge)
		add("mqtt_broker_tenant_messages_total", a.core)
	}
	return nil
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
