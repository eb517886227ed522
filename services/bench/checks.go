// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/manormq/manor/infra/errs"
)

// Checks measures what part of the CPU for each message authentication, authorisation and
// quotas have: saturated pairs at QoS 0 of a tenant with a policy and a value for every
// quota that a message meets, and in turn of one without.
type Checks struct {
	// Program is the path of manor, which is both broker and generator.
	Program string
	// Runs is how often both are measured.
	Runs int
	// Duration is how long each is profiled.
	Duration time.Duration
	// Grants is how many entries the policy has.
	Grants int
	// Each is how many topics each publisher has in turn: what was decided about a topic is
	// remembered.
	Each int
	// Most is the part of the CPU that the checks may have, 0 to 1.
	Most float64
}

// Flags declares the options on fs, with their defaults.
func (c *Checks) Flags(fs *flag.FlagSet) {
	fs.IntVar(&c.Runs, "runs", 3, "interleaved runs")
	fs.DurationVar(&c.Duration, "dur", 7*time.Second, "how long each run is profiled")
	fs.IntVar(&c.Grants, "grants", 200, "entries of the policy")
	fs.IntVar(&c.Each, "each", 1, "topics of each publisher, in turn")
	fs.Float64Var(&c.Most, "most", 0.03, "the part of the CPU that the checks may have")
}

// messageQuotas are the quotas that a message, or what it leaves, meets, with values that
// no load here comes to.
var messageQuotas = map[string]int64{
	"publish_rate": 50e6, "publish_rate_client": 50e6, "delivery_rate": 50e6, "bytes_in_rate": 50e9, "bytes_out_rate": 50e9, "bytes_in_rate_client": 50e9, "bytes_out_rate_client": 50e9,
	"connect_rate": 1e6, "connect_rate_client": 1e6, "connections": 100_000, "packet_size": 1 << 20, "topic_length": 1000, "topic_levels": 20, "topic_level_length": 500,
	"subscriptions": 100_000, "subscriptions_client": 1000, "shared_groups": 1000, "shared_group_members": 1000, "fan_out": 10_000, "persistent_sessions": 100_000,
	"retained_messages": 100_000, "retained_bytes": 1 << 30, "retained_rate": 100_000, "queue_messages": 100_000, "queue_bytes": 1 << 28, "storage_bytes": 1 << 34,
}

// checked are the results of one run.
type checked struct {
	*Result
	shares    map[string]float64 // by kind
	functions map[string]float64
	samples   int64
}

// part is the part of the CPU that all checks have.
func (r *checked) part() (sum float64) {
	for _, share := range r.shares {
		sum += share
	}
	return sum
}

// Run measures, and writes a line to out for each run, then medians. The error is
// Unavailable if the median of the checks has more than Most.
func (c Checks) Run(ctx context.Context, out io.Writer) error {
	if c.Runs < 1 || c.Duration < time.Second || c.Grants < 2 || c.Each < 1 || c.Most <= 0 {
		return errs.New(errs.Invalid, "-runs, -grants, -each, -most and -dur: expected 1, 2, 1 and more than 0, and 1s, or more")
	}
	b, err := startManor(ctx, c.Program, row{empty: true}, nil)
	if err != nil {
		return err
	}
	defer b.stop()
	if len(b.operators) == 0 || b.reach.API == "" {
		return errs.New(errs.Internal, "manor dev has not said where its operator and API listeners are")
	}
	tenants, err := signUpTenants(ctx, b.reach.API, 2)
	if err != nil {
		return err
	}
	with, without := tenants[0], tenants[1]
	if err := c.restrict(ctx, &b.reach, with); err != nil {
		return err
	}
	fmt.Fprintf(out, "manor %s, %s\n%s\n", versionOf(ctx, "git", "rev-parse", "--short", "HEAD"), time.Now().UTC().Format(time.DateOnly), machine())
	fmt.Fprintf(out, "50 pairs at QoS 0, 64 bytes, %d topics each, saturated; %d grants and %d quotas, in turn with none; profiles of %v\n\n", c.Each, c.Grants, len(messageQuotas), c.Duration)
	fmt.Fprintf(out, "%-12s %8s %10s %9s %9s %9s %9s %9s\n", "", "cpu µs", "msgs/s", "samples", "authn %", "authz %", "quotas %", "all %")
	results := map[*siteTenant][]*checked{}
	for n := range c.Runs {
		for _, t := range []*siteTenant{with, without} {
			got, err := c.one(ctx, b, t)
			if err != nil {
				return err
			}
			results[t] = append(results[t], got)
			c.line(out, fmt.Sprintf("%s %d", map[bool]string{true: "with", false: "without"}[t == with], n+1), got)
		}
	}
	middle := func(t *siteTenant, of func(*checked) float64) float64 {
		var all []float64
		for _, r := range results[t] {
			all = append(all, of(r))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	cpu, part := func(r *checked) float64 { return r.CPU }, (*checked).part
	fmt.Fprintf(out, "\nmedians: checks %.2f %% with, %.2f %% without; CPU for each message %.3f and %.3f µs, ratio %.2f\n",
		100*middle(with, part), 100*middle(without, part), middle(with, cpu), middle(without, cpu), middle(with, cpu)/middle(without, cpu))
	most(out, results[with])
	if got := middle(with, part); got > c.Most {
		return errs.New(errs.Unavailable, "expected the checks to have at most %.1f %% of the CPU, they have %.2f %%", 100*c.Most, 100*got)
	}
	return nil
}

// most writes the means of the functions that have the most.
func most(out io.Writer, all []*checked) {
	sums := map[string]float64{}
	for _, r := range all {
		for name, part := range r.functions {
			sums[name] += part / float64(len(all))
		}
	}
	names := slices.SortedFunc(maps.Keys(sums), func(a, b string) int { return cmp.Compare(sums[b], sums[a]) })
	for _, name := range names[:min(8, len(names))] {
		fmt.Fprintf(out, "  %5.2f %%  %s\n", 100*sums[name], name)
	}
}

func (c Checks) line(out io.Writer, name string, r *checked) {
	fmt.Fprintf(out, "%-12s %8.3f %10.0f %9d %9.2f %9.2f %9.2f %9.2f\n", name, r.CPU, r.Rate, r.samples,
		100*r.shares[authentication], 100*r.shares[authorisation], 100*r.shares[quotaChecks], 100*r.part())
}

// restrict gives a tenant a policy with c.Grants entries, a twentieth of which deny, and a
// value for every quota of messageQuotas. One entry alone allows what is sent.
func (c Checks) restrict(ctx context.Context, s *Site, t *siteTenant) error {
	var rego strings.Builder
	rego.WriteString("package mqtt\n")
	for i := range c.Grants - 1 {
		entry := fmt.Sprintf(`{"action": "all", "filter": "plant/%d/+/%%c/#"}`, i)
		if i%20 == 0 {
			entry = fmt.Sprintf(`{"action": "all", "filter": "plant/%d/secret/#", "effect": "deny", "priority": 1}`, i)
		}
		fmt.Fprintf(&rego, "\ngrants contains %s\n", entry)
	}
	rego.WriteString("\ngrants contains {\"action\": \"all\", \"filter\": \"+/p/#\"}\n")
	if err := t.call(ctx, s, http.MethodPut, "/policies", map[string]any{"files": map[string]string{"policy.rego": rego.String()}}, nil); err != nil {
		return err
	}
	if err := t.call(ctx, s, http.MethodPut, "/quotas/overrides", messageQuotas, nil); err != nil {
		return err
	}
	pause(ctx, 2*time.Second) // after which it holds everywhere
	return ctx.Err()
}

// one is one run of the generator, and a profile taken meanwhile.
func (c Checks) one(ctx context.Context, b *broker, t *siteTenant) (*checked, error) {
	const warm = 2 * time.Second
	cmd := exec.CommandContext(ctx, c.Program, "bench", "-s", "pairs", "-n", "50", "-each", fmt.Sprint(c.Each), "-addr", b.addrs[overTCP], "-pid", fmt.Sprint(b.pids[0]),
		"-user", t.login.user, "-pass", t.login.pass, "-settle", "-warm", warm.String(), "-dur", (c.Duration + time.Second).String())
	cmd.Stderr = os.Stderr
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("generator: %w", err)
	}
	got := &checked{Result: new(Result)}
	err := c.busy(ctx, b.pids[0])
	if err == nil {
		pause(ctx, warm)
		err = got.profile(ctx, b.operators[0], c.Duration)
	}
	err = errors.Join(err, cmd.Wait())
	if err == nil {
		err = json.Unmarshal([]byte(out.String()), got.Result)
	}
	if err == nil && got.Error != "" {
		err = errors.New(got.Error)
	}
	if err != nil {
		return nil, fmt.Errorf("generator: %w", errors.Join(ctx.Err(), err))
	}
	return got, nil
}

// busy waits until the broker has had half a processor for a fifth of a second: the load
// has begun.
func (c Checks) busy(ctx context.Context, pid int) error {
	const look = 200 * time.Millisecond
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && ctx.Err() == nil; {
		before := sample([]int{pid})
		pause(ctx, look)
		if sample([]int{pid}).cpu-before.cpu > look/2 {
			return nil
		}
	}
	return errs.New(errs.Unavailable, "the load has not begun in a minute")
}

// profile takes a CPU profile from an operator listener.
func (r *checked) profile(ctx context.Context, operator string, d time.Duration) error {
	url := fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", operator, int(d.Seconds()))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return errs.New(errs.Unavailable, "%s: %s", url, resp.Status)
	}
	p, err := profile.Parse(resp.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	r.shares, r.functions, r.samples = checkShares(p)
	return nil
}
