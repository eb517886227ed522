// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route/share"
)

// Random subscriptions of sessions in several partitions always lead where a
// naive list of them says, and an emptied table is empty.
func TestAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var table Tenant[int]
	type key struct {
		session int
		filter  string
	}
	naive := map[key]bool{}
	filters := []string{"a", "a/b", "a/+", "#", "+/b", "a/#", "$s/x", "+/+"}
	names := []string{"a", "a/b", "b", "c/b", "$s/x", "a/b/c"}
	part := func(s int) partition.ID { return partition.ID(s % 3) }
	durable := func(s int) bool { return s%2 == 0 }
	for range 3000 {
		k := key{r.IntN(9), filters[r.IntN(len(filters))]}
		if r.IntN(2) == 0 {
			table.Subscribe(part(k.session), Sub[int]{Session: k.session, Options: mqtt.Subscription{Filter: k.filter}, Durable: durable(k.session)})
			naive[k] = true
		} else {
			table.Unsubscribe(part(k.session), k.session, k.filter)
			delete(naive, k)
		}
		name := names[r.IntN(len(names))]
		var got, want []string
		for _, e := range table.AppendMatches(nil, []byte(name)) {
			for _, p := range e.Parts {
				any := false
				for _, s := range p.List.Subs {
					got = append(got, fmt.Sprint(s.Session, s.Options.Filter, p.ID))
					any = any || s.Durable
				}
				if any != p.Durable {
					t.Fatalf("partition %d says durable %v, its subscriptions %v", p.ID, p.Durable, any)
				}
			}
		}
		for k := range naive {
			if topic.Match(k.filter, []byte(name)) {
				want = append(want, fmt.Sprint(k.session, k.filter, part(k.session)))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%s leads to %v, expected %v", name, got, want)
		}
	}
	for k := range naive {
		table.Unsubscribe(part(k.session), k.session, k.filter)
	}
	if table.Len() != 0 {
		t.Fatalf("%d filters left", table.Len())
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	var table Tenant[int]
	for i := range 1000 {
		table.Subscribe(0, Sub[int]{Session: i, Options: mqtt.Subscription{Filter: fmt.Sprintf("site/%d/+/temperature", i)}})
	}
	name := []byte("site/500/room/temperature")
	dst := make([]*Entry[int], 0, 8)
	if n := testing.AllocsPerRun(100, func() {
		if dst = table.AppendMatches(dst[:0], name); len(dst) != 1 {
			t.Fatal("no match")
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestGroupsComeAndGo(t *testing.T) {
	var table Tenant[int]
	for i := range 3 {
		table.Join("$share/g/t/#", "t/#", share.Member[int]{Session: i}, true)
	}
	table.Join("$share/h/t/#", "t/#", share.Member[int]{Session: 9}, true)
	es := table.AppendMatches(nil, []byte("t/x"))
	if len(es) != 1 || len(es[0].Groups) != 2 || es[0].Groups[0].Len() != 3 {
		t.Fatalf("%+v", es)
	}
	for i := range 3 {
		table.Leave("$share/g/t/#", "t/#", i)
	}
	table.Leave("$share/h/t/#", "t/#", 9)
	if table.Len() != 0 {
		t.Fatal("groups left")
	}
}
