// SPDX-License-Identifier: Apache-2.0

package route

import (
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route/share"
)

// Digest says which filters, and which shared subscriptions, lead to the partitions of a list,
// here or at other brokers: two brokers that have the same one know the same, but for chance
// (2^-64). Any goroutine may call it. It is kept with Digests only.
func (t *Tenant[S]) Digest(list []partition.ID) (d uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range list {
		d ^= t.digests[p]
	}
	return d
}

// flip notes that a filter, or the key of a shared subscription, leads to p now, or not any more;
// mu is held.
func (t *Tenant[S]) flip(p partition.ID, key string) {
	if !t.Digests {
		return
	}
	if t.digests == nil {
		t.digests = make(map[partition.ID]uint64)
	}
	d := t.digests[p] ^ share.Mix(share.Hash(key)+share.Mix(uint64(p)+1))
	if t.digests[p] = d; d == 0 {
		delete(t.digests, p)
	}
}

// flips is called before a group changes, and what it returns after that; mu is held.
func (t *Tenant[S]) flips(key string, g *share.Group[S], p partition.ID) func() {
	if !t.Digests {
		return func() {}
	}
	before := g.Holds(uint16(p))
	return func() {
		if g.Holds(uint16(p)) != before {
			t.flip(p, key)
		}
	}
}
