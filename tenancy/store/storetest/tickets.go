// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/tenancy"
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
	if got := must(tenancy.DecodeTickets(e.Value))(t); len(got.Secrets) != 3 || got.Due(clock.now()) {
		t.Errorf("got %+v", got)
	}
	// What cannot be read is replaced.
	must(bucket.Put(t.Context(), tenancy.TicketsKey, []byte("x"), bus.Any))(t)
	if n := rotate(); n != 1 {
		t.Errorf("%d new secrets for what cannot be read", n)
	}
}
