// SPDX-License-Identifier: Apache-2.0

package share

import "github.com/manormq/manor/infra/link"

// How is how a member is to be chosen.
type How struct {
	Policy link.SharePolicy
	// Key names the publisher or the topic to the sticky policies.
	Key uint64
	// Random is a random number, for the others but round robin.
	Random uint64
}

// PickBy chooses a member as how says: one that is connected, else one that
// outlives its connection, but for prefer_local, which rather takes a local one
// without connection than a remote one. It takes time in proportion to the
// members for the sticky policies, and where many are remote.
func (g *Group[S]) PickBy(how How) (m Member[S], online, ok bool) {
	if how.Policy == link.ShareRoundRobin {
		var none S
		return g.choose(none, false)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	all, on := len(g.mu.members), g.mu.online
	local := func(m *Member[S]) bool { return !m.Remote }
	any := func(*Member[S]) bool { return true }
	type step struct {
		from, to int
		want     func(*Member[S]) bool
	}
	var steps [4]step
	n := 0
	add := func(online bool, want func(*Member[S]) bool) {
		steps[n] = step{0, on, want}
		if !online {
			steps[n] = step{on, all, want}
		}
		n++
	}
	switch how.Policy {
	case link.SharePreferLocal:
		add(true, local)
		add(false, local)
		add(true, any)
		add(false, any)
	case link.ShareLocalOnly:
		add(true, local)
		add(false, local)
	case link.ShareOnlineBeforeLocal:
		add(true, local)
		add(true, any)
		add(false, local)
		add(false, any)
	case link.ShareRoundRobin, link.ShareRandom, link.ShareStickyPublisher, link.ShareStickyTopic:
		add(true, any)
		add(false, any)
	}
	sticky := how.Policy == link.ShareStickyPublisher || how.Policy == link.ShareStickyTopic
	for _, s := range steps[:n] {
		if i := g.search(s.from, s.to, how, sticky, s.want); i >= 0 {
			return g.mu.members[i], i < on, true
		}
	}
	return m, false, false
}

// search returns the place of a member between from and to, or -1.
func (g *Group[S]) search(from, to int, how How, sticky bool, want func(*Member[S]) bool) int {
	n := to - from
	if n <= 0 {
		return -1
	}
	best, high := -1, uint64(0)
	most := busyMost
	start := int(how.Random % uint64(n))
	for k := range n {
		i := from + (start+k)%n
		m := &g.mu.members[i]
		if i >= g.mu.online && !m.Durable || !want(m) {
			continue
		}
		if !sticky {
			if i >= g.mu.online || !m.busy() {
				return i
			}
			if best < 0 {
				best = i
			}
			if most--; most <= 0 {
				return best
			}
			continue
		}
		// Rendezvous: who comes or goes changes nothing for the others.
		if h := mix(how.Key ^ m.Hash); best < 0 || h > high {
			best, high = i, h
		}
	}
	return best
}

// mix spreads a hash over all bits (the finalizer of MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// Hash names a client id or a topic to the sticky policies, in every run alike
// (FNV-1a).
func Hash[T ~string | ~[]byte](s T) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}
