// SPDX-License-Identifier: Apache-2.0

package topic

import "math/bits"

// A table maps the literal levels below a node to their nodes. It is a hash
// array mapped trie: 5 bits of the level's hash choose a slot at each depth,
// so an insert that copies its path copies at most 32 slots a step, however
// many levels there are. Full hashes that collide end in a table without
// bitmap that is searched in line.
type table[T any] struct {
	bitmap uint32
	slots  []slot[T]
}

// A slot holds a level with its node or, if kid is nil, the next depth.
type slot[T any] struct {
	level string
	kid   *node[T]
	sub   *table[T]
}

const (
	tableBits = 5
	tableMask = 1<<tableBits - 1
	hashBits  = 64
)

// hashLevel is FNV-1a with a final mix, because the low bits choose first.
func hashLevel[S ~string | ~[]byte](s S) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	h ^= h >> 32
	h *= 0x9E3779B97F4A7C15
	return h ^ h>>29
}

// get returns the node of level, or nil.
func (t *table[T]) get(level []byte) *node[T] {
	if t == nil {
		return nil
	}
	h := hashLevel(level)
	for shift := 0; ; shift += tableBits {
		if shift >= hashBits {
			for i := range t.slots {
				if t.slots[i].level == string(level) {
					return t.slots[i].kid
				}
			}
			return nil
		}
		bit := uint32(1) << (h >> shift & tableMask)
		if t.bitmap&bit == 0 {
			return nil
		}
		s := &t.slots[bits.OnesCount32(t.bitmap&(bit-1))]
		if s.kid != nil {
			if s.level == string(level) {
				return s.kid
			}
			return nil
		}
		t = s.sub
	}
}

// getString is get for a level of a filter.
func (t *table[T]) getString(level string) *node[T] {
	if t == nil {
		return nil
	}
	h := hashLevel(level)
	for shift := 0; shift < hashBits; shift += tableBits {
		bit := uint32(1) << (h >> shift & tableMask)
		if t.bitmap&bit == 0 {
			return nil
		}
		s := &t.slots[bits.OnesCount32(t.bitmap&(bit-1))]
		if s.kid != nil {
			if s.level == level {
				return s.kid
			}
			return nil
		}
		t = s.sub
	}
	for i := range t.slots {
		if t.slots[i].level == level {
			return t.slots[i].kid
		}
	}
	return nil
}

// with returns a table in which level leads to kid. t itself is changed only
// if inPlace.
func (t *table[T]) with(level string, kid *node[T], inPlace bool) *table[T] {
	return t.insert(hashLevel(level), 0, slot[T]{level: level, kid: kid}, inPlace)
}

func (t *table[T]) insert(h uint64, shift int, s slot[T], inPlace bool) *table[T] {
	if t == nil {
		t = &table[T]{}
		inPlace = true
	}
	if shift >= hashBits {
		for i := range t.slots {
			if t.slots[i].level == s.level {
				return t.replace(i, s, inPlace)
			}
		}
		return t.add(len(t.slots), 0, s, inPlace)
	}
	bit := uint32(1) << (h >> shift & tableMask)
	i := bits.OnesCount32(t.bitmap & (bit - 1))
	if t.bitmap&bit == 0 {
		return t.add(i, bit, s, inPlace)
	}
	old := t.slots[i]
	switch {
	case old.kid == nil:
		return t.replace(i, slot[T]{sub: old.sub.insert(h, shift+tableBits, s, inPlace)}, inPlace)
	case old.level == s.level:
		return t.replace(i, s, inPlace)
	}
	sub := (*table[T])(nil).insert(hashLevel(old.level), shift+tableBits, old, true)
	sub = sub.insert(h, shift+tableBits, s, true)
	return t.replace(i, slot[T]{sub: sub}, inPlace)
}

// without returns a table without level, nil if nothing is left.
func (t *table[T]) without(level string, inPlace bool) *table[T] {
	return t.remove(hashLevel(level), 0, level, inPlace)
}

func (t *table[T]) remove(h uint64, shift int, level string, inPlace bool) *table[T] {
	if t == nil {
		return nil
	}
	if shift >= hashBits {
		for i := range t.slots {
			if t.slots[i].level == level {
				return t.drop(i, 0, inPlace)
			}
		}
		return t
	}
	bit := uint32(1) << (h >> shift & tableMask)
	if t.bitmap&bit == 0 {
		return t
	}
	i := bits.OnesCount32(t.bitmap & (bit - 1))
	old := t.slots[i]
	if old.kid != nil {
		if old.level != level {
			return t
		}
		return t.drop(i, bit, inPlace)
	}
	sub := old.sub.remove(h, shift+tableBits, level, inPlace)
	switch {
	case sub == nil:
		return t.drop(i, bit, inPlace)
	case len(sub.slots) == 1 && sub.slots[0].kid != nil:
		return t.replace(i, sub.slots[0], inPlace)
	case sub == old.sub:
		return t
	}
	return t.replace(i, slot[T]{sub: sub}, inPlace)
}

func (t *table[T]) replace(i int, s slot[T], inPlace bool) *table[T] {
	if !inPlace {
		t = &table[T]{bitmap: t.bitmap, slots: append([]slot[T](nil), t.slots...)}
	}
	t.slots[i] = s
	return t
}

func (t *table[T]) add(i int, bit uint32, s slot[T], inPlace bool) *table[T] {
	// Exact capacity: most tables stay small and live long.
	slots := make([]slot[T], len(t.slots)+1)
	copy(slots, t.slots[:i])
	slots[i] = s
	copy(slots[i+1:], t.slots[i:])
	if !inPlace {
		return &table[T]{bitmap: t.bitmap | bit, slots: slots}
	}
	t.bitmap |= bit
	t.slots = slots
	return t
}

func (t *table[T]) drop(i int, bit uint32, inPlace bool) *table[T] {
	if len(t.slots) == 1 {
		return nil
	}
	slots := make([]slot[T], len(t.slots)-1)
	copy(slots, t.slots[:i])
	copy(slots[i:], t.slots[i+1:])
	if !inPlace {
		return &table[T]{bitmap: t.bitmap &^ bit, slots: slots}
	}
	t.bitmap &^= bit
	t.slots = slots
	return t
}

// each visits all nodes until visit returns false; the order follows the
// hashes.
func (t *table[T]) each(visit func(level string, n *node[T]) bool) bool {
	if t == nil {
		return true
	}
	for i := range t.slots {
		s := &t.slots[i]
		if s.kid == nil {
			if !s.sub.each(visit) {
				return false
			}
		} else if !visit(s.level, s.kid) {
			return false
		}
	}
	return true
}
