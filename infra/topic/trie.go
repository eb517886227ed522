// SPDX-License-Identifier: Apache-2.0

package topic

import "sync/atomic"

// Trie maps topic filters to values and finds the values of all filters that
// match a name. The zero Trie is empty.
//
// Update is for one goroutine at a time; everything else may be called
// concurrently with it, takes no lock and does not wait. A match finds every
// filter whose Update returned before the match began. Of a filter that is
// changed meanwhile it finds the old value or the new one; the others it finds
// once, whatever happens to their neighbours.
//
// Filters are valid (ValidateFilter) and have no $share prefix; names are
// valid. Only Update allocates.
type Trie[T any] struct {
	root    node[T]
	n       atomic.Int64
	version atomic.Uint64
}

// Len is the number of filters.
func (t *Trie[T]) Len() int { return int(t.n.Load()) }

// Version counts the calls of Update that are done. What a match found that began
// after Version was read holds for as long as Version says the same.
func (t *Trie[T]) Version() uint64 { return t.version.Load() }

// Get returns the value of exactly that filter, or nil.
func (t *Trie[T]) Get(filter string) *T {
	n := &t.root
	for {
		level, tail, more := cut(filter)
		if level == "#" {
			return n.hash.Load()
		}
		if n = n.kid([]byte(level)); n == nil {
			return nil
		}
		if !more {
			return n.v.Load()
		}
		filter = tail
	}
}

// Begins reports whether there is a filter whose first level is that one, which is no #.
func (t *Trie[T]) Begins(level string) bool { return t.root.kid([]byte(level)) != nil }

// Update replaces the value of filter, nil if there is none, by what change
// makes of it; nil removes the filter. The value that change is given must not
// be changed: others may be reading it. The Trie keeps parts of the string
// filter.
func (t *Trie[T]) Update(filter string, change func(old *T) *T) {
	t.n.Add(t.root.update(filter, change))
	t.version.Add(1)
}

// AppendMatches appends the value of every filter that matches name, in no
// particular order. A filter that begins with a wildcard does not match a name
// that begins with $ [MQTT-4.7.2-1].
func (t *Trie[T]) AppendMatches(dst []*T, name []byte) []*T {
	if len(name) > 0 && name[0] == '$' {
		return t.root.appendLiteral(dst, name)
	}
	return t.root.appendMatches(dst, name)
}
