// SPDX-License-Identifier: Apache-2.0

package share

import (
	"fmt"
	"testing"

	"github.com/manormq/manor/infra/link"
)

// Each policy chooses, of members that are local (l) or remote (r), with a
// connection (+), without (-), or without and gone with it (x).
func TestPickBy(t *testing.T) {
	for _, c := range []struct {
		policy  link.SharePolicy
		members string
		want    string // places that are chosen; empty is nobody
	}{
		{link.ShareRoundRobin, "l+ r+ l-", "0 1"},
		{link.ShareRandom, "l+ r+ l-", "0 1"},
		{link.ShareRandom, "l- r- lx", "0 1"},
		{link.ShareRandom, "lx rx", ""},
		{link.SharePreferLocal, "l+ r+ l-", "0"},
		{link.SharePreferLocal, "r+ l- r-", "1"},
		{link.SharePreferLocal, "r+ lx r-", "0"},
		{link.SharePreferLocal, "lx r- r-", "1 2"},
		{link.ShareLocalOnly, "l+ l+ r+", "0 1"},
		{link.ShareLocalOnly, "r+ l-", "1"},
		{link.ShareLocalOnly, "r+ lx", ""},
		{link.ShareOnlineBeforeLocal, "l+ r+", "0"},
		{link.ShareOnlineBeforeLocal, "l- r+", "1"},
		{link.ShareOnlineBeforeLocal, "l- r-", "0"},
		{link.ShareOnlineBeforeLocal, "r- lx", "0"},
		{link.ShareStickyTopic, "", ""},
	} {
		g := NewGroup[int]("$share/g/t")
		var who, mark byte
		place := 0
		for i := 0; i+1 < len(c.members); i += 3 {
			who, mark = c.members[i], c.members[i+1]
			g.Join(Member[int]{Session: place + 1, Durable: mark != 'x', Remote: who == 'r', Hash: Hash(fmt.Sprint(place))}, mark == '+')
			place++
		}
		got := map[int]bool{}
		for r := range uint64(64) {
			m, online, ok := g.PickBy(How{Policy: c.policy, Random: r})
			if !ok {
				continue
			}
			got[m.Session-1] = true
			if online != (c.members[3*(m.Session-1)+1] == '+') {
				t.Errorf("%v of %q: online %v", c.policy, c.members, online)
			}
		}
		text := ""
		for i := range place {
			if got[i] {
				if text != "" {
					text += " "
				}
				text += fmt.Sprint(i)
			}
		}
		if text != c.want {
			t.Errorf("%v of %q: chose %q, expected %q", c.policy, c.members, text, c.want)
		}
	}
}

// A key keeps its member while that is there, and when it goes nobody else's
// changes.
func TestPickBy_Sticky(t *testing.T) {
	g := NewGroup[int]("$share/g/t")
	for i := 1; i <= 5; i++ {
		g.Join(Member[int]{Session: i, Hash: Hash(fmt.Sprint("client", i))}, true)
	}
	choose := func() map[uint64]int {
		out := map[uint64]int{}
		for k := range uint64(200) {
			m, _, ok := g.PickBy(How{Policy: link.ShareStickyPublisher, Key: Hash(fmt.Sprint("p", k)), Random: k})
			if !ok {
				t.Fatal("nobody")
			}
			out[k] = m.Session
		}
		return out
	}
	before := choose()
	shares := map[int]int{}
	for _, s := range before {
		shares[s]++
	}
	for i := 1; i <= 5; i++ {
		if shares[i] < 15 {
			t.Errorf("shares %v", shares)
		}
	}
	g.SetOnline(3, false)
	for k, s := range choose() {
		if s == 3 || before[k] != 3 && s != before[k] {
			t.Errorf("key %d went from %d to %d", k, before[k], s)
		}
	}
	g.SetOnline(3, true)
	for k, s := range choose() {
		if s != before[k] {
			t.Errorf("key %d did not come back to %d", k, before[k])
		}
	}
}
