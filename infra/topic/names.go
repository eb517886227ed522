// SPDX-License-Identifier: Apache-2.0

package topic

import (
	"slices"
	"strings"
)

// Names maps topic names to values and finds all names that a filter matches,
// in order. The zero Names is empty. It is changed in place: one goroutine owns
// it.
//
// The order compares level by level, bytes within a level, and puts a name
// before those that continue it.
type Names[T any] struct {
	root leaf[T]
	n    int
}

// Compare is the order of Names: negative if a comes before b.
func Compare(a, b []byte) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		switch x, y := a[i], b[i]; {
		case x == y:
		case x == '/':
			return -1 // a's level is the shorter one
		case y == '/':
			return 1
		default:
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// A leaf stands for the levels on the way to it; name is set where a name
// ends.
type leaf[T any] struct {
	kids sorted[T]
	name string
	v    T
	set  bool
}

// sorted keeps the levels below a leaf in order, in chunks so that an insert
// moves little.
type sorted[T any] [][]twig[T]

type twig[T any] struct {
	level string
	leaf  *leaf[T]
}

const chunkMax = 256

// Len is the number of names.
func (t *Names[T]) Len() int { return t.n }

// Get returns the value of name.
func (t *Names[T]) Get(name string) (v T, ok bool) {
	n := &t.root
	for more, level, tail := true, "", name; more; {
		level, tail, more = cut(tail)
		if n = n.kids.get(level); n == nil {
			return v, false
		}
	}
	return n.v, n.set
}

// Put sets the value of name and keeps the string.
func (t *Names[T]) Put(name string, v T) {
	n := &t.root
	for more, level, tail := true, "", name; more; {
		level, tail, more = cut(tail)
		n = n.kids.at(level)
	}
	if !n.set {
		t.n++
	}
	n.name, n.v, n.set = name, v, true
}

// Delete removes name and reports whether it was there.
func (t *Names[T]) Delete(name string) bool {
	if _, ok := t.Get(name); !ok {
		return false
	}
	t.root.drop(name, true)
	t.n--
	return true
}

// All visits in order every name, those that begin with $ included, until
// visit returns false. visit must not change t.
func (t *Names[T]) All(visit func(name string, v T) bool) {
	t.root.walk(cursor{}, false, visit)
}

func (n *leaf[T]) drop(name string, more bool) {
	if !more {
		var zero T
		n.name, n.v, n.set = "", zero, false
		return
	}
	level, tail, more := cut(name)
	kid := n.kids.get(level)
	kid.drop(tail, more)
	if !kid.set && len(kid.kids) == 0 {
		n.kids.remove(level)
	}
}

// MatchFilter visits in order the names that filter (valid, no $share prefix)
// matches, until visit returns false. If after is not empty, only names behind
// it are visited; after itself need not exist. visit must not change t.
func (t *Names[T]) MatchFilter(filter, after string, visit func(name string, v T) bool) {
	t.root.match(filter, cursor{tail: after, more: after != ""}, true, visit)
}

// cursor is what is left of the name behind which a walk starts. A leaf that
// lies on the way to that name has on; only there anything is skipped.
type cursor struct {
	tail string
	more bool
	on   bool // the leaf is the cursor's name or on the way to it
}

func (n *leaf[T]) match(filter string, c cursor, root bool, visit func(string, T) bool) bool {
	if filter == "#" {
		return n.walk(c, root, visit)
	}
	level, tail, more := cut(filter)
	end := func(kid *leaf[T], c cursor) bool {
		switch {
		case more:
			return kid.match(tail, c, false, visit)
		case kid.set && !c.on:
			return visit(kid.name, kid.v)
		}
		return true
	}
	if level != "+" {
		kid := n.kids.get(level)
		if kid == nil {
			return true
		}
		kc, behind := c.step(level)
		if !behind {
			return true
		}
		// sport/# matches sport too [MQTT-4.7.1-1]; walk visits the leaf.
		return end(kid, kc)
	}
	return n.kids.from(c, func(kidLevel string, kid *leaf[T], kc cursor) bool {
		if root && strings.HasPrefix(kidLevel, "$") { // [MQTT-4.7.2-1]
			return true
		}
		return end(kid, kc)
	})
}

// walk visits n and all below it.
func (n *leaf[T]) walk(c cursor, root bool, visit func(string, T) bool) bool {
	if n.set && !c.on && !visit(n.name, n.v) {
		return false
	}
	return n.kids.from(c, func(level string, kid *leaf[T], kc cursor) bool {
		if root && strings.HasPrefix(level, "$") { // [MQTT-4.7.2-1]
			return true
		}
		return kid.walk(kc, false, visit)
	})
}

// step is the cursor for the leaf at level; behind is false if that leaf and
// all below it come before the cursor.
func (c cursor) step(level string) (next cursor, behind bool) {
	if !c.more {
		return cursor{}, true
	}
	at, tail, more := cut(c.tail)
	switch {
	case level < at:
		return cursor{}, false
	case level > at:
		return cursor{}, true
	}
	return cursor{tail: tail, more: more, on: true}, true
}

// find returns the place of level: chunk, index and whether it is there.
func (s sorted[T]) find(level string) (c, i int, ok bool) {
	c, _ = slices.BinarySearchFunc(s, level, func(chunk []twig[T], level string) int {
		return strings.Compare(chunk[len(chunk)-1].level, level)
	})
	if c == len(s) {
		return c, 0, false
	}
	i, ok = slices.BinarySearchFunc(s[c], level, func(t twig[T], level string) int { return strings.Compare(t.level, level) })
	return c, i, ok
}

func (s sorted[T]) get(level string) *leaf[T] {
	if c, i, ok := s.find(level); ok {
		return s[c][i].leaf
	}
	return nil
}

// at returns the leaf of level and makes it if needed.
func (s *sorted[T]) at(level string) *leaf[T] {
	c, i, ok := s.find(level)
	if ok {
		return (*s)[c][i].leaf
	}
	t := twig[T]{level: level, leaf: &leaf[T]{}}
	if c == len(*s) {
		if c == 0 {
			*s = sorted[T]{{t}}
			return t.leaf
		}
		c--
		i = len((*s)[c])
	}
	(*s)[c] = slices.Insert((*s)[c], i, t)
	if chunk := (*s)[c]; len(chunk) > chunkMax {
		half := slices.Clone(chunk[chunkMax/2:])
		clear(chunk[chunkMax/2:])
		(*s)[c] = chunk[: chunkMax/2 : chunkMax/2]
		*s = slices.Insert(*s, c+1, half)
	}
	return t.leaf
}

func (s *sorted[T]) remove(level string) {
	c, i, ok := s.find(level)
	if !ok {
		return
	}
	if (*s)[c] = slices.Delete((*s)[c], i, i+1); len((*s)[c]) == 0 {
		*s = slices.Delete(*s, c, c+1)
	}
	if len(*s) == 0 {
		*s = nil
	}
}

// from visits in order the leaves that are not wholly before the cursor.
func (s sorted[T]) from(c cursor, visit func(string, *leaf[T], cursor) bool) bool {
	chunk, i := 0, 0
	if c.more {
		at, _, _ := cut(c.tail)
		chunk, i, _ = s.find(at)
	}
	for ; chunk < len(s); chunk, i = chunk+1, 0 {
		for ; i < len(s[chunk]); i++ {
			t := &s[chunk][i]
			kc, _ := c.step(t.level)
			if !visit(t.level, t.leaf, kc) {
				return false
			}
		}
	}
	return true
}
