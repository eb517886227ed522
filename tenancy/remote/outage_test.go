// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// hungBus is a bus that is connected and does not answer questions about credentials.
type hungBus struct {
	bus.Bus
	asked int
	hung  bool
}

func (b *hungBus) Bucket(ctx context.Context, cfg bus.BucketConfig) (bus.Bucket, error) {
	k, err := b.Bus.Bucket(ctx, cfg)
	if err != nil || cfg.Name != tenancy.CredentialsBucket {
		return k, err
	}
	return &hungBucket{k, b}, nil
}

type hungBucket struct {
	bus.Bucket
	bus *hungBus
}

func (k *hungBucket) Get(ctx context.Context, key string) (bus.Entry, error) {
	k.bus.asked++
	if !k.bus.hung {
		return k.Bucket.Get(ctx, key)
	}
	<-ctx.Done()
	return bus.Entry{}, errs.New(errs.Unavailable, "%w", ctx.Err())
}

// TestOutage holds that with a bus that does not answer a client waits for it once, and
// those that come after it are refused at once, but for one a second.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, b := t.Context(), &hungBus{Bus: mem.New(), hung: true}
		s, err := store.New(ctx, store.Config{Bus: b.Bus, Log: telemetry.Discard(), Region: "local"})
		if err != nil {
			t.Fatal(err)
		}
		acme, err := s.EnsureTenant(ctx, "acme", store.EnsureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.CreateCredential(ctx, acme, "device", "$sha256$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"); err != nil {
			t.Fatal(err)
		}
		d, err := New(Config{Bus: b, Verifier: &quick{}, Domain: "test", Log: telemetry.Discard()})
		if err != nil {
			t.Fatal(err)
		}
		missing := errs.New(errs.NotFound, "missing")
		ask := func(name string, after time.Duration, want errs.Kind) {
			t.Helper()
			begun := time.Now()
			_, err := d.askCredential(ctx, "acme", name, missing)
			if took := time.Since(begun); took != after || errs.KindOf(err) != want {
				t.Errorf("%s: %v after %v, expected %v after %v", name, err, took, want, after)
			}
		}
		ask("a", askTimeout, errs.Unavailable)
		for i := range 100 {
			ask(fmt.Sprint("b-", i), 0, errs.Unavailable)
		}
		time.Sleep(tryEvery)
		ask("c", askTimeout, errs.Unavailable)
		ask("d", 0, errs.Unavailable)
		if b.asked != 2 {
			t.Errorf("the bus was asked %d times, expected 2", b.asked)
		}
		b.hung = false
		time.Sleep(tryEvery)
		ask("e", 0, errs.NotFound)
		if _, err := d.askCredential(ctx, "acme", "device", missing); err != nil {
			t.Errorf("when it answers again: %v", err)
		}
		if n := d.refusals[aboutCredential].Load(); n != 103 {
			t.Errorf("%d refusals were counted, expected 103", n)
		}
	})
}

// TestVigil holds what the log says of the control plane, and when.
func TestVigil(t *testing.T) {
	var out bytes.Buffer
	v := newVigil(slog.New(slog.NewTextHandler(&out, nil)), DefaultKeep)
	start := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	var got []string
	for _, x := range []struct {
		now, contact time.Duration // since start
	}{
		{0, 0},
		{10 * time.Second, 0},
		{16 * time.Second, 0},
		{17 * time.Second, 0},
		{59 * time.Minute, 0},
		{61 * time.Minute, 0},
		{24*time.Hour + time.Second, 0},
		{24*time.Hour + 2*time.Second, 0},
		{26 * time.Hour, 26 * time.Hour},
		{27 * time.Hour, 27 * time.Hour},
	} {
		out.Reset()
		v.look(start.Add(x.now), start.Add(x.contact), 12)
		line := out.String()
		for _, part := range []string{"until=2026-01-03T03:00:00Z", "credentials_known=12", "limit=24h0m0s", "away_for=26h0m0s"} {
			if strings.Contains(line, part) {
				line = strings.Join([]string{line, part}, "\x00")
			}
		}
		said, parts, _ := strings.Cut(line, "\x00")
		_, said, _ = strings.Cut(said, "level=")
		level, _, _ := strings.Cut(said, " ")
		got = append(got, strings.Trim(level+" "+strings.ReplaceAll(parts, "\x00", " "), " "))
	}
	want := []string{
		"", "", "WARN until=2026-01-03T03:00:00Z credentials_known=12", "", "", "WARN until=2026-01-03T03:00:00Z credentials_known=12",
		"ERROR limit=24h0m0s", "", "INFO away_for=26h0m0s", "",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	out.Reset()
	newVigil(slog.New(slog.NewTextHandler(&out, nil)), DefaultKeep).look(start, time.Time{}, 0)
	if !strings.Contains(out.String(), "never reached") {
		t.Errorf("without any contact: %q", out.String())
	}
}

// TestQueue holds that what takes something away is handed over before the rest, and
// that what was told of a credential before it went is not handed over behind that.
func TestQueue(t *testing.T) {
	q := &queue{wake: make(chan struct{}, 1)}
	tenant := func(id string) tenancy.Change { return tenancy.Change{Kind: tenancy.TenantChanged, Tenant: id} }
	changed := func(name string) tenancy.Change {
		return tenancy.Change{Kind: tenancy.CredentialChanged, Tenant: "acme", Username: name}
	}
	gone := tenancy.Change{Kind: tenancy.CredentialGone, Tenant: "acme", Username: "a"}
	bans := tenancy.Change{Kind: tenancy.BansChanged, Tenant: "acme"}
	q.push(tenant("one"), false)
	q.push(tenant("one"), false) // waits already
	q.push(changed("a"), false)
	q.push(changed("b"), false)
	q.push(gone, true)
	q.push(bans, true)
	q.push(changed("a"), false) // of the next credential of that name
	q.push(tenant("two"), true)
	want := []tenancy.Change{gone, bans, tenant("two"), tenant("one"), changed("b"), changed("a")}
	var got []tenancy.Change
	for {
		c, ok := q.take()
		if !ok {
			break
		}
		got = append(got, c)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
