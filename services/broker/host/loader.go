// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

// snapshotIdle is after what time a snapshot that nobody asks more of is closed: it
// keeps the store from forgetting what was overwritten.
const snapshotIdle = 30 * time.Second

// loaderRest is how many times as long as a piece of a snapshot took to be read nothing
// is read: the processors and the disk are for those who wait.
const loaderRest = 3

// loader reads what followers lack. Answering late is how catching up is throttled.
type loader struct {
	host *Host
	wake chan struct{}

	mu     sync.Mutex
	queued []wanted // guarded by mu

	open map[snapshotKey]*snapshot // of run
}

type wanted struct {
	r    *replica
	load partition.Load
}

type snapshotKey struct {
	p    partition.ID
	peer partition.Broker
}

type snapshot struct {
	*partition.Snapshot
	id   uint64
	part uint32
	used time.Time
}

// give queues a load, whose writes before are done.
func (l *loader) give(r *replica, load partition.Load) {
	l.mu.Lock()
	l.queued = append(l.queued, wanted{r, load})
	l.mu.Unlock()
	signal(l.wake)
}

func (l *loader) run(ctx context.Context) {
	defer l.shut(0)
	sweep := time.NewTicker(snapshotIdle / 2)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			l.shut(snapshotIdle)
			continue
		case <-l.wake:
		}
		l.mu.Lock()
		queued := l.queued
		l.queued = nil
		l.mu.Unlock()
		for i := range queued {
			begun := time.Now()
			size := l.load(&queued[i])
			pause := time.Duration(size) * time.Second / time.Duration(l.host.config.CatchUp())
			if queued[i].load.Part != 0 { // no client waits for a snapshot
				pause = max(pause, min(loaderRest*time.Since(begun), restMost))
			}
			if pause == 0 {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}
}

// shut closes the snapshots that were not used for so long.
func (l *loader) shut(idle time.Duration) {
	for k, s := range l.open {
		if time.Since(s.used) >= idle {
			s.Close()
			delete(l.open, k)
		}
	}
}

// load answers one load and returns how many bytes it read.
func (l *loader) load(w *wanted) (size int) {
	e := partition.Event{Kind: partition.Loaded, Load: w.load}
	var err error
	if w.load.Part == 0 {
		e.Records, err = partition.ReadLog(l.host.config.Store, w.r.id, &w.load)
		for i := range e.Records {
			size += len(e.Records[i].Batch)
		}
	} else {
		e.Batch, e.Last, e.Done, err = l.piece(w)
		size = len(e.Batch)
		l.host.counted.pieces.Add(1)
	}
	if err != nil {
		e.Failed = true
		l.host.log.Warn("nothing can be read for a follower", slog.Int("partition", int(w.r.id)), slog.String("to", string(w.load.Peer)), slog.Any("error", err))
	} else if e.Done {
		l.host.counted.snapshots.Add(1)
	}
	l.host.post(func() { l.host.step(w.r, &e) })
	return size
}

// piece reads the next piece of a snapshot.
func (l *loader) piece(w *wanted) (batch []byte, last partition.Last, done bool, err error) {
	k := snapshotKey{w.r.id, w.load.Peer}
	s := l.open[k]
	if w.load.Part == 1 {
		if s != nil {
			s.Close()
		}
		s = &snapshot{Snapshot: partition.NewSnapshot(l.host.config.Store, w.r.id), id: w.load.Snapshot}
		l.open[k] = s
	}
	if s == nil || s.id != w.load.Snapshot || s.part+1 != w.load.Part {
		return nil, last, false, kv.ErrNotFound
	}
	s.part++
	s.used = time.Now()
	batch, last, done, err = s.Next(w.load.Bytes)
	if done || err != nil {
		s.Close()
		delete(l.open, k)
	}
	return batch, last, done, err
}
