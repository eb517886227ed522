// SPDX-License-Identifier: Apache-2.0

package uplink

import "hash/fnv"

// PickOther returns a link to some broker that owns partitions, for a guest of that
// client id, other than the broker of that name; nil if there is none. One that drains
// would end the guest with each partition that it gives up: it is chosen only if there is
// no other. Gateways that reach the same brokers choose the same one. It has the promise
// of Pool.Pick.
func (b *Brokers[T]) PickOther(tenant, clientID, not string) *Link[T] {
	key := tenant + "/" + clientID
	best, most, stays := (*Pool[T])(nil), uint64(0), false
	for name, p := range b.view.Load().named {
		if name == not || !p.Opens() || !b.table.Owns(name) {
			continue
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(key))
		_, _ = h.Write([]byte{0})
		_, _ = h.Write([]byte(name))
		w, keeps := mix(h.Sum64()), b.table.Keeps(name)
		if best == nil || keeps && !stays || keeps == stays && w > most {
			best, most, stays = p, w, keeps
		}
	}
	if best == nil {
		return nil
	}
	return best.Pick(key)
}

// mix spreads what FNV leaves alike in names that end differently.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
