// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Comparison says how Manor is compared with mosquitto.
type Comparison struct {
	// Program is the path of manor, which is both broker and generator.
	Program string
	// Runs is how often each row is measured on each broker, in turn.
	Runs int
	// Peers are mosquitto, nats and mochi, comma separated; the ratio is to the
	// first.
	Peers string
	// Tools is the folder with nats-server and mochi.
	Tools string
	// All measures the rows of moreRows too.
	All bool
	// Only are the names of the rows to measure; all if empty.
	Only string
	// Dev are further arguments of manor dev, separated by spaces.
	Dev string
	// Save is the folder for a copy of the table; none if empty.
	Save string
}

// Flags declares the options on fs, with their defaults.
func (c *Comparison) Flags(fs *flag.FlagSet) {
	fs.IntVar(&c.Runs, "runs", 3, "interleaved runs of each row")
	fs.StringVar(&c.Peers, "peers", "mosquitto", "brokers to compare with, comma separated: mosquitto, nats, mochi")
	fs.StringVar(&c.Tools, "tools", "bin/tools", "folder with nats-server and mochi (make bench-peers builds them)")
	fs.BoolVar(&c.All, "all", false, "measure the rows of persistent sessions, TLS, WebSocket and 1 KiB at QoS 1 and 2 too")
	fs.StringVar(&c.Only, "only", "", "rows to measure, comma separated (all): "+rowNames())
	fs.StringVar(&c.Dev, "dev", "", `further arguments of manor dev, such as "--brokers 1 --gateways 2"`)
	fs.StringVar(&c.Save, "save", "", "folder to keep the table in, as DATE-COMMIT.txt")
}

// row is one line of the comparison.
type row struct {
	name      string
	args      string   // of the generator
	figures   []string // what is shown, in order
	transport string   // tcp if empty
}

// rows are the scenarios that are compared.
var rows = []row{
	{"q0-64", "-s pairs", []string{"cpu_us", "rate", "peak_rss_mb"}, ""},
	{"q0-1K", "-s pairs -size 1024", []string{"cpu_us", "rate"}, ""},
	{"q1-64", "-s pairs -qos 1", []string{"cpu_us", "rate"}, ""},
	{"q2-64", "-s pairs -qos 2", []string{"cpu_us", "rate"}, ""},
	{"q1-1K", "-s pairs -qos 1 -size 1024", []string{"cpu_us", "rate"}, ""},
	{"q2-1K", "-s pairs -qos 2 -size 1024", []string{"cpu_us", "rate"}, ""},
	{"q1-64-kept", "-s pairs -qos 1 -persist", []string{"cpu_us", "rate"}, ""},
	{"q2-64-kept", "-s pairs -qos 2 -persist", []string{"cpu_us", "rate"}, ""},
	{"fanin50", "-s fanin", []string{"cpu_us", "rate"}, ""},
	{"fanout1", "-s fanout -subs 1", []string{"cpu_us", "rate"}, ""},
	{"fanout10", "-s fanout -subs 10", []string{"cpu_us", "rate"}, ""},
	{"fanout100", "-s fanout -subs 100 -window 50", []string{"cpu_us", "rate"}, ""},
	{"fanout500", "-s fanout -subs 500 -window 20", []string{"cpu_us", "rate", "peak_rss_mb"}, ""},
	{"shared50x10", "-s shared", []string{"cpu_us", "rate"}, ""},
	{"q0-20k/s", "-s pairs -rate 20000", []string{"cpu_us", "p50_us", "p99_us"}, ""},
	{"q1-5k/s", "-s pairs -qos 1 -rate 5000", []string{"cpu_us", "p50_us", "p99_us"}, ""},
	{"fanout500-40/s", "-s fanout -subs 500 -rate 40", []string{"cpu_us", "p50_us", "p99_us"}, ""},
	{"q1-5k/s-kept", "-s pairs -qos 1 -rate 5000 -persist", []string{"cpu_us", "p50_us", "p99_us"}, ""},
	{"idle10k", "-s idle -n 10000 -subs 1 -conc 64", []string{"rss_bytes_per_conn", "connect_cpu_us", "connect_per_s"}, ""},
	{"offline1000x100", "-s offline -n 1000 -msgs 100", []string{"enqueue_cpu_us", "drain_cpu_us", "enqueue_per_s", "drain_per_s", "queued_rss_mb"}, ""},
	{"retained100k", "-s retained -topics 100000", []string{"store_cpu_us", "replay_cpu_us", "rss_bytes_per_topic", "replay_ms"}, ""},
	{"wild100k", "-s wild -subs 100000", []string{"cpu_us", "subscribe_cpu_us", "rss_bytes_per_sub"}, ""},
	{"q0-64-tls", "-s pairs", []string{"cpu_us", "rate"}, overTLS},
	{"q0-20k/s-tls", "-s pairs -rate 20000", []string{"cpu_us", "p50_us", "p99_us"}, overTLS},
	{"idle5k-tls", "-s idle -n 5000 -subs 1 -conc 64", []string{"rss_bytes_per_conn", "connect_cpu_us", "connect_per_s"}, overTLS},
	{"q0-64-ws", "-s pairs", []string{"cpu_us", "rate"}, overWS},
}

// moreRows are measured with -all only: with them a comparison takes half as long
// again.
var moreRows = []string{
	"q1-1K", "q2-1K", "q1-64-kept", "q2-64-kept", "fanout500-40/s", "q1-5k/s-kept", "q0-64-tls", "q0-20k/s-tls", "idle5k-tls", "q0-64-ws",
}

func rowNames() string {
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	return strings.Join(names, ",")
}

// Run measures every row, with brokers that are fresh for it, and writes the
// table of medians to out as it grows.
func (c Comparison) Run(ctx context.Context, out io.Writer) error {
	if c.Runs < 1 {
		return errs.New(errs.Invalid, "-runs: want 1 or more, not %d", c.Runs)
	}
	for name := range strings.SplitSeq(c.Only, ",") {
		if name != "" && !strings.Contains(","+rowNames()+",", ","+name+",") {
			return errs.New(errs.Invalid, "-only: %q is no row; there are %s", name, rowNames())
		}
	}
	peers, err := c.peers()
	if err != nil {
		return err
	}
	if err := raiseFiles(12_000); err != nil {
		return err
	}
	var table bytes.Buffer
	w := io.MultiWriter(out, &table)
	commit := versionOf(ctx, "git", "rev-parse", "--short", "HEAD")
	fmt.Fprintf(w, "manor %s, %s\n", commit, time.Now().UTC().Format(time.DateOnly))
	for _, p := range peers {
		fmt.Fprintf(w, "against %s\n", p.version(ctx))
	}
	fmt.Fprintf(w, "%s\nmedian of %d interleaved runs on loopback, generator on the same machine; manor dev %s\n", machine(), c.Runs, c.Dev)
	fmt.Fprintf(w, "ratio: manor / %s; below 1 is better, except for rates (…/s)\n\n%-16s %-20s %12s", peers[0].name, "scenario", "figure", "manor")
	for _, p := range peers {
		fmt.Fprintf(w, " %12s", p.name)
	}
	fmt.Fprintf(w, " %8s\n", "ratio")
	for _, r := range rows {
		named := strings.Contains(","+c.Only+",", ","+r.name+",")
		if c.Only != "" && !named || c.Only == "" && !c.All && slices.Contains(moreRows, r.name) {
			continue
		}
		if err := c.row(ctx, r, peers, w); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	if c.Save == "" {
		return nil
	}
	if err := os.MkdirAll(c.Save, 0o755); err != nil {
		return err
	}
	kind := ""
	if len(peers) > 1 {
		kind = "-peers"
	}
	if strings.Contains(c.Dev, "--brokers") {
		kind += "-processes"
	}
	file := filepath.Join(c.Save, fmt.Sprintf("%s-%s%s.txt", time.Now().UTC().Format(time.DateOnly), commit, kind))
	return os.WriteFile(file, table.Bytes(), 0o644)
}

// row measures one row and writes its lines.
func (c Comparison) row(ctx context.Context, r row, peers []peer, w io.Writer) error {
	ours, err := startManor(ctx, c.Program, strings.Fields(c.Dev))
	if err != nil {
		return err
	}
	defer ours.stop()
	brokers := []*broker{ours}
	for _, p := range peers {
		b, err := p.start(ctx, ours.dir)
		if err != nil {
			return err
		}
		defer b.stop()
		brokers = append(brokers, b)
	}
	results := make([][]*Result, len(brokers))
	for range c.Runs {
		for i, b := range brokers {
			if b.addrs[cmp.Or(r.transport, overTCP)] == "" {
				continue
			}
			res, err := c.generate(ctx, b, r)
			if err != nil {
				return err
			}
			results[i] = append(results[i], res)
		}
	}
	for i, figure := range r.figures {
		name := ""
		if i == 0 {
			name = r.name
		}
		fmt.Fprintf(w, "%-16s %-20s", name, figure)
		for i := range brokers {
			fmt.Fprintf(w, " %12s", number(median(results[i], figure)))
		}
		ratio := "-"
		if b := median(results[1], figure); b != 0 {
			ratio = fmt.Sprintf("%.2f", median(results[0], figure)/b)
		}
		fmt.Fprintf(w, " %8s\n", ratio)
	}
	for i, b := range brokers {
		for n, res := range results[i] {
			if res.Lost > 0 || res.Error != "" {
				fmt.Fprintf(w, "%-16s %s, run %d: %d lost %s\n", "", b.name, n+1, res.Lost, res.Error)
			}
		}
	}
	return nil
}

// generate runs the generator as a process of its own, so that no run pays for
// the memory of another.
func (c Comparison) generate(ctx context.Context, b *broker, r row) (*Result, error) {
	pids := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(b.pids)), ","), "[]")
	args := append([]string{"bench", "-pid", pids, "-label", b.name}, strings.Fields(r.args)...)
	args = append(args, b.arguments(cmp.Or(r.transport, overTCP))...)
	cmd := exec.CommandContext(ctx, c.Program, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	res := new(Result)
	if json.Unmarshal(out, res) == nil {
		return res, nil // a scenario that failed says so in it
	}
	if err == nil {
		err = fmt.Errorf("it said %q", out)
	}
	return nil, errors.Join(ctx.Err(), fmt.Errorf("generator: %w", err))
}
