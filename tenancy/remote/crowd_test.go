// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// crowdedBus says how many questions about credentials are under way, which it
// holds until gate is closed.
type crowdedBus struct {
	bus.Bus
	asking, asked atomic.Int64
	gate          chan struct{}
}

func (b *crowdedBus) Bucket(ctx context.Context, cfg bus.BucketConfig) (bus.Bucket, error) {
	k, err := b.Bus.Bucket(ctx, cfg)
	if err != nil || cfg.Name != tenancy.CredentialsBucket {
		return k, err
	}
	return &slowBucket{Bucket: k, before: func() {
		b.asked.Add(1)
		b.asking.Add(1)
		<-b.gate
		b.asking.Add(-1)
	}}, nil
}

// TestCrowd holds that of many clients that come at once the bus is asked about a
// part at a time, that all are answered, and who waited for what was told
// meanwhile does not ask again.
func TestCrowd(t *testing.T) {
	ctx, b := t.Context(), &crowdedBus{Bus: mem.New(), gate: make(chan struct{})}
	s, err := store.New(ctx, store.Config{Bus: b.Bus, Log: telemetry.Discard(), Region: "local"})
	if err != nil {
		t.Fatal(err)
	}
	acme, err := s.EnsureTenant(ctx, "acme", store.EnsureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const crowd = 4 * asksAtOnce
	for i := range crowd {
		if _, err := s.CreateCredential(ctx, acme, fmt.Sprint("device-", i), "$sha256$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"); err != nil {
			t.Fatal(err)
		}
	}
	d, err := New(Config{Bus: b, Verifier: &quick{}, Domain: "test", Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ask := func(name string) {
		wg.Go(func() {
			if c, err := d.askCredential(ctx, "acme", name, errs.New(errs.NotFound, "missing")); err != nil || c.Username != name {
				t.Errorf("%s: %q, %v", name, c.Username, err)
			}
		})
	}
	for i := range crowd {
		ask(fmt.Sprint("device-", i))
		ask("device-0")
	}
	for end := time.Now().Add(10 * time.Second); b.asking.Load() < asksAtOnce; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the bus is asked about %d at once, expected %d", b.asking.Load(), asksAtOnce)
		}
	}
	if n := b.asked.Load(); n != asksAtOnce {
		t.Errorf("the bus was asked %d times at once, expected %d", n, asksAtOnce)
	}
	// A client whose time is over while it waits is told so.
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, err := d.askCredential(short, "acme", "device-1", nil); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a client that waited too long: %v, expected Unavailable", err)
	}
	close(b.gate)
	wg.Wait()
	if n := b.asked.Load(); n > crowd+asksAtOnce {
		t.Errorf("%d names were asked about %d times", crowd, n)
	}
}
