// SPDX-License-Identifier: Apache-2.0

package topic

import (
	"hash/maphash"
	"slices"
)

// kids are those of a node that do not fit into it: that of +, and all literal
// ones but the first. They are immutable but for the table, which is there once
// the few are many; readers see a change when the node has the changed copy.
type kids[T any] struct {
	plus  *node[T]
	few   []*node[T]
	table *table[T]
}

// fewMax is how many kids are found by looking at each.
const fewMax = 8

// get returns the node of a literal level, or nil.
func (k *kids[T]) get(level []byte) *node[T] {
	if k == nil {
		return nil
	}
	if k.table != nil {
		return k.table.get(hashOf(level), level)
	}
	for _, n := range k.few {
		if n.level == string(level) {
			return n
		}
	}
	return nil
}

// with returns the kids and n, whose level is not among them.
func (k *kids[T]) with(n *node[T]) *kids[T] {
	if k != nil && k.table != nil && n.level != "+" {
		t := k.table.put(hashOf([]byte(n.level)), n)
		if t == k.table {
			return k
		}
		return &kids[T]{plus: k.plus, table: t}
	}
	var c kids[T]
	if k != nil {
		c = *k
	}
	switch {
	case n.level == "+":
		c.plus = n
	case len(c.few) < fewMax:
		// Exact capacity: most of them stay few and live long.
		few := make([]*node[T], len(c.few)+1)
		few[copy(few, c.few)] = n
		c.few = few
	default:
		c.table = newTable[T]()
		for _, n := range append(slices.Clone(c.few), n) {
			c.table = c.table.put(hashOf([]byte(n.level)), n)
		}
		c.few = nil
	}
	return &c
}

// without returns the kids without n, which is one of them; nil if that leaves
// none.
func (k *kids[T]) without(n *node[T]) *kids[T] {
	if k.table != nil && n != k.plus && k.table.remove(hashOf([]byte(n.level)), n) {
		return k
	}
	c := *k
	switch {
	case c.plus == n:
		c.plus = nil
	case c.table != nil:
		c.table = nil // that was the last one
	default:
		few := make([]*node[T], 0, len(c.few)-1)
		for _, x := range c.few {
			if x != n {
				few = append(few, x)
			}
		}
		c.few = few
	}
	if c.plus == nil && len(c.few) == 0 && c.table == nil {
		return nil
	}
	return &c
}

// seed makes the hashes differ from process to process, as those of Go's maps,
// so that nobody can choose levels that collide. Nothing else depends on it.
var seed = maphash.MakeSeed()

// hashOf is never 0, which stands for a place that was never taken.
func hashOf(level []byte) uint32 { return max(1, uint32(maphash.Bytes(seed, level))) }
