// SPDX-License-Identifier: Apache-2.0

// Package lease is locks that several processes have in common, in a bucket of the bus.
// A lock is a key that its holder writes again every now and then; one that stands still
// for longer than its life, by the clock of who waits for it, is taken over. So nobody's
// clock is compared with another's. A holder that stood still itself may not be the only
// one, until it runs again and notices: what it does has to be harmless then. Each lock that
// is held owns a goroutine. A Worker does work that several processes share, under such locks.
package lease

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// Config says what Leases stand on.
type Config struct {
	Bucket bus.Bucket
	// Life is for how long a lock may stand still; 0 means DefaultLife. It is written
	// again three times in that time.
	Life time.Duration
	Log  *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// DefaultLife is the life of a lock that nobody holds any more.
const DefaultLife = 15 * time.Second

// seenFor is for how many lives a sighting is kept that nothing came of.
const seenFor = 8

// Leases are the locks as one process takes them. They are safe for concurrent use, and
// are held against others of the same process too.
type Leases struct {
	cfg Config
	me  string

	mu   sync.Mutex
	seen map[string]sighting // guarded by mu; others' locks
	held map[string]*holding // guarded by mu
}

// sighting is since when a lock has stood still.
type sighting struct {
	revision bus.Revision
	since    time.Time
}

type holding struct {
	stop context.CancelFunc
	lost context.CancelFunc // of what Hold returned
	done chan struct{}
	// revision is set until done is closed by its goroutine, then read by Unlock.
	revision bus.Revision
}

// New returns the locks of a bucket.
func New(cfg Config) *Leases {
	if cfg.Life <= 0 {
		cfg.Life = DefaultLife
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Leases{cfg: cfg, me: rand.Text(), seen: map[string]sighting{}, held: map[string]*holding{}}
}

// Key is the key of a lock in the bucket: any text may be a name.
func Key(name string) string { return "lock." + base64.RawURLEncoding.EncodeToString([]byte(name)) }

// TryLock takes a lock unless somebody has it, and reports whether it did. Who asks again
// and again takes over a lock whose holder is gone.
func (l *Leases) TryLock(ctx context.Context, name string) (bool, error) {
	_, ok, err := l.Hold(ctx, name)
	return ok, err
}

// Hold is TryLock. held ends with ctx, and when the lock is let go or lost: because another
// process has taken it, or could have, since it was not written again for its life.
func (l *Leases) Hold(ctx context.Context, name string) (held context.Context, ok bool, err error) {
	key := Key(name)
	at := bus.Absent
	e, err := l.cfg.Bucket.Get(ctx, key)
	switch {
	case err == nil:
		if !l.dead(key, e.Revision) {
			return nil, false, nil
		}
		at = e.Revision
	case !errs.Is(err, errs.NotFound):
		return nil, false, err
	default:
		l.mu.Lock()
		delete(l.seen, key)
		l.mu.Unlock()
	}
	asked := time.Now()
	rev, err := l.cfg.Bucket.Put(ctx, key, []byte(l.me), at)
	if errs.Is(err, errs.Conflict) { // somebody was faster
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if at != bus.Absent {
		l.cfg.Log.Warn("the lock of a process that is gone was taken over", "lock", name)
	}
	renewing, stop := context.WithCancel(context.Background())
	held, lost := context.WithCancel(ctx)
	h := &holding{stop: stop, lost: lost, done: make(chan struct{}), revision: rev}
	l.mu.Lock()
	delete(l.seen, key)
	l.held[key] = h
	l.mu.Unlock()
	go l.renew(renewing, key, h, asked)
	return held, true, nil
}

// dead reports whether a lock has stood still for its life.
func (l *Leases) dead(key string, revision bus.Revision) bool {
	now := l.cfg.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.seen[key]
	if !ok || s.revision != revision {
		// Nobody waits any more for one that was seen so long ago.
		maps.DeleteFunc(l.seen, func(_ string, s sighting) bool { return now.Sub(s.since) > seenFor*l.cfg.Life })
		l.seen[key] = sighting{revision, now}
		return false
	}
	return now.Sub(s.since) > l.cfg.Life
}

// renew writes a lock again until it is let go, or somebody else has it. written is when it
// was written last: others wait from a later moment on.
func (l *Leases) renew(ctx context.Context, key string, h *holding, written time.Time) {
	defer close(h.done)
	tick := time.NewTicker(l.cfg.Life / 3)
	defer tick.Stop()
	old := time.AfterFunc(l.cfg.Life-time.Since(written), func() {
		l.cfg.Log.Warn("a lock could not be written again for its life: another process may have it", "key", key)
		h.lost()
	})
	defer old.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		call, cancel := context.WithTimeout(ctx, l.cfg.Life/3)
		written = time.Now()
		rev, err := l.cfg.Bucket.Put(call, key, []byte(l.me), h.revision)
		cancel()
		switch {
		case err == nil:
			h.revision = rev
			old.Reset(l.cfg.Life - time.Since(written))
		case errs.Is(err, errs.Conflict):
			l.cfg.Log.Warn("a lock was lost to another process", "key", key)
			h.lost()
			return
		}
	}
}

// waitEvery is how often Lock looks.
const waitEvery = 250 * time.Millisecond

// Lock waits until it has the lock, or until ctx is done.
func (l *Leases) Lock(ctx context.Context, name string) error {
	for {
		ok, err := l.TryLock(ctx, name)
		if ok || err != nil {
			return err
		}
		select {
		case <-time.After(waitEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Unlock lets go of a lock that this process holds. One that was lost meanwhile is left
// to whoever has it.
func (l *Leases) Unlock(ctx context.Context, name string) error {
	key := Key(name)
	l.mu.Lock()
	h := l.held[key]
	delete(l.held, key)
	l.mu.Unlock()
	if h == nil {
		return errs.New(errs.Internal, "unlock %q: it is not held here", name)
	}
	h.stop()
	h.lost()
	<-h.done
	err := l.cfg.Bucket.Delete(ctx, key, h.revision)
	if errs.Is(err, errs.Conflict) || errs.Is(err, errs.NotFound) {
		return nil
	}
	return err
}
