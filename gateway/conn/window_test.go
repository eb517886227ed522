// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"math"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

func TestWindowOf(t *testing.T) {
	for _, c := range []struct {
		bytes  int64
		tenant bool
		want   uint64
	}{
		{-1, false, CreditWindow},
		{math.MaxInt64, false, CreditWindow},
		{0, false, smallestCredit},
		{100_000, false, 100_000},
		{-1, true, smallestCredit},
		{100_000, true, smallestCredit},
	} {
		if got := windowOf(c.bytes, c.tenant); got != c.want {
			t.Errorf("%d bytes a second, the tenant has a rate: %v: a window of %d, expected %d", c.bytes, c.tenant, got, c.want)
		}
	}
}

// What came on a former channel and waits still is none of what the new one may send: however
// often a client moves, no more than the window is granted beyond what it was given.
func TestReopen_Held(t *testing.T) {
	m := &mqtt.Message{Topic: []byte("t"), Payload: make([]byte, 100)}
	cost := link.DeliverCost(m.Size(), 0)
	c := &Conn{phase: open, creditWindow: smallestCredit}
	for move := range 5 {
		const held = 20
		if got, want := c.Reopen(0, held*cost), uint64(smallestCredit-held*cost); got != want {
			t.Fatalf("move %d: %d granted, expected %d", move, got, want)
		}
		for n := range held {
			c.Skip(m, 0)
			total, ok := c.Credit(0)
			if left := uint64((held - 1 - n) * cost); ok && total+left > smallestCredit || c.delivered != 0 {
				t.Fatalf("move %d: %d granted in all with %d held, %d delivered", move, total, left, c.delivered)
			}
		}
		c.Skip(m, 0)
		if c.delivered != uint64(cost) {
			t.Errorf("%d bytes of the new channel, expected %d", c.delivered, cost)
		}
	}
	if got := c.Reopen(0, 2*smallestCredit); got != 0 {
		t.Errorf("%d granted while more waits than the window has", got)
	}
}
