// SPDX-License-Identifier: Apache-2.0

package gateway

import "sync"

// wheel is a set of connections, each with the time at which it must be looked
// at: when its keep alive, or another timeout, may be over. What comes from a
// client does not touch the wheel; who is looked at in time says when to look
// again. So an idle connection costs one look for each keep alive, and a busy one
// no more than that.
//
// Its methods may be called concurrently, under a connection's mutex too.
type wheel struct {
	mu    sync.Mutex
	tick  int64                  // the newest that was turned to
	slots [wheelSlots + 1]*timed // lists; the last is of those that are being looked at
	n     int
}

const (
	// wheelTick is how exact the wheel is, in milliseconds. A timeout comes that
	// much late, which the half of a keep alive that clients are granted allows
	// for.
	wheelTick = 500
	// wheelSlots times wheelTick is the longest time between two looks.
	wheelSlots = 512
	looking    = wheelSlots
)

// timed is a connection's place in a wheel, guarded by the wheel's mu.
type timed struct {
	c          *connection
	prev, next *timed
	slot       int16
	in         bool
}

func (w *wheel) link(t *timed, slot int16) {
	t.slot, t.prev, t.next = slot, nil, w.slots[slot]
	if t.next != nil {
		t.next.prev = t
	}
	w.slots[slot] = t
}

func (w *wheel) unlink(t *timed) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		w.slots[t.slot] = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
}

// slotAt returns the list of those that are due at that time.
func (w *wheel) slotAt(at int64) int16 {
	tick := (at + wheelTick - 1) / wheelTick
	tick = min(max(tick, w.tick+1), w.tick+wheelSlots-1)
	return int16(tick % wheelSlots)
}

// add puts t into the wheel, to be looked at when at is over, in Unix milliseconds
// as all times here; before, if that is farther away than the wheel reaches.
func (w *wheel) add(t *timed, at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.in = true
	w.n++
	w.link(t, w.slotAt(at))
}

// look changes when t is looked at.
func (w *wheel) look(t *timed, at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.in {
		w.unlink(t)
		w.link(t, w.slotAt(at))
	}
}

// remove takes t out.
func (w *wheel) remove(t *timed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.in {
		w.unlink(t)
		t.in = false
		w.n--
	}
}

func (w *wheel) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// all appends everything that is in the wheel.
func (w *wheel) all(dst []*timed) []*timed {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.slots {
		for ; t != nil; t = t.next {
			dst = append(dst, t)
		}
	}
	return dst
}

// turn calls visit for everything that is due by now, without holding a lock;
// visit returns when to look again. buf is memory to use again. One goroutine
// calls it.
func (w *wheel) turn(now int64, buf []*timed, visit func(t *timed) int64) []*timed {
	last := now / wheelTick
	w.mu.Lock()
	// Behind a pause longer than the wheel every list is due, once.
	w.tick = max(w.tick, last-wheelSlots)
	w.mu.Unlock()
	for {
		w.mu.Lock()
		if w.tick >= last {
			w.mu.Unlock()
			return buf
		}
		w.tick++
		buf = buf[:0]
		slot := int16(w.tick % wheelSlots)
		for t := w.slots[slot]; t != nil; t = w.slots[slot] {
			w.unlink(t)
			w.link(t, looking)
			buf = append(buf, t)
		}
		w.mu.Unlock()
		for i, t := range buf {
			at := visit(t)
			w.mu.Lock()
			if t.in && t.slot == looking { // else it is removed, or look was called
				w.unlink(t)
				w.link(t, w.slotAt(at))
			}
			w.mu.Unlock()
			buf[i] = nil
		}
	}
}
