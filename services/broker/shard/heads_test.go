// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/session"
)

// headsAmiss counts the sessions that a shard has and their partitions do not have among
// their heads, or the other way round.
func (s *Shard) headsAmiss() (n int) {
	here := 0
	for _, of := range s.sessions {
		for _, se := range of {
			here++
			if at := int(se.at); at < 1 || at > len(se.space.heads) || se.space.heads[at-1] != se {
				n++
			}
		}
	}
	for _, of := range []map[partition.ID]*space{s.spaces, s.ceded} {
		for _, p := range of {
			here -= len(p.heads)
		}
	}
	return n + max(here, -here)
}

// A partition's heads are the sessions that its shard finds by their client ids: not those
// that others have replaced, and not those that are gone.
func TestHeads(t *testing.T) {
	a, b := &space{id: 0}, &space{id: 1}
	tenant := &Tenant{id: "acme"}
	s := &Shard{sessions: make(map[*Tenant]map[mqtt.ClientID]*sess), spaces: map[partition.ID]*space{0: a, 1: b}}
	made := func(id mqtt.ClientID, in *space) *sess {
		return &sess{Session: session.Session{ClientID: id}, tenant: tenant, space: in}
	}
	var list []*sess
	for _, id := range []mqtt.ClientID{"1", "2", "3", "4", "5"} {
		se := made(id, a)
		list = append(list, se)
		s.put(se)
	}
	want := func(what string, inA, inB int) {
		t.Helper()
		if n := s.headsAmiss(); n != 0 || len(a.heads) != inA || len(b.heads) != inB {
			t.Errorf("%s: %d sessions are amiss; expected %d and %d, found %d and %d", what, n, inA, inB, len(a.heads), len(b.heads))
		}
	}
	want("five were put", 5, 0)
	s.put(list[4])
	want("one was put again", 5, 0)
	s.remove(list[1])
	s.remove(list[1])
	want("one was removed twice", 4, 0)
	s.put(made("3", b))
	want("one was replaced by one of another partition", 3, 1)
	s.remove(list[2])
	want("the one that was replaced is removed", 3, 1)
	for _, at := range []int{4, 0, 3} {
		s.remove(list[at])
	}
	want("all of a partition were removed", 0, 1)
}
