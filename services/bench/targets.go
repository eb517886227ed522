// SPDX-License-Identifier: Apache-2.0

package bench

// asked are the targets that Manor was built for, as ratios to mosquitto in the same run:
// CPU µs for each delivered message, or what the figure names, beside mosquitto's on the
// machine on which both were first measured.
var asked = map[string]map[string]float64{
	"q0-64":           {"cpu_us": 0.9 / 16},
	"q0-1K":           {"cpu_us": 1.6 / 18},
	"q1-64":           {"cpu_us": 2.5 / 38},
	"q2-64":           {"cpu_us": 4.5 / 74},
	"q1-64-kept":      {"cpu_us": 7.0 / 38},
	"q2-64-kept":      {"cpu_us": 13.0 / 74},
	"fanin50":         {"cpu_us": 1.0 / 19},
	"fanout500":       {"cpu_us": 1.1 / 14},
	"shared50x10":     {"cpu_us": 1.5 / 21},
	"q0-20k/s":        {"cpu_us": 21.0 / 23, "p99_us": 1}, // asked of the best peer, which may be another one
	"q1-5k/s":         {"cpu_us": 45.0 / 48},
	"q1-5k/s-kept":    {"cpu_us": 70.0 / 48},
	"fanout500-40/s":  {"cpu_us": 11.0 / 16},
	"q0-64-2p":        {"cpu_us": 1.5 / 16},
	"q0-20k/s-2p":     {"cpu_us": 35.0 / 23},
	"idle10k":         {"rss_bytes_per_conn": 3.0 / 1.8},
	"idle5k-ws":       {"rss_bytes_per_conn": 12.0 / 6.8},
	"storm":           {"connect_cpu_us": 150.0 / 107},
	"offline1000x100": {"enqueue_cpu_us": 10.0 / 23, "drain_cpu_us": 10.0 / 18},
	"retained100k":    {"store_cpu_us": 15.0 / 27, "replay_cpu_us": 1.1 / 8.5},
	"wild100k":        {"cpu_us": (0.9 + 1.5) / 20, "subscribe_cpu_us": 9.0 / 8.9},
	"wild500k":        {"rss_bytes_per_sub": 500.0 / 1016},
}

// askedMultiple are targets of what CPU µs for each message are of those of the row's base.
var askedMultiple = map[string]float64{
	"q0-64-2cpu":  1.15,
	"q1-64-2cpu":  1.15,
	"conns10k":    1.10,
	"conns19k":    1.10,
	"tenants100":  1.10,
	"tenants9500": 1.10,
}

// askedItself are targets that are no ratios, in the unit of the figure.
var askedItself = map[string]map[string]float64{
	"idle19k":           {"gc_pause_p99_us": 1000},
	"idle5k-tls":        {"rss_bytes_per_conn": 14 << 10},
	"storm-tls-resumed": {"connect_cpu_us": 400},
}
