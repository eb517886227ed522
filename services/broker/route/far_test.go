// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route/share"
)

// Partitions are served here, are ceded and come back, while others are told as
// far: the table always says what a naive list of both says.
func TestFarAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var table Tenant[int]
	type place struct {
		filter string
		part   partition.ID
	}
	local, far := map[place]map[int]bool{}, map[place]bool{}
	filters, names := []string{"a", "a/b", "a/+", "#", "a/#"}, []string{"a", "a/b", "b"}
	lasts := map[string]*Last[int]{}
	for _, name := range names {
		lasts[name] = &Last[int]{}
	}
	for range 20_000 {
		k, session := place{filters[r.IntN(len(filters))], partition.ID(r.IntN(3))}, r.IntN(3)
		served, known := len(local[k]) > 0, far[k]
		switch r.IntN(4) {
		case 0:
			first, wasFar := table.Subscribe(k.part, k.filter, Sub[int]{Session: session})
			if first == served || wasFar != (known && !served) {
				t.Fatalf("first %v known %v, expected %v %v", first, wasFar, !served, known)
			}
			if local[k] == nil {
				local[k] = map[int]bool{}
			}
			local[k][session] = true
			delete(far, k)
		case 1, 2:
			keep := r.IntN(2) == 0
			out := table.Unsubscribe
			if keep {
				out = table.Cede
			}
			delete(local[k], session)
			last := served && len(local[k]) == 0
			if got := out(k.part, session, k.filter); got != last {
				t.Fatalf("last %v, expected %v", got, last)
			}
			if last && keep {
				far[k] = true
			}
		default:
			present := r.IntN(2) == 0
			before := table.trie.Version()
			table.Far(k.filter, k.part, present)
			if changes := !served && present != known; changes != (table.trie.Version() != before) {
				t.Fatalf("Far %v of served %v known %v: publishers match again: %v", present, served, known, !changes)
			}
			switch {
			case served:
			case present:
				far[k] = true
			default:
				delete(far, k)
			}
		}
		if table.Has(k.filter, k.part) != (len(local[k]) > 0) {
			t.Fatalf("Has %v", k)
		}
		name := names[r.IntN(len(names))]
		var got, want []string
		for _, e := range table.AppendLast(nil, []byte(name), lasts[name]) {
			for _, p := range e.Parts() {
				switch {
				case !p.Far():
					got = append(got, fmt.Sprint(p.ID, " here ", len(p.List.Subs)))
				case !p.Durable:
					t.Fatal("a far part may have to store what it gets")
				default:
					got = append(got, fmt.Sprint(p.ID, " far"))
				}
			}
		}
		for k, sessions := range local {
			if len(sessions) > 0 && topic.Match(k.filter, []byte(name)) {
				want = append(want, fmt.Sprint(k.part, " here ", len(sessions)))
			}
		}
		for k := range far {
			if topic.Match(k.filter, []byte(name)) {
				want = append(want, fmt.Sprint(k.part, " far"))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%s leads to %v, expected %v", name, got, want)
		}
	}
}

// A group with members at other brokers only is found, and goes with the last.
func TestFarGroup(t *testing.T) {
	var table Tenant[int]
	const key, filter = "$share/g/t/#", "t/#"
	table.FarGroup(key, filter, 7, 2, 0)
	table.Far(filter, 7, true)
	es := table.AppendMatches(nil, []byte("t/x"))
	if len(es) != 1 || len(es[0].Groups()) != 1 || len(es[0].Parts()) != 1 {
		t.Fatalf("%+v", es)
	}
	m, online, ok := es[0].Groups()[0].PickBy(share.How{})
	if !ok || !online || !m.Far || m.Part != 7 {
		t.Fatalf("chose %+v online %v", m, online)
	}
	table.Join(key, filter, share.Member[int]{Session: 1, Part: 3}, true)
	table.FarGroup(key, filter, 7, 0, 0)
	table.Far(filter, 7, false)
	if m, _, ok := table.Group(key, filter).PickBy(share.How{}); !ok || m.Far || m.Session != 1 {
		t.Fatalf("chose %+v", m)
	}
	table.Leave(key, filter, 3, 1)
	if table.Len() != 0 {
		t.Fatal("a group without members is left")
	}
	table.FarGroup(key, filter, 7, 0, 0)
	if table.Len() != 0 {
		t.Fatal("a group was made for nobody")
	}
}

// Other brokers' partitions come and go while shards change theirs and publishers
// match: what stays is found once.
func TestFarAtOnce(t *testing.T) {
	var table Tenant[int]
	table.Subscribe(1, "a/+", Sub[int]{Session: 1})
	table.Far("a/+", 2, true)
	var work sync.WaitGroup
	for p := partition.ID(3); p < 6; p++ {
		work.Go(func() {
			for i := range 3000 {
				switch i % 4 {
				case 0:
					table.Far("a/+", p, true)
				case 1:
					table.Subscribe(p, "a/+", Sub[int]{Session: 1})
					if !table.Has("a/+", p) {
						t.Error("not served")
					}
				case 2:
					table.Cede(p, 1, "a/+")
				default:
					table.Far("a/+", p, false)
				}
			}
		})
	}
	work.Go(func() {
		var last Last[int]
		for range 9000 {
			found := 0
			for _, e := range table.AppendLast(nil, []byte("a/b"), &last) {
				for _, x := range e.Parts() {
					if x.ID < 3 && x.Far() == (x.ID == 2) {
						found++
					}
				}
			}
			if found != 2 {
				t.Errorf("%d of the two that stay were found", found)
				return
			}
		}
	})
	work.Wait()
	if es := table.AppendMatches(nil, []byte("a/b")); len(es) != 1 || len(es[0].Parts()) != 2 {
		t.Errorf("%+v", es)
	}
}
