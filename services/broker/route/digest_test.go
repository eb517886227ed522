// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route/share"
)

// Three brokers, of which each serves some of six partitions, have the same digest when all know of
// all routes, whatever came before; and another one as long as one of them lacks one.
func TestTenant_Digest(t *testing.T) {
	const parts, filters, sessions = 6, 5, 3
	all := []partition.ID{0, 1, 2, 3, 4, 5}
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 7))
		var brokers [3]*Tenant[int]
		for i := range brokers {
			brokers[i] = &Tenant[int]{Digests: true}
		}
		owner := func(p partition.ID) int { return int(p) % 3 }
		has := map[string]bool{} // subscriptions, by partition, filter and session
		is := func(p partition.ID, f string) (n int) {
			for s := range sessions {
				if has[fmt.Sprint(p, f, s)] {
					n++
				}
			}
			return n
		}
		for range 300 {
			p, s := partition.ID(r.IntN(parts)), r.IntN(sessions)
			f, group := fmt.Sprint("f/", r.IntN(filters)), r.IntN(2) == 0
			key := f
			if group {
				key = "$share/g/" + f
			}
			own := brokers[owner(p)]
			switch k := fmt.Sprint(p, key, s); {
			case !has[k] && group:
				own.Join(key, f, share.Member[int]{Session: 100*int(p) + s, Part: uint16(p), Durable: s == 0}, r.IntN(2) == 0)
				has[k] = true
			case !has[k]:
				own.Subscribe(p, f, Sub[int]{Session: 100*int(p) + s})
				has[k] = true
			case group:
				own.Leave(key, f, p, 100*int(p)+s)
				delete(has, k)
			default:
				own.Unsubscribe(p, 100*int(p)+s, f)
				delete(has, k)
			}
			if r.IntN(4) == 0 {
				continue // the others hear of it later
			}
			for i, b := range brokers {
				switch {
				case i == owner(p):
				case group:
					b.FarGroup(key, f, p, is(p, key), 0)
				default:
					b.Far(f, p, is(p, key) > 0)
				}
			}
		}
		for p := range partition.ID(parts) {
			for n := range filters {
				f := fmt.Sprint("f/", n)
				for i, b := range brokers {
					if i != owner(p) {
						b.Far(f, p, is(p, f) > 0)
						b.FarGroup("$share/g/"+f, f, p, is(p, "$share/g/"+f), 0)
					}
				}
			}
		}
		want := brokers[0].Digest(all)
		for i, b := range brokers {
			if got := b.Digest(all); got != want {
				t.Fatalf("seed %d: broker %d has the digest %x, the first %x", seed, i, got, want)
			}
		}
		for p := range partition.ID(parts) {
			for n := range filters {
				f := fmt.Sprint("f/", n)
				b := brokers[(owner(p)+1)%3]
				if is(p, f) > 0 {
					b.Far(f, p, false)
					if b.Digest(all) == want || b.Digest(all[:p]) != brokers[owner(p)].Digest(all[:p]) {
						t.Errorf("seed %d: a broker that lacks %s of %d has the digest %x, the others %x", seed, f, p, b.Digest(all), want)
					}
					b.Far(f, p, true)
				}
				if key := "$share/g/" + f; is(p, key) > 0 {
					b.FarGroup(key, f, p, 0, 0)
					if b.Digest(all) == want {
						t.Errorf("seed %d: a broker that lacks %s of %d has the digest of the others", seed, key, p)
					}
					b.FarGroup(key, f, p, is(p, key), 0)
				}
			}
		}
		// What a broker serves no more stays, as far.
		for k := range sessions {
			brokers[0].Cede(0, k, "f/0")
		}
		if got := brokers[0].Digest(all); got != want {
			t.Errorf("seed %d: the digest is %x when a partition was ceded, %x before", seed, got, want)
		}
	}
}
