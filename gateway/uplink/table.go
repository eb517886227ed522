// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/manormq/manor/infra/link"
)

// A channel is a slot with a generation above it, so that frames which were on
// their way to a former channel of the slot find nobody.
const (
	slotBits = 20
	slotMask = 1<<slotBits - 1
	pageBits = 10
	pageSize = 1 << pageBits
)

// ErrEnds says that a link takes no new channels, since it is about to be closed:
// another is to be picked.
var ErrEnds = errors.New("the link is about to be closed")

var errTableFull = errors.New("the link has no free channel")

// Table finds what a channel belongs to. Get is free of locks.
type Table[T any] struct {
	pages [1 << (slotBits - pageBits)]atomic.Pointer[[pageSize]atomic.Pointer[entry[T]]]

	mu    sync.Mutex
	n     int            // channels there are
	ended bool           // there are no more
	next  uint32         // the first slot that was never used
	free  []link.Channel // oldest first: a slot rests as long as possible
}

type entry[T any] struct {
	channel link.Channel
	v       *T
}

// Add gives v a channel. It fails with ErrEnds after End.
func (t *Table[T]) Add(v *T) (link.Channel, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return 0, ErrEnds
	}
	var ch link.Channel
	// A slot is used again only when some others have been freed after it.
	if len(t.free) > pageSize || len(t.free) > 0 && t.next > slotMask {
		ch = t.free[0]
		t.free = t.free[1:]
	} else {
		if t.next > slotMask {
			return 0, errTableFull
		}
		ch = link.Channel(t.next)
		t.next++
	}
	slot := uint32(ch) & slotMask
	page := t.pages[slot>>pageBits].Load()
	if page == nil {
		page = new([pageSize]atomic.Pointer[entry[T]])
		t.pages[slot>>pageBits].Store(page)
	}
	page[slot&(pageSize-1)].Store(&entry[T]{ch, v})
	t.n++
	return ch, nil
}

// End ends a table without channels, and reports whether it is ended: no channel
// can be added to it any more.
func (t *Table[T]) End() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = t.ended || t.n == 0
	return t.ended
}

// Get returns what ch belongs to, or nil.
func (t *Table[T]) Get(ch link.Channel) *T {
	slot := uint32(ch) & slotMask
	page := t.pages[slot>>pageBits].Load()
	if page == nil {
		return nil
	}
	e := page[slot&(pageSize-1)].Load()
	if e == nil || e.channel != ch {
		return nil
	}
	return e.v
}

// Remove forgets ch.
func (t *Table[T]) Remove(ch link.Channel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := uint32(ch) & slotMask
	page := t.pages[slot>>pageBits].Load()
	if page == nil {
		return
	}
	if e := page[slot&(pageSize-1)].Load(); e == nil || e.channel != ch {
		return
	}
	page[slot&(pageSize-1)].Store(nil)
	t.n--
	t.free = append(t.free, ch+1<<slotBits)
}

// All visits everything in the table.
func (t *Table[T]) All(visit func(v *T)) {
	for i := range t.pages {
		page := t.pages[i].Load()
		if page == nil {
			continue
		}
		for j := range page {
			if e := page[j].Load(); e != nil {
				visit(e.v)
			}
		}
	}
}
