// SPDX-License-Identifier: Apache-2.0

package share

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/manormq/manor/infra/link"
)

func TestPickTakesTurns(t *testing.T) {
	for name, choose := range map[string]func(g *Group[int]) (Member[int], bool){
		"pick": func(g *Group[int]) (Member[int], bool) { m, _, ok := g.Pick(-1); return m, ok },
		"next": func(g *Group[int]) (Member[int], bool) { m, _, ok := g.Next(); return m, ok },
	} {
		g := NewGroup[int]("$share/g/t")
		for i := range 5 {
			g.Join(Member[int]{Session: i + 1}, i < 4)
		}
		got := map[int]int{}
		for k := range 400 {
			m, ok := choose(g)
			if !ok {
				t.Fatal("no member picked")
			}
			if got[m.Session]++; got[m.Session] != k/4+1 {
				t.Fatalf("%s: after %d messages member %d has %d", name, k+1, m.Session, got[m.Session])
			}
		}
	}
}

// Whatever comes and goes: a connected member is preferred, one without
// connection is chosen only if it outlives it, the excepted one never.
func TestPickAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	g := NewGroup[int]("$share/g/t")
	type state struct{ online, durable bool }
	naive := map[int]state{}
	for range 20000 {
		s := 1 + r.IntN(8)
		st, in := naive[s]
		switch r.IntN(4) {
		case 0:
			if !in {
				st = state{r.IntN(2) == 0, r.IntN(2) == 0}
				g.Join(Member[int]{Session: s, Durable: st.durable}, st.online)
				naive[s] = st
			}
		case 1:
			delete(naive, s)
			if empty := g.Leave(s); empty != (len(naive) == 0) {
				t.Fatal("empty or not?")
			}
		default:
			if in {
				st.online = !st.online
				naive[s] = st
				g.SetOnline(s, st.online)
			}
		}
		except := r.IntN(9) // 0 is nobody
		anyOnline, anyDurable, durable := false, false, false
		for k, x := range naive {
			durable = durable || x.durable
			if k != except {
				anyOnline = anyOnline || x.online
				anyDurable = anyDurable || x.durable
			}
		}
		if m, stored, ok := g.Next(); except == 0 && (ok != (anyOnline || anyDurable) || stored != durable ||
			ok && (naive[m.Session].online != anyOnline || !anyOnline && !naive[m.Session].durable)) {
			t.Fatalf("next is %+v (%v), stored %v, of members %v", m, ok, stored, naive)
		}
		m, online, ok := g.Pick(except)
		switch {
		case ok != (anyOnline || anyDurable), online != anyOnline:
			t.Fatalf("picked %v online %v, members %v except %d", ok, online, naive, except)
		case ok && (m.Session == except || naive[m.Session].online != online || !online && !naive[m.Session].durable):
			t.Fatalf("picked %+v of %v except %d", m, naive, except)
		case g.Durable() != durable || g.Len() != len(naive):
			t.Fatal("counts differ")
		}
	}
}

// With a choice a busy member is passed over, with none it is taken.
func TestPick_Busy(t *testing.T) {
	for _, policy := range []link.SharePolicy{link.ShareRoundRobin, link.ShareRandom, link.SharePreferLocal, link.ShareStickyTopic} {
		g := NewGroup[int]("$share/g/t")
		busy := make([]atomic.Bool, 4)
		for i := range busy {
			g.Join(Member[int]{Session: i + 1, Busy: &busy[i], Hash: Hash(string(rune('a' + i)))}, true)
		}
		choose := func() map[int]int {
			got := map[int]int{}
			for r := range uint64(300) {
				m, _, ok := g.PickBy(How{Policy: policy, Random: r, Key: r})
				if policy == link.ShareRoundRobin && r%2 == 0 {
					m, _, ok = g.Next()
				}
				if !ok {
					t.Fatal("nobody")
				}
				got[m.Session]++
			}
			return got
		}
		busy[0].Store(true)
		busy[2].Store(true)
		if got := choose(); policy != link.ShareStickyTopic && (got[1]+got[3] > 0 || got[2] == 0 || got[4] == 0) ||
			policy == link.ShareRoundRobin && got[2] != got[4] ||
			policy == link.ShareStickyTopic && len(got) != 4 {
			t.Errorf("%v: members 1 and 3 are busy, chosen were %v", policy, got)
		}
		if !g.Room(2, false) || g.Room(2, true) {
			t.Error("beside member 2, 4 has room, and none that is stored")
		}
		busy[1].Store(true)
		busy[3].Store(true)
		if got := choose(); len(got) != 4 {
			t.Errorf("%v: all are busy, chosen were %v", policy, got)
		}
		if g.Room(0, false) {
			t.Error("nobody has room")
		}
	}
}
