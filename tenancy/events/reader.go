// SPDX-License-Identifier: Apache-2.0

package events

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// Query says which events are asked for.
type Query struct {
	// Client and Kinds leave out those of others; empty is all.
	Client string
	Kinds  []Kind
	// Since and Until are times of events; the zero Until is no bound.
	Since, Until time.Time
	// Cursor is a Page's Next; empty begins with Since.
	Cursor string
	// Most is how many are returned, at least 1.
	Most int
}

func (q *Query) wants(e *Event) bool {
	return (q.Client == "" || e.ClientID == q.Client) && (len(q.Kinds) == 0 || slices.Contains(q.Kinds, e.Kind)) &&
		!e.At.Before(q.Since) && (q.Until.IsZero() || e.At.Before(q.Until))
}

// Page is a part of what is asked for.
type Page struct {
	// Events are in the order of their times. Gateways write once a second: of that
	// much one on the next page may be older.
	Events []Event
	// Next is the Cursor of what comes after; empty at the end.
	Next string
}

// Log reads. It may be used concurrently.
type Log struct {
	open func(context.Context) (bus.Stream, error)

	mu     sync.Mutex
	stream bus.Stream // guarded by mu; nil until it was opened
}

// NewLog returns a Log on the stream that open opens, when it is first read.
func NewLog(open func(context.Context) (bus.Stream, error)) *Log { return &Log{open: open} }

func (l *Log) get(ctx context.Context) (bus.Stream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream == nil {
		s, err := l.open(ctx)
		if err != nil {
			return nil, err
		}
		l.stream = s
	}
	return l.stream, nil
}

// reading is how many records are read at once, and readMost how many in one List:
// where few of them are asked for the rest is for the next page.
const (
	reading  = 256
	readMost = 4096
)

// List returns events of a tenant. The error is Invalid for a Cursor that is none.
func (l *Log) List(ctx context.Context, tenant string, q Query) (*Page, error) {
	page, err := l.list(ctx, tenant, q)
	if err == nil {
		slices.SortStableFunc(page.Events, func(a, b Event) int { return a.At.Compare(b.At) })
	}
	return page, err
}

// list is List in the order of the stream.
func (l *Log) list(ctx context.Context, tenant string, q Query) (*Page, error) {
	filter := tenant + ".*"
	if q.Client != "" {
		filter = subject(tenant, slotOf(q.Client))
	}
	after, skip := uint64(0), 0
	if q.Cursor != "" {
		if n, err := fmt.Sscanf(q.Cursor, "%d.%d", &after, &skip); n != 2 || err != nil {
			return nil, errs.Coded(errs.Invalid, "cursor_invalid", "expected a cursor of an answer before, found %q", q.Cursor)
		}
	}
	s, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	page := &Page{}
	for read := 0; read < readMost; read += reading {
		// A record is of a second, and the first of them may have waited for the bus.
		records, err := s.Read(ctx, bus.Read{Filter: filter, After: after, Since: q.Since, Most: reading})
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			var all []Event
			if err := json.Unmarshal(r.Body, &all); err != nil {
				return nil, errs.New(errs.Internal, "stored events %d: %w", r.Sequence, err)
			}
			for i := min(skip, len(all)); i < len(all); i++ {
				if !q.wants(&all[i]) {
					continue
				}
				if len(page.Events) == q.Most {
					page.Next = fmt.Sprintf("%d.%d", r.Sequence-1, i)
					return page, nil
				}
				page.Events = append(page.Events, all[i])
			}
			skip = 0
			after = r.Sequence
		}
		if len(records) < reading {
			return page, nil
		}
	}
	page.Next = fmt.Sprintf("%d.0", after)
	return page, nil
}

// Follow calls f, one at a time, with what happens from now on, until ctx is done.
func (l *Log) Follow(ctx context.Context, tenant string, q Query, f func(Event)) error {
	s, err := l.get(ctx)
	if err != nil {
		return err
	}
	filter := tenant + ".*"
	if q.Client != "" {
		filter = subject(tenant, slotOf(q.Client))
	}
	return s.Follow(ctx, filter, func(r bus.Record) {
		var all []Event
		if json.Unmarshal(r.Body, &all) != nil {
			return
		}
		for i := range all {
			if q.wants(&all[i]) {
				f(all[i])
			}
		}
	})
}
