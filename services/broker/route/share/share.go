// SPDX-License-Identifier: Apache-2.0

// Package share chooses which member of a shared subscription receives a
// message. It owns no goroutine; a Group has a lock of its own, since members
// of many shards and publishers meet there. It must not know sessions or
// queues: a member is a value of the caller's.
package share

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/manormq/manor/infra/mqtt"
)

// Member is one session of a group.
type Member[S comparable] struct {
	Session S
	Sub     mqtt.Subscription
	// Durable says that the session outlives its connection: it may be chosen
	// while nobody is connected.
	Durable bool
	// Remote says that it is at another broker.
	Remote bool
	// Hash names it to the sticky policies.
	Hash uint64
	// Part is the partition of the session.
	Part uint16
	// Far says that it stands for all members in the partition Part, which another
	// broker serves: that one chooses among them. Session is the zero value then. It
	// is set in what is chosen, never in what joins.
	Far bool
	// Busy says that it has no room for a message now: with a choice, which the
	// sticky policies have not, one that has room is taken. It may be nil.
	Busy *atomic.Bool
}

// Group is one shared subscription: one name and one filter in one tenant. Its
// methods may be called concurrently, and take constant time but for those that
// choose for a message that another member had, and Room; and where partitions are
// far, time in proportion to those.
type Group[S comparable] struct {
	// Key is $share/NAME/FILTER.
	Key string

	mu struct {
		sync.Mutex
		// members has those that are connected first, up to online.
		members []Member[S]
		online  int
		durable int
		at      map[S]int
		turn    int
		// far are the partitions that other brokers serve, farOnline and farDurable
		// the sums over them; spread counts the choices between here and there.
		far                   []far
		farOnline, farDurable int
		spread                int
		// in has the members by partition, nil until somebody asks; see In.
		in map[uint16]*Group[S]
	}
}

// NewGroup makes an empty group.
func NewGroup[S comparable](key string) *Group[S] {
	g := &Group[S]{Key: key}
	g.mu.at = make(map[S]int)
	return g
}

// Join adds m, or replaces its subscription. Its partition is not far any more.
func (g *Group[S]) Join(m Member[S], online bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.setFar(m.Part, 0, 0)
	if g.mu.in != nil {
		g.joinIn(m, online)
	}
	if i, ok := g.mu.at[m.Session]; ok {
		g.mu.members[i].Sub = m.Sub
		return
	}
	g.mu.members = append(g.mu.members, m)
	g.mu.at[m.Session] = len(g.mu.members) - 1
	if m.Durable {
		g.mu.durable++
	}
	if online {
		g.setOnline(len(g.mu.members) - 1)
	}
}

// Leave removes a member and reports whether the group is empty now.
func (g *Group[S]) Leave(s S) (empty bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, ok := g.mu.at[s]
	if ok {
		part := g.mu.members[i].Part
		if in := g.mu.in[part]; in != nil && in.Leave(s) {
			delete(g.mu.in, part)
		}
		if i < g.mu.online {
			i = g.setOffline(i)
		}
		last := len(g.mu.members) - 1
		if g.mu.members[i].Durable {
			g.mu.durable--
		}
		g.swap(i, last)
		var none Member[S]
		g.mu.members[last] = none
		g.mu.members = g.mu.members[:last]
		delete(g.mu.at, s)
	}
	return len(g.mu.members) == 0 && len(g.mu.far) == 0
}

// SetOnline notes that a member has a connection, or has none.
func (g *Group[S]) SetOnline(s S, online bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, ok := g.mu.at[s]
	if ok {
		if in := g.mu.in[g.mu.members[i].Part]; in != nil {
			in.SetOnline(s, online)
		}
	}
	switch {
	case !ok:
	case online && i >= g.mu.online:
		g.setOnline(i)
	case !online && i < g.mu.online:
		g.setOffline(i)
	}
}

// All are the members here, in no order.
func (g *Group[S]) All() []Member[S] {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.mu.members)
}

// Pick chooses a member other than except, in turn: one that is connected, else
// one that outlives its connection.
func (g *Group[S]) Pick(except S) (m Member[S], online, ok bool) { return g.choose(except, false) }

// Next is Pick for a message that no member had. stored reports whether it may have
// to be stored, as Durable does.
func (g *Group[S]) Next() (m Member[S], stored, ok bool) {
	g.mu.Lock()
	stored = g.mu.durable+g.mu.farDurable > 0
	if n := g.mu.online; n > 0 && g.mu.farOnline == 0 {
		// Most groups, most of the time: the next one is here and has room.
		if g.mu.turn++; g.mu.turn >= n { // a division is dear
			g.mu.turn %= n
		}
		if c := &g.mu.members[g.mu.turn]; !c.busy() {
			m = *c
			g.mu.Unlock()
			return m, stored, true
		}
		g.mu.turn-- // pick begins with the same one
	}
	g.mu.Unlock()
	var none S
	m, _, ok = g.choose(none, false)
	return m, stored, ok
}

// PickDurable chooses as Pick does, among those that outlive their connection.
func (g *Group[S]) PickDurable(except S) (m Member[S], online, ok bool) {
	return g.choose(except, true)
}

func (g *Group[S]) choose(except S, durable bool) (m Member[S], online, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m, ok = g.between(true, durable, 0, func() (Member[S], bool) { return g.pick(0, g.mu.online, durable, except) }); ok {
		return m, true, true
	}
	m, ok = g.between(false, true, 0, func() (m Member[S], ok bool) {
		if g.mu.durable == 0 {
			return m, false
		}
		return g.pick(g.mu.online, len(g.mu.members), true, except)
	})
	return m, false, ok
}

// Room reports whether a member other than except is connected and not busy,
// among those that outlive their connection if durable.
func (g *Group[S]) Room(except S, durable bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.mu.online {
		if m := &g.mu.members[i]; m.Session != except && (m.Durable || !durable) && !m.busy() {
			return true
		}
	}
	return false
}

// Durable reports whether a message for the group may have to be stored.
func (g *Group[S]) Durable() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.durable+g.mu.farDurable > 0
}

// Size is the number of members, here and elsewhere: in a far partition they are as
// many as are connected, or as outlive their connection, whichever is more.
func (g *Group[S]) Size() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.mu.members)
	for i := range g.mu.far {
		n += max(g.mu.far[i].online, g.mu.far[i].durable)
	}
	return n
}

// Len is the number of members here.
func (g *Group[S]) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.mu.members)
}

// busyMost is how many busy members are passed over for a message: where many
// are, none of them is to be looked for at each.
const busyMost = 8

func (m *Member[S]) busy() bool { return m.Busy != nil && m.Busy.Load() }

// pick passes busy members over, all of them where it chooses for a message that
// another member had.
func (g *Group[S]) pick(from, to int, durable bool, except S) (m Member[S], ok bool) {
	n := to - from
	first, turn, most := -1, 0, busyMost
	for range n {
		g.mu.turn++
		i := from + g.mu.turn%n
		c := &g.mu.members[i]
		if c.Session == except || durable && !c.Durable {
			continue
		}
		if !c.busy() {
			return *c, true
		}
		if first < 0 {
			first, turn = i, g.mu.turn
			if except != m.Session {
				most = n
			}
		}
		if most--; most <= 0 {
			break
		}
	}
	if first < 0 {
		return m, false
	}
	g.mu.turn = turn // the next message is for the next one
	return g.mu.members[first], true
}

func (g *Group[S]) setOnline(i int) {
	g.swap(i, g.mu.online)
	g.mu.online++
}

func (g *Group[S]) setOffline(i int) int {
	g.mu.online--
	g.swap(i, g.mu.online)
	return g.mu.online
}

func (g *Group[S]) swap(i, j int) {
	m := g.mu.members
	m[i], m[j] = m[j], m[i]
	g.mu.at[m[i].Session], g.mu.at[m[j].Session] = i, j
}
