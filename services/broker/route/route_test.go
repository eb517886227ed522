// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"unsafe"

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
	id := func(filter string) uint32 { return uint32(slices.Index(filters, filter)) }
	durable := func(s int) bool { return s%2 == 0 }
	lasts := map[string]*Last[int]{}
	for _, name := range names {
		lasts[name] = &Last[int]{}
	}
	for range 3000 {
		k := key{r.IntN(9), filters[r.IntN(len(filters))]}
		if r.IntN(2) == 0 {
			table.Subscribe(part(k.session), k.filter, Sub[int]{Session: k.session, ID: id(k.filter), Durable: durable(k.session)})
			naive[k] = true
		} else {
			table.Unsubscribe(part(k.session), k.session, k.filter)
			delete(naive, k)
		}
		name := names[r.IntN(len(names))]
		var got, want []string
		entries := table.AppendMatches(nil, []byte(name))
		for range 2 { // the second time from memory
			if again := table.AppendLast(nil, []byte(name), lasts[name]); !slices.Equal(again, entries) {
				t.Fatalf("%s: a publisher that has sent to it finds %v, others %v", name, again, entries)
			}
		}
		for _, e := range entries {
			for _, p := range e.Parts() {
				any := false
				for _, s := range p.List.Subs {
					got = append(got, fmt.Sprint(s.Session, filters[s.ID], p.ID))
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

// Each shard changes the subscriptions of its partition while all match: what
// stays in a partition is found once, and a shard finds its own as it left it.
func TestShardsAtOnce(t *testing.T) {
	var table Tenant[int]
	var shards sync.WaitGroup
	filters := []string{"a/b", "a/+", "a/#", "+/b"}
	for p := range partition.ID(3) {
		for i, f := range filters {
			table.Subscribe(p, f, Sub[int]{Session: 0, ID: uint32(i)})
		}
	}
	for p := range partition.ID(3) {
		shards.Go(func() {
			r, mine := rand.New(rand.NewPCG(1, uint64(p))), map[string]bool{}
			for range 5000 {
				f := filters[r.IntN(len(filters))]
				if mine[f] {
					table.Unsubscribe(p, 1, f)
				} else {
					table.Subscribe(p, f, Sub[int]{Session: 1, Durable: true})
				}
				mine[f] = !mine[f]
				found, own := 0, 0
				for _, e := range table.AppendMatches(nil, []byte("a/b")) {
					for _, x := range e.Parts() {
						found++
						if x.ID != p {
							continue // not ours to look into
						}
						own++
						name := filters[x.List.Subs[0].ID]
						if want := mine[name]; x.Durable != want || len(x.List.Subs) == 2 != want {
							t.Errorf("%s: %+v, expected ours %v", name, x.List.Subs, want)
							return
						}
					}
				}
				if found != 3*len(filters) || own != len(filters) {
					t.Errorf("%d parts found, %d of ours", found, own)
					return
				}
			}
		})
	}
	shards.Wait()
}

func TestMatchAllocatesNothing(t *testing.T) {
	var table Tenant[int]
	for i := range 1000 {
		table.Subscribe(0, fmt.Sprintf("site/%d/+/temperature", i), Sub[int]{Session: i})
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
	if len(es) != 1 || len(es[0].Groups()) != 2 || es[0].Groups()[0].Len() != 3 {
		t.Fatalf("%+v", es)
	}
	// Subscriptions of the same filter come and go beside them.
	for p := range partition.ID(2) {
		table.Subscribe(p, "t/#", Sub[int]{Session: int(p)})
	}
	if es = table.AppendMatches(nil, []byte("t/x")); len(es) != 1 || len(es[0].Groups()) != 2 || len(es[0].Parts()) != 2 {
		t.Fatalf("%+v", es)
	}
	table.Unsubscribe(0, 0, "t/#")
	table.Unsubscribe(1, 1, "t/#")
	if es = table.AppendMatches(nil, []byte("t/x")); len(es) != 1 || len(es[0].Groups()) != 2 || len(es[0].Parts()) != 0 {
		t.Fatalf("%+v", es)
	}
	for i := range 3 {
		table.Leave("$share/g/t/#", "t/#", 0, i)
	}
	table.Leave("$share/h/t/#", "t/#", 0, 9)
	if table.Len() != 0 {
		t.Fatal("groups left")
	}
}

// Most filters have one subscription: the Entry that holds it is one object, of
// a size class of the allocator.
func TestOneSubscriptionIsOneObject(t *testing.T) {
	if size := unsafe.Sizeof(Entry[*int]{}); size != 64 {
		t.Errorf("an Entry has %d bytes", size)
	}
	var none *Entry[*int]
	sub := mqtt.Subscription{QoS: 1, NoLocal: true, RetainAsPublished: true, ID: 7}
	if n := testing.AllocsPerRun(100, func() { none.withPart(1, -1, SubOf(new(int), &sub, false)) }); n != 1+1 {
		t.Errorf("%v allocations", n)
	}
	if s := SubOf(0, &sub, true); s != (Sub[int]{ID: 7, QoS: 1, NoLocal: true, Retained: true, Durable: true}) {
		t.Errorf("%+v", s)
	}
}
