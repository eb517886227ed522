// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

const (
	// groupMost is how many bytes are applied at once.
	groupMost = 4 << 20
	// slowAfter is after how many groups a replica is wiped though more waits.
	slowAfter = 32
	// retryWrite is the pause after a failed write, such as on a full disk.
	retryWrite = time.Second
)

// op is a write, or a load if write is the zero Write.
type op struct {
	r       *replica
	write   partition.Write
	load    partition.Load
	started bool // the mark behind what was written at the start
}

// disk writes in groups: what comes while a group is written makes the next one. What is
// behind a wipe of its replica, which may take long, is written in groups of its own, one
// replica at a time, when nothing else is left or slowAfter groups have passed: others
// wait for their commits.
type disk struct {
	host *Host
	wake chan struct{}

	mu     sync.Mutex
	queued []op // guarded by mu

	// All below belongs to run.
	batch kv.Batch
	sync  bool // something in the batch, or applied before it, asks for it
	dirty bool // something was applied and not synced
	// broken are the replicas of which nothing is written any more, and newest the
	// writes of a group that are to be told, by their replica.
	broken map[*replica]bool
	newest map[*replica]uint64
	// slow are ops of replicas that are to be wiped, in their order; passed counts the
	// groups since some of them were written.
	slow   []op
	passed int
}

// give queues a turn's ops. It copies them.
func (d *disk) give(ops []op) {
	if len(ops) == 0 {
		return
	}
	d.mu.Lock()
	d.queued = append(d.queued, ops...)
	d.mu.Unlock()
	signal(d.wake)
}

// run writes until ctx is done, then syncs what was written. What was queued and
// not written is dropped: it was told to nobody.
func (d *disk) run(ctx context.Context) error {
	d.broken, d.newest = make(map[*replica]bool), make(map[*replica]uint64)
	every := d.host.config.Sync.Every
	var syncC <-chan time.Time
	if every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		syncC = t.C
	}
	var group []op
	for {
		select {
		case <-ctx.Done():
			if d.dirty && every >= 0 {
				return d.host.config.Store.Apply(&kv.Batch{}, true)
			}
			return nil
		case <-syncC:
			if d.dirty {
				if err := d.host.config.Store.Apply(&kv.Batch{}, true); err != nil {
					d.host.log.Error("sync of the store failed", slog.Any("error", err))
				} else {
					d.dirty = false
				}
			}
		case <-d.wake:
			d.mu.Lock()
			group, d.queued = d.queued, group[:0]
			d.mu.Unlock()
			err := d.group(ctx, d.first(group))
			if d.passed++; err == nil && len(d.slow) > 0 && (len(group) == 0 || d.passed >= slowAfter) {
				d.passed = 0
				err = d.group(ctx, d.oneSlow())
			}
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			clear(group)
			if len(d.slow) > 0 {
				signal(d.wake)
			}
		}
	}
}

// first puts aside what is behind a wipe of its replica, and returns the rest of a group,
// in its memory.
func (d *disk) first(group []op) []op {
	wiped := make(map[*replica]bool)
	for i := range d.slow {
		wiped[d.slow[i].r] = true
	}
	rest := group[:0]
	for i := range group {
		o := group[i]
		switch {
		case o.started: // it is behind all that was written before
			rest = slices.Concat(rest, d.slow, group[i:i+1])
			d.slow = nil
			clear(wiped)
		case wiped[o.r] || o.write.Kind == partition.Wipe:
			wiped[o.r] = true
			d.slow = append(d.slow, o)
		default:
			rest = append(rest, o)
		}
	}
	return rest
}

// oneSlow takes the ops of one replica that were put aside.
func (d *disk) oneSlow() (ops []op) {
	var left []op
	for _, o := range d.slow {
		if o.r == d.slow[0].r {
			ops = append(ops, o)
		} else {
			left = append(left, o)
		}
	}
	d.slow = left
	return ops
}

// group carries out ops, then tells who asked.
func (d *disk) group(ctx context.Context, ops []op) error {
	started, writes := false, 0
	for i := range ops {
		o := &ops[i]
		started = started || o.started
		if o.write.Kind == 0 || d.broken[o.r] {
			continue
		}
		switch err := d.stage(ctx, o); {
		case errors.Is(err, kv.ErrCorrupt):
			d.broken[o.r] = true
			r := o.r // ops are used again
			d.host.post(func() { d.host.fail(r, err) })
			continue
		case err != nil:
			return err
		}
		writes++
		d.newest[o.r] = o.write.Ticket
		if d.batch.Size() >= groupMost {
			if err := d.apply(ctx); err != nil {
				return err
			}
		}
	}
	if err := d.apply(ctx); err != nil {
		return err
	}
	if writes > 0 {
		d.host.counted.groups.Add(1)
		d.host.counted.writes.Add(uint64(writes))
		newest := d.newest
		d.newest = make(map[*replica]uint64, len(newest))
		d.host.post(func() {
			for r, ticket := range newest {
				d.host.step(r, &partition.Event{Kind: partition.Written, Ticket: ticket})
			}
		})
	}
	if started && d.host.config.Started != nil {
		d.host.config.Started()
	}
	for i := range ops {
		if o := &ops[i]; o.write.Kind == 0 && !o.started {
			d.host.loader.give(o.r, o.load)
		}
	}
	return nil
}

// stage adds a write to the batch, again and again while the store refuses: what
// can be staged twice says the same.
func (d *disk) stage(ctx context.Context, o *op) error {
	return d.insist(ctx, func() error {
		sync, err := partition.Stage(d.host.config.Store, o.r.id, &o.write, &d.batch)
		d.sync = d.sync || sync
		// What was staged may have been applied without being synced.
		d.dirty = true
		return err
	})
}

// apply writes the batch, synced if something in it asks for that. A sync covers
// what was applied before it too, so one at the end serves the whole group.
func (d *disk) apply(ctx context.Context) error {
	sync := d.sync || d.host.config.Sync.Every == 0 && d.dirty
	if d.batch.Len() == 0 && !sync {
		return nil
	}
	err := d.insist(ctx, func() error { return d.host.config.Store.Apply(&d.batch, sync) })
	if err != nil {
		return err
	}
	d.batch.Reset()
	d.sync, d.dirty = false, !sync
	return nil
}

// insist does do until it succeeds, ctx is done, or nothing can help. What waits for
// it stays unacknowledged meanwhile.
func (d *disk) insist(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || errors.Is(err, kv.ErrClosed) || errors.Is(err, kv.ErrCorrupt) {
			d.host.counted.failing.Store(false)
			return err
		}
		d.host.counted.failing.Store(true)
		d.host.log.Error("a write failed; nothing is acknowledged until one succeeds", slog.Any("error", err), slog.Int("bytes", d.batch.Size()))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryWrite):
		}
	}
}
