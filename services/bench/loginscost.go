// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// LoginsCost measures what a connect costs by how the client shows who it is, and what it
// costs mosquitto, where that can do the same. A connect is CONNECT, CONNACK and
// DISCONNECT, on a connection of its own.
type LoginsCost struct {
	// Program is the path of manor.
	Program string
	// Runs is how often each method is measured, in turn.
	Runs int
	// N is how many clients connect without a password in one run; what costs more is
	// measured with fewer.
	N int
	// AtOnce is how many connects are under way at the same time.
	AtOnce int
	// Peer is mosquitto, or empty for none.
	Peer string
	// Only are the names of the methods to measure, comma separated; all if empty.
	Only string
}

// Flags declares the options on fs, with their defaults.
func (l *LoginsCost) Flags(fs *flag.FlagSet) {
	fs.IntVar(&l.Runs, "runs", 3, "interleaved runs of each method")
	fs.IntVar(&l.N, "n", 4000, "connects of a run without a password; methods that cost more take fewer")
	fs.IntVar(&l.AtOnce, "at-once", 32, "connects at the same time")
	fs.StringVar(&l.Peer, "peer", "mosquitto", "broker to compare with: mosquitto, or empty for none")
	fs.StringVar(&l.Only, "only", "", "methods to measure, comma separated (all): "+strings.Join(loginMethods, ", "))
}

// The methods, in their order in the table.
const (
	byNothing      = "anonymous"
	byGenerated    = "password-generated"
	byPassword     = "password-first"
	byPasswordKept = "password-again"
	byJWT          = "jwt-first"
	byJWTKept      = "jwt-again"
	bySCRAM        = "scram"
	byPasswordTLS  = "tls-password"
	byResumedTLS   = "tls-password-resumed"
	byX509         = "x509"
	byX509Resumed  = "x509-resumed"
)

var loginMethods = []string{byNothing, byGenerated, byPassword, byPasswordKept, byJWT, byJWTKept, bySCRAM, byPasswordTLS, byResumedTLS, byX509, byX509Resumed}

// loginShare is which part of N each run of a method takes; 1 where it is not here. A
// password that is seen for the first time takes some 30 ms.
var loginShare = map[string]float64{
	byPassword: 0.016, byJWT: 0.5, byJWTKept: 0.5, bySCRAM: 0.5, byPasswordTLS: 0.25, byResumedTLS: 0.25, byX509: 0.25, byX509Resumed: 0.25,
}

// visits are how clients of one broker connect, by method: client i of a run, of those
// that there are in all runs, opens a connection that has had its CONNACK.
type visits map[string]func(run, i int) (*client, error)

// loginCost is what the connects of one run have cost.
type loginCost struct {
	cpu    float64 // µs of the broker for each
	second float64 // connects in a second
}

// perCore is how many connects a second of a core is enough for; 0 if none was measured.
func (c loginCost) perCore() float64 {
	if c.cpu <= 0 {
		return 0
	}
	return 1e6 / c.cpu
}

// share is how many connects of a method a run of Manor has.
func (l LoginsCost) share(method string) int {
	share, ok := loginShare[method]
	if !ok {
		share = 1
	}
	return max(4, int(share*float64(l.N)))
}

// warm is how many connects come before those that are measured: after them passwords are
// remembered, and there are sessions to resume.
func (l LoginsCost) warm(method string) int {
	switch method {
	case byPassword:
		return 0 // it would not be the first time
	case byPasswordKept:
		return l.share(byPassword)
	}
	return loginCerts
}

// Run measures all methods in turn and writes the table of medians to out.
func (l LoginsCost) Run(ctx context.Context, out io.Writer) error {
	if l.Runs < 1 || l.N < 100 || l.AtOnce < 1 {
		return errs.New(errs.Invalid, "-runs and -at-once: expected 1 or more, -n: 100 or more, found %d, %d and %d", l.Runs, l.AtOnce, l.N)
	}
	methods, err := l.methods()
	if err != nil {
		return err
	}
	if err := raiseFiles(uint64(l.AtOnce + 256)); err != nil {
		return err
	}
	ours, err := startManor(ctx, l.Program, row{empty: true}, nil)
	if err != nil {
		return err
	}
	defer ours.stop()
	brokers := []*broker{ours}
	s, err := l.site(ctx, ours)
	if err != nil {
		return err
	}
	all := []visits{s.visits()}
	if l.Peer != "" {
		peer, kept, err := startLoginPeer(ctx, l.Peer, s)
		if err != nil {
			return err
		}
		defer peer.stop()
		brokers, all = append(brokers, peer), append(all, kept)
	}
	fmt.Fprintf(out, "manor %s, %s\n%s\nmedian of %d interleaved runs on loopback, %d connects at a time; a connect is CONNECT, CONNACK, DISCONNECT\n\n",
		versionOf(ctx, "git", "rev-parse", "--short", "HEAD"), time.Now().UTC().Format(time.DateOnly), machine(), l.Runs, l.AtOnce)
	costs := make([]map[string][]loginCost, len(brokers))
	for b := range costs {
		costs[b] = map[string][]loginCost{}
	}
	for run := range l.Runs {
		for _, m := range methods {
			for b := range brokers {
				visit := all[b][m]
				if visit == nil {
					continue
				}
				n := l.share(m)
				if b > 0 && m == byPassword {
					n = l.share(byPasswordKept) // which is the same there
				}
				c, err := l.measure(ctx, brokers[b], l.warm(m), n, func(i int) (*client, error) { return visit(run, i) })
				if err != nil {
					return fmt.Errorf("%s, %s: %w", brokers[b].name, m, err)
				}
				costs[b][m] = append(costs[b][m], c)
			}
		}
	}
	l.table(out, methods, costs)
	return nil
}

// methods are those of Only.
func (l LoginsCost) methods() ([]string, error) {
	if l.Only == "" {
		return loginMethods, nil
	}
	chosen := strings.Split(l.Only, ",")
	for _, m := range chosen {
		if !slices.Contains(loginMethods, m) {
			return nil, errs.New(errs.Invalid, "-only: %q is no method; there are %s", m, strings.Join(loginMethods, ", "))
		}
	}
	return chosen, nil
}

// measure has n clients visit, after some that do not count.
func (l LoginsCost) measure(ctx context.Context, b *broker, warm, n int, visit func(i int) (*client, error)) (c loginCost, err error) {
	come := func(i int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := visit(i)
		if err == nil {
			c.leave()
		}
		return err
	}
	if err := each(l.AtOnce, warm, come); err != nil {
		return c, err
	}
	pids := descendants(b.pids)
	before, start := settleWithin(pids, 10*time.Second), time.Now()
	err = each(l.AtOnce, n, come)
	took := time.Since(start)
	after := settleWithin(pids, 10*time.Second)
	c.cpu = micros(after.cpu-before.cpu) / float64(n)
	c.second = float64(n) / took.Seconds()
	return c, err
}

// table writes the medians: Manor's, then the peer's CPU and the ratio of the two.
func (l LoginsCost) table(out io.Writer, methods []string, costs []map[string][]loginCost) {
	fmt.Fprintf(out, "%-21s %6s %9s %11s %11s %9s", "", "n", "cpu µs", "/s and core", "connects/s", "anonymous")
	if len(costs) > 1 {
		fmt.Fprintf(out, " | %9s %11s %9s %7s", l.Peer, "/s and core", "anonymous", "ratio")
	}
	fmt.Fprintln(out)
	base := make([]float64, len(costs))
	for b := range costs {
		base[b] = middleCost(costs[b][byNothing]).cpu
	}
	for _, m := range methods {
		c := middleCost(costs[0][m])
		fmt.Fprintf(out, "%-21s %6d %9s %11s %11s %9s", m, l.share(m), number(c.cpu), number(c.perCore()), number(c.second), times(c.cpu, base[0]))
		if len(costs) > 1 && len(costs[1][m]) > 0 {
			p := middleCost(costs[1][m])
			fmt.Fprintf(out, " | %9s %11s %9s %7s", number(p.cpu), number(p.perCore()), times(p.cpu, base[1]), ratio(c.cpu, p.cpu))
		} else if len(costs) > 1 {
			fmt.Fprintf(out, " | %9s %11s %9s %7s", "-", "-", "-", "-")
		}
		fmt.Fprintln(out)
	}
}

func times(a, b float64) string {
	if a == 0 || b == 0 {
		return "-"
	}
	return number(a/b) + " x"
}

// middleCost is the median of each figure.
func middleCost(all []loginCost) loginCost {
	middle := func(of func(loginCost) float64) float64 {
		var values []float64
		for _, c := range all {
			values = append(values, of(c))
		}
		if slices.Sort(values); len(values) == 0 {
			return math.NaN()
		}
		return values[len(values)/2]
	}
	return loginCost{middle(func(c loginCost) float64 { return c.cpu }), middle(func(c loginCost) float64 { return c.second })}
}
