// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"cmp"
	"slices"

	"github.com/manormq/manor/services/broker/partition"
)

// Candidate is a broker that may hold partitions.
type Candidate struct {
	Name partition.Broker
	Beat
}

// Wanted returns the brokers that should hold partition p in n replicas, the owner
// first: those with the highest weights (rendezvous hashing: Thaler and Ravishankar,
// 1996), each in another zone as long as there are zones. A broker that is busy or
// does not take the label is not chosen, one that drains only if it must be. It
// returns fewer than n if there are fewer.
func Wanted(p partition.ID, n int, label string, brokers []Candidate) []partition.Broker {
	type scored struct {
		*Candidate
		score uint64
	}
	var order []scored
	for i := range brokers {
		if c := &brokers[i]; c.Accepts(label) && !c.Draining {
			order = append(order, scored{c, score(c, p)})
		}
	}
	slices.SortFunc(order, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.Name, b.Name))
	})
	var out []partition.Broker
	var zones []string
	for _, apart := range [2]bool{true, false} {
		for _, c := range order {
			if len(out) == n {
				return out
			}
			if slices.Contains(out, c.Name) || apart && c.Zone != "" && slices.Contains(zones, c.Zone) {
				continue
			}
			out, zones = append(out, c.Name), append(zones, c.Zone)
		}
	}
	return out
}

// score is the broker's weight for p: the highest of as many as its share.
func score(c *Candidate, p partition.ID) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(c.Name) {
		h = (h ^ uint64(c.Name[i])) * 1099511628211
	}
	best := uint64(0)
	for i := range max(c.Weight, 1) {
		best = max(best, mix(mix(h+uint64(i))^mix(uint64(p)+0x9E3779B97F4A7C15)))
	}
	return best
}

// mix is the finaliser of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
