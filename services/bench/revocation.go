// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/errs"
)

// Revocation measures how long it takes until what was revoked is refused at every
// gateway: from the answer of the API to the DISCONNECT, also of clients
// that connect meanwhile, and the CONNACK that refuses the next one, or to the PUBACK that
// refuses what was allowed before. A try counts as long as the slowest gateway took, and as no time if
// that was faster than the answer.
type Revocation struct {
	// Program is the path of manor; At does not need it.
	Program string
	// Tries is how many revocations there are, of all kinds together.
	Tries int
	// AtOnce is how many are under way at the same time, each of another tenant.
	AtOnce int
	// Limit is what 99 of 100 tries of each kind may take.
	Limit time.Duration
	// Kinds are the kinds that are measured, comma separated; empty is all.
	Kinds string
	// Dev are the arguments of manor dev, separated by spaces.
	Dev string
}

// Flags declares the options on fs, with their defaults.
func (r *Revocation) Flags(fs *flag.FlagSet) {
	fs.IntVar(&r.Tries, "tries", 1_000, "revocations, of all kinds together")
	fs.IntVar(&r.AtOnce, "at-once", 8, "revocations at the same time, each of another tenant")
	fs.DurationVar(&r.Limit, "limit", 2*time.Second, "what 99 of 100 revocations of each kind may take")
	fs.StringVar(&r.Kinds, "kinds", "", "kinds, comma separated: "+strings.Join(revocationKinds(), ", ")+" (all)")
	fs.StringVar(&r.Dev, "dev", "--brokers 3 --gateways 2", "arguments of manor dev")
}

// giveUp is after how many times the limit a revocation is said never to have held.
const giveUp = 5

// revoked are the tries of one kind.
type revoked struct {
	// answer is how long the answer took; since is how long after the request began,
	// and held how long after the answer, each try held everywhere; never is how many
	// did not.
	answer, since, held []time.Duration
	never               int
}

func (k *revoked) add(o *revoked) {
	k.answer, k.since, k.held = append(k.answer, o.answer...), append(k.since, o.since...), append(k.held, o.held...)
	k.never += o.never
}

// within reports whether 99 of 100 took no longer than limit, and all held at last.
func (k *revoked) within(limit time.Duration) bool {
	return k.never == 0 && quantile(k.held, .99) <= limit
}

// quantile is the least of all that the part q of them does not exceed; 0 without any.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[max(0, int(math.Ceil(q*float64(len(all))))-1)]
}

// Run starts a region, measures it with At, and writes the table to out.
func (r Revocation) Run(ctx context.Context, out io.Writer) error {
	b, err := startManor(ctx, r.Program, row{dev: r.Dev, empty: true}, strings.Fields(r.Dev))
	if err != nil {
		return err
	}
	defer b.stop()
	fmt.Fprintf(out, "manor %s, %s\n%s\nmanor dev %s\n", versionOf(ctx, "git", "rev-parse", "--short", "HEAD"), time.Now().UTC().Format(time.DateOnly), machine(), r.Dev)
	return r.At(ctx, &b.reach, out)
}

// At measures a Manor that runs, and writes a table to out as it goes on. The error is
// Unavailable if a kind took longer than the limit, or a revocation never held.
func (r Revocation) At(ctx context.Context, site *Site, out io.Writer) error {
	if r.Tries < 1 || r.AtOnce < 1 || r.Limit <= 0 {
		return errs.New(errs.Invalid, "-tries, -at-once and -limit: expected more than 0, found %d, %d and %v", r.Tries, r.AtOnce, r.Limit)
	}
	kinds, err := chosenKinds(r.Kinds)
	if err != nil {
		return err
	}
	tenants, err := signUpTenants(ctx, site.API, r.AtOnce)
	if err != nil {
		return err
	}
	ca, err := newDeviceCA()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d gateways, %d at once; ms from the request, and from its answer, until a revocation holds at every gateway\n\n", len(site.Gateways), r.AtOnce)
	fmt.Fprintf(out, "%-16s %6s %8s | %8s %8s %8s | %8s %8s %8s %8s %6s\n", "revoked", "tries", "answer", "p50", "p99", "most", "p50", "p99", "most", ">"+r.Limit.String(), "never")
	var all revoked
	var failed []string
	for i, k := range kinds {
		tries := (r.Tries + len(kinds) - 1 - i) / len(kinds)
		got, err := r.kind(ctx, site, tenants, ca, k, tries)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		r.line(out, k.name, got)
		if !got.within(r.Limit) {
			failed = append(failed, k.name)
		}
		all.add(got)
	}
	r.line(out, "all", &all)
	if len(failed) > 0 {
		return errs.New(errs.Unavailable, "expected every revocation to hold, and 99 of 100 within %v; not so: %s", r.Limit, strings.Join(failed, ", "))
	}
	return nil
}

func (r Revocation) line(out io.Writer, name string, k *revoked) {
	over := 0
	for _, d := range k.held {
		if d > r.Limit {
			over++
		}
	}
	ms := func(all []time.Duration, q float64) float64 { return float64(quantile(all, q)) / 1e6 }
	fmt.Fprintf(out, "%-16s %6d %8.1f | %8.1f %8.1f %8.1f | %8.1f %8.1f %8.1f %8d %6d\n", name, len(k.held)+k.never, ms(k.answer, .5),
		ms(k.since, .5), ms(k.since, .99), ms(k.since, 1), ms(k.held, .5), ms(k.held, .99), ms(k.held, 1), over, k.never)
}

// kind measures one kind: each tenant in turn with itself, all at once.
func (r Revocation) kind(ctx context.Context, site *Site, tenants []*siteTenant, ca *deviceCA, k revocationKind, tries int) (*revoked, error) {
	var mu sync.Mutex
	all := &revoked{}
	g, ctx := errgroup.WithContext(ctx)
	for i, t := range tenants {
		n := (tries + len(tenants) - 1 - i) / len(tenants)
		if n == 0 {
			continue
		}
		g.Go(func() error {
			v := &revoker{site: site, tenant: t, ca: ca, giveUp: giveUp * r.Limit}
			defer v.close()
			got, err := v.tries(ctx, k, n)
			mu.Lock()
			defer mu.Unlock()
			all.add(got)
			return err
		})
	}
	return all, g.Wait()
}

// tries makes n revocations of one kind, one after the other.
func (v *revoker) tries(ctx context.Context, k revocationKind, n int) (*revoked, error) {
	got := &revoked{}
	beside, err := v.beside()
	if err == nil && k.ready != nil {
		err = k.ready(v, ctx)
	}
	for i := 0; err == nil && i < n; i++ {
		err = v.try(ctx, k, i, got)
	}
	if err == nil && k.over != nil {
		err = k.over(v, ctx)
	}
	if err == nil && !k.ends {
		err = v.stay(beside)
	}
	return got, err
}

// try makes one revocation and adds it to got.
func (v *revoker) try(ctx context.Context, k revocationKind, n int, got *revoked) error {
	a, err := k.begin(v, ctx, n)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, v.giveUp)
	defer cancel()
	held, failed := make([]time.Time, len(a.effects)), make([]error, len(a.effects))
	var waiting sync.WaitGroup
	for i, f := range a.effects {
		waiting.Go(func() { held[i], failed[i] = f(wait) })
	}
	begun := time.Now()
	err = a.revoke(ctx)
	answered := time.Now()
	if err != nil {
		cancel()
	}
	waiting.Wait()
	if err != nil {
		return err
	}
	never := false
	for _, f := range failed {
		if f != nil && !errors.Is(f, errNeverHeld) {
			return f
		}
		never = never || f != nil
	}
	got.answer = append(got.answer, answered.Sub(begun))
	if never {
		got.never++
	} else {
		last := slices.MaxFunc(held, time.Time.Compare)
		got.since, got.held = append(got.since, last.Sub(begun)), append(got.held, max(0, last.Sub(answered)))
	}
	if a.undo == nil {
		return nil
	}
	return a.undo(ctx)
}
