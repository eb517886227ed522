// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/kv"
)

// Sync says when what is committed also survives the loss of power. What is
// committed survives the death of the process under every policy.
type Sync struct {
	// Every is the longest time between a commit and its sync to disk; 0 syncs
	// with every commit, a negative value never.
	Every time.Duration
}

// ParseSync reads "commit", "none" or a duration such as "20ms".
func ParseSync(s string) (Sync, error) {
	switch s {
	case "commit":
		return Sync{Every: 0}, nil
	case "none":
		return Sync{Every: -1}, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return Sync{}, fmt.Errorf("sync: %q is neither \"commit\", \"none\" nor a duration above zero such as \"20ms\"", s)
	}
	return Sync{Every: d}, nil
}

// Owner hears that its batches are durable. Committed is called from the
// committer's goroutine, in the order of the tickets, and must not block.
type Owner interface {
	Committed(ticket uint64, batch *kv.Batch)
}

// Committer writes the batches of all shards in groups: whatever came while a
// group was written makes the next one. Submit may be called concurrently.
type Committer struct {
	store kv.Store
	sync  Sync
	log   *slog.Logger

	mu struct {
		sync.Mutex
		waiting []submission
		closed  bool
		// since is when the first of those that are not written was submitted, and
		// slowest the longest that any took since Latency was asked.
		since   time.Time
		writing time.Time
		slowest time.Duration
	}
	wake chan struct{}

	groups  atomic.Uint64
	batches atomic.Uint64
	failing atomic.Bool
}

type submission struct {
	owner  Owner
	ticket uint64
	batch  *kv.Batch
}

// NewCommitter makes a Committer over store. Nothing is written before Run.
func NewCommitter(store kv.Store, s Sync, log *slog.Logger) *Committer {
	return &Committer{store: store, sync: s, log: log, wake: make(chan struct{}, 1)}
}

// Submit queues batch. The batch belongs to the committer until Committed
// gives it back. After Run has returned nothing is written any more and
// Committed is not called.
func (c *Committer) Submit(owner Owner, ticket uint64, batch *kv.Batch) {
	c.mu.Lock()
	c.mu.waiting = append(c.mu.waiting, submission{owner, ticket, batch})
	first := len(c.mu.waiting) == 1
	if first {
		c.mu.since = time.Now()
	}
	c.mu.Unlock()
	if first {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// Stats returns how many groups were written and how many batches they held.
func (c *Committer) Stats() (groups, batches uint64) { return c.groups.Load(), c.batches.Load() }

// Latency is the longest time from Submit until a batch was written, since it was
// asked last, or for which one waits now.
func (c *Committer) Latency() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.mu.slowest
	c.mu.slowest = 0
	if !c.mu.writing.IsZero() {
		d = max(d, time.Since(c.mu.writing))
	}
	return d
}

// Failing reports whether the newest write failed: nothing is acknowledged
// until one succeeds.
func (c *Committer) Failing() bool { return c.failing.Load() }

// retryWrite is the pause after a failed write, such as on a full disk.
const retryWrite = time.Second

// Run writes until ctx is done, then writes what is still waiting, syncs and
// returns.
func (c *Committer) Run(ctx context.Context) error {
	var (
		taken  []submission
		merged kv.Batch
		dirty  bool
		syncC  <-chan time.Time
	)
	if c.sync.Every > 0 {
		t := time.NewTicker(c.sync.Every)
		defer t.Stop()
		syncC = t.C
	}
	var none kv.Batch
	for done := false; ; {
		select {
		case <-ctx.Done():
			done = true
		case <-c.wake:
		case <-syncC:
			if dirty {
				if err := c.store.Apply(&none, true); errors.Is(err, kv.ErrCorrupt) {
					return fmt.Errorf("sync of the store: %w", err)
				} else if err != nil {
					c.log.Error("sync of the store failed", slog.Any("error", err))
				} else {
					dirty = false
				}
			}
			continue
		}
		c.mu.Lock()
		taken, c.mu.waiting = c.mu.waiting, taken[:0]
		if len(taken) > 0 {
			c.mu.writing = c.mu.since
		}
		c.mu.Unlock()
		if len(taken) > 0 {
			group := taken[0].batch
			if len(taken) > 1 {
				merged.Reset()
				for _, s := range taken {
					merged.Append(s.batch)
				}
				group = &merged
			}
			if err := c.write(ctx, group); err != nil {
				return err
			}
			c.mu.Lock()
			c.mu.slowest, c.mu.writing = max(c.mu.slowest, time.Since(c.mu.writing)), time.Time{}
			c.mu.Unlock()
			dirty = c.sync.Every != 0
			c.groups.Add(1)
			c.batches.Add(uint64(len(taken)))
			for i, s := range taken {
				s.owner.Committed(s.ticket, s.batch)
				taken[i] = submission{}
			}
		}
		if done && len(taken) == 0 {
			if dirty && c.sync.Every >= 0 {
				return c.store.Apply(&none, true)
			}
			return nil
		}
	}
}

// write applies b, again and again while the store refuses it: what waits for
// it stays unacknowledged, and the windows stop the publishers meanwhile.
func (c *Committer) write(ctx context.Context, b *kv.Batch) error {
	for {
		err := c.store.Apply(b, c.sync.Every == 0)
		if err == nil {
			c.failing.Store(false)
			return nil
		}
		c.failing.Store(true)
		if errors.Is(err, kv.ErrCorrupt) { // no later write helps
			return fmt.Errorf("commit: %w", err)
		}
		c.log.Error("commit failed; nothing is acknowledged until one succeeds",
			slog.Any("error", err), slog.Int("bytes", b.Size()))
		select {
		case <-ctx.Done():
			return fmt.Errorf("commit: %w", err)
		case <-time.After(retryWrite):
		}
	}
}
