// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"encoding/base64"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/store"
)

// testTickets holds that of several processes one makes a new secret, when it is
// time.
func testTickets(t *testing.T, b bus.Bus) {
	s, clock := newStore(t, b)
	bucket := must(b.Bucket(t.Context(), bus.BucketConfig{Name: tenancy.TicketsBucket}))(t)
	rotate := func() int64 {
		t.Helper()
		var wg sync.WaitGroup
		var made atomic.Int64
		for range 4 {
			wg.Go(func() {
				if did, err := s.RotateTickets(t.Context()); err != nil {
					t.Error(err)
				} else if did {
					made.Add(1)
				}
			})
		}
		wg.Wait()
		return made.Load()
	}
	for i, step := range []struct {
		after time.Duration
		want  int64
	}{{0, 1}, {0, 0}, {tenancy.TicketsEvery - 1, 0}, {1, 1}, {tenancy.TicketsEvery, 1}, {100 * time.Hour, 1}} {
		clock.move(step.after)
		if n := rotate(); n != step.want {
			t.Errorf("step %d: %d new secrets, want %d", i, n, step.want)
		}
	}
	e := must(bucket.Get(t.Context(), tenancy.TicketsKey))(t)
	if got := must(tenancy.DecodeTickets(e.Value, nil))(t); len(got.Secrets) != 3 || got.Due(clock.now()) {
		t.Errorf("got %+v", got)
	}
	// What cannot be read is replaced.
	must(bucket.Put(t.Context(), tenancy.TicketsKey, []byte("x"), bus.Any))(t)
	if n := rotate(); n != 1 {
		t.Errorf("%d new secrets for what cannot be read", n)
	}
	// With a key, what was stored in clear is made anew, and nobody reads it without the key.
	sealer, err := managedca.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	clear := must(tenancy.DecodeTickets(must(bucket.Get(t.Context(), tenancy.TicketsKey))(t).Value, nil))(t).Secrets[0].Secret
	if s, err = store.New(t.Context(), store.Config{Bus: b, Log: telemetry.Discard(), Region: "local", Now: clock.now, Tickets: sealer}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{1, 0} {
		if n := rotate(); n != want {
			t.Errorf("sealed, step %d: %d new secrets, want %d", i, n, want)
		}
	}
	e = must(bucket.Get(t.Context(), tenancy.TicketsKey))(t)
	got := must(tenancy.DecodeTickets(e.Value, sealer.Open))(t)
	if len(got.Secrets) != 1 || bytes.Equal(got.Secrets[0].Secret, clear) || !got.Sealed {
		t.Errorf("sealed: got %+v", got)
	}
	if in := base64.StdEncoding.EncodeToString(got.Secrets[0].Secret); bytes.Contains(e.Value, []byte(in)) {
		t.Errorf("the secret is in the store in clear: %s", e.Value)
	}
}
