// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

const (
	// groupMost is how many bytes are applied at once.
	groupMost = 4 << 20
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

// disk writes in groups: what comes while a group is written makes the next one. Commits
// wait for that and for nothing else: syncs (sync.go), and wipes and copies, which are
// long (lane.go), have goroutines of their own.
type disk struct {
	host *Host
	// wake and toSync wake two of the goroutines.
	wake, toSync chan struct{}
	lanes        [2]lane

	mu     sync.Mutex
	queued []op   // guarded by mu
	syncs  unsync // guarded by mu
}

func newDisk(h *Host) *disk {
	d := &disk{
		host: h, wake: make(chan struct{}, 1), toSync: make(chan struct{}, 1),
		syncs: unsync{waiting: make(map[*replica]unsynced)},
	}
	for i := range d.lanes {
		d.lanes[i] = lane{disk: d, wake: make(chan struct{}, 1), of: make(map[*replica]bool), rest: laneRest[i]}
	}
	return d
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	parts := []func(context.Context) error{d.write, d.sync, d.lanes[0].run, d.lanes[1].run}
	failed := make([]error, len(parts))
	for i, do := range parts {
		wg.Go(func() {
			if err := do(ctx); err != nil && ctx.Err() == nil {
				failed[i] = err
				cancel()
			}
		})
	}
	wg.Wait()
	if err := errors.Join(failed...); err != nil || d.host.config.Sync.Every < 0 {
		return err
	}
	return d.host.config.Store.Apply(&kv.Batch{}, true)
}

// write writes what is given, but for what goes to a lane.
func (d *disk) write(ctx context.Context) error {
	w := writer{disk: d, newest: make(map[*replica]unsynced), store: d.host.config.Store}
	var group []op
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		}
		d.mu.Lock()
		group, d.queued = d.queued, group[:0]
		first, slow := d.splitLocked(group)
		d.mu.Unlock()
		if err := w.group(ctx, first); err != nil {
			return err
		}
		d.toLanes(slow) // not before: they are behind what was given before
		clear(group)
	}
}

// writer carries groups out, for one goroutine.
type writer struct {
	*disk
	store kv.Store
	batch kv.Batch
	// newest are the writes of a group that are to be told, by their replica.
	newest map[*replica]unsynced
}

// group carries out ops, then tells who asked.
func (w *writer) group(ctx context.Context, ops []op) error {
	started, writes := false, 0
	for i := range ops {
		o := &ops[i]
		started = started || o.started
		if o.write.Kind == 0 || o.r.unwritable {
			continue
		}
		sync, err := w.stage(ctx, o)
		switch {
		case errors.Is(err, kv.ErrCorrupt):
			o.r.unwritable = true
			r := o.r // ops are used again
			w.host.post(func() { w.host.fail(r, err) })
			continue
		case err != nil:
			return err
		}
		writes++
		u := w.newest[o.r]
		if u.newest = o.write.Ticket; sync || w.host.config.Sync.Every == 0 {
			u.due = o.write.Ticket
		}
		w.newest[o.r] = u
		if w.batch.Size() >= groupMost {
			if err := w.apply(ctx); err != nil {
				return err
			}
		}
	}
	if err := w.apply(ctx); err != nil {
		return err
	}
	if writes > 0 {
		w.host.counted.groups.Add(1)
		w.host.counted.writes.Add(uint64(writes))
	}
	if writes > 0 || started {
		w.tell(w.applied(w.newest, started))
		clear(w.newest)
	}
	for i := range ops {
		if o := &ops[i]; o.write.Kind == 0 && !o.started {
			w.host.loader.give(o.r, o.load)
		}
	}
	return nil
}

// stage adds a write to the batch, again and again while the store refuses: what
// can be staged twice says the same.
func (w *writer) stage(ctx context.Context, o *op) (sync bool, err error) {
	err = w.insist(ctx, func() (err error) {
		sync, err = partition.Stage(w.store, o.r.id, &o.write, &w.batch)
		return err
	})
	return sync, err
}

// apply writes the batch. Who waits for its sync is told by sync.
func (w *writer) apply(ctx context.Context) error {
	if w.batch.Len() == 0 {
		return nil
	}
	if err := w.insist(ctx, func() error { return w.store.Apply(&w.batch, false) }); err != nil {
		return err
	}
	w.batch.Reset()
	return nil
}

// insist does do until it succeeds, ctx is done, or nothing can help. What waits for
// it stays unacknowledged meanwhile.
func (d *disk) insist(ctx context.Context, do func() error) error {
	failing := false
	defer func() {
		if failing {
			d.host.counted.failing.Add(-1)
		}
	}()
	for {
		err := do()
		if err == nil || errors.Is(err, kv.ErrClosed) || errors.Is(err, kv.ErrCorrupt) {
			return err
		}
		if !failing {
			failing = true
			d.host.counted.failing.Add(1)
		}
		d.host.log.Error("a write failed; nothing is acknowledged until one succeeds", slog.Any("error", err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryWrite):
		}
	}
}
