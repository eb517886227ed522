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
	// Duration is how long a run is measured, after a third of that to warm up,
	// unless the row says otherwise.
	Duration time.Duration
	// Peers are mosquitto, nats, mochi and floor, comma separated; the ratio is to
	// the first.
	Peers string
	// Tools is the folder with nats-server and mochi.
	Tools string
	// All measures every row; without it those that matter most.
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
	fs.DurationVar(&c.Duration, "dur", 3*time.Second, "how long each run is measured, after a third of that to warm up")
	fs.StringVar(&c.Peers, "peers", "mosquitto", "brokers to compare with, comma separated: mosquitto, nats, mochi, floor (the least broker, see the package)")
	fs.StringVar(&c.Tools, "tools", "bin/tools", "folder with nats-server and mochi (make bench-peers builds them)")
	fs.BoolVar(&c.All, "all", false, "measure every row: persistent sessions, TLS, WebSocket, MQTT 5, two processes, storms, scaling and tenants too")
	fs.StringVar(&c.Only, "only", "", "rows to measure, comma separated (all): "+rowNames())
	fs.StringVar(&c.Dev, "dev", "", `further arguments of manor dev, such as "--brokers 1 --gateways 2"`)
	fs.StringVar(&c.Save, "save", "", "folder to keep the table in, as DATE-COMMIT.txt")
}

// Run measures every row, with brokers that are fresh for it, and writes the
// table of medians to out as it grows.
func (c Comparison) Run(ctx context.Context, out io.Writer) error {
	if c.Runs < 1 {
		return errs.New(errs.Invalid, "-runs: want 1 or more, not %d", c.Runs)
	}
	if c.Duration <= 0 {
		return errs.New(errs.Invalid, "-dur: want a time above zero, such as 3s, not %v", c.Duration)
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
	var kept bytes.Buffer
	commit := versionOf(ctx, "git", "rev-parse", "--short", "HEAD")
	t := newTable(io.MultiWriter(out, &kept), peers)
	fmt.Fprintf(t.w, "manor %s, %s\n", commit, time.Now().UTC().Format(time.DateOnly))
	for _, p := range peers {
		fmt.Fprintf(t.w, "against %s\n", p.version(ctx))
	}
	fmt.Fprintf(t.w, "%s\nmedian of %d interleaved runs on loopback, generator on the same machine; manor dev %s\n", machine(), c.Runs, c.Dev)
	t.head()
	for _, r := range rows {
		named := strings.Contains(","+c.Only+",", ","+r.name+",")
		if c.Only != "" && !named || c.Only == "" && !c.All && r.more {
			continue
		}
		results, err := c.measure(ctx, r, peers)
		if err != nil {
			// What was measured until then is kept.
			return errors.Join(fmt.Errorf("%s: %w", r.name, err), c.keep(peers, commit, kept.Bytes()))
		}
		t.row(r, results)
	}
	return c.keep(peers, commit, kept.Bytes())
}

// keep writes the table into the folder for it, if there is one.
func (c Comparison) keep(peers []peer, commit string, table []byte) error {
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
	return os.WriteFile(file, table, 0o644)
}

// measure returns the results of a row by broker, Manor's first.
func (c Comparison) measure(ctx context.Context, r row, peers []peer) ([][]*Result, error) {
	results := make([][]*Result, 1+len(peers))
	rounds, runs := 1, c.Runs
	if r.fresh() {
		rounds, runs = runs, rounds
	}
	for range rounds {
		if err := c.round(ctx, r, peers, runs, results); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// round starts the brokers and adds runs interleaved runs to results.
func (c Comparison) round(ctx context.Context, r row, peers []peer, runs int, results [][]*Result) error {
	ours, err := startManor(ctx, c.Program, r, strings.Fields(c.Dev+" "+r.dev))
	if err != nil {
		return err
	}
	defer ours.stop()
	brokers := []*broker{ours}
	for _, p := range peers {
		b := &broker{} // has no address
		if p.serves(r) {
			if b, err = p.start(ctx, r, ours.dir); err != nil {
				return err
			}
			defer b.stop()
		}
		brokers = append(brokers, b)
	}
	for range runs {
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
	return nil
}

// generate runs the generator as a process of its own, so that no run pays for
// the memory of another.
func (c Comparison) generate(ctx context.Context, b *broker, r row) (*Result, error) {
	pids := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(b.pids)), ","), "[]")
	args := append([]string{"bench", "-pid", pids, "-label", b.name, "-dur", c.Duration.String(), "-warm", (c.Duration / 3).String()}, strings.Fields(r.args)...)
	args = append(args, b.arguments(cmp.Or(r.transport, overTCP))...)
	if slices.Contains(r.figures, "gc_pause_p99_us") { // asked for only here, since it has the broker collect
		args = append(args, "-operator", strings.Join(b.operators, ","))
	}
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
