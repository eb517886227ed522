// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/routes"
)

// What a station's shards and its routes tell each other, as a broker's region does.

// AddRoute implements shard.Cluster.
func (s *station) AddRoute(tenant, filter string, p partition.ID, epoch uint64, reached func()) {
	s.meta.routes.Add(tenant, filter, p, epoch, s.reaching(reached))
	s.meta.step()
}

// AwaitRoute implements shard.Cluster.
func (s *station) AwaitRoute(tenant, filter string, p partition.ID, reached func()) {
	s.meta.routes.Await(tenant, filter, p, s.reaching(reached))
	s.meta.step()
}

// reaching returns reached with a step of the shards behind it.
func (s *station) reaching(reached func()) func() {
	if reached == nil {
		return nil
	}
	return func() { reached(); s.step() }
}

// RemoveRoute implements shard.Cluster.
func (s *station) RemoveRoute(tenant, filter string, p partition.ID, epoch uint64) {
	s.meta.routes.Remove(tenant, filter, p, epoch)
	s.meta.step()
}

// SetGroup implements shard.Cluster.
func (s *station) SetGroup(tenant, key string, p partition.ID, epoch uint64, members, online, durable int) {
	s.meta.routes.SetGroup(tenant, key, p, epoch, routes.GroupState{Members: members, Online: online, Durable: durable})
	s.meta.step()
}

// Gaining implements shard.Cluster.
func (s *station) Gaining(p partition.ID, epoch uint64) { s.meta.routes.Gaining(p, epoch) }

// Gained implements shard.Cluster.
func (s *station) Gained(p partition.ID, epoch uint64, has func(tenant, filter string) bool) {
	s.meta.routes.Gained(p, epoch, has)
	s.meta.step()
}

// Lost implements shard.Cluster.
func (s *station) Lost(p partition.ID, epoch uint64) {
	s.meta.routes.Lost(p, epoch)
	s.meta.step()
}

// Recheck implements shard.Cluster.
func (s *station) Recheck(tenant, filter string, p partition.ID) {
	s.meta.routes.Recheck(tenant, filter, p)
	s.meta.step()
}

// FarRoute implements routes.Sink.
func (s *station) FarRoute(tenant, filter string, p partition.ID, present bool) {
	s.set.FarRoute(tenant, filter, p, present)
}

// FarGroup implements routes.Sink.
func (s *station) FarGroup(tenant, key string, p partition.ID, g routes.GroupState) {
	s.set.FarGroup(tenant, key, p, g.Online, g.Durable)
}

// astray says what is wrong about the routes that the nodes have, once all devices are there: empty
// if all nodes have those of the devices' sessions, where these are, and no others.
func (w *World) astray() (what string) {
	want := map[routes.Key]int{}
	for _, d := range w.devices {
		for _, f := range d.filters {
			want[routes.Key{Tenant: d.house.name, Filter: f, Partition: d.part}]++
		}
	}
	for _, n := range w.members() {
		m, found := n.station.meta, map[routes.Key]bool{}
		err := m.Range(routes.Space, func(key metadata.Key, v metadata.Value) bool {
			k, err := routes.ParseKey(key.Name)
			if strings.HasPrefix(k.Filter, "\x00") {
				return true // no subscription: where messages are retained
			}
			found[k] = true
			members := want[k]
			if err == nil && k.Group() {
				var g routes.GroupState
				if g, err = routes.ParseGroupState(v.Bytes); g != (routes.GroupState{Members: members, Online: members, Durable: members}) {
					what = fmt.Sprintf("%s has %v for %s of partition %d, expected %d members", n.name, g, k.Filter, k.Partition, members)
				}
			} else if members == 0 {
				what = fmt.Sprintf("%s has %s of partition %d, where nobody has subscribed to it", n.name, k.Filter, k.Partition)
			}
			if err != nil {
				what = fmt.Sprintf("%s has what cannot be read: %v", n.name, err)
			}
			return what == ""
		})
		switch {
		case what != "":
		case err != nil:
			what = fmt.Sprintf("the routes of %s cannot be read: %v", n.name, err)
		case len(found) != len(want):
			var lacks []string
			for k := range want {
				if !found[k] {
					lacks = append(lacks, fmt.Sprintf("%s of partition %d", k.Filter, k.Partition))
				}
			}
			slices.Sort(lacks)
			what = fmt.Sprintf("%s has %d routes, expected %d, and lacks %s", n.name, len(found), len(want), strings.Join(lacks, ", "))
		case !m.synced:
			what = fmt.Sprintf("%s has not compared its metadata with others", n.name)
		}
		if what != "" {
			return what
		}
	}
	return ""
}

// differing says what of the metadata is not the same at all nodes, once nothing is written any more, or
// what one knows and does not know that all others do.
func (w *World) differing() string {
	one := w.members()[0]
	first := one.station.meta.machine
	for _, n := range w.members() {
		m := n.station.meta.machine
		switch {
		case m.Digest() != first.Digest():
			return fmt.Sprintf("%s and %s have different metadata", one.name, n.name)
		case !m.Settled():
			return fmt.Sprintf("%s does not know that all others know what it knows, or keeps what it need not: %+v", n.name, m.Stats())
		}
	}
	return ""
}
