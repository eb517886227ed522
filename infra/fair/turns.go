// SPDX-License-Identifier: Apache-2.0

package fair

import (
	lists "container/list"
	"context"
	"sync"
)

// Turns are a number of things that may be done at once, of which those for one key, such as
// a tenant, are fewer, so that one whose take long does not hold up the others. Keys that
// wait are served in turn, one thing each, however many of their own wait; the order within
// a key is kept. It is safe for concurrent use. Make it with NewTurns.
type Turns struct {
	most int

	mu   sync.Mutex
	free int                 // guarded by mu
	own  map[string]*turnsOf // guarded by mu; of keys that have a turn, or wait for one
	// next are the keys that wait for nothing but one of free, in their order: while
	// there are any, free is 0. Guarded by mu.
	next lists.List // of waiter
}

// turnsOf is a key. Guarded by the mu of its Turns.
type turnsOf struct {
	key     string
	used    int
	waiting lists.List     // of chan struct{}, closed when its turn has come
	place   *lists.Element // in next; nil if it is not there
}

// NewTurns returns n turns, at least 1, of which a key has at most most, at least 1.
func NewTurns(n, most int) *Turns {
	return &Turns{free: max(n, 1), most: max(most, 1), own: map[string]*turnsOf{}}
}

// Take waits for a turn of the key, and returns what ends it, which may be called more than
// once, or ctx's error.
func (t *Turns) Take(ctx context.Context, key string) (end func(), err error) {
	return t.TakeOf(ctx, key, t.most)
}

// TakeOf is Take for a key that has at most most turns, at least 1, instead: the same at
// each call for that key.
func (t *Turns) TakeOf(ctx context.Context, key string, most int) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	most = max(most, 1)
	t.mu.Lock()
	o := t.own[key]
	if o == nil {
		o = &turnsOf{key: key}
		t.own[key] = o
	}
	turn := make(chan struct{})
	place := o.waiting.PushBack(turn)
	t.lineUp(o, most)
	t.serve()
	t.mu.Unlock()
	end = t.ends(o, most)
	select {
	case <-turn:
		return end, nil
	default:
	}
	select {
	case <-turn:
		return end, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	select {
	case <-turn: // it has come meanwhile
		t.mu.Unlock()
		end()
	default:
		o.waiting.Remove(place)
		t.left(o, most)
		t.mu.Unlock()
	}
	return nil, ctx.Err()
}

// Try is Take of who does not wait: ok says whether the key has a turn, which end ends.
func (t *Turns) Try(key string) (end func(), ok bool) { return t.TryLeaving(key, 0) }

// TryLeaving is Try of a key that has a turn already only if it leaves so many for others:
// keys whose turns take long then do not keep all of them, and the first of another key finds
// one.
func (t *Turns) TryLeaving(key string, others int) (end func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.own[key]
	if t.free == 0 || o != nil && (o.used >= t.most || o.used > 0 && t.free <= others) {
		return nil, false
	}
	if o == nil {
		o = &turnsOf{key: key}
		t.own[key] = o
	}
	o.used++
	t.free--
	return t.ends(o, t.most), true
}

// ends is what ends a turn.
func (t *Turns) ends(o *turnsOf, most int) func() {
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		o.used--
		t.free++
		t.left(o, most)
	})
}

// lineUp puts a key behind the others if it may have a turn more. The caller holds mu.
func (t *Turns) lineUp(o *turnsOf, most int) {
	if o.place == nil && o.waiting.Len() > 0 && o.used < most {
		o.place = t.next.PushBack(waiter{o, most})
	}
}

// waiter is a key in Turns.next.
type waiter struct {
	of   *turnsOf
	most int
}

// serve gives out what is free. The caller holds mu.
func (t *Turns) serve() {
	for t.free > 0 && t.next.Len() > 0 {
		w, _ := t.next.Remove(t.next.Front()).(waiter)
		o := w.of
		o.place = nil
		turn, _ := o.waiting.Remove(o.waiting.Front()).(chan struct{})
		o.used++
		t.free--
		close(turn)
		t.lineUp(o, w.most)
	}
}

// left sees to a key that has a turn, or one that waits, less. The caller holds mu.
func (t *Turns) left(o *turnsOf, most int) {
	if o.waiting.Len() == 0 && o.place != nil {
		t.next.Remove(o.place)
		o.place = nil
	}
	t.lineUp(o, most)
	t.serve()
	if o.used == 0 && o.waiting.Len() == 0 {
		delete(t.own, o.key)
	}
}
