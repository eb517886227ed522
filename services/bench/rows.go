// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// row is one line of the comparison.
type row struct {
	name      string
	args      string   // of the generator
	figures   []string // what is shown, in order
	transport string   // tcp if empty
	more      bool     // measured with -all only
	// base is an earlier row whose first figure is the measure of this one's.
	base string
	// How the brokers are started: further arguments of manor dev, which have no
	// meaning for peers, and GOMAXPROCS, which has for those in Go; Go's own
	// choice if 0.
	dev   string
	procs int
	// tenants are as many tenants, to which the clients belong in turn, with
	// credentials. Peers have none and are left out.
	tenants int
	// empty has no tenant made before the start, but for the anonymous one: what makes
	// them knows one NATS server.
	empty bool
}

// Figures that rows have in common.
var (
	saturated = []string{"cpu_us", "rate"}
	paced     = []string{"cpu_us", "p50_us", "p99_us"}
	idling    = []string{"rss_bytes_per_conn", "connect_cpu_us", "connect_per_s", "rest_cpu_us_per_s", "idle_cpu_us_per_s"}
	storming  = []string{"connect_cpu_us", "connects_per_s", "p50_us", "p99_us", "resumed"}
	scaling   = []string{"cpu_us", "p50_us", "p99_us", "gc_pause_p50_us", "gc_pause_p99_us"}
	withPeak  = []string{"cpu_us", "rate", "peak_rss_mb"}
)

// many makes thousands of connections fit into the generator's memory, keeps
// what connecting them leaves to do out of the figures, and gives each time for
// its first messages.
const many = " -buf 2048 -batch 4 -settle -warm 2s"

// twoProcesses are manor dev's arguments for a gateway and a broker apart.
const twoProcesses = "--brokers 1 --gateways 1"

// brokers are those for a cluster with one gateway, and so many copies of each
// partition.
func brokers(n, replicas int) string {
	return fmt.Sprintf("--brokers %d --gateways 1 --replicas %d", n, replicas)
}

// rows are the scenarios that are compared. With those that are measured with
// -all only a comparison takes four times as long.
var rows = []row{
	{name: "q0-64", args: "-s pairs", figures: withPeak},
	{name: "q0-1K", args: "-s pairs -size 1024", figures: saturated},
	{name: "q1-64", args: "-s pairs -qos 1", figures: saturated},
	{name: "q2-64", args: "-s pairs -qos 2", figures: saturated},
	{name: "q1-1K", args: "-s pairs -qos 1 -size 1024", figures: saturated, more: true},
	{name: "q2-1K", args: "-s pairs -qos 2 -size 1024", figures: saturated, more: true},
	{name: "q1-64-kept", args: "-s pairs -qos 1 -persist", figures: saturated, more: true},
	{name: "q2-64-kept", args: "-s pairs -qos 2 -persist", figures: saturated, more: true},
	{name: "q0-64-v5", args: "-s pairs -mqtt 5", figures: saturated, more: true},
	{name: "q1-64-v5", args: "-s pairs -qos 1 -mqtt 5", figures: saturated, more: true},
	{name: "fanin50", args: "-s fanin", figures: saturated},
	{name: "fanout1", args: "-s fanout -subs 1", figures: saturated},
	{name: "fanout10", args: "-s fanout -subs 10", figures: saturated},
	{name: "fanout100", args: "-s fanout -subs 100 -window 50", figures: saturated},
	{name: "fanout100-64K", args: "-s fanout -subs 100 -window 8 -size 65536", figures: saturated, more: true},
	{name: "fanout500", args: "-s fanout -subs 500 -window 20", figures: withPeak},
	{name: "shared50x10", args: "-s shared", figures: saturated},
	{name: "q0-20k/s", args: "-s pairs -rate 20000", figures: paced},
	{name: "q1-5k/s", args: "-s pairs -qos 1 -rate 5000", figures: paced},
	{name: "fanout500-40/s", args: "-s fanout -subs 500 -rate 40", figures: paced, more: true},
	{name: "q1-5k/s-kept", args: "-s pairs -qos 1 -rate 5000 -persist", figures: paced, more: true},
	{name: "q0-64-2p", args: "-s pairs", figures: saturated, dev: twoProcesses, base: "q0-64", more: true},
	{name: "q1-64-2p", args: "-s pairs -qos 1", figures: saturated, dev: twoProcesses, base: "q1-64", more: true},
	{name: "q0-20k/s-2p", args: "-s pairs -rate 20000", figures: paced, dev: twoProcesses, base: "q0-20k/s", more: true},
	{name: "q0-64-1b", args: "-s pairs", figures: saturated, dev: twoProcesses, more: true},
	{name: "q0-64-2b", args: "-s pairs", figures: saturated, dev: brokers(2, 1), base: "q0-64-1b", more: true},
	{name: "q0-64-3b", args: "-s pairs", figures: saturated, dev: brokers(3, 1), base: "q0-64-1b", more: true},
	{name: "q1-64-kept-1b", args: "-s pairs -qos 1 -persist", figures: saturated, dev: twoProcesses, more: true},
	{name: "q1-64-kept-2b-r1", args: "-s pairs -qos 1 -persist", figures: saturated, dev: brokers(2, 1), base: "q1-64-kept-1b", more: true},
	{name: "q1-64-kept-2b-r2", args: "-s pairs -qos 1 -persist", figures: saturated, dev: brokers(2, 2), base: "q1-64-kept-2b-r1", more: true},
	{name: "q1-64-kept-3b-r1", args: "-s pairs -qos 1 -persist", figures: saturated, dev: brokers(3, 1), base: "q1-64-kept-1b", more: true},
	{name: "q1-64-kept-3b-r2", args: "-s pairs -qos 1 -persist", figures: saturated, dev: brokers(3, 2), base: "q1-64-kept-3b-r1", more: true},
	{name: "idle10k", args: "-s idle -n 10000 -subs 1 -conc 64", figures: idling},
	{name: "idle19k", args: "-s idle -n 0 -subs 1 -conc 64", figures: append(idling, "gc_pause_p50_us", "gc_pause_p99_us"), more: true},
	{name: "storm", args: "-s storm -n 10000", figures: storming, more: true},
	{name: "offline1000x100", args: "-s offline -n 1000 -msgs 100", figures: []string{"enqueue_cpu_us", "drain_cpu_us", "enqueue_per_s", "drain_per_s", "queued_rss_mb"}},
	{name: "retained100k", args: "-s retained -topics 100000", figures: []string{"store_cpu_us", "replay_cpu_us", "rss_bytes_per_topic", "replay_ms"}},
	{name: "wild100k", args: "-s wild -subs 100000", figures: []string{"cpu_us", "subscribe_cpu_us"}},
	{name: "wild500k", args: "-s wild -subs 500000 -n 100", figures: []string{"subscribe_cpu_us", "rss_bytes_per_sub"}, more: true},
	{name: "q0-64-tls", args: "-s pairs", figures: saturated, transport: overTLS, more: true},
	{name: "q0-20k/s-tls", args: "-s pairs -rate 20000", figures: paced, transport: overTLS, more: true},
	{name: "idle5k-tls", args: "-s idle -n 5000 -subs 1 -conc 64", figures: idling, transport: overTLS, more: true},
	{name: "idle5k-ws", args: "-s idle -n 5000 -subs 1 -conc 64", figures: idling, transport: overWS, more: true},
	{name: "storm-tls", args: "-s storm -n 5000 -resume=false", figures: storming, transport: overTLS, more: true},
	{name: "storm-tls-resumed", args: "-s storm -n 5000", figures: storming, transport: overTLS, more: true},
	{name: "q0-64-ws", args: "-s pairs", figures: saturated, transport: overWS, more: true},
	{name: "depth2", args: "-s pairs -each 4 -depth 2", figures: saturated, more: true},
	{name: "depth16", args: "-s pairs -each 4 -depth 16", figures: saturated, base: "depth2", more: true},
	{name: "q0-64-1cpu", args: "-s pairs", figures: saturated, procs: 1, more: true},
	{name: "q0-64-2cpu", args: "-s pairs", figures: saturated, procs: 2, base: "q0-64-1cpu", more: true},
	{name: "q1-64-1cpu", args: "-s pairs -qos 1", figures: saturated, procs: 1, more: true},
	{name: "q1-64-2cpu", args: "-s pairs -qos 1", figures: saturated, procs: 2, base: "q1-64-1cpu", more: true},
	{name: "conns1k", args: "-s pairs -rate 20000 -n 500" + many, figures: scaling, more: true},
	{name: "conns10k", args: "-s pairs -rate 20000 -n 5000" + many, figures: scaling, base: "conns1k", more: true},
	{name: "conns19k", args: "-s pairs -rate 20000 -n 9500" + many, figures: scaling, base: "conns1k", more: true},
	{name: "tenants1", args: "-s pairs -rate 20000 -n 9500" + many, figures: paced, tenants: 1, more: true},
	{name: "tenants100", args: "-s pairs -rate 20000 -n 9500" + many, figures: paced, tenants: 100, base: "tenants1", more: true},
	{name: "tenants9500", args: "-s pairs -rate 20000 -n 9500" + many, figures: paced, tenants: 9_500, base: "tenants1", more: true},
}

func rowNames() string {
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	return strings.Join(names, ",")
}

// fresh reports whether each run needs brokers of its own: memory that one kept
// from an earlier run would not be seen to grow.
func (r row) fresh() bool {
	return slices.ContainsFunc(r.figures, func(f string) bool { return strings.Contains(f, "rss_bytes") || f == "queued_rss_mb" })
}

// environment is that of the brokers.
func (r row) environment() []string {
	if r.procs == 0 {
		return os.Environ()
	}
	return append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", r.procs))
}

// onFloor reports whether the floor has what the row needs.
func (r row) onFloor() bool {
	return r.transport == "" && r.tenants == 0 && !strings.Contains(r.args, "-qos 2") && !strings.Contains(r.args, "-persist") &&
		slices.ContainsFunc([]string{"pairs", "fanin", "fanout", "idle", "storm"}, func(s string) bool { return strings.HasPrefix(r.args+" ", "-s "+s+" ") })
}
