// SPDX-License-Identifier: Apache-2.0

package cells

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// region is brokers that have cells grow.
type region struct {
	mu    sync.Mutex
	cells map[string]link.CellState // guarded by mu
	wave  int                       // guarded by mu: the most partitions by which a cell grows at once
	why   error                     // guarded by mu: nothing grows
	takes time.Duration             // guarded by mu
	busy  int                       // guarded by mu
	most  int                       // guarded by mu: of busy
	asked []time.Time               // guarded by mu: when one was to grow
	looks int                       // guarded by mu
}

func (r *region) Query(ctx context.Context, q link.Query) (*link.Answer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.Kind != link.QueryCell || q.Tenant == "" {
		return nil, errs.New(errs.Invalid, "what is %+v?", q)
	}
	if r.looks++; q.Limit > 0 {
		r.asked = append(r.asked, time.Now())
		if r.busy++; r.busy > r.most {
			r.most = r.busy
		}
		r.mu.Unlock()
		select {
		case <-time.After(r.takes):
		case <-ctx.Done():
		}
		r.mu.Lock()
		if r.busy--; ctx.Err() != nil {
			return nil, errs.New(errs.Unavailable, "the broker did not answer: %w", ctx.Err())
		}
		if r.why != nil {
			return nil, r.why
		}
		c := r.cells[q.Tenant]
		if c.Has == 0 {
			c.Has = 1
		}
		c.Has = min(q.Limit, c.Shared, c.Has+r.wave)
		r.cells[q.Tenant] = c
	}
	text, err := json.Marshal(r.cells[q.Tenant])
	return &link.Answer{Found: true, Next: string(text)}, err
}

func (r *region) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// world is a store, brokers, and processes that have cells grow.
type world struct {
	*region
	t     *testing.T
	store *store.Store
	text  bytes.Buffer // of log
	log   *slog.Logger // of all processes
	reg   *prometheus.Registry
	stops []context.CancelFunc
	wg    sync.WaitGroup
}

func newWorld(t *testing.T, processes int) *world {
	t.Helper()
	w := &world{t: t, region: &region{cells: map[string]link.CellState{}, wave: 99, takes: time.Second}}
	w.log = slog.New(slog.NewTextHandler(&w.text, nil))
	var err error
	if w.store, err = store.New(t.Context(), store.Config{Bus: mem.New(), Log: telemetry.Discard(), Region: "test"}); err != nil {
		t.Fatal(err)
	}
	for range processes {
		w.start()
	}
	t.Cleanup(func() {
		for _, stop := range w.stops {
			stop()
		}
		w.wg.Wait()
	})
	return w
}

// start starts another process, whose metrics those of the world are from then on.
func (w *world) start() {
	w.t.Helper()
	w.reg = prometheus.NewRegistry()
	s, err := New(w.t.Context(), Config{Store: w.store, Brokers: w.region, Log: w.log, Registerer: w.reg})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stops = append(w.stops, stop)
	w.wg.Go(func() { _ = s.Run(ctx) })
}

// tenant makes one of plan free, whose cell is there by now, and changes its plan.
func (w *world) tenant(id, plan string, c link.CellState) {
	w.t.Helper()
	if _, err := w.store.EnsureTenant(w.t.Context(), id, store.EnsureOptions{Plan: tenancy.PlanFree}); err != nil {
		w.t.Fatal(err)
	}
	w.set(func() { w.cells[id] = c })
	w.plan(id, plan)
}

func (w *world) plan(id, plan string) {
	w.t.Helper()
	if _, _, err := w.store.ChangeTenant(w.t.Context(), id, 0, store.Plan(plan)); err != nil {
		w.t.Fatal(err)
	}
}

// after lets time pass and returns what is said of a tenant's cell.
func (w *world) after(d time.Duration, id string) store.Cell {
	w.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	c, err := w.store.Cell(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	if c == nil {
		return store.Cell{}
	}
	return *c
}

// metric is the value of the metric with that label.
func (w *world) metric(name, label string) float64 {
	w.t.Helper()
	all, err := w.reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	w.t.Fatalf("there is no %s of %s", name, label)
	return 0
}

// drawn is a cell as a plan has it.
func drawn(has int) link.CellState { return link.CellState{Has: has, Drawn: true, Shared: 16} }

// What becomes of a cell by where it is and what the plan is.
func TestRun(t *testing.T) {
	for _, c := range []struct {
		name, plan string
		cell       link.CellState
		want       store.Cell
		waits      string
		grows      int // how often
		state      string
	}{
		{"grows", tenancy.PlanStarter, drawn(1), store.Cell{Wanted: 4, Has: 4}, "", 1, stateGrown},
		{"nobody has come yet", tenancy.PlanStarter, drawn(0), store.Cell{Wanted: 4, Has: 4}, "", 1, stateGrown},
		{"no more than there are", tenancy.PlanPro, drawn(1), store.Cell{Wanted: 16, Has: 16}, "", 1, stateGrown},
		{"all", tenancy.PlanDev, drawn(1), store.Cell{Wanted: 16, Has: 16}, "", 1, stateGrown},
		{"an operator has had it grow", tenancy.PlanStarter, drawn(8), store.Cell{Wanted: 4, Has: 8}, "", 0, stateGrown},
		{"an operator has placed it", tenancy.PlanStarter, link.CellState{Has: 2, Shared: 16}, store.Cell{Wanted: 4, Has: 2}, "an operator has placed", 0, statePlaced},
		{"it moves", tenancy.PlanStarter, link.CellState{Has: 1, Shared: 16, Drawn: true, Moves: true}, store.Cell{Wanted: 4, Has: 1}, "on its way", 0, stateWaiting},
		{"the same plan", tenancy.PlanFree, drawn(1), store.Cell{}, "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				w.tenant("acme", c.plan, c.cell)
				got := w.after(time.Minute, "acme")
				if got.Wanted != c.want.Wanted || got.Has != c.want.Has || (c.waits == "") != (got.Waits == "") || !strings.Contains(got.Waits, c.waits) || len(w.asked) != c.grows {
					t.Errorf("%+v, after %d times that it was to grow; expected %+v %q, %d", got, len(w.asked), c.want, c.waits, c.grows)
				}
				if c.state != "" && w.metric("manor_cells", c.state) != 1 || w.metric("manor_cell_growths_total", "grown") != float64(c.grows) {
					t.Errorf("it is not counted as %s", c.state)
				}
				if r, err := w.store.Tenant(t.Context(), "acme"); err != nil || r.Partitions != 1 {
					t.Errorf("gateways hear of another cell than brokers: %+v, %v", r, err)
				}
			})
		})
	}
}

// A cell grows in waves, with a pause between them, and never shrinks.
func TestRun_Waves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.set(func() { w.wave = 1 })
		w.tenant("acme", tenancy.PlanStarter, drawn(1))
		if got := w.after(3*time.Second, "acme"); got.Has != 2 || got.Wanted != 4 || !strings.Contains(got.Waits, "waves") {
			t.Errorf("after the first wave: %+v", got)
		}
		if got := w.after(time.Minute, "acme"); got.Has != 4 || got.Waits != "" {
			t.Errorf("after all: %+v", got)
		}
		for n := range len(w.asked) - 1 {
			if d := w.asked[n+1].Sub(w.asked[n]); d < waveRest {
				t.Errorf("a wave begins %v after the one before", d)
			}
		}
		w.plan("acme", tenancy.PlanFree)
		if got := w.after(time.Hour, "acme"); got != (store.Cell{}) || len(w.asked) != 3 || w.cells["acme"].Has != 4 {
			t.Errorf("with the smaller plan: %+v, %+v", got, w.cells["acme"])
		}
		w.plan("acme", tenancy.PlanPro)
		if got := w.after(10*time.Minute, "acme"); got.Has != 16 {
			t.Errorf("with a larger one: %+v", got)
		}
	})
}

// What cannot grow is tried again, less and less often, and the log says why once for each
// reason, whatever numbers are in it.
func TestRun_Again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.set(func() { w.why = errs.New(errs.Conflict, "b1 is down") })
		w.tenant("acme", tenancy.PlanStarter, drawn(1))
		if got := w.after(time.Second+time.Hour, "acme"); got.Has != 1 || got.Wanted != 4 || got.Problem != "b1 is down" || got.Waits == "" || strings.Contains(got.Waits, "b1") || w.metric("manor_cells", stateWaiting) != 1 {
			t.Errorf("%+v", got)
		}
		for n := range min(len(w.asked)-1, len(backoff)) {
			if got := w.asked[n+1].Sub(w.asked[n]); got < backoff[n] || got > backoff[n]+3*time.Second {
				t.Errorf("after failure %d it is tried again in %v, expected %v", n+1, got, backoff[n])
			}
		}
		if n := strings.Count(w.text.String(), "does not grow yet"); n != 1 {
			t.Errorf("the log says %d times why: %s", n, w.text.String())
		}
		w.set(func() { w.why = errs.New(errs.Conflict, "about 6000 sessions would go") })
		w.after(10*time.Minute, "acme")
		w.set(func() { w.why = errs.New(errs.Conflict, "about 5999 sessions would go") })
		if got := w.after(10*time.Minute, "acme"); !strings.Contains(got.Problem, "5999") || strings.Contains(got.Waits, "sessions") {
			t.Errorf("%+v", got)
		}
		if n := strings.Count(w.text.String(), "does not grow yet"); n != 2 {
			t.Errorf("the log says %d times why: %s", n, w.text.String())
		}
		w.set(func() { w.why = nil })
		if got := w.after(6*time.Minute, "acme"); got.Has != 4 || got.Waits != "" || w.metric("manor_cell_growths_total", "grown") != 1 {
			t.Errorf("%+v", got)
		}
		// An operator gives it back to the plan that it was made with.
		w.set(func() { w.cells["acme"] = drawn(0) })
		if w.after(lookAgain+time.Minute, "acme"); w.cells["acme"].Has != 4 {
			t.Errorf("it stays at %+v", w.cells["acme"])
		}
	})
}

// Of several processes and tenants one cell grows at a time, and each once. A process that is
// gone while one grows has another go on.
func TestRun_OneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.set(func() { w.takes = 20 * time.Second }) // longer than a lock may stand still
		ids := []string{"acme", "bolt", "cogs", "dyno"}
		for _, id := range ids {
			w.tenant(id, tenancy.PlanStarter, drawn(1))
		}
		time.Sleep(3 * time.Minute)
		for _, id := range ids {
			if got := w.after(0, id); got.Has != 4 {
				t.Errorf("%s: %+v", id, got)
			}
		}
		if w.most != 1 || len(w.asked) != len(ids) {
			t.Errorf("%d cells grew at once, %d were to", w.most, len(w.asked))
		}
		w.set(func() { w.takes = 25 * time.Second })
		w.plan("acme", tenancy.PlanPro)
		time.Sleep(2 * againAfter)
		for _, stop := range w.stops {
			stop()
		}
		w.start()
		if got := w.after(3*time.Minute, "acme"); got.Has != 16 || got.Waits != "" {
			t.Errorf("after a restart: %+v", got)
		}
	})
}

// Nothing is done of tenants that are gone, or that have all partitions anyway.
func TestRun_NotOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.tenant("gone", tenancy.PlanFree, drawn(1))
		if _, err := w.store.SetState(t.Context(), "gone", tenancy.StateDeleted); err != nil {
			t.Fatal(err)
		}
		w.plan("gone", tenancy.PlanPro)
		if _, err := w.store.EnsureTenant(t.Context(), "old", store.EnsureOptions{Plan: tenancy.PlanNone}); err != nil {
			t.Fatal(err)
		}
		w.plan("old", tenancy.PlanStarter)
		if w.after(time.Hour, "gone"); w.looks != 0 {
			t.Errorf("brokers were asked %d times", w.looks)
		}
	})
}

// Records of tenants that were deleted, or got a smaller plan, while no process ran are forgotten
// when one does, and others are kept.
func TestRun_Leftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		for id, plan := range map[string]string{"grown": tenancy.PlanStarter, "less": tenancy.PlanFree, "gone": tenancy.PlanStarter} {
			w.tenant(id, plan, drawn(4))
		}
		if _, err := w.store.SetState(t.Context(), "gone", tenancy.StateDeleted); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"grown", "less", "gone", "never"} {
			if err := w.store.PutCell(t.Context(), id, &store.Cell{Wanted: 4, Has: 4}); err != nil {
				t.Fatal(err)
			}
		}
		w.start()
		w.after(time.Minute, "grown")
		left, err := w.store.CellTenants(t.Context())
		if err != nil || len(left) != 1 || left[0] != "grown" {
			t.Errorf("left are the records of %v, %v", left, err)
		}
		if n := w.metric("manor_cells", stateGrown); n != 1 {
			t.Errorf("%v cells are counted as grown", n)
		}
	})
}
