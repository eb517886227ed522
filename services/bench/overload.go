// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Overload measures what one tenant feels of another that sends more than the
// broker can take.
type Overload struct {
	// Program is the path of manor, which is both broker and generator.
	Program string
	// Runs is how often all of it is measured.
	Runs int
	// Duration is how long each part of a run is measured.
	Duration time.Duration
	// Times is how many times what the broker can sustain is offered.
	Times float64
	// Scenario are the loud tenant's arguments of the generator.
	Scenario string
	// QoS is the quiet tenant's.
	QoS int
	// Dev are further arguments of manor dev, separated by spaces.
	Dev string
	// Peer is mosquitto, or empty for none: it has no tenants, so that the quiet
	// one is some clients among others.
	Peer string
}

// Flags declares the options on fs, with their defaults.
func (o *Overload) Flags(fs *flag.FlagSet) {
	fs.IntVar(&o.Runs, "runs", 3, "runs")
	fs.DurationVar(&o.Duration, "dur", 4*time.Second, "how long each part of a run is measured")
	fs.Float64Var(&o.Times, "times", 3, "how many times what the broker sustains the loud tenant offers")
	fs.StringVar(&o.Scenario, "s", "-s pairs -n 200", "the loud tenant's load, as arguments of manor bench")
	fs.IntVar(&o.QoS, "qos", 0, "QoS of the quiet tenant's messages")
	fs.StringVar(&o.Dev, "dev", "", `further arguments of manor dev, such as "--brokers 1 --gateways 1"`)
	fs.StringVar(&o.Peer, "peer", "mosquitto", "broker to compare with: mosquitto, or empty for none")
}

const (
	// quietShare is the quiet tenant's part of the broker's processor time. A message
	// that comes alone costs many times what one of a saturated pair does, so that a
	// part of the messages would be a far larger one.
	quietShare = 0.05
	// quietPairs is how many publishers it has.
	quietPairs = 20
	// probeRate is at how many messages a second it is found out what one costs.
	probeRate = 1000
)

// The priorities of the generators, which share half of the processors while the
// broker has the other: what is to be seen is the broker's choice, not the
// kernel's. So the quiet one always comes first, where that is permitted: beside
// two loops of nice 15, one of nice -10 waits for milliseconds.
var (
	loudFirst  = []string{"nice", "-n", "15"}
	quietFirst = []string{"chrt", "--fifo", "1"}
	quietElse  = []string{"nice", "-n", "-10"}
)

// quietly is what the quiet generator is begun with.
func quietly(ctx context.Context) []string {
	if exec.CommandContext(ctx, quietFirst[0], append(quietFirst[1:len(quietFirst):len(quietFirst)], "true")...).Run() == nil {
		return quietFirst
	}
	return quietElse
}

// overloaded are the results of one run.
type overloaded struct {
	capacity, probe, alone, beside, loud *Result
	rate                                 float64 // of the quiet tenant
}

// Run measures, and writes a line for each broker and run to out, then medians.
func (o Overload) Run(ctx context.Context, out io.Writer) error {
	if o.Runs < 1 || o.Duration <= 0 || o.Times <= 0 {
		return errs.New(errs.Invalid, "-runs, -dur and -times: want more than 0")
	}
	if err := raiseFiles(4_000); err != nil {
		return err
	}
	brokers := []func(context.Context) (*broker, error){func(ctx context.Context) (*broker, error) {
		return startManor(ctx, o.Program, row{tenants: 2}, strings.Fields(o.Dev))
	}}
	if o.Peer != "" {
		path, err := findMosquitto()
		if o.Peer != "mosquitto" || err != nil {
			return errors.Join(errs.New(errs.Invalid, "-peer: want mosquitto or nothing, not %q", o.Peer), err)
		}
		brokers = append(brokers, func(ctx context.Context) (*broker, error) { return startMosquitto(ctx, path, "", "") })
	}
	fmt.Fprintf(out, "manor %s, %s\n%s\n", versionOf(ctx, "git", "rev-parse", "--short", "HEAD"), time.Now().UTC().Format(time.DateOnly), machine())
	fmt.Fprintf(out, "loud: %s at %g times what is sustained; quiet: %d pairs at QoS %d, %g of the processor, begun with %s; manor dev %s\n", o.Scenario, o.Times, quietPairs, o.QoS, quietShare, strings.Join(quietly(ctx), " "), o.Dev)
	fmt.Fprintf(out, "%-10s %12s %10s %12s %12s %12s %8s %12s %12s %10s\n", "", "sustained/s", "quiet/s", "p99 alone", "p50 beside", "p99 beside", "ratio", "quiet lost", "loud lost", "peak MiB")
	all := make([][]overloaded, len(brokers))
	for range o.Runs {
		for i, start := range brokers {
			var b *broker
			err := pinned(false, func() (err error) { b, err = start(ctx); return err })
			if err != nil {
				return err
			}
			r, err := o.measure(ctx, b)
			var accounts []account
			if err == nil && len(b.operators) > 0 {
				accounts, err = r.accounts(b.operators)
			}
			b.stop()
			if err != nil {
				return err
			}
			all[i] = append(all[i], r)
			o.line(out, b.name, all[i][len(all[i])-1:])
			for _, a := range accounts {
				fmt.Fprintln(out, "          ", a)
				if a.missing() != 0 {
					return errs.New(errs.Internal, "the counters do not account for %d messages", a.missing())
				}
			}
		}
	}
	fmt.Fprintln(out, "medians")
	for i, name := range []string{"manor", "mosquitto"}[:len(brokers)] {
		o.line(out, name, all[i])
	}
	return nil
}

// line writes the medians of runs.
func (o Overload) line(out io.Writer, name string, runs []overloaded) {
	of := func(f func(overloaded) float64) float64 {
		var v []float64
		for _, r := range runs {
			v = append(v, f(r))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	fmt.Fprintf(out, "%-10s %12.0f %10.0f %9.0f us %9.0f us %9.0f us %8.2f %12.0f %12.0f %10.0f\n", name,
		of(func(r overloaded) float64 { return r.capacity.Rate }),
		of(func(r overloaded) float64 { return r.rate }),
		of(func(r overloaded) float64 { return r.alone.P99 }),
		of(func(r overloaded) float64 { return r.beside.P50 }),
		of(func(r overloaded) float64 { return r.beside.P99 }),
		of(func(r overloaded) float64 { return r.beside.P99 / r.alone.P99 }),
		of(func(r overloaded) float64 { return float64(r.beside.Lost) }),
		of(func(r overloaded) float64 { return float64(r.loud.Lost) }),
		of(func(r overloaded) float64 { return r.beside.PeakRSS }))
}

// measure has the loud tenant find what b sustains, and then the quiet one run
// alone and beside it.
func (o Overload) measure(ctx context.Context, b *broker) (r overloaded, err error) {
	loud, quiet, err := o.split(b)
	if err != nil {
		return r, err
	}
	loudArgs := append(strings.Fields(o.Scenario), loud...)
	quietArgs := append([]string{"-s", "pairs", "-n", strconv.Itoa(quietPairs), "-qos", strconv.Itoa(o.QoS)}, quiet...)
	warm, first := o.Duration/4, quietly(ctx)
	if r.capacity, err = o.start(ctx, b, o.Duration, warm, loudFirst, loudArgs...)(); err != nil {
		return r, err
	}
	probe, err := o.start(ctx, b, o.Duration, warm, first, append(quietArgs, "-rate", fmt.Sprint(probeRate))...)()
	if err != nil {
		return r, err
	}
	r.probe = probe
	r.rate = quietShare * float64(max(1, runtime.NumCPU()/2)) * 1e6 / max(probe.CPU, 1)
	quietArgs = append(quietArgs, "-rate", fmt.Sprint(r.rate))
	if r.alone, err = o.start(ctx, b, o.Duration, warm, first, quietArgs...)(); err != nil {
		return r, err
	}
	// The loud one begins first and ends last.
	lead := o.Duration / 2
	wait := o.start(ctx, b, o.Duration+2*lead, warm, loudFirst, append(loudArgs, "-rate", fmt.Sprint(o.Times*r.capacity.Rate/r.capacity.Extra["fan"]))...)
	select {
	case <-ctx.Done():
	case <-time.After(warm + lead):
	}
	r.beside, err = o.start(ctx, b, o.Duration, warm, first, quietArgs...)()
	var lerr error
	r.loud, lerr = wait()
	return r, errors.Join(err, lerr)
}

// split gives each of the two a file with its credential; none where there are no
// tenants.
func (o Overload) split(b *broker) (loud, quiet []string, err error) {
	if b.logins == "" {
		return nil, nil, nil
	}
	all, err := readLogins(b.logins)
	if err != nil {
		return nil, nil, err
	}
	var args [2][]string
	for i := range args {
		file := filepath.Join(b.dir, fmt.Sprintf("logins-%d.txt", i))
		if err := writeLogins(file, all[i:i+1]); err != nil {
			return nil, nil, err
		}
		args[i] = []string{"-logins", file}
	}
	return args[0], args[1], nil
}

// start runs the generator as a process of that priority and returns what waits
// for its result.
func (o Overload) start(ctx context.Context, b *broker, dur, warm time.Duration, priority []string, more ...string) (wait func() (*Result, error)) {
	pids := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(b.pids)), ","), "[]")
	args := append([]string{"bench", "-pid", pids, "-label", b.name, "-addr", b.addrs[overTCP], "-dur", dur.String(), "-warm", warm.String()}, more...)
	args = slices.Concat(priority, []string{o.Program}, args)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	var out strings.Builder
	cmd.Stdout = &out
	err := pinned(true, cmd.Start)
	return func() (*Result, error) {
		if err != nil {
			return nil, fmt.Errorf("generator: %w", err)
		}
		err := cmd.Wait()
		res := new(Result)
		if json.Unmarshal([]byte(out.String()), res) != nil {
			return nil, errors.Join(ctx.Err(), fmt.Errorf("generator: %w, it said %q", err, out.String()))
		}
		if res.Error != "" {
			return nil, fmt.Errorf("generator: %s", res.Error)
		}
		return res, nil
	}
}
