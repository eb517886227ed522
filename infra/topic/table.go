// SPDX-License-Identifier: Apache-2.0

package topic

import "sync/atomic"

// A table holds many nodes by their levels. It is extendible hashing: the high
// bits of the hash choose a bucket, and a bucket that is full is split alone,
// so that an insert moves at most as many nodes as a bucket has places however
// many there are.
//
// The writer changes it in place. Readers that have come to a bucket which was
// split or built anew meanwhile find in it what was there when they began.
type table[T any] struct {
	depth   uint // len(buckets) is 1 << depth
	live    int  // nodes in it; the writer's
	buckets []atomic.Pointer[bucket[T]]
}

// A bucket is open addressing with linear probing from the low bits of the
// hash. hashes and nodes are apart to have 16 hashes in a cache line, and to
// spare 4 bytes a place. A hash without node is a place whose node was removed:
// probing goes on there.
type bucket[T any] struct {
	depth      uint   // how many high bits its nodes have in common
	live, used uint32 // places with a node, and with a hash; the writer's
	hashes     []atomic.Uint32
	nodes      []atomic.Pointer[node[T]]
}

const (
	hashBits   = 32
	bucketMin  = 16
	bucketMax  = 512
	bucketBits = 9 // of bucketMax
)

func newTable[T any]() *table[T] {
	t := &table[T]{buckets: make([]atomic.Pointer[bucket[T]], 1)}
	t.buckets[0].Store(newBucket[T](0, bucketMin))
	return t
}

func newBucket[T any](depth uint, places int) *bucket[T] {
	return &bucket[T]{
		depth: depth, hashes: make([]atomic.Uint32, places), nodes: make([]atomic.Pointer[node[T]], places),
	}
}

// get returns the node of level, or nil.
func (t *table[T]) get(h uint32, level []byte) *node[T] {
	b := t.buckets[h>>(hashBits-t.depth)].Load()
	mask := uint32(len(b.hashes) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch b.hashes[i].Load() {
		case h:
			if n := b.nodes[i].Load(); n != nil && n.level == string(level) {
				return n
			}
		case 0:
			return nil
		}
	}
}

// put adds n, whose level is not there, and returns t or, if the directory had
// to grow, the table that takes its place.
func (t *table[T]) put(h uint32, n *node[T]) *table[T] {
	t.live++
	for {
		b := t.buckets[h>>(hashBits-t.depth)].Load()
		if b.put(h, n) {
			return t
		}
		t = t.makeRoom(h, b)
	}
}

// remove takes n out and reports whether anything is left.
func (t *table[T]) remove(h uint32, n *node[T]) bool {
	t.live--
	b := t.buckets[h>>(hashBits-t.depth)].Load()
	b.remove(h, n)
	if places := len(b.hashes); places > bucketMin && int(b.live) < places/8 {
		t.place(h, b.rebuilt(b.depth, max(bucketMin, places/4), 0, 0))
	}
	return t.live > 0
}

// makeRoom builds anew the bucket of h, which is full: as it is if places of
// removed nodes fill it, larger, or as two.
func (t *table[T]) makeRoom(h uint32, b *bucket[T]) *table[T] {
	places := len(b.hashes)
	switch {
	case int(b.live) <= places/2:
		t.place(h, b.rebuilt(b.depth, places, 0, 0))
		return t
	case places < bucketMax || b.depth == hashBits-bucketBits:
		// Without bits to split by, which takes hashes that collide, it grows.
		t.place(h, b.rebuilt(b.depth, places*2, 0, 0))
		return t
	}
	if b.depth == t.depth {
		t = t.doubled()
	}
	bit := uint32(1) << (hashBits - 1 - b.depth)
	// Nobody finds the second half in the first and the other way round, so
	// that each may be put into its place alone.
	t.place(h&^bit, b.rebuilt(b.depth+1, places, bit, 0))
	t.place(h|bit, b.rebuilt(b.depth+1, places, bit, bit))
	return t
}

// doubled is a copy of the table with a directory of twice the size.
func (t *table[T]) doubled() *table[T] {
	c := &table[T]{depth: t.depth + 1, live: t.live, buckets: make([]atomic.Pointer[bucket[T]], 2*len(t.buckets))}
	for i := range c.buckets {
		c.buckets[i].Store(t.buckets[i/2].Load())
	}
	return c
}

// place puts b wherever hashes that have its bits in common with h lead.
func (t *table[T]) place(h uint32, b *bucket[T]) {
	span := uint32(1) << (t.depth - b.depth)
	from := h >> (hashBits - t.depth) &^ (span - 1)
	for i := from; i < from+span; i++ {
		t.buckets[i].Store(b)
	}
}

// put reports false if the bucket is full. A place stays empty for ever, so
// that probing ends.
func (b *bucket[T]) put(h uint32, n *node[T]) bool {
	mask := uint32(len(b.hashes) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		was := b.hashes[i].Load()
		switch {
		case was != 0 && b.nodes[i].Load() != nil:
			continue
		case was == 0 && int(b.used+1)*5 > len(b.hashes)*4:
			return false
		case was == 0:
			b.used++
		}
		b.live++
		b.nodes[i].Store(n)
		b.hashes[i].Store(h)
		return true
	}
}

func (b *bucket[T]) remove(h uint32, n *node[T]) {
	mask := uint32(len(b.hashes) - 1)
	i := h & mask
	for b.nodes[i].Load() != n {
		i = (i + 1) & mask
	}
	b.nodes[i].Store(nil)
	b.live--
}

// rebuilt is a bucket of the nodes whose hash has want at the bit.
func (b *bucket[T]) rebuilt(depth uint, places int, bit, want uint32) *bucket[T] {
	c := newBucket[T](depth, places)
	for i := range b.hashes {
		if n, h := b.nodes[i].Load(), b.hashes[i].Load(); n != nil && h&bit == want {
			c.put(h, n)
		}
	}
	return c
}
