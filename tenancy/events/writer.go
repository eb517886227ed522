// SPDX-License-Identifier: Apache-2.0

package events

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/manormq/manor/infra/bus"
)

const (
	// flushEvery is how often what has gathered is written.
	flushEvery = time.Second
	// mostEach bounds the events of a second in one slot of a tenant; of those beyond
	// it the number is kept. mostAll bounds what waits while the bus is away.
	mostEach = 200
	mostAll  = 20_000
	// mostDenied bounds refusals, which strangers can cause.
	mostDenied = 20
	// appending is how many records are under way at once.
	appending = 16
)

// Writer gathers events and writes them once a second. Add may be called
// concurrently, under any lock; Run writes until its context is done.
type Writer struct {
	open    func(context.Context) (bus.Stream, error)
	log     *slog.Logger
	dropped atomic.Uint64
	written atomic.Uint64
	warn    rate.Sometimes

	mu      sync.Mutex
	waiting map[place]*batch // guarded by mu
	n       int              // guarded by mu; events in waiting
}

type place struct {
	tenant string
	slot   int
}

// batch is what becomes a record.
type batch struct {
	events []Event
	denied int          // of events
	over   map[Kind]int // beyond the bound
}

// NewWriter returns a Writer on the stream that open opens, which it is asked to when
// there is something to write.
func NewWriter(open func(context.Context) (bus.Stream, error), log *slog.Logger) *Writer {
	return &Writer{open: open, log: log, waiting: map[place]*batch{}, warn: rate.Sometimes{First: 1, Interval: time.Minute}}
}

// Written and Dropped count events: those that are kept, and those of which at most
// the number is. They may be asked of a nil Writer.
func (w *Writer) Written() uint64 {
	if w == nil {
		return 0
	}
	return w.written.Load()
}

// Dropped is beside Written.
func (w *Writer) Dropped() uint64 {
	if w == nil {
		return 0
	}
	return w.dropped.Load()
}

// Add takes an event of a tenant. It does not wait.
func (w *Writer) Add(tenant string, e Event) {
	at := place{tenant, slotOf(e.ClientID)}
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.waiting[at]
	if b == nil {
		if w.n >= mostAll {
			w.dropped.Add(1)
			return
		}
		b = &batch{}
		w.waiting[at] = b
	}
	if last := len(b.events) - 1; last >= 0 && b.events[last].same(&e) {
		b.events[last].Count = max(b.events[last].Count, 1) + max(e.Count, 1)
		return
	}
	if len(b.events) >= mostEach || w.n >= mostAll || e.Kind == Denied && b.denied >= mostDenied {
		if b.over == nil {
			b.over = map[Kind]int{}
		}
		b.over[e.Kind] += max(e.Count, 1)
		w.dropped.Add(1)
		return
	}
	b.events = append(b.events, e)
	if e.Kind == Denied {
		b.denied++
	}
	w.n++
}

// Run writes until ctx is done, then what is left.
func (w *Writer) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	var s bus.Stream
	for {
		select {
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushEvery)
			defer cancel()
			w.flush(end, s)
			return nil
		case <-tick.C:
			s = w.flush(ctx, s)
		}
	}
}

// flush writes what has gathered, to s if that is not nil, and returns the stream.
func (w *Writer) flush(ctx context.Context, s bus.Stream) bus.Stream {
	w.mu.Lock()
	waiting := w.waiting
	w.waiting, w.n = make(map[place]*batch, len(waiting)), 0
	w.mu.Unlock()
	if len(waiting) == 0 {
		return s
	}
	if s == nil {
		var err error
		if s, err = w.open(ctx); err != nil {
			w.again(waiting, err)
			return nil
		}
	}
	var all errgroup.Group
	all.SetLimit(appending)
	for at, b := range waiting {
		all.Go(func() error {
			body, err := b.encode()
			if err == nil {
				_, err = s.Append(ctx, subject(at.tenant, at.slot), body)
			}
			if err != nil {
				w.again(map[place]*batch{at: b}, err)
				return nil
			}
			w.written.Add(uint64(len(b.events)))
			return nil
		})
	}
	_ = all.Wait() // each has taken care of its error
	return s
}

// encode is the record of b.
func (b *batch) encode() ([]byte, error) {
	all := b.events
	for kind, n := range b.over {
		all = append(all, Event{At: all[len(all)-1].At, Kind: kind, Count: n, Why: "more than are kept of a second: these were only counted"})
	}
	return json.Marshal(all)
}

// again has batches that could not be written wait once more, as far as there is room.
func (w *Writer) again(failed map[place]*batch, err error) {
	w.warn.Do(func() {
		w.log.Warn("events of clients are not written now; they wait, up to a bound", "error", err, "most", mostAll)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for at, b := range failed {
		if w.n+len(b.events) > mostAll {
			w.dropped.Add(uint64(len(b.events)))
			continue
		}
		w.n += len(b.events)
		if later := w.waiting[at]; later != nil {
			b.events = append(b.events, later.events...)
			for kind, n := range later.over {
				if b.over == nil {
					b.over = map[Kind]int{}
				}
				b.over[kind] += n
			}
		}
		w.waiting[at] = b
	}
}
