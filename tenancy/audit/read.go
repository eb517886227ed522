// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"slices"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Query chooses records. The zero value chooses all.
type Query struct {
	// Before leaves out records from that number on; 0 leaves out none.
	Before uint64
	// From and To bound the time, both ends within.
	From, To time.Time
	// Actor, Tenant and Operation, if not empty, must be the same.
	Actor, Tenant, Operation string
}

func (q *Query) wants(r *Record) bool {
	return (q.To.IsZero() || !r.At.After(q.To)) && (q.Actor == "" || r.Actor.ID == q.Actor) &&
		(q.Tenant == "" || r.Tenant == q.Tenant) && (q.Operation == "" || r.Operation == q.Operation)
}

// lookMax is how many records one List reads.
const lookMax = 10_000

// List returns at most limit records, the newest first, and the Before of the
// next page, 0 at the end. A page may be short, or empty, where a query leaves
// out many.
func (l *Log) List(ctx context.Context, organization string, q Query, limit int) (page []Record, next uint64, err error) {
	n := q.Before
	if n == 0 {
		h, err := l.end(ctx, organization)
		if err != nil {
			return nil, 0, err
		}
		n = h.N + 1
	}
	for looked := 0; n > 1; looked++ {
		if len(page) == limit || looked == lookMax {
			return page, n, nil
		}
		r, err := l.record(ctx, organization, n-1)
		if errs.Is(err, errs.NotFound) {
			return page, 0, nil // older ones were removed
		}
		if err != nil {
			return nil, 0, err
		}
		// A clock may step back a little, not by an hour.
		if !q.From.IsZero() && r.At.Before(q.From.Add(-time.Hour)) {
			return page, 0, nil
		}
		if n--; q.wants(&r) && (q.From.IsZero() || !r.At.Before(q.From)) {
			page = append(page, r)
		}
	}
	return page, 0, nil
}

// end is the newest head, whatever is known here.
func (l *Log) end(ctx context.Context, organization string) (known, error) {
	end, err := l.turn(ctx, organization)
	if err != nil {
		return known{}, err
	}
	defer end()
	l.forget(organization)
	return l.head(ctx, organization)
}

// Each calls f with every record that is kept, the oldest first.
func (l *Log) Each(ctx context.Context, organization string, f func(Record) error) error {
	numbers, err := l.numbers(ctx, organization)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		r, err := l.record(ctx, organization, n)
		if errs.Is(err, errs.NotFound) && n < numbers[len(numbers)-1] {
			continue // retention was faster
		}
		if err == nil {
			err = f(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// numbers lists the records that are there, in order.
func (l *Log) numbers(ctx context.Context, organization string) ([]uint64, error) {
	keys, err := l.records.Keys(ctx, organization+".")
	if err != nil {
		return nil, err
	}
	all := make([]uint64, 0, len(keys))
	for _, k := range keys {
		if n, ok := number(k[len(organization)+1:]); ok {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

// Verify checks the whole chain of an organization as it is stored: that each
// record is what its hash says and follows the one before, that none is missing
// between the oldest that retention has left and the newest. The error is
// Invalid with Code "audit_broken" if something was changed or taken away.
func (l *Log) Verify(ctx context.Context, organization string) (Chain, error) {
	var c Chain
	// What is appended meanwhile is in the next check.
	h, err := l.stored(ctx, organization)
	if err != nil {
		return c, err
	}
	if err := l.Each(ctx, organization, func(r Record) error { return c.Add(r) }); err != nil {
		return c, err
	}
	if h.N == 0 && c.First == 0 {
		return c, nil
	}
	if c.First > h.First {
		// Retention may have gone on since.
		if h, err = l.stored(ctx, organization); err != nil {
			return c, err
		}
	}
	switch {
	case c.First == 0 || c.First > h.First:
		return c, errs.Coded(errs.Invalid, "audit_broken", "audit record %d is missing", h.First)
	case c.Last < h.N:
		return c, errs.Coded(errs.Invalid, "audit_broken", "audit record %d is missing", c.Last+1)
	}
	return c, nil
}
