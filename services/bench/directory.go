// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/store"
)

// Directory measures what many tenants and credentials cost: a NATS server in this
// process with its files, the store above it, and the directory of a gateway.
type Directory struct {
	// Tenants is how many there are, Credentials how many of all of them, at least one
	// for each tenant.
	Tenants, Credentials int
	// Lookups is how many credentials clients show, each of a tenant that is drawn.
	Lookups int
	// AtOnce is how many look-ups, and sign-ups, are under way at the same time.
	AtOnce int
	// SignUps is for how long tenants are signed up.
	SignUps time.Duration

	// rest is how long a directory, and the heap, must not have changed to be looked at; 0
	// is restingTime.
	rest time.Duration
}

// Flags declares the options on fs, with their defaults.
func (d *Directory) Flags(fs *flag.FlagSet) {
	fs.IntVar(&d.Tenants, "tenants", 100_000, "tenants")
	fs.IntVar(&d.Credentials, "credentials", 1_000_000, "credentials of all tenants together, at least one of each")
	fs.IntVar(&d.Lookups, "lookups", 20_000, "look-ups of credentials, of tenants that are drawn")
	fs.IntVar(&d.AtOnce, "at-once", 16, "look-ups, and sign-ups, at the same time")
	fs.DurationVar(&d.SignUps, "signups", 5*time.Second, "for how long tenants are signed up")
}

// fillers is how many records are written at once while the store is filled.
const fillers = 32

// directoryBench is one run of a Directory.
type directoryBench struct {
	Directory
	out    io.Writer
	log    *slog.Logger
	folder string
	hash   string // of secret, which every credential has
	secret string

	server  *embed.Server
	control *nats.Bus
	store   *store.Store
}

// Run measures, and writes a line to out for each figure.
func (d Directory) Run(ctx context.Context, out io.Writer) (err error) {
	if d.Tenants < 1 || d.Credentials < d.Tenants || d.Lookups < 1 || d.AtOnce < 1 || d.SignUps <= 0 {
		return errs.New(errs.Invalid, "expected -tenants, -lookups, -at-once and -signups above 0, and as many -credentials as tenants or more")
	}
	if d.rest == 0 {
		d.rest = restingTime
	}
	b := &directoryBench{Directory: d, out: out, log: slog.New(slog.DiscardHandler)}
	if b.folder, err = os.MkdirTemp("", "manor"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.folder) }()
	if b.secret, b.hash, err = password.Generate(); err != nil {
		return err
	}
	fmt.Fprintf(out, "manor %s, %s\n%s\n%d tenants, %d credentials\n\n", versionOf(ctx, "git", "rev-parse", "--short", "HEAD"), time.Now().UTC().Format(time.DateOnly), machine(), d.Tenants, d.Credentials)
	if err := b.fill(ctx); err != nil {
		return err
	}
	took, err := b.open(ctx, false)
	if err != nil {
		return err
	}
	defer b.shut()
	b.say("start of the NATS server", "%.2f s", took.Seconds())
	if err := b.whole(ctx); err != nil {
		return err
	}
	if err := b.gateway(ctx); err != nil {
		return err
	}
	return b.signUps(ctx)
}

func (b *directoryBench) say(what, format string, args ...any) {
	fmt.Fprintf(b.out, "%-44s %s\n", what, fmt.Sprintf(format, args...))
}

// open starts the NATS server and opens the store; took is what the server took.
func (b *directoryBench) open(ctx context.Context, fast bool) (took time.Duration, err error) {
	begun := time.Now()
	if b.server, err = embed.Start(ctx, embed.Config{Dir: filepath.Join(b.folder, devNATS), Name: devNATS, Log: b.log, NoSync: fast}); err != nil {
		return 0, err
	}
	took = time.Since(begun)
	if b.control, err = b.server.Bus("bench"); err == nil {
		b.store, err = store.New(ctx, store.Config{Bus: b.control, Log: b.log, Region: devRegion})
	}
	if err != nil {
		b.shut()
	}
	return took, err
}

func (b *directoryBench) shut() {
	if b.control != nil {
		_ = b.control.Close()
	}
	b.server.Shutdown()
}

func benchTenant(i int) string     { return fmt.Sprintf("bench-%d", i) }
func benchCredential(k int) string { return fmt.Sprintf("device-%d", k) }

// fill signs tenants up and imports their other credentials, without a sync to disk for
// each.
func (b *directoryBench) fill(ctx context.Context) error {
	if _, err := b.open(ctx, true); err != nil {
		return err
	}
	defer b.shut()
	begun := time.Now()
	err := each(fillers, b.Tenants, func(i int) error { return b.signUp(ctx, benchTenant(i)) })
	if err != nil {
		return fmt.Errorf("make tenants: %w", err)
	}
	b.say("filled: sign-ups, not synced", "%.0f /s", float64(b.Tenants)/time.Since(begun).Seconds())
	begun = time.Now()
	more := b.Credentials - b.Tenants
	err = each(fillers, more, func(i int) error {
		c := tenancy.Credential{Username: benchCredential(1 + i/b.Tenants), Hash: b.hash}
		return b.store.ImportCredential(ctx, benchTenant(i%b.Tenants), c)
	})
	if err != nil {
		return fmt.Errorf("import credentials: %w", err)
	}
	b.say("filled: imported hashes, not synced", "%.0f /s", float64(more)/time.Since(begun).Seconds())
	size, err := folderSize(b.folder)
	b.say("on disk", "%.0f MiB, %.0f bytes for each credential", float64(size)/(1<<20), float64(size)/float64(b.Credentials))
	return err
}

// signUp signs a tenant up, as the API does when it has hashed the password.
func (b *directoryBench) signUp(ctx context.Context, tenant string) error {
	_, err := b.store.SignUp(ctx, store.SignUp{
		Organization: tenant, Email: "bench@bench.example", Tenant: tenant, Plan: tenancy.PlanNone,
		Username: benchCredential(0), CredentialHash: b.hash,
	})
	return err
}

// signUps measures sign-ups, each of which is on disk when it is answered.
func (b *directoryBench) signUps(ctx context.Context) error {
	end := time.Now().Add(b.SignUps)
	took := make([][]time.Duration, b.AtOnce)
	var n atomic.Int64
	begun := time.Now()
	err := each(b.AtOnce, b.AtOnce, func(w int) error {
		for time.Now().Before(end) {
			begun := time.Now()
			if err := b.signUp(ctx, fmt.Sprintf("new-%d", n.Add(1))); err != nil {
				return err
			}
			took[w] = append(took[w], time.Since(begun))
		}
		return nil
	})
	var all []time.Duration
	for _, t := range took {
		all = append(all, t...)
	}
	b.say("sign-ups, without hashing, synced", "%.0f /s; p50 %v, p99 %v", float64(len(all))/time.Since(begun).Seconds(), round(quantile(all, .5)), round(quantile(all, .99)))
	return err
}

func round(d time.Duration) time.Duration {
	switch {
	case d > 100*time.Millisecond:
		return d.Round(time.Millisecond)
	case d > 100*time.Microsecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(10 * time.Nanosecond)
}

// heap is what the heap holds after a garbage collection, once it does not become less:
// the NATS server forgets what it has read of its files after some seconds.
func (b *directoryBench) heap(ctx context.Context) int64 {
	least := int64(math.MaxInt64)
	for since := time.Now(); time.Since(since) < b.rest && ctx.Err() == nil; pause(ctx, b.rest/6) {
		var m runtime.MemStats
		for range 2 { // what has a finalizer goes with the second
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		if now := int64(m.HeapAlloc); now < least-least/200 {
			least, since = now, time.Now()
		}
	}
	return least
}

// restingTime is longer than the NATS server keeps what it has read of its files, 10 s.
const restingTime = 12 * time.Second

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// folderSize is the sum of the sizes of all files below a folder.
func folderSize(folder string) (size int64, err error) {
	err = filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}
