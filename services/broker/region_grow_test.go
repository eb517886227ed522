// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/api/dataplane"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/cells"
	"github.com/manormq/manor/tenancy/store"
)

// grower is a process of the control plane that has cells grow.
type grower struct {
	plane *dataplane.Plane
	stop  func()
}

// grow starts one, whose link is that to a broker of the town.
func (w *town) grow(records *store.Store, at int) *grower {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	plane, err := dataplane.New(dataplane.Config{Name: fmt.Sprint("api-", at), Log: log, Dial: func(_ context.Context, gw link.Gateway) (link.Broker, error) {
		return w.brokers[at].Attach(gw), nil
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := cells.New(w.t.Context(), cells.Config{Store: records, Brokers: plane, Log: log, LockLife: 300 * time.Millisecond})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- plane.Run(ctx) }()
	go func() { done <- s.Run(ctx) }()
	var once atomic.Bool
	g := &grower{plane: plane, stop: func() {
		if once.CompareAndSwap(false, true) {
			cancel()
			<-done
			<-done
		}
	}}
	w.t.Cleanup(g.stop)
	return g
}

// unreserved are the partitions that plans draw from.
func unreserved() (all []partition.ID) {
	for p := range partition.ID(12) {
		all = append(all, p)
	}
	return all
}

// A tenant gets a plan with more partitions, and its cell grows by itself while its clients of
// every kind talk, though the process that is about to see to it ends: nobody is closed, all that was
// acknowledged comes once and in order. Where an operator places it, it stays.
func TestRegion_GrowsWithThePlan(t *testing.T) {
	t.Parallel()
	w := newTown(t, 3, func(_ int, c *Config) { c.Cluster.Reserved = 4 })
	w.spread = 1
	w.tenant = "acme"
	b, err := w.bus.Bus("tenancy")
	if err != nil {
		t.Fatal(err)
	}
	records, err := store.New(t.Context(), store.Config{Bus: b, Log: slog.New(slog.DiscardHandler), Region: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := records.EnsureTenant(t.Context(), "acme", store.EnsureOptions{Plan: tenancy.PlanFree}); err != nil {
		t.Fatal(err)
	}
	plan := func(name string) {
		t.Helper()
		if _, _, err := records.ChangeTenant(t.Context(), "acme", 0, store.Plan(name)); err != nil {
			t.Fatal(err)
		}
	}
	first := w.grow(records, 0)
	w.grow(records, 1)
	arrived := func(cell []partition.ID) {
		t.Helper()
		w.eventually("grown", func() string {
			for _, h := range w.brokers {
				if c, _ := h.region.layout.Cell("acme"); c.Stage != 0 || !slices.Equal(c.Partitions, cell) {
					return fmt.Sprintf("%s has %+v, expected %v", h.name, c, cell)
				}
			}
			if c, err := records.Cell(t.Context(), "acme"); err != nil || c == nil || c.Has != len(cell) || c.Waits != "" {
				return fmt.Sprintf("the record says %+v, %v", c, err)
			}
			return ""
		})
	}
	var want []string
	unbroken(t, w, func() {
		want = w.retainSome()
		w.livesIn(link.Cell("acme", 1, unreserved()))
		plan(tenancy.PlanStarter)
		first.stop()
		arrived(link.Cell("acme", 4, unreserved()))
	})
	w.findRetained(want)
	w.livesIn(link.Cell("acme", 4, unreserved()))

	w.placed(2, "partitions=12-13")
	before, _ := w.brokers[0].region.layout.Cell("acme")
	a, err := w.grow(records, 2).plane.Query(t.Context(), link.Query{Kind: link.QueryCell, Tenant: "acme", Limit: 12})
	if err != nil || a.Next != `{"has":2,"drawn":false,"shared":12}` {
		t.Errorf("the operator's placement: %+v, %v", a, err)
	}
	if now, _ := w.brokers[0].region.layout.Cell("acme"); now.Revision != before.Revision {
		t.Errorf("what an operator has placed has moved: %+v, before %+v", now, before)
	}
}

// What leaves a partition counts, and a cell grows in waves of what is bearable.
func TestWave(t *testing.T) {
	t.Parallel()
	w := newTown(t, 1)
	w.spread, w.tenant = 1, "acme"
	d := w.brokers[0].desk
	draw := func(n int) []partition.ID { return d.region.layout.Draw("acme", n) }
	for _, c := range []struct {
		from, want int
		sessions   int64
		bytes      int64
		grows      int
	}{
		{1, 4, 0, 0, 4},
		{1, 4, waveSessions, 0, 4},
		{1, 4, 2 * waveSessions, 0, 2},       // half of them
		{2, 4, 2 * waveSessions, 0, 4},       // half again
		{1, 4, 3*waveSessions/2 - 10, 0, 3},  // two thirds
		{4, 16, 4 * waveSessions, 0, 5},      // a fifth
		{1, 4, 2 * moveSessions, 0, 2},       // half of them, more than a wave has, but the least
		{1, 4, 2*moveSessions + 20, 0, 0},    // and more than is handed over
		{15, 16, 16 * moveSessions, 0, 16},   // a sixteenth
		{15, 16, 16*moveSessions + 99, 0, 0}, // and more than that
		{1, 4, 0, 2 * moveBytes, 2},          // bytes count as sessions do
		{1, 99, waveSessions / 2, 0, 16},     // as many as there are
		{1, 4, math.MaxInt32, moveBytes, 0},  // whatever else
		{12, 4, 0, 0, 4},                     // an operator's command has it shrink
	} {
		u := &link.Usage{PersistentSessions: c.sessions, QueueBytes: c.bytes}
		list := d.wave("acme", draw(c.from), c.want, u)
		err := bearable("acme", draw(c.from), list, u)
		if (err != nil) != (c.grows == 0) || err != nil && !errs.Is(err, errs.Conflict) || err == nil && !slices.Equal(list, draw(c.grows)) {
			t.Errorf("from %d to %d with %d sessions and %d bytes: %v, %v; expected %d partitions", c.from, c.want, c.sessions, c.bytes, list, err, c.grows)
		}
	}
	if list := d.wave("acme", []partition.ID{0, 1, 2}, 4, &link.Usage{}); !slices.Equal(list, draw(4)) {
		t.Errorf("from a list of an operator's: %v", list)
	}
	// The estimate is that of how sessions choose.
	for _, lists := range [][2][]partition.ID{{draw(1), draw(2)}, {draw(4), draw(6)}, {{0, 1, 2}, {2, 3, 4}}, {{0}, {1}}, {{3, 4}, {3, 4}}} {
		left := 0
		const all = 20_000
		for n := range all {
			id := fmt.Sprint("client-", n)
			if partition.Choose(lists[0], id) != partition.Choose(lists[1], id) {
				left++
			}
		}
		if got, want := float64(left)/all, leaving(lists[0], lists[1]); math.Abs(got-want) > 0.02 {
			t.Errorf("from %v to %v %.3f leave, expected %.3f", lists[0], lists[1], got, want)
		}
	}
	// A command has it grow to the end.
	w.connect("c", 3600)
	w.placed(0, "grow=6")
	if c, _ := d.region.layout.Cell("acme"); !slices.Equal(c.Partitions, draw(6)) {
		t.Errorf("it is in %+v, expected %v", c, draw(6))
	}
	code, all := w.brokers[0].command(http.MethodPost, "tenant/place?tenant=acme&grow=6")
	if err := operate.Err(code, all); !errs.Is(err, errs.Conflict) {
		t.Errorf("it is there: %v", err)
	}
}
