// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"
)

const (
	// againAfter is when an item is tried again that another process sees to, or while the bus is
	// away.
	againAfter = 5 * time.Second
	// sleepMost is for how long a Worker sleeps at most.
	sleepMost = 15 * time.Minute
)

// WorkerConfig says what a Worker does. All but Now are needed.
type WorkerConfig[T any] struct {
	Leases *Leases
	// Name is what the log calls the work, such as "purge".
	Name string
	// Lock is the lock under which the item of a key is seen to: those that have the same one
	// are seen to one at a time.
	Lock func(key string) string
	// Watch tells Edit of what is to be done until ctx is done. It is called again when it
	// returns before.
	Watch func(ctx context.Context) error
	// See sees to an item that is due, as it was then, and says by Edit when it is due next: it is
	// due still if that is not said. ctx is done when the lock is lost.
	See func(ctx context.Context, key string, x T)
	// Show is told of all items each time that they are looked through. It must not call the
	// Worker.
	Show func(all iter.Seq[T])
	Log  *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Worker sees to items, one at a time, each when it is due and under a lock that all processes
// have in common: so of any number of them that are told of the same one has it, and where that
// one is gone another goes on. Make it with NewWorker; Run is called once. Other methods are safe
// for concurrent use.
type Worker[T any] struct {
	cfg  WorkerConfig[T]
	wake chan struct{} // holds a token when known has changed

	mu    sync.Mutex
	known map[string]*Item[T] // guarded by mu; by key
}

// Item is something that is to be seen to.
type Item[T any] struct {
	Value T
	// Due is when; the zero time is now.
	Due time.Time
}

// NewWorker returns a Worker that works while Run runs.
func NewWorker[T any](cfg WorkerConfig[T]) *Worker[T] {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	w := &Worker[T]{cfg: cfg, wake: make(chan struct{}, 1), known: map[string]*Item[T]{}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.show()
	return w
}

// Run sees to what is due until ctx is done.
func (w *Worker[T]) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := w.cfg.Watch(ctx); err != nil && ctx.Err() == nil {
				w.cfg.Log.Warn("what is to be done is not watched", "work", w.cfg.Name, "error", err, "retry_in", againAfter)
				select {
				case <-time.After(againAfter):
				case <-ctx.Done():
				}
			}
		}
	})
	for ctx.Err() == nil {
		key, x, next := w.due()
		if x != nil {
			w.see(ctx, key, *x)
			continue
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-w.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// Edit changes what is known of an item: f has a new one if known is false, and reports whether
// there is to be one. It must not call the Worker.
func (w *Worker[T]) Edit(key string, f func(x *Item[T], known bool) bool) {
	w.mu.Lock()
	x, known := w.known[key]
	if !known {
		x = &Item[T]{}
	}
	keep := f(x, known)
	if keep {
		w.known[key] = x
	} else {
		delete(w.known, key)
	}
	w.mu.Unlock()
	if !keep && !known {
		return // one of very many that need nothing
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// due is the item that is due for longest; without one, nil, it is when the next is.
func (w *Worker[T]) due() (key string, x *T, next time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.show()
	now := w.cfg.Now()
	next = sleepMost
	var first time.Time
	for k, i := range w.known {
		if left := i.Due.Sub(now); left > 0 {
			next = min(next, left)
		} else if x == nil || i.Due.Before(first) {
			value := i.Value
			key, x, first = k, &value, i.Due
		}
	}
	return key, x, next
}

// show tells Show. The caller holds mu.
func (w *Worker[T]) show() {
	w.cfg.Show(func(yield func(T) bool) {
		for _, i := range w.known {
			if !yield(i.Value) {
				return
			}
		}
	})
}

// see has an item be seen to, unless another process has its lock.
func (w *Worker[T]) see(ctx context.Context, key string, x T) {
	lock := w.cfg.Lock(key)
	held, ok, err := w.cfg.Leases.Hold(ctx, lock)
	if err != nil && ctx.Err() == nil {
		w.cfg.Log.Warn("a lock could not be asked for", "work", w.cfg.Name, "lock", lock, "error", err, "retry_in", againAfter)
	}
	if err != nil || !ok {
		w.later(key)
		return
	}
	defer func() {
		if err := w.cfg.Leases.Unlock(context.WithoutCancel(ctx), lock); err != nil {
			w.cfg.Log.Warn("a lock stays until its life is over", "work", w.cfg.Name, "lock", lock, "error", err)
		}
	}()
	w.cfg.See(held, key, x)
}

// later has an item be tried again in a while.
func (w *Worker[T]) later(key string) {
	w.Edit(key, func(x *Item[T], known bool) bool {
		x.Due = w.cfg.Now().Add(againAfter)
		return known
	})
}
