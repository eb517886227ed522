// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/bus"
)

// The buckets of a cluster: the partition table, and the heartbeats.
const (
	tableBucket = "partitions"
	beatsBucket = "brokers"
)

// lateBucket is a bucket that is opened when it is first used, so that a broker
// starts while the bus is away.
type lateBucket struct {
	bus    bus.Bus
	config bus.BucketConfig

	// current is up to when its watches are complete, in nanoseconds since 1970; 0 before that.
	current atomic.Int64

	mu     sync.Mutex
	bucket bus.Bucket // guarded by mu
}

// age is how old is what the watches have told, and whether they have told anything.
func (l *lateBucket) age() (time.Duration, bool) {
	at := l.current.Load()
	return time.Since(time.Unix(0, at)), at != 0
}

func later(b bus.Bus, name string) *lateBucket {
	return &lateBucket{bus: b, config: bus.BucketConfig{Name: name}}
}

func (l *lateBucket) open(ctx context.Context) (bus.Bucket, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bucket == nil {
		b, err := l.bus.Bucket(ctx, l.config)
		if err != nil {
			return nil, err
		}
		l.bucket = b
	}
	return l.bucket, nil
}

// Get implements bus.Bucket.
func (l *lateBucket) Get(ctx context.Context, key string) (e bus.Entry, err error) {
	b, err := l.open(ctx)
	if err != nil {
		return e, err
	}
	return b.Get(ctx, key)
}

// Put implements bus.Bucket.
func (l *lateBucket) Put(ctx context.Context, key string, value []byte, at bus.Revision) (bus.Revision, error) {
	b, err := l.open(ctx)
	if err != nil {
		return 0, err
	}
	return b.Put(ctx, key, value, at)
}

// Delete implements bus.Bucket.
func (l *lateBucket) Delete(ctx context.Context, key string, at bus.Revision) error {
	b, err := l.open(ctx)
	if err != nil {
		return err
	}
	return b.Delete(ctx, key, at)
}

// Keys implements bus.Bucket.
func (l *lateBucket) Keys(ctx context.Context, prefix string) ([]string, error) {
	b, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	return b.Keys(ctx, prefix)
}

// Entries implements bus.Bucket.
func (l *lateBucket) Entries(ctx context.Context, prefixes []string, limit int) (entries []bus.Entry, more bool, err error) {
	k, err := l.open(ctx)
	if err != nil {
		return nil, false, err
	}
	return k.Entries(ctx, prefixes, limit)
}

// openAgain is the pause before a bucket that cannot be opened for a watch is tried
// again.
const openAgain = 500 * time.Millisecond

// Watch implements bus.Bucket: it waits until the bucket can be opened.
func (l *lateBucket) Watch(ctx context.Context, w bus.Watch, f func(bus.Update)) error {
	current := w.Current
	w.Current = func(at time.Time) {
		l.current.Store(at.UnixNano())
		if current != nil {
			current(at)
		}
	}
	for {
		b, err := l.open(ctx)
		if err == nil {
			return b.Watch(ctx, w, f)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(openAgain):
		}
	}
}
