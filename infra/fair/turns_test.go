// SPDX-License-Identifier: Apache-2.0

package fair

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A key has its turns and no more, however many want one; others have the rest at once.
func TestTurns(t *testing.T) {
	t.Parallel()
	turns := NewTurns(4, 2)
	take := func(key string) (func(), error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		return turns.Take(ctx, key)
	}
	var ends []func()
	for _, step := range []struct {
		key  string
		none bool
	}{{"a", false}, {"a", false}, {"a", true}, {"b", false}, {"a", true}, {"c", false}, {"d", true}} {
		end, err := take(step.key)
		if step.none != errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%d turns are taken, %s: %v", len(ends), step.key, err)
		}
		if err == nil {
			ends = append(ends, end)
		}
	}
	for _, end := range ends {
		end()
		end() // is ended only once
	}
	if len(turns.own) != 0 {
		t.Errorf("%d keys are kept", len(turns.own))
	}
	for n := range 3 {
		if _, err := take("d"); (err != nil) != (n == 2) {
			t.Errorf("the %d. afterwards: %v", n+1, err)
		}
	}
}

// Who tries has a turn that is free now, and none before those that wait.
func TestTurns_Try(t *testing.T) {
	t.Parallel()
	turns := NewTurns(3, 2)
	var ends []func()
	for _, step := range []struct {
		key string
		ok  bool
	}{{"a", true}, {"a", true}, {"a", false}, {"b", true}, {"c", false}} {
		end, ok := turns.Try(step.key)
		if ok != step.ok {
			t.Fatalf("%s, while %d are taken: %v", step.key, len(ends), ok)
		}
		if ok {
			ends = append(ends, end)
		}
	}
	got := make(chan error, 1)
	go func() {
		end, err := turns.Take(t.Context(), "c")
		if err == nil {
			end()
		}
		got <- err
	}()
	for _, end := range ends {
		end()
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if len(turns.own) != 0 {
		t.Errorf("%d keys are kept", len(turns.own))
	}
}

// A key has more than one turn only while it leaves some to others.
func TestTurns_TryLeaving(t *testing.T) {
	t.Parallel()
	for _, steps := range [][]struct {
		key string
		ok  bool
	}{
		{{"a", true}, {"a", true}, {"a", false}, {"b", true}, {"b", false}, {"c", true}, {"d", false}},
		{{"a", true}, {"b", true}, {"a", false}, {"b", false}, {"c", true}, {"d", true}},
	} {
		turns := NewTurns(4, 2)
		for n, step := range steps {
			if _, ok := turns.TryLeaving(step.key, 2); ok != step.ok {
				t.Errorf("step %d, %s: %v", n+1, step.key, ok)
			}
		}
	}
}

// Keys that wait have one turn each before any has a second, and each its own in order.
func TestTurns_InTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(1, 1)
		first, err := turns.Take(t.Context(), "other")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var got []string
		var wg sync.WaitGroup
		wait := func(key, name string) {
			wg.Go(func() {
				end, err := turns.Take(t.Context(), key)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				got = append(got, name)
				mu.Unlock()
				end()
			})
			synctest.Wait() // it is in the queue
		}
		for n := range 4 {
			wait("loud", fmt.Sprint("loud ", n))
		}
		wait("quiet", "quiet 0")
		wait("third", "third 0")
		wait("quiet", "quiet 1")
		first()
		wg.Wait()
		if want := "loud 0,quiet 0,third 0,loud 1,quiet 1,loud 2,loud 3"; strings.Join(got, ",") != want {
			t.Errorf("served %v, want %s", got, want)
		}
		if turns.free != 1 || len(turns.own) != 0 || turns.next.Len() != 0 {
			t.Errorf("%d turns are free, %d keys are kept, %d of them in the queue", turns.free, len(turns.own), turns.next.Len())
		}
	})
}

// Those who give up take nobody's turn, and leave none.
func TestTurns_GivenUp(t *testing.T) {
	t.Parallel()
	turns := NewTurns(8, 3)
	var busy, most, total, totalMost atomic.Int64
	over := func(n *atomic.Int64, most *atomic.Int64) {
		for v := n.Add(1); ; {
			if m := most.Load(); v <= m || most.CompareAndSwap(m, v) {
				return
			}
		}
	}
	var wg sync.WaitGroup
	for n := range 40 {
		wg.Go(func() {
			key := fmt.Sprint("tenant ", n%4)
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.N(300))*time.Microsecond)
				end, err := turns.TakeOf(ctx, key, 3)
				if err == nil {
					over(&total, &totalMost)
					if n%4 == 0 {
						over(&busy, &most)
						time.Sleep(10 * time.Microsecond)
						busy.Add(-1)
					}
					total.Add(-1)
					end()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 || totalMost.Load() > 8 {
		t.Errorf("%d at once of one key, %d of all; want at most 3 and 8", most.Load(), totalMost.Load())
	}
	if turns.free != 8 || len(turns.own) != 0 || turns.next.Len() != 0 {
		t.Errorf("%d turns are free, %d keys are kept, %d of them in the queue", turns.free, len(turns.own), turns.next.Len())
	}
}
