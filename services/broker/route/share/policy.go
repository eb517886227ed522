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
	local := func(m *Member[S]) bool { return !m.Remote }
	any := func(*Member[S]) bool { return true }
	here := func(online bool, want func(*Member[S]) bool) (m Member[S], ok bool) {
		from, to := 0, g.mu.online
		if !online {
			from, to = to, len(g.mu.members)
		}
		if i := g.search(from, to, how, how.sticky(), want); i >= 0 {
			return g.mu.members[i], true
		}
		return m, false
	}
	for _, s := range steps(how.Policy) {
		switch {
		case s.local:
			m, ok = here(s.online, local)
		case how.sticky() && len(g.mu.far) > 0:
			m, ok = g.stick(s.online, how)
		default:
			m, ok = g.between(s.online, false, how.Random, func() (Member[S], bool) { return here(s.online, any) })
		}
		if ok {
			return m, s.online, true
		}
	}
	return m, false, false
}

// step is who is asked for: those with a connection or without, those of this
// broker or all.
type step struct{ online, local bool }

var (
	preferLocal       = []step{{true, true}, {false, true}, {true, false}, {false, false}}
	localOnly         = preferLocal[:2]
	onlineBeforeLocal = []step{{true, true}, {true, false}, {false, true}, {false, false}}
	everyone          = []step{{true, false}, {false, false}}
)

// steps are who is asked for, in order.
func steps(p link.SharePolicy) []step {
	switch p {
	case link.SharePreferLocal:
		return preferLocal
	case link.ShareLocalOnly:
		return localOnly
	case link.ShareOnlineBeforeLocal:
		return onlineBeforeLocal
	case link.ShareRoundRobin, link.ShareRandom, link.ShareStickyPublisher, link.ShareStickyTopic:
	}
	return everyone
}

func (h How) sticky() bool {
	return h.Policy == link.ShareStickyPublisher || h.Policy == link.ShareStickyTopic
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
		if h := Mix(how.Key ^ m.Hash); best < 0 || h > high {
			best, high = i, h
		}
	}
	return best
}

// Mix spreads a hash over all bits (the finalizer of MurmurHash3).
func Mix(h uint64) uint64 {
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
