// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/remote"
)

// gatewayDirectory is the directory of one gateway that runs.
type gatewayDirectory struct {
	*remote.Directory
	control *nats.Bus
	end     context.CancelFunc
	ended   chan struct{}
	// made is how long New took, which reads the snapshot, and ready how long it took
	// until clients may be let in.
	made, ready time.Duration
}

// startDirectory starts the directory of a gateway.
func (b *directoryBench) startDirectory(ctx context.Context, snapshot string) (g *gatewayDirectory, err error) {
	g = &gatewayDirectory{ended: make(chan struct{})}
	if g.control, err = b.server.Bus("gateway"); err != nil {
		return nil, err
	}
	verifier, err := password.NewVerifier(0)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	g.Directory, err = remote.New(remote.Config{
		Bus: g.control, Verifier: verifier, Name: "gateway", Domain: devDomain, Region: devRegion, Log: b.log, Snapshot: snapshot, Key: make([]byte, 32),
	})
	if err != nil {
		return nil, err
	}
	g.made = time.Since(begun)
	ctx, g.end = context.WithCancel(ctx)
	go func() {
		defer close(g.ended)
		_ = g.Run(ctx)
	}()
	if err := g.Ready(ctx); err != nil {
		return nil, err
	}
	g.ready = time.Since(begun)
	return g, nil
}

// stop ends it, and returns how long that took: it writes its snapshot.
func (g *gatewayDirectory) stop() time.Duration {
	begun := time.Now()
	g.end()
	<-g.ended
	took := time.Since(begun)
	_ = g.control.Close()
	return took
}

// gateway measures the directory of a gateway: its start, its memory, its look-ups, and
// its snapshot.
func (b *directoryBench) gateway(ctx context.Context) error {
	snapshot := filepath.Join(b.folder, "directory.snapshot")
	g, err := b.startDirectory(ctx, snapshot)
	if err != nil {
		return err
	}
	b.say("start of a gateway's directory", "%.2f s until clients are let in", g.ready.Seconds())
	drawn := make([]int, b.Lookups)
	for i := range drawn {
		drawn[i] = rand.IntN(b.Tenants)
	}
	for _, what := range []string{"look-ups of what the directory has not read", "look-ups of what it has"} {
		begun := time.Now()
		took, err := b.lookups(ctx, g, drawn)
		if err != nil {
			g.stop()
			return err
		}
		b.say(what, "p50 %v, p99 %v, most %v; %.0f /s", round(quantile(took, .5)), round(quantile(took, .99)), round(quantile(took, 1)), float64(len(took))/time.Since(begun).Seconds())
		b.settled(ctx, g)
		b.say("... credentials that it keeps then", "%d", g.Kept())
	}
	kept := g.Kept()
	with := b.heap(ctx)
	took := g.stop()
	g = nil
	without := b.heap(ctx)
	b.say("memory of the directory", "%.0f MiB, %.0f bytes for each tenant, with %d credentials", float64(with-without)/(1<<20), float64(with-without)/float64(b.Tenants), kept)
	info, err := os.Stat(snapshot)
	if err != nil {
		return err
	}
	b.say("snapshot", "%.0f MiB, written in %v", float64(info.Size())/(1<<20), round(took))
	if g, err = b.startDirectory(ctx, snapshot); err != nil {
		return err
	}
	b.say("start from the snapshot", "%.2f s, %d credentials", g.ready.Seconds(), g.Kept())
	if err := os.Remove(snapshot); err != nil {
		return err
	}
	g.stop()
	g = nil
	if err := os.Remove(snapshot); err != nil {
		return err
	}
	// Tenants alone: without a snapshot, and before anybody has connected.
	if g, err = b.startDirectory(ctx, ""); err != nil {
		return err
	}
	with = b.heap(ctx)
	g.stop()
	g = nil
	without = b.heap(ctx)
	b.say("memory of the directory, nobody connected", "%.0f MiB, %.0f bytes for each tenant", float64(with-without)/(1<<20), float64(with-without)/float64(b.Tenants))
	return nil
}

// settled waits until nothing more is read: tenants are, whole, behind the first look-up
// of one of their credentials.
func (b *directoryBench) settled(ctx context.Context, g *gatewayDirectory) {
	for last, since := -1, time.Now(); time.Since(since) < b.rest/2 && ctx.Err() == nil; pause(ctx, b.rest/100) {
		if now := g.Kept(); now != last {
			last, since = now, time.Now()
		}
	}
}

// whole measures how long a server takes to tell of the credentials of one tenant, and of
// as many as are read together.
func (b *directoryBench) whole(ctx context.Context) error {
	credentials, err := b.control.Bucket(ctx, bus.BucketConfig{Name: tenancy.CredentialsBucket})
	if err != nil {
		return err
	}
	for _, n := range []int{1, min(b.Tenants, bus.EntriesMax)} {
		var took []time.Duration
		found := 0
		for range wholeTries {
			var prefixes []string
			for _, i := range rand.Perm(b.Tenants)[:n] {
				prefixes = append(prefixes, tenancy.CredentialPrefix(benchTenant(i)))
			}
			call, cancel := context.WithTimeout(ctx, time.Minute)
			begun := time.Now()
			entries, _, err := credentials.Entries(call, prefixes, b.Credentials)
			took = append(took, time.Since(begun))
			cancel()
			if err != nil {
				return err
			}
			found += len(entries)
		}
		b.say(fmt.Sprintf("all credentials of %d tenants at once", n), "p50 %v, most %v; %d of them", round(quantile(took, .5)), round(quantile(took, 1)), found/wholeTries)
	}
	return nil
}

const wholeTries = 10

// lookups authenticates a client of each of the tenants, with some credential of it.
func (b *directoryBench) lookups(ctx context.Context, g *gatewayDirectory, tenants []int) ([]time.Duration, error) {
	took := make([]time.Duration, len(tenants))
	perTenant := b.Credentials / b.Tenants
	err := each(b.AtOnce, len(tenants), func(i int) error {
		begun := time.Now()
		t, err := g.Tenant(ctx, benchTenant(tenants[i]))
		if err != nil {
			return err
		}
		name := benchCredential(tenants[i] * 7 % perTenant)
		_, err = g.Authenticate(ctx, tenancy.Attempt{Tenant: t, Username: name, HasUsername: true, Password: []byte(b.secret), HasPassword: true})
		took[i] = time.Since(begun)
		if err != nil {
			return fmt.Errorf("credential %s of %s: %w", name, t.ID, err)
		}
		return nil
	})
	return took, err
}
