// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
)

// cut is a bucket that one process has no way to while it is cut off.
type cut struct {
	bus.Bucket
	mu  sync.Mutex
	off bool // guarded by mu
}

func (c *cut) set(off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = off
}

func (c *cut) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return errs.New(errs.Unavailable, "the bus is away")
	}
	return nil
}

func (c *cut) Get(ctx context.Context, key string) (bus.Entry, error) {
	if err := c.why(); err != nil {
		return bus.Entry{}, err
	}
	return c.Bucket.Get(ctx, key)
}

func (c *cut) Put(ctx context.Context, key string, value []byte, at bus.Revision) (bus.Revision, error) {
	if err := c.why(); err != nil {
		return 0, err
	}
	return c.Bucket.Put(ctx, key, value, at)
}

func (c *cut) Delete(ctx context.Context, key string, at bus.Revision) error {
	if err := c.why(); err != nil {
		return err
	}
	return c.Bucket.Delete(ctx, key, at)
}

// site is work of which each item takes a while, and what was done of it.
type site struct {
	takes time.Duration

	mu    sync.Mutex
	busy  map[string]int // guarded by mu; by key
	twice []string       // guarded by mu: what two saw to at once
	done  []string       // guarded by mu: "process key", in order
	quits []string       // guarded by mu: the same of those that lost their lock
}

// worker is one process of the site, told of the keys.
func (s *site) worker(name string, b bus.Bucket, keys ...string) *Worker[int] {
	var w *Worker[int]
	w = NewWorker(WorkerConfig[int]{
		Leases: of(b), Name: "test", Lock: func(key string) string { return key }, Log: telemetry.Discard(), Show: func(iter.Seq[int]) {},
		Watch: func(ctx context.Context) error {
			for _, key := range keys {
				w.Edit(key, func(*Item[int], bool) bool { return true })
			}
			<-ctx.Done()
			return nil
		},
		See: func(ctx context.Context, key string, _ int) {
			s.mu.Lock()
			if s.busy[key]++; s.busy[key] > 1 {
				s.twice = append(s.twice, name+" "+key)
			}
			s.mu.Unlock()
			select {
			case <-time.After(s.takes):
			case <-ctx.Done():
			}
			s.mu.Lock()
			s.busy[key]--
			to := &s.done
			if ctx.Err() != nil {
				to = &s.quits
			}
			*to = append(*to, name+" "+key)
			s.mu.Unlock()
			if ctx.Err() == nil {
				w.Edit(key, func(*Item[int], bool) bool { return false })
			}
		},
	})
	return w
}

// saw is what was done and given up until now.
func (s *site) saw() (done, quits, twice []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.done)), slices.Clone(s.quits), slices.Clone(s.twice)
}

// Of two processes that are told of the same item one sees to it at a time, also when that
// takes longer than a lock may stand still.
func TestWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket(t)
		s := &site{takes: 3 * DefaultLife, busy: map[string]int{}}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for n := range 2 {
			w := s.worker(fmt.Sprint("p", n), b, "x", "y")
			wg.Go(func() { w.Run(ctx) })
		}
		time.Sleep(3*DefaultLife - time.Second)
		if keys, err := b.Keys(t.Context(), ""); len(keys) != 2 || err != nil {
			t.Errorf("locks: %v, %v; two processes are expected to have one item each", keys, err)
		}
		time.Sleep(10 * DefaultLife)
		stop()
		wg.Wait()
		done, quits, twice := s.saw()
		if len(done) != 4 || len(quits) != 0 || len(twice) != 0 { // each is told, and sees to each in its turn
			t.Errorf("done: %v, given up: %v, by two at once: %v", done, quits, twice)
		}
		if keys, err := b.Keys(t.Context(), ""); len(keys) != 0 || err != nil {
			t.Errorf("locks are left: %v, %v", keys, err)
		}
	})
}

// An item of a process that is gone another one sees to within the life of the lock and
// a turn; and a process that is cut off from the bus does nothing more by then.
func TestWorker_TakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket(t)
		s := &site{takes: time.Hour, busy: map[string]int{}}
		way := &cut{Bucket: b}
		first := s.worker("first", way, "x")
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var wg sync.WaitGroup
		wg.Go(func() { first.Run(ctx) })
		synctest.Wait()
		second := s.worker("second", b, "x")
		wg.Go(func() { second.Run(ctx) })
		time.Sleep(10 * time.Minute) // the lock is written again all the while
		if done, quits, twice := s.saw(); len(done)+len(quits)+len(twice) != 0 {
			t.Fatalf("done: %v, given up: %v, by two at once: %v", done, quits, twice)
		}
		way.set(true) // as seen from others it is gone
		begin := time.Now()
		for len(holders(t, b, second.cfg.Leases.me)) == 0 {
			if time.Since(begin) > DefaultLife+DefaultLife/3+2*againAfter {
				t.Fatal("nobody takes it over")
			}
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if _, quits, twice := s.saw(); !slices.Equal(quits, []string{"first x"}) || len(twice) != 0 {
			t.Errorf("taken over after %v, when %v had given up; by two at once: %v", time.Since(begin), quits, twice)
		}
		time.Sleep(2 * time.Hour)
		if done, _, twice := s.saw(); !slices.Equal(done, []string{"second x"}) || len(twice) != 0 {
			t.Errorf("done: %v, by two at once: %v", done, twice)
		}
		way.set(false) // it was told once, and does it then, unless it is told otherwise
		time.Sleep(2 * time.Hour)
		stop()
		wg.Wait()
		if done, _, twice := s.saw(); !slices.Equal(done, []string{"first x", "second x"}) || len(twice) != 0 {
			t.Errorf("done at last: %v, by two at once: %v", done, twice)
		}
	})
}

// A lock that another process has taken ends what is done under it.
func TestHold_Lost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket(t)
		l := of(b)
		held, ok, err := l.Hold(t.Context(), "x")
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		time.Sleep(4 * DefaultLife)
		if held.Err() != nil {
			t.Error("a lock that is written again ends")
		}
		e, err := b.Get(t.Context(), Key("x"))
		if err == nil {
			_, err = b.Put(t.Context(), Key("x"), []byte("other"), e.Revision)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(DefaultLife/3 + time.Second)
		if held.Err() == nil {
			t.Error("another process has the lock, and what is done under it goes on")
		}
		if err := l.Unlock(t.Context(), "x"); err != nil {
			t.Error(err)
		}
		held, ok, err = l.Hold(t.Context(), "y")
		if err == nil && ok {
			err = l.Unlock(t.Context(), "y")
		}
		if !ok || err != nil || held.Err() == nil {
			t.Errorf("after it was let go: %v, %v, %v", ok, err, held.Err())
		}
	})
}

// holders are the locks that a process has.
func holders(t *testing.T, b bus.Bucket, me string) (keys []string) {
	t.Helper()
	all, _, err := bus.List(t.Context(), b, "", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if string(e.Value) == me {
			keys = append(keys, e.Key)
		}
	}
	return keys
}
