// SPDX-License-Identifier: Apache-2.0

package topic

import (
	"bytes"
	"sync/atomic"
)

// A node stands for the levels on the way to it. Readers go through it while
// the one writer changes it: whatever changes is an atomic pointer, and a node
// is reached only once all below it is in place. A node that is taken out
// stays as it is for the readers that are in it; the writer makes another one
// if its level comes again.
//
// There is one for nearly every filter, so that its size counts: 48 bytes, a
// size class of the allocator. # has no node, because nothing follows it; a
// first kid no table, because most nodes that have kids have one.
type node[T any] struct {
	level string
	v     atomic.Pointer[T] // of the filter that ends here
	hash  atomic.Pointer[T] // of the filter that goes on with #
	first atomic.Pointer[node[T]]
	rest  atomic.Pointer[kids[T]]
}

func (n *node[T]) empty() bool {
	return n.v.Load() == nil && n.hash.Load() == nil && n.first.Load() == nil && n.rest.Load() == nil
}

// update changes the value of filter below n and returns by how much the number
// of filters grows.
func (n *node[T]) update(filter string, change func(old *T) *T) int64 {
	level, tail, more := cut(filter)
	if level == "#" {
		return swap(&n.hash, change)
	}
	kid := n.kid([]byte(level))
	isNew := kid == nil
	if isNew {
		kid = &node[T]{level: level}
	}
	var grown int64
	if more {
		grown = kid.update(tail, change)
	} else {
		grown = swap(&kid.v, change)
	}
	switch empty := kid.empty(); {
	case isNew && !empty:
		n.link(kid)
	case !isNew && empty:
		n.unlink(kid)
	}
	return grown
}

func swap[T any](p *atomic.Pointer[T], change func(old *T) *T) int64 {
	old := p.Load()
	v := change(old)
	if v != old {
		p.Store(v)
	}
	switch {
	case old == nil && v != nil:
		return 1
	case old != nil && v == nil:
		return -1
	}
	return 0
}

// kid returns the node of a level that is not #, or nil.
func (n *node[T]) kid(level []byte) *node[T] {
	if len(level) == 1 && level[0] == '+' {
		return n.plus()
	}
	return n.literal(level)
}

func (n *node[T]) plus() *node[T] {
	if r := n.rest.Load(); r != nil {
		return r.plus
	}
	return nil
}

// literal returns the node of a level that is no wildcard, or nil.
func (n *node[T]) literal(level []byte) *node[T] {
	if f := n.first.Load(); f != nil && f.level == string(level) {
		return f
	}
	return n.rest.Load().get(level)
}

// link makes kid, whose level is not there, a kid of n.
func (n *node[T]) link(kid *node[T]) {
	if kid.level != "+" && n.first.Load() == nil {
		n.first.Store(kid)
		return
	}
	n.replaceRest(n.rest.Load().with(kid))
}

func (n *node[T]) unlink(kid *node[T]) {
	if n.first.Load() == kid {
		n.first.Store(nil)
		return
	}
	n.replaceRest(n.rest.Load().without(kid))
}

func (n *node[T]) replaceRest(r *kids[T]) {
	if r != n.rest.Load() {
		n.rest.Store(r)
	}
}

// appendMatches appends the values of all filters below n that match name.
func (n *node[T]) appendMatches(dst []*T, name []byte) []*T {
	for {
		if v := n.hash.Load(); v != nil {
			dst = append(dst, v)
		}
		level, tail, more := bytes.Cut(name, slash)
		if p := n.plus(); p != nil {
			if more {
				dst = p.appendMatches(dst, tail)
			} else {
				dst = p.appendEnd(dst)
			}
		}
		if n = n.literal(level); n == nil {
			return dst
		}
		if !more {
			return n.appendEnd(dst)
		}
		name = tail
	}
}

// appendLiteral is appendMatches without the filters that begin with a
// wildcard.
func (n *node[T]) appendLiteral(dst []*T, name []byte) []*T {
	level, tail, more := bytes.Cut(name, slash)
	switch n = n.literal(level); {
	case n == nil:
		return dst
	case more:
		return n.appendMatches(dst, tail)
	}
	return n.appendEnd(dst)
}

// appendEnd appends what matches when the name has no further level: the node
// itself and # below it [MQTT-4.7.1-1].
func (n *node[T]) appendEnd(dst []*T) []*T {
	if v := n.v.Load(); v != nil {
		dst = append(dst, v)
	}
	if v := n.hash.Load(); v != nil {
		dst = append(dst, v)
	}
	return dst
}
