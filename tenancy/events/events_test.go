// SPDX-License-Identifier: Apache-2.0

package events_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy/events"
)

// world is a writer that runs, and a log, on one bus, in a bubble.
type world struct {
	t   *testing.T
	bus *mem.Bus
	w   *events.Writer
	log *events.Log
}

func start(t *testing.T, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.New()
		open := func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, b) }
		w := &world{t: t, bus: b, w: events.NewWriter(open, telemetry.Discard()), log: events.NewLog(open)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.w.Run(ctx) }()
		f(w)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// add has something happen to a client now.
func (w *world) add(tenant, client string, kind events.Kind, reason string) {
	w.w.Add(tenant, events.Event{At: time.Now(), Kind: kind, ClientID: client, Reason: reason})
}

// flushed waits until what was added is written.
func (w *world) flushed() {
	time.Sleep(1100 * time.Millisecond)
	synctest.Wait()
}

// all reads all pages, and says each event in few words.
func (w *world) all(tenant string, q events.Query) (said []string) {
	w.t.Helper()
	if q.Most == 0 {
		q.Most = 1000
	}
	for {
		page, err := w.log.List(w.t.Context(), tenant, q)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(page.Events) > q.Most {
			w.t.Errorf("%d events on a page of %d", len(page.Events), q.Most)
		}
		for _, e := range page.Events {
			s := e.ClientID + " " + string(e.Kind)
			if e.Count > 1 {
				s += fmt.Sprintf(" x%d", e.Count)
			}
			said = append(said, s)
		}
		if page.Next == "" {
			return said
		}
		q.Cursor = page.Next
	}
}

func (w *world) want(what string, got []string, want ...string) {
	w.t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		w.t.Errorf("%s: %s", what, d)
	}
}

func TestLog_List(t *testing.T) {
	start(t, func(w *world) {
		w.add("acme", "a", events.Connected, "")
		w.add("acme", "a", events.Dropped, "size")
		w.add("acme", "a", events.Dropped, "size")
		w.add("acme", "a", events.Disconnected, "")
		w.add("beta", "a", events.Connected, "")
		w.flushed()
		later := time.Now()
		w.add("acme", "a", events.Denied, "Not authorized")
		w.flushed()
		timeline := []string{"a connected", "a dropped x2", "a disconnected", "a denied"}
		for _, most := range []int{1, 2, 3, 4, 1000} {
			w.want(fmt.Sprint("pages of ", most), w.all("acme", events.Query{Client: "a", Most: most}), timeline...)
		}
		w.want("the whole tenant", w.all("acme", events.Query{}), timeline...)
		w.want("one kind", w.all("acme", events.Query{Kinds: []events.Kind{events.Dropped}, Most: 1}), "a dropped x2")
		w.want("since", w.all("acme", events.Query{Since: later}), "a denied")
		w.want("until", w.all("acme", events.Query{Until: later}), timeline[:3]...)
		w.want("another tenant", w.all("beta", events.Query{}), "a connected")
		w.want("another client", w.all("acme", events.Query{Client: "b"}))
		if _, err := w.log.List(w.t.Context(), "acme", events.Query{Cursor: "x", Most: 1}); !errs.Is(err, errs.Invalid) {
			t.Errorf("a cursor that is none: %v", err)
		}
	})
}

// Of very many events of a second as many are kept as may be, and the number of the
// others; another tenant's are all kept.
func TestWriter_TooMany(t *testing.T) {
	start(t, func(w *world) {
		for range 1000 {
			w.add("loud", "a", events.Connected, "")
		}
		w.add("quiet", "b", events.Connected, "")
		w.flushed()
		loud := w.all("loud", events.Query{})
		if n := len(loud); n != 201 || loud[n-1] != " connected x800" {
			t.Errorf("%d events, the last is %q", n, loud[len(loud)-1])
		}
		w.want("quiet", w.all("quiet", events.Query{}), "b connected")
		if w.w.Written() != 201 || w.w.Dropped() != 800 {
			t.Errorf("%d are written and %d dropped", w.w.Written(), w.w.Dropped())
		}
	})
}

// While the bus is away events wait, in order; as many as there is room for.
func TestWriter_BusAway(t *testing.T) {
	start(t, func(w *world) {
		w.bus.SetDown(true)
		w.add("acme", "a", events.Connected, "")
		w.flushed()
		w.add("acme", "a", events.Disconnected, "")
		w.flushed()
		for i := range 30_000 {
			w.add(fmt.Sprint("t", i%200), "x", events.Connected, "")
			if i%1000 == 999 {
				w.flushed()
			}
		}
		w.bus.SetDown(false)
		w.flushed()
		w.flushed()
		w.want("what came first", w.all("acme", events.Query{}), "a connected", "a disconnected")
		if n := w.w.Written() + w.w.Dropped(); n != 30_002 || w.w.Written() > 20_000 || w.w.Written() < 15_000 {
			t.Errorf("%d are written and %d dropped", w.w.Written(), w.w.Dropped())
		}
	})
}

func TestLog_Follow(t *testing.T) {
	start(t, func(w *world) {
		ctx, cancel := context.WithCancel(w.t.Context())
		var got []string
		done := make(chan error)
		go func() {
			done <- w.log.Follow(ctx, "acme", events.Query{Kinds: []events.Kind{events.Connected}}, func(e events.Event) { got = append(got, e.ClientID) })
		}()
		synctest.Wait()
		w.add("acme", "a", events.Connected, "")
		w.add("acme", "a", events.Disconnected, "")
		w.add("beta", "x", events.Connected, "")
		w.flushed()
		w.add("acme", "b", events.Connected, "")
		w.flushed()
		cancel()
		<-done
		w.want("followed", got, "a", "b")
	})
}

// What a tenant keeps no longer is removed, and nothing else.
func TestQuota_EventDays(t *testing.T) {
	start(t, func(w *world) {
		for day := range 10 {
			for _, tenant := range []string{"week", "ever", "none", "most"} {
				w.add(tenant, fmt.Sprint(day), events.Connected, "")
				w.add(tenant, fmt.Sprint("other", day), events.Connected, "")
			}
			w.flushed()
			time.Sleep(24*time.Hour - 2*time.Second)
		}
		days := func(context.Context) (map[string]int64, error) {
			return map[string]int64{"week": 7, "ever": -1, "none": 0, "most": 40, "nobody": 7}, nil
		}
		if err := w.log.Prune(w.t.Context(), time.Now(), days); err != nil {
			t.Fatal(err)
		}
		for tenant, want := range map[string]int{"week": 14, "ever": 20, "none": 0, "most": 20} {
			if n := len(w.all(tenant, events.Query{})); n != want {
				t.Errorf("%s has %d events, expected %d", tenant, n, want)
			}
		}
		failed := errors.New("away")
		if err := w.log.Prune(w.t.Context(), time.Now(), func(context.Context) (map[string]int64, error) { return nil, failed }); !errors.Is(err, failed) {
			t.Errorf("%v", err)
		}
	})
}
