// SPDX-License-Identifier: Apache-2.0

package kvtest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/kv"
)

// Metamorphic runs the same random calls on every subject and reports the first
// answer in which two differ. Subjects with a Reopen are reopened now and then,
// each at moments of its own, which must make no difference.
func Metamorphic(t *testing.T, seed uint64, calls int, subjects map[string]Subject) {
	stores := make(map[string]kv.Store, len(subjects))
	for name, sub := range subjects {
		stores[name] = sub.Open(t)
		defer func() { _ = stores[name].Close() }()
	}
	r := rand.New(rand.NewPCG(seed, 0))
	key := func() []byte { // few and short, so that calls meet
		b := make([]byte, r.IntN(4))
		for i := range b {
			b[i] = "\x00ab\xff"[r.IntN(4)]
		}
		return b
	}
	for n := range calls {
		var want any
		var first string
		agree := func(name, call string, got any) {
			t.Helper()
			if first == "" {
				first, want = name, got
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d, call %d, %s: %s and %s differ:\n%s", seed, n, call, first, name, diff)
			}
		}
		switch what := r.IntN(10); {
		case what < 6:
			var b kv.Batch
			for range r.IntN(8) {
				if k := key(); r.IntN(3) == 0 {
					b.Delete(k)
				} else {
					b.Put(k, fmt.Appendf(nil, "%d.%d", n, b.Len()))
				}
			}
			sync := r.IntN(8) == 0
			for name, s := range stores {
				if err := s.Apply(&b, sync); err != nil {
					t.Fatalf("seed %d, call %d: %s: Apply: %v", seed, n, name, err)
				}
			}
		case what < 8:
			k := key()
			for name, s := range stores {
				v, err := s.Get(k)
				agree(name, fmt.Sprintf("Get(%q)", k), fmt.Sprintf("%s %v", v, err))
			}
		default:
			start, end := key(), key()
			if r.IntN(4) == 0 {
				end = nil
			}
			for name, s := range stores {
				agree(name, fmt.Sprintf("Scan(%q, %q)", start, end), Dump(t, s, start, end))
			}
		}
		for name, sub := range subjects {
			if sub.Reopen != nil && rand.IntN(200) == 0 {
				stores[name] = sub.Reopen(t, stores[name])
			}
		}
	}
}
