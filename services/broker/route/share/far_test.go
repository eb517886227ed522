// SPDX-License-Identifier: Apache-2.0

package share

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/manormq/manor/infra/link"
)

// broker is a group as one of several brokers knows it: those in its own partition
// as members, the others by their numbers.
type broker struct {
	part uint16
	*Group[int]
}

// cluster makes brokers with that many connected members in their partitions.
func cluster(online ...int) (brokers []broker, member map[int]bool) {
	member = map[int]bool{}
	for i, n := range online {
		b := broker{uint16(i + 1), NewGroup[int]("$share/g/t")}
		for k := range n {
			s := 100*(i+1) + k
			member[s] = true
			b.Join(Member[int]{Session: s, Part: b.part, Hash: uint64(s)}, true)
		}
		brokers = append(brokers, b)
	}
	tell(brokers)
	return brokers, member
}

// tell tells each broker of the members of the others.
func tell(brokers []broker) {
	for _, from := range brokers {
		_, online, durable := from.Count(from.part)
		for _, to := range brokers {
			if to.part != from.part {
				to.SetFar(from.part, online, durable)
			}
		}
	}
}

// send is one message published at broker i: who gets it in the end, or 0.
func send(t *testing.T, brokers []broker, i int, how How) int {
	t.Helper()
	m, online, ok := brokers[i].PickBy(how)
	if how.Policy == link.ShareRoundRobin && how.Key%2 == 0 { // what publishers ask
		var stored bool
		if m, stored, ok = brokers[i].Next(); stored != brokers[i].Durable() {
			t.Fatalf("a message may have to be stored: %v", stored)
		}
	}
	if !ok {
		return 0
	}
	if m.Far {
		if m.Session != 0 || m.Part == brokers[i].part {
			t.Fatalf("broker %d chose %+v", i, m)
		}
		in := brokers[m.Part-1].In(m.Part)
		if in == nil {
			t.Fatalf("broker %d chose partition %d, where nobody is", i, m.Part)
		}
		if m, online, ok = in.PickBy(how); !ok || m.Far {
			t.Fatalf("the owner chose %+v %v", m, ok)
		}
	}
	if !online {
		t.Fatalf("%d is not connected, others are", m.Session)
	}
	return m.Session
}

// Three brokers with 5, 1 and 0 connected members give each member as much, wherever
// is published, and nothing to who has gone.
func TestFairAcrossBrokers(t *testing.T) {
	for _, policy := range []link.SharePolicy{link.ShareRoundRobin, link.ShareRandom, link.ShareStickyPublisher, link.ShareStickyTopic} {
		r := rand.New(rand.NewPCG(1, uint64(policy)))
		brokers, member := cluster(5, 1, 0)
		check := func(want int) {
			t.Helper()
			const n = 12_000
			got := map[int]int{}
			for k := range n {
				s := send(t, brokers, k%3, How{Policy: policy, Random: r.Uint64(), Key: r.Uint64()})
				if !member[s] {
					t.Fatalf("%v: %d was chosen, who is not connected", policy, s)
				}
				got[s]++
			}
			for s := range member {
				if fair := n / want; got[s] < fair*85/100 || got[s] > fair*115/100 {
					t.Errorf("%v: member %d got %d of %d, expected about %d: %v", policy, s, got[s], n, fair, got)
				}
			}
		}
		check(6)
		brokers[0].SetOnline(101, false)
		brokers[0].Leave(103)
		delete(member, 101)
		delete(member, 103)
		tell(brokers)
		check(4)
		for s := 300; s < 304; s++ {
			member[s] = true
			brokers[2].Join(Member[int]{Session: s, Part: 3, Hash: uint64(s)}, true)
		}
		tell(brokers)
		check(8)
		for s := range member {
			if s < 300 {
				brokers[s/100-1].Leave(s)
				delete(member, s)
			}
		}
		tell(brokers)
		check(4)
		for s := range member {
			brokers[2].SetOnline(s, false)
		}
		tell(brokers)
		if s := send(t, brokers, 0, How{Policy: policy, Random: 7}); s != 0 {
			t.Errorf("%v: %d was chosen, nobody is there", policy, s)
		}
	}
}

// Sticky policies lead a key to one member from every broker, and a broker that
// goes moves the keys of its own members only.
func TestStickyAcrossBrokers(t *testing.T) {
	brokers, _ := cluster(3, 2, 1)
	choose := func(from []int) map[uint64]int {
		out := map[uint64]int{}
		for k := range uint64(500) {
			how := How{Policy: link.ShareStickyTopic, Key: Mix(k)}
			for _, i := range from {
				s := send(t, brokers, i, how)
				if before, ok := out[k]; ok && before != s {
					t.Fatalf("key %d leads to %d and %d", k, before, s)
				}
				out[k] = s
			}
		}
		return out
	}
	before := choose([]int{0, 1, 2})
	for _, i := range []int{0, 2} {
		brokers[i].SetFar(2, 0, 0)
	}
	for k, s := range choose([]int{0, 2}) {
		if before[k]/100 != 2 && s != before[k] || s/100 == 2 {
			t.Errorf("key %d went from %d to %d", k, before[k], s)
		}
	}
}

// prefer_local and its kin choose a far partition after, or before, who is here.
func TestFarByPolicy(t *testing.T) {
	const here, there, nobody = 1, 2, 0
	for _, c := range []struct {
		policy          link.SharePolicy
		online, durable bool // the member here
		on, stored      int  // of the far partition
		want            int
	}{
		{link.SharePreferLocal, true, false, 9, 9, here},
		{link.SharePreferLocal, false, true, 9, 9, here},
		{link.SharePreferLocal, false, false, 1, 0, there},
		{link.SharePreferLocal, false, false, 0, 1, there},
		{link.ShareLocalOnly, false, false, 9, 9, nobody},
		{link.ShareLocalOnly, false, true, 9, 9, here},
		{link.ShareOnlineBeforeLocal, false, true, 1, 0, there},
		{link.ShareOnlineBeforeLocal, false, true, 0, 1, here},
		{link.ShareRandom, false, true, 1, 0, there},
		{link.ShareRoundRobin, false, true, 1, 0, there},
		{link.ShareRoundRobin, false, false, 0, 1, there},
		{link.ShareStickyTopic, false, false, 0, 1, there},
		{link.ShareStickyTopic, false, true, 1, 0, there},
	} {
		g := NewGroup[int]("$share/g/t")
		g.Join(Member[int]{Session: 1, Part: 1, Durable: c.durable}, c.online)
		g.SetFar(2, c.on, c.stored)
		for r := range uint64(20) {
			m, online, ok := g.PickBy(How{Policy: c.policy, Random: r, Key: r})
			got := nobody
			switch {
			case ok && m.Far:
				got = there
			case ok:
				got = here
			}
			if got != c.want || ok && online != (got == here && c.online || got == there && c.on > 0) {
				t.Fatalf("%+v: chose %+v online %v", c, m, online)
			}
		}
	}
}

// A far partition takes what members without room here cannot, and what a member
// that goes leaves; a partition that comes here is not far any more.
func TestFar_HandOver(t *testing.T) {
	g := NewGroup[int]("$share/g/t")
	var busy atomic.Bool
	g.Join(Member[int]{Session: 1, Part: 1, Durable: true, Busy: &busy}, true)
	g.SetFar(2, 1, 0)
	busy.Store(true)
	for range 10 {
		if m, _, _ := g.Next(); !m.Far {
			t.Fatal("a busy member was chosen though another broker has one")
		}
	}
	if m, _, ok := g.Pick(1); !ok || !m.Far {
		t.Errorf("%+v takes over", m)
	}
	busy.Store(false)
	a, _, _ := g.Next()
	if b, _, _ := g.Next(); a.Far == b.Far {
		t.Errorf("%+v and %+v: a member here and another broker's do not take turns", a, b)
	}
	if m, _, ok := g.PickDurable(1); ok {
		t.Errorf("%+v takes what must stay stored", m)
	}
	g.SetFar(2, 1, 1)
	if m, online, ok := g.PickDurable(1); !ok || !online || !m.Far || !g.Durable() {
		t.Errorf("%+v takes over", m)
	}
	if g.Leave(1) {
		t.Error("the group is not empty: there are members in partition 2")
	}
	if m, stored, ok := g.Next(); !stored || !ok {
		t.Errorf("%+v is not said to be stored, elsewhere", m)
	}
	g.Join(Member[int]{Session: 2, Part: 2}, true)
	if m, _, _ := g.PickBy(How{}); m.Session != 2 {
		t.Errorf("chose %+v of a partition that is here now", m)
	}
	if members, online, durable := g.Count(2); members != 1 || online != 1 || durable != 0 {
		t.Error("counts", members, online, durable)
	}
	if !g.Leave(2) || g.In(2) != nil {
		t.Error("the group is empty")
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	brokers, _ := cluster(4, 2)
	for _, policy := range []link.SharePolicy{link.ShareRoundRobin, link.ShareRandom, link.SharePreferLocal, link.ShareStickyTopic} {
		r := uint64(0)
		if n := testing.AllocsPerRun(200, func() {
			r++
			brokers[0].PickBy(How{Policy: policy, Random: Mix(r), Key: r})
		}); n != 0 {
			t.Errorf("%v: %v allocations", policy, n)
		}
	}
}
