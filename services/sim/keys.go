// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
)

// keys are the routes that the brokers tell each other. They stand in for package
// metadata, whose own world is in its tests: here each change reaches each node that
// can be reached, in order and a little later.
type keys struct {
	w   *World
	all map[key]keyValue
}

type key struct {
	tenant, filter string
	part           partition.ID
}

type keyValue struct {
	epoch           uint64
	online, durable int
}

// begin tells a node that starts everything.
func (k *keys) begin(s *station) {
	order := func(a, b key) int {
		return cmp.Or(cmp.Compare(a.part, b.part), strings.Compare(a.tenant, b.tenant), strings.Compare(a.filter, b.filter))
	}
	for _, x := range slices.SortedFunc(maps.Keys(k.all), order) {
		k.apply(s, x)
	}
}

// apply has a node hear of a key as it is now.
func (k *keys) apply(s *station, x key) {
	v, present := k.all[x]
	switch {
	case !strings.HasPrefix(x.filter, topic.SharePrefix):
		s.set.FarRoute(x.tenant, x.filter, x.part, present)
	default:
		s.set.FarGroup(x.tenant, x.filter, x.part, v.online, v.durable)
	}
	s.step()
}

// tell has all nodes hear of a key; reached, if it is not nil, is called at s when
// those do that s reaches, or after the time that a SUBACK waits at most.
func (k *keys) tell(s *station, x key, reached func()) {
	w, left, called := k.w, 1, false
	done := func() {
		if left--; left == 0 && !called && reached != nil {
			called = true
			s.during(func() { reached(); s.step() })()
		}
	}
	for _, n := range w.nodes {
		if !n.up {
			continue // it hears of all when it starts
		}
		left++
		k.carry(s, n, n.run, x, done)
	}
	w.after(w.between(100, w.net.delay), done)
	if reached != nil {
		w.after(250*ms, s.during(func() {
			if !called {
				called = true
				reached()
				s.step()
			}
		}))
	}
}

// carry brings a key to a node, when it can be reached.
func (k *keys) carry(from *station, n *node, run uint64, x key, done func()) {
	w := k.w
	at := n.station
	at.told = max(at.told, w.now+w.between(100, w.net.delay))
	w.after(at.told-w.now, func() {
		switch {
		case !n.up || n.run != run:
			done()
		case n != from.n && w.net.cut[from.n.at][n.at] > 0:
			w.after(100*ms, func() {
				if n.up && n.run == run {
					k.carry(from, n, run, x, done)
					return
				}
				done()
			})
		default:
			k.apply(at, x)
			done()
		}
	})
}

func (k *keys) put(s *station, x key, v keyValue, present bool, reached func()) {
	if old, ok := k.all[x]; !ok || old.epoch <= v.epoch {
		if present {
			k.all[x] = v
		} else {
			delete(k.all, x)
		}
	}
	k.tell(s, x, reached)
}

// AddRoute implements shard.Cluster.
func (s *station) AddRoute(tenant, filter string, p partition.ID, epoch uint64, reached func()) {
	s.n.w.keys.put(s, key{tenant, filter, p}, keyValue{epoch: epoch}, true, reached)
}

// AwaitRoute implements shard.Cluster.
func (s *station) AwaitRoute(tenant, filter string, p partition.ID, reached func()) {
	s.n.w.keys.tell(s, key{tenant, filter, p}, reached)
}

// RemoveRoute implements shard.Cluster.
func (s *station) RemoveRoute(tenant, filter string, p partition.ID, epoch uint64) {
	s.n.w.keys.put(s, key{tenant, filter, p}, keyValue{epoch: epoch}, false, nil)
}

// SetGroup implements shard.Cluster.
func (s *station) SetGroup(tenant, filter string, p partition.ID, epoch uint64, members, online, durable int) {
	s.n.w.keys.put(s, key{tenant, filter, p}, keyValue{epoch, online, durable}, members > 0, nil)
}

// Gaining implements shard.Cluster.
func (s *station) Gaining(partition.ID, uint64) {}

// Gained implements shard.Cluster: keys that the partition has not go.
func (s *station) Gained(p partition.ID, epoch uint64, has func(tenant, filter string) bool) {
	k := &s.n.w.keys
	var gone []key
	for x, v := range k.all {
		if x.part == p && v.epoch < epoch && !has(x.tenant, x.filter) {
			gone = append(gone, x)
		}
	}
	slices.SortFunc(gone, func(a, b key) int { return strings.Compare(a.filter, b.filter) })
	for _, x := range gone {
		delete(k.all, x)
		k.tell(s, x, nil)
	}
}

// Lost implements shard.Cluster.
func (s *station) Lost(partition.ID, uint64) {}

// Recheck implements shard.Cluster.
func (s *station) Recheck(tenant, filter string, p partition.ID) {
	k, x := &s.n.w.keys, key{tenant, filter, p}
	s.n.w.after(0, s.during(func() { k.apply(s, x) }))
}
