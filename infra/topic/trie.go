// SPDX-License-Identifier: Apache-2.0

package topic

// Trie maps topic filters to values and finds the values of all filters that
// match a name. The zero Trie is empty. It is changed in place: one goroutine
// owns it.
//
// Filters are valid (ValidateFilter) and have no $share prefix; names are
// valid. Only Put and Delete allocate.
type Trie[T any] struct {
	root *node[T]
	n    int
}

// Len is the number of filters.
func (t *Trie[T]) Len() int { return t.n }

// Get returns the value of exactly that filter.
func (t *Trie[T]) Get(filter string) (v T, ok bool) {
	if n := t.root.find(filter); n != nil && n.set {
		return n.v, true
	}
	return v, false
}

// Put sets the value of filter. The Trie keeps parts of the string filter.
func (t *Trie[T]) Put(filter string, v T) {
	if n := t.root.find(filter); n == nil || !n.set {
		t.n++
	}
	t.root = t.root.put(filter, true, v, true)
}

// Delete removes filter and reports whether it was there.
func (t *Trie[T]) Delete(filter string) bool {
	if n := t.root.find(filter); n == nil || !n.set {
		return false
	}
	t.root = t.root.drop(filter, true, true)
	t.n--
	return true
}

// Match visits the value of every filter that matches name, in no particular
// order. visit must not change the Trie.
func (t *Trie[T]) Match(name []byte, visit func(v T)) { t.root.matchRoot(name, visit) }

// AppendMatches appends the value of every filter that matches name.
func (t *Trie[T]) AppendMatches(dst []T, name []byte) []T { return t.root.appendRoot(dst, name) }

// All visits every filter until visit returns false, in no particular order.
func (t *Trie[T]) All(visit func(filter string, v T) bool) { t.root.each("", true, visit) }

// Snapshot is an immutable Trie: With and Without return another one and share
// with it all but the path to the changed filter. The nil and the zero
// Snapshot are empty. Everyone may read it concurrently; what is said of the
// Trie's filters and names holds here too.
type Snapshot[T any] struct {
	root *node[T]
	n    int
}

// Len is the number of filters.
func (s *Snapshot[T]) Len() int {
	if s == nil {
		return 0
	}
	return s.n
}

// Get returns the value of exactly that filter.
func (s *Snapshot[T]) Get(filter string) (v T, ok bool) {
	if s != nil {
		if n := s.root.find(filter); n != nil && n.set {
			return n.v, true
		}
	}
	return v, false
}

// With returns a Snapshot in which filter has the value v.
func (s *Snapshot[T]) With(filter string, v T) *Snapshot[T] {
	c := Snapshot[T]{}
	if s != nil {
		c = *s
	}
	if n := c.root.find(filter); n == nil || !n.set {
		c.n++
	}
	c.root = c.root.put(filter, true, v, false)
	return &c
}

// Without returns a Snapshot that lacks filter; s itself if it is not there.
func (s *Snapshot[T]) Without(filter string) *Snapshot[T] {
	if _, ok := s.Get(filter); !ok {
		return s
	}
	return &Snapshot[T]{root: s.root.drop(filter, true, false), n: s.n - 1}
}

// Match visits the value of every filter that matches name, in no particular
// order.
func (s *Snapshot[T]) Match(name []byte, visit func(v T)) {
	if s != nil {
		s.root.matchRoot(name, visit)
	}
}

// AppendMatches appends the value of every filter that matches name.
func (s *Snapshot[T]) AppendMatches(dst []T, name []byte) []T {
	if s == nil {
		return dst
	}
	return s.root.appendRoot(dst, name)
}

// All visits every filter until visit returns false, in no particular order.
func (s *Snapshot[T]) All(visit func(filter string, v T) bool) {
	if s != nil {
		s.root.each("", true, visit)
	}
}
