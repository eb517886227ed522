// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"bytes"
	"hash/fnv"
)

// node is a node of an immutable treap: ordered by key, and by priority from
// the root down. A change copies the path from the root and shares the rest. A
// nil node is an empty tree.
type node struct {
	key, value  []byte
	priority    uint64
	left, right *node
}

// newNode copies key and value. The priority is a hash of the key, so that the
// shape of a tree depends on nothing but its keys.
func newNode(key, value []byte) *node {
	h := fnv.New64a()
	_, _ = h.Write(key)
	p := h.Sum64()
	p ^= p >> 31 // FNV leaves the high bits of short keys alike
	p *= 0x9E3779B97F4A7C15
	p ^= p >> 29
	b := make([]byte, 0, len(key)+len(value))
	b = append(append(b, key...), value...)
	return &node{key: b[:len(key):len(key)], value: b[len(key):], priority: p}
}

func (n *node) get(key []byte) *node {
	for n != nil {
		switch c := bytes.Compare(key, n.key); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n
		}
	}
	return nil
}

// put returns the tree with fresh, which has no children, in it.
func (n *node) put(fresh *node) *node {
	if n == nil {
		return fresh
	}
	c := bytes.Compare(fresh.key, n.key)
	if c == 0 {
		fresh.left, fresh.right = n.left, n.right
		return fresh
	}
	if fresh.priority > n.priority {
		fresh.left, fresh.right = n.split(fresh.key)
		return fresh
	}
	copied := *n
	if c < 0 {
		copied.left = n.left.put(fresh)
	} else {
		copied.right = n.right.put(fresh)
	}
	return &copied
}

// split returns the parts of the tree below and above key, which is not in it.
func (n *node) split(key []byte) (below, above *node) {
	if n == nil {
		return nil, nil
	}
	copied := *n
	if bytes.Compare(n.key, key) < 0 {
		copied.right, above = n.right.split(key)
		return &copied, above
	}
	below, copied.left = n.left.split(key)
	return below, &copied
}

// remove returns the tree without key.
func (n *node) remove(key []byte) *node {
	if n.get(key) == nil {
		return n
	}
	switch c := bytes.Compare(key, n.key); {
	case c < 0:
		copied := *n
		copied.left = n.left.remove(key)
		return &copied
	case c > 0:
		copied := *n
		copied.right = n.right.remove(key)
		return &copied
	}
	return join(n.left, n.right)
}

// join returns the union of two trees, all keys of a below all keys of b.
func join(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		copied := *a
		copied.right = join(a.right, b)
		return &copied
	}
	copied := *b
	copied.left = join(a, b.left)
	return &copied
}

// iterator walks a snapshot.
type iterator struct {
	path    []*node // nodes whose left side is done or skipped, deepest last
	current *node
	end     []byte
	bounded bool
	err     error
}

// descend pushes the path to the first key of n that is not below start.
func (i *iterator) descend(n *node, start []byte) {
	for n != nil {
		if bytes.Compare(n.key, start) >= 0 {
			i.path = append(i.path, n)
			n = n.left
		} else {
			n = n.right
		}
	}
}

func (i *iterator) Next() bool {
	i.current = nil
	if len(i.path) == 0 {
		return false
	}
	n := i.path[len(i.path)-1]
	i.path = i.path[:len(i.path)-1]
	if i.bounded && bytes.Compare(n.key, i.end) >= 0 {
		i.path = nil
		return false
	}
	i.descend(n.right, nil)
	i.current = n
	return true
}

func (i *iterator) Key() []byte {
	if i.current == nil {
		return nil
	}
	return i.current.key
}

func (i *iterator) Value() []byte {
	if i.current == nil {
		return nil
	}
	return i.current.value
}

func (i *iterator) Err() error { return i.err }

func (i *iterator) Close() { i.path, i.current = nil, nil }
