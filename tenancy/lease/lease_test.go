// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
)

func bucket(t *testing.T) bus.Bucket {
	t.Helper()
	b, err := mem.New().Bucket(t.Context(), bus.BucketConfig{Name: "locks"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func of(b bus.Bucket) *Leases { return New(Config{Bucket: b, Log: telemetry.Discard()}) }

// One at a time has a lock, whichever process asks.
func TestLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket(t)
		all := []*Leases{of(b), of(b)}
		var wg sync.WaitGroup
		var mu sync.Mutex
		inside, turns := 0, 0
		for n := range 8 {
			wg.Go(func() {
				l := all[n%2]
				if err := l.Lock(t.Context(), "a name/with. anything"); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				inside++
				turns++
				if inside != 1 {
					t.Errorf("%d have the lock", inside)
				}
				mu.Unlock()
				time.Sleep(2 * DefaultLife) // longer than it may stand still
				mu.Lock()
				inside--
				mu.Unlock()
				if err := l.Unlock(t.Context(), "a name/with. anything"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if keys, err := b.Keys(t.Context(), ""); turns != 8 || len(keys) != 0 || err != nil {
			t.Errorf("%d turns; left: %v %v", turns, keys, err)
		}
		if err := all[0].Unlock(t.Context(), "other"); err == nil {
			t.Error("a lock that nobody has was let go")
		}
	})
}

// The lock of a process that is gone is free when it has stood still for its life.
func TestLock_TakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket(t)
		gone, other := of(b), of(b)
		if ok, err := gone.TryLock(t.Context(), "x"); !ok || err != nil {
			t.Fatal(ok, err)
		}
		h := gone.held[Key("x")]
		h.stop() // as kill -9 does
		<-h.done
		begin := time.Now()
		for {
			ok, err := other.TryLock(t.Context(), "x")
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(begin); took <= DefaultLife || took > DefaultLife+2*time.Second {
			t.Errorf("taken over after %v", took)
		}
		if err := gone.Unlock(t.Context(), "x"); err != nil {
			t.Error(err)
		}
		if ok, err := gone.TryLock(t.Context(), "x"); ok || err != nil {
			t.Errorf("who had lost it let go of the other's: %v %v", ok, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := gone.Lock(ctx, "x"); err == nil {
			t.Error("two have it")
		}
		if err := other.Unlock(t.Context(), "x"); err != nil {
			t.Error(err)
		}
	})
}

// What is seen of others' locks is forgotten when nobody asks for them any more.
func TestLock_SeenIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket(t)
		l := of(b)
		for n := range 20 {
			name := string(rune('a' + n))
			if _, err := b.Put(t.Context(), Key(name), []byte("other"), bus.Absent); err != nil {
				t.Fatal(err)
			}
			if ok, err := l.TryLock(t.Context(), name); ok || err != nil {
				t.Errorf("%s: %v %v", name, ok, err)
			}
			time.Sleep(DefaultLife)
		}
		if n := len(l.seen); n > seenFor+1 {
			t.Errorf("%d locks are remembered", n)
		}
	})
}
