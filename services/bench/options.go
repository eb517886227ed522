// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options say what is measured.
type Options struct {
	Addr      string        // broker, "host:port"
	Scenario  string        // a name of Scenarios
	Label     string        // repeated in the result
	User      string        // user name; none if empty
	Pass      string        // password; none if empty
	PIDs      []int         // the broker's processes; descendants are counted too
	N         int           // publishers, pairs, idle connections or offline sessions
	Subs      int           // subscribers (fanout, shared) or subscriptions (wild, idle)
	QoS       int           // of publishes and subscriptions, 0 to 2
	Size      int           // payload bytes, 8 or more
	Batch     int           // most packets for each write at saturation
	Window    int           // publishes under way end to end, for each pair or the whole
	Inflight  int           // unacknowledged QoS 1 and 2 publishes of each publisher
	Rate      float64       // publishes a second in all, open loop; 0 saturates
	Duration  time.Duration // measured
	Warm      time.Duration // before measuring
	KeepAlive int           // seconds
	Conc      int           // connects at a time
	Msgs      int           // messages for each session (offline)
	Topics    int           // topics (retained)
	Buffer    int           // a subscriber's read buffer, bytes
	Transport string        // tcp, tls, ws or wss; empty is tcp
	Host      string        // named to the broker by SNI and Host; empty is that of Addr
	CA        string        // PEM file to verify the broker with; empty verifies nothing
	Persist   bool          // subscribers have sessions that outlive their connections
	MQTT      int           // protocol level: 4 is MQTT 3.1.1, 5 is MQTT 5
	Depth     int           // levels of a topic (pairs)
	Each      int           // topics of each publisher (pairs)
	Logins    string        // file of credentials that clients take in turn; User and Pass if empty
	Tenants   int           // that are signed up at API, and clients belong to in turn; 0 is none
	API       string        // URL of Manor's
	Resume    bool          // TLS sessions are resumed
	Settle    bool          // the broker is waited for to rest after connecting
	Operator  string        // URLs of Manor's operator listeners, comma separated; none if empty

	tls    *tls.Config
	logins []login
	pauses pauses
}

// Flags declares the options on fs, with their defaults.
func (o *Options) Flags(fs *flag.FlagSet) {
	fs.StringVar(&o.Addr, "addr", "127.0.0.1:1883", "broker, host:port")
	fs.Func("pid", "the broker's pid(s), comma separated; descendants are counted too", o.pids)
	fs.StringVar(&o.Label, "label", "", "label in the result")
	fs.StringVar(&o.Scenario, "s", "pairs", strings.Join(Scenarios(), "|"))
	fs.IntVar(&o.N, "n", 50, "publishers / pairs / idle connections (0: as many as the limit of open files allows) / offline sessions")
	fs.IntVar(&o.Subs, "subs", 0, "subscribers (fanout, shared) or subscriptions (wild, idle)")
	fs.IntVar(&o.QoS, "qos", 0, "QoS of publishes and subscriptions")
	fs.IntVar(&o.Size, "size", 64, "payload bytes, 8 or more")
	fs.IntVar(&o.Batch, "batch", 32, "most packets for each write at saturation")
	fs.IntVar(&o.Window, "window", 100, "publishes under way end to end, for each pair or the whole scenario")
	fs.IntVar(&o.Inflight, "inflight", 20, "unacknowledged QoS 1/2 publishes of each publisher")
	fs.Float64Var(&o.Rate, "rate", 0, "publishes/s in all, open loop (0: saturate)")
	fs.DurationVar(&o.Duration, "dur", 3*time.Second, "measured time")
	fs.DurationVar(&o.Warm, "warm", time.Second, "time before measuring")
	fs.IntVar(&o.KeepAlive, "keepalive", 300, "keep alive, s")
	fs.IntVar(&o.Conc, "conc", 32, "connects at a time")
	fs.IntVar(&o.Msgs, "msgs", 100, "messages for each session (offline)")
	fs.IntVar(&o.Topics, "topics", 100000, "topics (retained)")
	fs.IntVar(&o.Buffer, "buf", 64<<10, "a subscriber's read buffer, bytes")
	fs.StringVar(&o.Transport, "t", overTCP, "transport: tcp|tls|ws|wss")
	fs.StringVar(&o.Host, "host", "", "name of the broker in SNI and Host (that of -addr)")
	fs.StringVar(&o.CA, "ca", "", "PEM file with the CA of the broker's certificate; without it nothing is verified")
	fs.BoolVar(&o.Persist, "persist", false, "subscribers (not those of idle, offline and retained) have persistent sessions")
	fs.StringVar(&o.User, "user", "", "user name")
	fs.StringVar(&o.Pass, "pass", "", "password")
	fs.StringVar(&o.Logins, "logins", "", "file with a line USER<TAB>PASSWORD for each credential; client i takes number i modulo their count")
	fs.IntVar(&o.Tenants, "tenants", 0, "sign up as many tenants at -api, which takes 30 ms each; client i belongs to number i modulo that")
	fs.StringVar(&o.API, "api", "http://127.0.0.1:8080", "Manor's API, for -tenants")
	fs.IntVar(&o.MQTT, "mqtt", int(mqtt3), "protocol level: 4 (MQTT 3.1.1) or 5")
	fs.IntVar(&o.Depth, "depth", 3, "levels of a topic (pairs)")
	fs.IntVar(&o.Each, "each", 1, "topics of each publisher, in turn (pairs)")
	fs.BoolVar(&o.Resume, "resume", true, "resume TLS sessions")
	fs.BoolVar(&o.Settle, "settle", false, "wait until the broker rests after connecting, a minute at the most")
	fs.StringVar(&o.Operator, "operator", "", "base URLs of Manor's operator listeners, comma separated, to ask for the pauses of garbage collection")
}

func (o *Options) pids(list string) error {
	for p := range strings.SplitSeq(list, ",") {
		pid, err := strconv.Atoi(strings.TrimSpace(p))
		if err != nil || pid <= 0 {
			return fmt.Errorf("%q is no process id", p)
		}
		o.PIDs = append(o.PIDs, pid)
	}
	return nil
}

// Validate returns what is wrong with o, if anything.
func (o *Options) Validate() error {
	if _, _, err := net.SplitHostPort(o.Addr); err != nil {
		return fmt.Errorf("-addr: want host:port: %w", err)
	}
	if !slices.Contains(Scenarios(), o.Scenario) {
		return fmt.Errorf("-s: %q is no scenario; there are %s", o.Scenario, strings.Join(Scenarios(), ", "))
	}
	if !slices.Contains([]string{"", overTCP, overTLS, overWS, overWSS}, o.Transport) {
		return fmt.Errorf("-t: want tcp, tls, ws or wss, not %q", o.Transport)
	}
	if o.QoS < 0 || o.QoS > 2 {
		return fmt.Errorf("-qos: want 0 to 2, not %d", o.QoS)
	}
	if o.MQTT != int(mqtt3) && o.MQTT != int(mqtt5) {
		return fmt.Errorf("-mqtt: want 4 or 5, not %d", o.MQTT)
	}
	for _, c := range []struct {
		name       string
		got, least int
	}{
		{"n", o.N, o.leastN()},
		{"subs", o.Subs, 0},
		{"tenants", o.Tenants, 0},
		{"size", o.Size, 8},
		{"batch", o.Batch, 1},
		{"window", o.Window, 1},
		{"inflight", o.Inflight, 1},
		{"conc", o.Conc, 1},
		{"msgs", o.Msgs, 1},
		{"topics", o.Topics, 1},
		{"buf", o.Buffer, 64},
		{"depth", o.Depth, 2},
		{"each", o.Each, 1},
	} {
		if c.got < c.least {
			return fmt.Errorf("-%s: want %d or more, not %d", c.name, c.least, c.got)
		}
	}
	return nil
}

// leastN is the least N that the scenario has a meaning for.
func (o *Options) leastN() int {
	if o.Scenario == "idle" {
		return 0
	}
	return 1
}

// Result is what was measured. Figures that a scenario does not have are zero.
type Result struct {
	Label     string `json:"label"`
	Scenario  string `json:"scenario"`
	Delivered int64  `json:"delivered,omitempty"`
	// Rate is deliveries a second.
	Rate float64 `json:"rate,omitempty"`
	// CPU is the broker's CPU time for each delivery, in microseconds.
	CPU float64 `json:"cpu_us,omitempty"`
	// GeneratorCPU is this process's CPU time for each delivery.
	GeneratorCPU float64 `json:"gen_us,omitempty"`
	// PeakRSS is the broker's memory in MiB.
	PeakRSS float64 `json:"peak_rss_mb,omitempty"`
	// P50 and P99 are from a publisher's write to a subscriber's read, in
	// microseconds. At saturation they only say how deep the window was.
	P50 float64 `json:"p50_us,omitempty"`
	P99 float64 `json:"p99_us,omitempty"`
	// Lost is what was sent and never came.
	Lost  int64              `json:"lost,omitempty"`
	Extra map[string]float64 `json:"extra,omitempty"`
	Error string             `json:"err,omitempty"`
}
