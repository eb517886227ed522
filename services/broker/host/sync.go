// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"maps"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

// A sync takes as long as the disk needs for what all processes of the machine have
// written: hundreds of milliseconds while replicas are copied. So nothing that is merely
// to be applied waits for one. A replica with a write that counts only when it is on
// stable storage is told of that, and of what it wrote behind it, when the next sync that
// began after the write has ended.

// unsynced are tickets of a replica: that of its newest write that was applied, and of
// the newest of those that must be synced before anybody is told; 0 without one.
type unsynced struct{ newest, due uint64 }

// unsync is what was applied and not synced.
type unsync struct {
	waiting map[*replica]unsynced
	// dirty: something was applied since the newest sync began; started: the mark
	// behind what was written at the start was among it.
	dirty, started bool
}

// applied notes what was applied, and returns what may be told of it at once.
func (d *disk) applied(group map[*replica]unsynced, started bool) (now map[*replica]uint64) {
	d.mu.Lock()
	s := &d.syncs
	s.dirty, s.started = true, s.started || started
	for r, u := range group {
		old, waits := s.waiting[r]
		if u.due == 0 && !waits {
			if now == nil {
				now = make(map[*replica]uint64, len(group))
			}
			now[r] = u.newest
			continue
		}
		s.waiting[r] = unsynced{newest: u.newest, due: max(u.due, old.due)}
	}
	asked := len(s.waiting) > 0 || s.started
	d.mu.Unlock()
	if asked {
		signal(d.toSync)
	}
	return now
}

// sync syncs what was applied: at once if somebody waits for that, else as often as the
// policy has it.
func (d *disk) sync(ctx context.Context) error {
	var every <-chan time.Time
	if d.host.config.Sync.Every > 0 {
		t := time.NewTicker(d.host.config.Sync.Every)
		defer t.Stop()
		every = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every:
		case <-d.toSync:
		}
		d.mu.Lock()
		was := d.syncs
		was.waiting = maps.Clone(was.waiting)
		d.syncs.dirty, d.syncs.started = false, false
		d.mu.Unlock()
		if !was.dirty {
			continue
		}
		if err := d.insist(ctx, func() error { return d.host.config.Store.Apply(&kv.Batch{}, true) }); err != nil {
			return err
		}
		if was.started && d.host.config.Started != nil {
			d.host.config.Started()
		}
		done := make(map[*replica]uint64, len(was.waiting))
		d.mu.Lock()
		for r, u := range was.waiting {
			done[r] = u.newest
			if now := d.syncs.waiting[r]; now.due == u.due { // what came since need not be synced
				done[r] = now.newest
				delete(d.syncs.waiting, r)
			}
		}
		d.mu.Unlock()
		d.tell(done)
	}
}

// tell has replicas know up to where their writes are done.
func (d *disk) tell(newest map[*replica]uint64) {
	if len(newest) == 0 {
		return
	}
	d.host.post(func() {
		for r, ticket := range newest {
			d.host.step(r, &partition.Event{Kind: partition.Written, Ticket: ticket})
		}
	})
}
