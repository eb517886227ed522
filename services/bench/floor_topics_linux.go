// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// topicTable finds the subscribers to a topic without a lock. Its filters are
// topics, or topics with a last level of "#".
type topicTable struct {
	mu       sync.Mutex // of writers
	buckets  [1 << 16]atomic.Pointer[topicEntry]
	prefixes atomic.Pointer[topicEntry]
}

// topicEntry is a filter with its subscribers.
type topicEntry struct {
	filter string // without "#"
	subs   atomic.Pointer[[]*floorConn]
	next   *topicEntry
}

var topicSeed = maphash.MakeSeed()

// find returns the subscribers to topic.
func (t *topicTable) find(topic []byte) (subs []*floorConn) {
	for e := t.buckets[uint16(maphash.Bytes(topicSeed, topic))].Load(); e != nil; e = e.next {
		if e.filter == string(topic) {
			subs = *e.subs.Load()
			break
		}
	}
	for e := t.prefixes.Load(); e != nil; e = e.next {
		switch more := *e.subs.Load(); {
		case len(topic) < len(e.filter) || string(topic[:len(e.filter)]) != e.filter:
		case len(subs) == 0:
			subs = more
		default:
			subs = append(slices.Clip(subs), more...)
		}
	}
	return subs
}

// add returns false if it does not know such filters.
func (t *topicTable) add(filter string, c *floorConn) bool {
	if strings.ContainsAny(strings.TrimSuffix(filter, "/#"), "+#$") {
		return false
	}
	t.change(filter, func(subs []*floorConn) []*floorConn { return append(slices.Clip(subs), c) })
	return true
}

// remove ends the subscriptions of c.
func (t *topicTable) remove(c *floorConn) {
	for _, filter := range c.filters {
		t.change(filter, func(subs []*floorConn) []*floorConn {
			return slices.DeleteFunc(slices.Clone(subs), func(s *floorConn) bool { return s == c })
		})
	}
}

// change replaces the subscribers to filter by what with makes of them.
func (t *topicTable) change(filter string, with func([]*floorConn) []*floorConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := &t.buckets[uint16(maphash.String(topicSeed, filter))]
	if prefix, ok := strings.CutSuffix(filter, "#"); ok {
		filter, first = prefix, &t.prefixes
	}
	e := first.Load()
	for e != nil && e.filter != filter {
		e = e.next
	}
	if e == nil {
		e = &topicEntry{filter: filter, next: first.Load()}
		e.subs.Store(&[]*floorConn{})
		first.Store(e)
	}
	subs := with(*e.subs.Load())
	e.subs.Store(&subs)
}
