// SPDX-License-Identifier: Apache-2.0

package link

import (
	"cmp"
	"slices"
)

// Choose returns the partition of list that name belongs to, by rendezvous
// (highest random weight) hashing: growing the list by one moves 1/(m+1) of the
// names and no other. The list must not be empty. The weights are FNV-1a with a
// final mix, so they are the same at every gateway and broker and for ever.
func Choose[P ~uint16, T string | []byte](list []P, name T) P {
	h := fnv64(name)
	best, at := uint64(0), list[0]
	for _, p := range list {
		if w := mix(h ^ mix(uint64(p)+0x9E3779B97F4A7C15)); w >= best {
			best, at = w, p
		}
	}
	return at
}

// Cell returns the m partitions of list that are drawn for a tenant, in order: those
// with the highest weights, by rendezvous hashing of the tenant and the partition. With
// m below 1, or above what there is, it is the list itself. Like Choose it is the same
// everywhere and for ever.
func Cell[P ~uint16](tenant string, m int, list []P) []P {
	if m < 1 || m >= len(list) {
		return list
	}
	// Another hash than that of Choose, so that a tenant's clients are not drawn as it is.
	h := mix(fnv64(tenant) + 0x2545F4914F6CDD1D)
	weight := func(p P) uint64 { return mix(h ^ mix(uint64(p)+0x9E3779B97F4A7C15)) }
	out := slices.Clone(list)
	slices.SortFunc(out, func(a, b P) int { return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(a, b)) })
	out = slices.Clone(out[:m])
	slices.Sort(out)
	return out
}

func fnv64[T string | []byte](s T) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix is the finaliser of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
