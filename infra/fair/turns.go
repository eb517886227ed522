// SPDX-License-Identifier: Apache-2.0

package fair

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Turns are a number of things that may be done at once, of which those for one key are
// fewer, so that one whose take long does not hold up the others. It is safe for concurrent
// use. Make it with NewTurns.
type Turns struct {
	all  *semaphore.Weighted
	most int64

	mu  sync.Mutex
	own map[string]*turnsOf // guarded by mu; of keys that have a turn, or wait for one
}

type turnsOf struct {
	turns *semaphore.Weighted
	users int
}

// NewTurns returns n turns, at least 1, of which a key has at most most, at least 1.
func NewTurns(n, most int) *Turns {
	return &Turns{all: semaphore.NewWeighted(int64(max(n, 1))), most: int64(max(most, 1)), own: map[string]*turnsOf{}}
}

// Take waits for a turn of the key, and returns what ends it, or ctx's error. Of those
// that wait no more than a key may have are before others.
func (t *Turns) Take(ctx context.Context, key string) (end func(), err error) {
	t.mu.Lock()
	o := t.own[key]
	if o == nil {
		o = &turnsOf{turns: semaphore.NewWeighted(t.most)}
		t.own[key] = o
	}
	o.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if o.users--; o.users == 0 {
			delete(t.own, key)
		}
	}
	if err := o.turns.Acquire(ctx, 1); err != nil {
		leave()
		return nil, err
	}
	if err := t.all.Acquire(ctx, 1); err != nil {
		o.turns.Release(1)
		leave()
		return nil, err
	}
	return sync.OnceFunc(func() {
		t.all.Release(1)
		o.turns.Release(1)
		leave()
	}), nil
}
