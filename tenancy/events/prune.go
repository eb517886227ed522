// SPDX-License-Identifier: Apache-2.0

package events

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// pruneEvery is how often what is too old is looked for, and prunePause the pause
// between two tenants: nobody waits for it.
const (
	pruneEvery = time.Hour
	prunePause = 10 * time.Millisecond
)

// DaysOf says of each tenant for how many days its events are kept; a negative number is
// for as long as there is room.
type DaysOf func(context.Context) (map[string]int64, error)

// Run removes each hour what tenants do not keep for longer, until ctx is done. Any
// number of processes may do it.
func (l *Log) Run(ctx context.Context, days DaysOf, log *slog.Logger) error {
	t := time.NewTicker(pruneEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if err := l.Prune(ctx, time.Now(), days); err != nil && ctx.Err() == nil {
			log.Warn("old events of clients are not removed; it is tried again in an hour", "error", err)
		}
	}
}

// Prune removes the events that are older than their tenants keep them. It ends with the
// first error Unavailable: the bus is away for all of them. Of others, which are of one
// tenant, it returns the first, and says of how many tenants there are some.
func (l *Log) Prune(ctx context.Context, now time.Time, days DaysOf) error {
	of, err := days(ctx)
	if err != nil {
		return err
	}
	s, err := l.get(ctx)
	if err != nil {
		return err
	}
	var first error
	failed := 0
	for tenant, n := range of {
		if n < 0 || n >= Days { // the stream itself
			continue
		}
		err := s.Remove(ctx, tenant+".*", now.Add(-time.Duration(n)*24*time.Hour))
		switch {
		case errs.Is(err, errs.Unavailable):
			return err
		case err != nil:
			if failed++; first == nil {
				first = fmt.Errorf("of %s: %w", tenant, err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(prunePause):
		}
	}
	if first != nil {
		return fmt.Errorf("the old events of %d tenants are not removed; the first error is %w", failed, first)
	}
	return nil
}

// Forget removes all events of a tenant.
func (l *Log) Forget(ctx context.Context, tenant string) error {
	s, err := l.get(ctx)
	if err != nil {
		return err
	}
	return s.Remove(ctx, tenant+".*", time.Now().Add(time.Hour)) // whatever the bus's clock
}
