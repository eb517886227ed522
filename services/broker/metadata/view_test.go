// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
)

// A view is what the store will be, to Get and to Scan, at any moment of a turn.
func TestView(t *testing.T) {
	first := rand.Uint64()
	for seed := first; seed < first+100; seed++ {
		r := rand.New(rand.NewPCG(seed, 0))
		store, want := mem.New(), map[string]string{}
		var batch kv.Batch
		v := view{store: store, writes: map[byte]map[string][]byte{}, batch: &batch}
		for range 200 {
			key := storeKey(byte(r.IntN(2)), kindObject, fmt.Sprint(r.IntN(20)))
			switch r.IntN(5) {
			case 0:
				v.delete(key)
				delete(want, string(key))
			case 1, 2:
				value := fmt.Sprint(r.Uint64())
				v.put(key, []byte(value))
				want[string(key)] = value
			case 3:
				if r.IntN(4) > 0 {
					break
				}
				if err := store.Apply(&batch, false); err != nil {
					t.Fatal(err)
				}
				batch.Reset()
				if v.written(); v.writes[0] != nil || v.writes[1] != nil {
					t.Fatal("a view keeps what the store has")
				}
			}
			if got, exists := v.get(key), want[string(key)]; string(got) != exists {
				t.Fatalf("seed %d: get is %q, want %q", seed, got, exists)
			}
			start, end := storeKey(1, kindObject, "1"), storeKey(1, kindObject, "5")
			limit := r.IntN(10)
			var got, all []string
			v.scan(start, end, func(key, value []byte) bool {
				got = append(got, string(key)+string(value))
				return len(got) < limit
			})
			for _, k := range slices.Sorted(maps.Keys(want)) {
				if k >= string(start) && k < string(end) {
					all = append(all, k+want[k])
				}
			}
			if all = all[:min(len(all), max(limit, 1))]; !slices.Equal(got, all) {
				t.Fatalf("seed %d: a scan gives %q, want %q", seed, got, all)
			}
		}
		if v.err != nil {
			t.Fatal(v.err)
		}
	}
}
