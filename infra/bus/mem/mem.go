// SPDX-License-Identifier: Apache-2.0

// Package mem is a bus within one process that forgets everything with it; it
// is for tests. Each subscription owns a goroutine that ends with it, each
// request runs in its own.
package mem

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// Bus is a bus.Bus in memory. Make it with New.
type Bus struct {
	mu      sync.Mutex
	subs    map[*subscription]struct{} // guarded by mu
	servers []*server                  // guarded by mu
	turn    int                        // guarded by mu; spreads requests
	buckets map[string]*bucket         // guarded by mu
	streams map[string]*stream         // guarded by mu
	down    bool                       // guarded by mu
}

var _ bus.Bus = (*Bus)(nil)

// New returns an empty bus.
func New() *Bus {
	return &Bus{subs: map[*subscription]struct{}{}, buckets: map[string]*bucket{}, streams: map[string]*stream{}}
}

type server struct {
	subject string
	f       func(context.Context, []byte) ([]byte, error)
}

// SetDown makes everything fail as if the bus could not be reached, or work
// again. Watches hear what they missed when it is back.
func (b *Bus) SetDown(down bool) {
	b.mu.Lock()
	b.down = down
	buckets := make([]*bucket, 0, len(b.buckets))
	for _, k := range b.buckets {
		buckets = append(buckets, k)
	}
	b.mu.Unlock()
	for _, k := range buckets {
		k.setDown(down)
	}
}

func (b *Bus) reachable() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return errDown()
	}
	return nil
}

func errDown() error { return errs.New(errs.Unavailable, "%w: the bus is down", bus.ErrUntaken) }

// Publish implements bus.Bus.
func (b *Bus) Publish(ctx context.Context, subject string, body []byte) error {
	if err := bus.CheckSubject(subject); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return errs.New(errs.Unavailable, "publish %s: %w", subject, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return errDown()
	}
	for s := range b.subs {
		if matches(s.subject, subject) {
			s.queue.push(event{subject, append([]byte(nil), body...)})
		}
	}
	return nil
}

type event struct {
	subject string
	body    []byte
}

type subscription struct {
	subject string
	queue   *queue[event]
}

// Subscribe implements bus.Bus.
func (b *Bus) Subscribe(subject string, f func(string, []byte)) (func(), error) {
	if err := bus.CheckFilter(subject); err != nil {
		return nil, err
	}
	s := &subscription{subject: subject, queue: newQueue[event]()}
	b.mu.Lock()
	b.subs[s] = struct{}{}
	b.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for {
			e, ok := s.queue.pop(ctx)
			if !ok {
				return
			}
			f(e.subject, e.body)
		}
	}()
	return func() {
		b.mu.Lock()
		delete(b.subs, s)
		b.mu.Unlock()
		cancel()
	}, nil
}

// Request implements bus.Bus.
func (b *Bus) Request(ctx context.Context, subject string, body []byte) ([]byte, error) {
	if err := bus.CheckSubject(subject); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
	}
	b.mu.Lock()
	if b.down {
		b.mu.Unlock()
		return nil, errDown()
	}
	var able []*server
	for _, s := range b.servers {
		if matches(s.subject, subject) {
			able = append(able, s)
		}
	}
	b.turn++
	turn := b.turn
	b.mu.Unlock()
	if len(able) == 0 {
		return nil, errs.New(errs.Unavailable, "request %s: nobody serves it", subject)
	}
	type answer struct {
		body []byte
		err  error
	}
	done := make(chan answer, 1)
	in := append([]byte(nil), body...)
	go func() {
		out, err := able[turn%len(able)].f(ctx, in)
		done <- answer{out, err}
	}()
	select {
	case a := <-done:
		return a.body, a.err
	case <-ctx.Done():
		return nil, errs.New(errs.Unavailable, "request %s: %w", subject, ctx.Err())
	}
}

// Serve implements bus.Bus.
func (b *Bus) Serve(subject string, f func(context.Context, []byte) ([]byte, error)) (func(), error) {
	if err := bus.CheckFilter(subject); err != nil {
		return nil, err
	}
	s := &server{subject, f}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.servers = append(b.servers, s)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for i, o := range b.servers {
			if o == s {
				b.servers = append(b.servers[:i:i], b.servers[i+1:]...)
				return
			}
		}
	}, nil
}

// Bucket implements bus.Bus.
func (b *Bus) Bucket(_ context.Context, cfg bus.BucketConfig) (bus.Bucket, error) {
	if err := bus.CheckSubject(cfg.Name); err != nil || strings.Contains(cfg.Name, ".") {
		return nil, errs.New(errs.Invalid, "expected the name of a bucket, found %q", cfg.Name)
	}
	if err := b.reachable(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.buckets[cfg.Name]
	if k == nil {
		k = &bucket{ttl: cfg.TTL, entries: map[string]record{}, changed: make(chan struct{})}
		b.buckets[cfg.Name] = k
	}
	return k, nil
}

// matches reports whether the pattern stands for the subject.
func matches(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, word := range p {
		switch {
		case word == ">":
			return len(s) > i
		case i >= len(s), word != "*" && word != s[i]:
			return false
		}
	}
	return len(p) == len(s)
}

// queue is an unbounded queue with one reader.
type queue[T any] struct {
	mu    sync.Mutex
	items []T           // guarded by mu
	wake  chan struct{} // holds one token while there are items
}

func newQueue[T any]() *queue[T] { return &queue[T]{wake: make(chan struct{}, 1)} }

func (q *queue[T]) push(v T) {
	q.mu.Lock()
	q.items = append(q.items, v)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// pop waits for an item; ok is false when ctx is done.
func (q *queue[T]) pop(ctx context.Context) (v T, ok bool) {
	for {
		if ctx.Err() != nil {
			return v, false
		}
		q.mu.Lock()
		if len(q.items) > 0 {
			v = q.items[0]
			q.items = q.items[1:]
			q.mu.Unlock()
			return v, true
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-ctx.Done():
			return v, false
		}
	}
}
