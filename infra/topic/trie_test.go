// SPDX-License-Identifier: Apache-2.0

package topic_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/manormq/manor/infra/topic"
)

func TestMatchAllocatesNothing(t *testing.T) {
	var trie topic.Trie[int]
	for i, f := range []string{"a/b/c", "a/+/c", "a/#", "#", "+/b/+"} {
		put(&trie, f, i)
	}
	for i := range 1000 {
		put(&trie, fmt.Sprintf("a/%d/c", i), i)
	}
	name, dst := []byte("a/b/c"), make([]*int, 0, 8)
	if got := testing.AllocsPerRun(100, func() {
		dst = trie.AppendMatches(dst[:0], name)
		if topic.ValidateName(name) != nil || !topic.Match("a/+/c", name) || trie.Get("a/7/c") == nil {
			t.Fail()
		}
	}); got != 0 || len(dst) != 5 {
		t.Errorf("%v allocations, %d matches", got, len(dst))
	}
}

// Another filter among many costs its value, its nodes, and now and then a
// bucket of the table.
func TestUpdateAllocatesLittle(t *testing.T) {
	var trie topic.Trie[int]
	filters := make([]string, 100_000)
	for i := range filters {
		filters[i] = fmt.Sprintf("wide/+/%d/#", i)
	}
	next, v := 0, new(int)
	if got := testing.AllocsPerRun(len(filters)-1, func() {
		trie.Update(filters[next], func(*int) *int { return v })
		next++
	}); got > 1 {
		t.Errorf("%v allocations for each filter", got)
	}
	if trie.Len() != len(filters) {
		t.Errorf("Len = %d", trie.Len())
	}
}

// A table has room for what is there, not for all that ever was: neither when
// other levels come for those that go, nor when most go.
func TestTableFollowsWhatIsThere(t *testing.T) {
	var trie topic.Trie[int]
	for i := range 10_000 {
		put(&trie, fmt.Sprintf("w/%d", i), i)
		if i >= 20 {
			remove(&trie, fmt.Sprintf("w/%d", i-20))
		}
	}
	if n := trie.Places("w"); n > 128 {
		t.Errorf("%d places for 20 levels, after others", n)
	}
	for i := 10_000; i < 100_000; i++ {
		put(&trie, fmt.Sprintf("w/%d", i), i)
		if i >= 20_000 {
			remove(&trie, fmt.Sprintf("w/%d", i-10_000))
		}
	}
	if n := trie.Places("w"); n < 10_000 || n > 40_000 {
		t.Errorf("%d places for 10,000 levels, after others", n)
	}
	for i := 90_000; i < 100_000; i++ {
		remove(&trie, fmt.Sprintf("w/%d", i))
	}
	if n := trie.Places("w"); n > 2048 {
		t.Errorf("%d places for 20 levels, once many", n)
	}
}

// Filters that stay are found once in every match, those of the past are not
// and the present one is, while others around them come and go: first kids, few
// kids and tables, which grow, are split, shrink and go.
func TestReadersWhileOneWrites(t *testing.T) {
	var trie topic.Trie[string]
	var done atomic.Bool
	var readers sync.WaitGroup
	stay := map[string][]string{}
	for _, base := range []string{"wide", "few", "one/x", "$s"} {
		for i := range 5 {
			name := fmt.Sprintf("%s/k%d/z", base, i)
			for _, f := range []string{name, fmt.Sprintf("%s/+/z", base), fmt.Sprintf("%s/k%d/#", base, i)} {
				put(&trie, f, f)
				stay[name] = append(stay[name], f)
			}
		}
	}
	mine := map[string]bool{}
	for _, fs := range stay {
		for _, f := range fs {
			mine[f] = true
		}
	}
	var latest atomic.Pointer[string]
	for range 4 {
		readers.Go(func() {
			var dst []*string
			for !done.Load() {
				for name, want := range stay {
					dst = trie.AppendMatches(dst[:0], []byte(name))
					seen := map[string]int{}
					for _, v := range dst {
						seen[*v]++
					}
					for _, f := range want {
						if seen[f] != 1 {
							t.Errorf("%s: %s found %d times", name, f, seen[f])
							return
						}
					}
				}
				// What was there before the match began is found, unless
				// something newer has come meanwhile, which may have removed it.
				f := latest.Load()
				if f != nil && trie.Get(*f) == nil && latest.Load() == f {
					t.Errorf("%s is not found", *f)
					return
				}
			}
		})
	}
	r, there := rand.New(rand.NewPCG(3, 4)), []string{}
	steps := 24_000
	if testing.Short() {
		steps = 8_000
	}
	for step := range steps {
		// Many for a time, then few, then many again.
		comes := 8
		if step/(steps/4)%2 == 1 {
			comes = 1
		}
		if r.IntN(10) < comes || len(there) == 0 {
			f := []string{
				fmt.Sprintf("wide/n%d", r.IntN(20_000)), fmt.Sprintf("wide/k%d/z/n%d", r.IntN(9), r.IntN(9)), fmt.Sprintf("few/n%d/+", r.IntN(9)),
				fmt.Sprintf("one/n%d", r.IntN(2)), "one/+/k1", "#", "$s/#", "+/k1/z",
			}[r.IntN(8)&r.IntN(8)]
			if mine[f] {
				continue
			}
			put(&trie, f, f)
			latest.Store(&f)
			there = append(there, f)
			continue
		}
		i := r.IntN(len(there))
		latest.Store(nil)
		remove(&trie, there[i])
		there[i] = there[len(there)-1]
		there = there[:len(there)-1]
	}
	done.Store(true)
	readers.Wait()
	for _, f := range there {
		remove(&trie, f)
	}
	for f := range mine {
		remove(&trie, f)
	}
	if !trie.Empty() {
		t.Error("nodes are left after everything was deleted")
	}
}

func BenchmarkTrieMatch(b *testing.B) {
	var trie topic.Trie[int]
	for i := range 100_000 {
		put(&trie, fmt.Sprintf("site/%d/sensor/%d", i%1000, i), i)
	}
	put(&trie, "site/+/sensor/+", 1)
	name := []byte("site/7/sensor/7")
	var dst []*int
	b.ReportAllocs()
	for b.Loop() {
		dst = trie.AppendMatches(dst[:0], name)
	}
}

// A filter comes and goes among 100,000.
func BenchmarkTrieUpdate(b *testing.B) {
	var trie topic.Trie[int]
	for i := range 100_000 {
		put(&trie, fmt.Sprintf("wide/+/%d/#", i), i)
	}
	v := new(int)
	b.ReportAllocs()
	for b.Loop() {
		trie.Update("wide/+/new/#", func(*int) *int { return v })
		trie.Update("wide/+/new/#", func(*int) *int { return nil })
	}
}

// Filters come into an empty trie: the time is for each of 100,000.
func BenchmarkTrieFill(b *testing.B) {
	filters := make([]string, 100_000)
	for i := range filters {
		filters[i] = fmt.Sprintf("wide/+/%d/#", i)
	}
	v := new(int)
	b.ReportAllocs()
	for n := 0; n < b.N; n += len(filters) {
		var trie topic.Trie[int]
		for _, f := range filters[:min(len(filters), b.N-n)] {
			trie.Update(f, func(*int) *int { return v })
		}
	}
}

func TestTrie_Begins(t *testing.T) {
	var trie topic.Trie[int]
	one := func(*int) *int { n := 1; return &n }
	gone := func(*int) *int { return nil }
	for _, f := range []string{"#", "+/a", "a/$SYS", "$SYSTEM/a"} {
		trie.Update(f, one)
	}
	if trie.Begins("$SYS") || !trie.Begins("a") || !trie.Begins("+") {
		t.Error("expected filters to begin with a and +, and none with $SYS")
	}
	for _, f := range []string{"$SYS", "$SYS/#", "$SYS/a/+"} {
		trie.Update(f, one)
		if !trie.Begins("$SYS") {
			t.Errorf("%s does not begin with $SYS", f)
		}
		trie.Update(f, gone)
		if trie.Begins("$SYS") {
			t.Errorf("%s is gone, but begins with $SYS", f)
		}
	}
}
