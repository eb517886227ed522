// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

type bucket struct {
	ttl time.Duration

	mu       sync.Mutex
	revision bus.Revision      // guarded by mu
	entries  map[string]record // guarded by mu; deleted keys stay, as in a log
	changed  chan struct{}     // guarded by mu; closed at every change
	down     bool              // guarded by mu
}

type record struct {
	bus.Entry
	deleted bool
}

// find returns what a key holds now. The caller holds mu.
func (b *bucket) find(key string) (record, bool) {
	r, ok := b.entries[key]
	if !ok || r.deleted || b.ttl > 0 && time.Since(r.Created) >= b.ttl {
		return record{}, false
	}
	return r, true
}

// write stores a record under the next revision. The caller holds mu.
func (b *bucket) write(r record) bus.Revision {
	b.revision++
	r.Revision, r.Created = b.revision, time.Now()
	b.entries[r.Key] = r
	b.wake()
	return r.Revision
}

// wake tells all watches to look. The caller holds mu.
func (b *bucket) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *bucket) setDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
	b.wake()
}

// check returns why the key cannot be used now. The caller holds mu.
func (b *bucket) check(ctx context.Context, key string) error {
	if err := bus.CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return errs.New(errs.Unavailable, "bucket: %w", err)
	}
	if b.down {
		return errDown()
	}
	return nil
}

func (b *bucket) Get(ctx context.Context, key string) (bus.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.check(ctx, key); err != nil {
		return bus.Entry{}, err
	}
	r, ok := b.find(key)
	if !ok {
		return bus.Entry{}, errs.New(errs.NotFound, "no key %s", key)
	}
	return r.Entry, nil
}

func (b *bucket) Put(ctx context.Context, key string, value []byte, at bus.Revision) (bus.Revision, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.check(ctx, key); err != nil {
		return 0, err
	}
	// Absent is revision 0, which is also that of a record that is not there.
	if r, _ := b.find(key); at != bus.Any && at != r.Revision {
		return 0, errs.New(errs.Conflict, "key %s is not at revision %d", key, at)
	}
	return b.write(record{Entry: bus.Entry{Key: key, Value: append([]byte{}, value...)}}), nil
}

func (b *bucket) Delete(ctx context.Context, key string, at bus.Revision) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.check(ctx, key); err != nil {
		return err
	}
	if at == bus.Absent {
		return errs.New(errs.Invalid, "delete %s: expected a revision or Any", key)
	}
	r, ok := b.find(key)
	if at != bus.Any && at != r.Revision {
		return errs.New(errs.Conflict, "key %s is not at revision %d", key, at)
	}
	if ok {
		b.write(record{Entry: bus.Entry{Key: key}, deleted: true})
	}
	return nil
}

func (b *bucket) Keys(ctx context.Context, prefix string) ([]string, error) {
	if err := bus.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.check(ctx, "x"); err != nil {
		return nil, err
	}
	var keys []string
	for key := range b.entries {
		if _, ok := b.find(key); ok && strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// currentEvery is how often a watch says that it is complete, if nothing changes.
const currentEvery = time.Second

func (b *bucket) Watch(ctx context.Context, w bus.Watch, f func(bus.Update)) error {
	if err := bus.CheckPrefix(w.Prefix); err != nil {
		return err
	}
	after, synced := w.After, false
	var tick <-chan time.Time // nil: nobody wants to know
	if w.Current != nil {
		t := time.NewTicker(currentEvery)
		defer t.Stop()
		tick = t.C
	}
	for {
		b.mu.Lock()
		at := time.Now()
		if w.NewOnly && !synced {
			after = b.revision
		}
		var news []record
		if !b.down {
			for key, r := range b.entries {
				if r.Revision > after && strings.HasPrefix(key, w.Prefix) {
					news = append(news, r)
				}
			}
			after = max(after, b.revision)
		}
		down, changed := b.down, b.changed
		b.mu.Unlock()
		slices.SortFunc(news, func(a, b record) int { return cmp.Compare(a.Revision, b.Revision) })
		for _, r := range news {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f(bus.Update{Entry: r.Entry, Deleted: r.deleted})
		}
		if !synced && !down {
			synced = true
			f(bus.Update{Synced: true, Entry: bus.Entry{Revision: after}})
		}
		if w.Current != nil && !down {
			w.Current(at)
		}
		select {
		case <-changed:
		case <-tick:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
