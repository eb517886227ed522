// SPDX-License-Identifier: Apache-2.0

package topic_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/topic"
)

// The examples of MQTT 5 §4.7.1 to §4.7.3.
func TestMatch(t *testing.T) {
	for _, c := range []struct {
		filter, name string
		want         bool
	}{
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/#", "sport", true},
		{"sport/#", "sports", false},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"#", "$SYS/x", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"$SYS/#", "$SYS/x", true},
		{"$SYS/#", "$SYS", true},
		{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
		{"a/$b", "a/$b", true},
		{"a/+", "a/$b", true},
		{"ACCOUNTS", "Accounts", false},
	} {
		if got := topic.Match(c.filter, []byte(c.name)); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.filter, c.name, got)
		}
		var tr topic.Trie[int]
		put(&tr, c.filter, 1)
		if got := len(tr.AppendMatches(nil, []byte(c.name))) == 1; got != c.want {
			t.Errorf("Trie{%q}.AppendMatches(%q): %v", c.filter, c.name, got)
		}
		var names topic.Names[int]
		names.Put([]byte(c.name), 1)
		got := false
		names.MatchFilter(c.filter, nil, func([]byte, int) bool { got = true; return true })
		if got != c.want {
			t.Errorf("Names{%q}.MatchFilter(%q): %v", c.name, c.filter, got)
		}
	}
}

// naive matches by splitting; it shares no code with the package.
func naive(filter, name string) bool {
	f, n := strings.Split(filter, "/"), strings.Split(name, "/")
	if strings.HasPrefix(name, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	for i, l := range f {
		if l == "#" {
			return true
		}
		if i == len(n) || l != "+" && l != n[i] {
			return false
		}
	}
	return len(f) == len(n)
}

// compareNames is the documented order of Names.
func compareNames(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

func put[T any](t *topic.Trie[T], filter string, v T) {
	t.Update(filter, func(*T) *T { return &v })
}

// remove takes filter out and reports whether it was there.
func remove[T any](t *topic.Trie[T], filter string) (was bool) {
	t.Update(filter, func(old *T) *T { was = old != nil; return nil })
	return was
}

// check puts filters and names in every structure and compares each with the
// naive matcher, then deletes all and looks that nothing is left.
func check(t *testing.T, filters, names []string) {
	t.Helper()
	var trie topic.Trie[string]
	var stored topic.Names[string]
	for _, f := range filters {
		put(&trie, f, f)
	}
	for _, n := range names {
		stored.Put([]byte(n), n)
	}
	filters, names = unique(filters), unique(names)
	for round := range 2 {
		if trie.Len() != len(filters) || stored.Len() != len(names) {
			t.Fatalf("Len: trie %d of %d, names %d of %d", trie.Len(), len(filters), stored.Len(), len(names))
		}
		for _, n := range names {
			var want []string
			for _, f := range filters {
				if m := naive(f, n); m {
					want = append(want, f)
					if !topic.Match(f, []byte(n)) {
						t.Fatalf("Match(%q, %q) = false", f, n)
					}
				} else if topic.Match(f, []byte(n)) {
					t.Fatalf("Match(%q, %q) = true", f, n)
				}
			}
			var got []string
			for _, v := range trie.AppendMatches(nil, []byte(n)) {
				got = append(got, *v)
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Fatalf("AppendMatches(%q) = %q, want %q", n, got, want)
			}
		}
		for _, f := range filters {
			var want []string
			for _, n := range names {
				if naive(f, n) {
					want = append(want, n)
				}
			}
			slices.SortFunc(want, compareNames)
			var got []string
			stored.MatchFilter(f, nil, func(_ []byte, n string) bool { got = append(got, n); return true })
			if !slices.Equal(got, want) {
				t.Fatalf("MatchFilter(%q) = %q, want %q", f, got, want)
			}
			// One at a time, each behind the last, is the same list.
			var paged []string
			for after, more := "", true; more; {
				more = false
				stored.MatchFilter(f, []byte(after), func(_ []byte, n string) bool { paged, after, more = append(paged, n), n, true; return false })
				if len(paged) > len(want) {
					break
				}
			}
			if !slices.Equal(paged, want) && !slices.Contains(want, "") {
				t.Fatalf("MatchFilter(%q) paged = %q, want %q", f, paged, want)
			}
			if v := trie.Get(f); v == nil || *v != f {
				t.Fatalf("Get(%q) = %v", f, v)
			}
		}
		if round == 1 {
			break
		}
		for _, f := range filters[len(filters)/2:] {
			if !remove(&trie, f) || remove(&trie, f) || trie.Get(f) != nil {
				t.Fatalf("remove(%q)", f)
			}
		}
		filters = filters[:len(filters)/2]
		for _, n := range names[len(names)/2:] {
			if v, was := stored.Delete([]byte(n)); !was || v != n {
				t.Fatalf("Delete(%q): %q, %v", n, v, was)
			}
			if _, was := stored.Delete([]byte(n)); was {
				t.Fatalf("%q was deleted twice", n)
			}
		}
		names = names[:len(names)/2]
	}
	for _, f := range filters {
		remove(&trie, f)
	}
	for _, n := range names {
		stored.Delete([]byte(n))
	}
	if !trie.Empty() || stored.Len() != 0 {
		t.Fatalf("nodes are left after everything was deleted")
	}
}

func unique(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}

func TestStructuresAgreeWithNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"", "a", "b", "c", "$x", "dd"}
	draw := func(from []string) string {
		l := make([]string, 1+r.IntN(4))
		for i := range l {
			l[i] = from[r.IntN(len(from))]
			if l[i] == "#" {
				return strings.Join(l[:i+1], "/")
			}
		}
		return strings.Join(l, "/")
	}
	for range 300 {
		var filters, names []string
		for range 1 + r.IntN(40) {
			filters = append(filters, cmp.Or(draw(append(words, "+", "+", "#")), "+"))
			names = append(names, cmp.Or(draw(words), "a"))
		}
		check(t, filters, names)
	}
	// Wide: tables of several depths, lists of several chunks.
	var filters, names []string
	for i := range 3000 {
		filters = append(filters, fmt.Sprintf("w/%d", i))
	}
	for i := range 300 {
		names = append(names, fmt.Sprintf("w/%d", i*7), fmt.Sprintf("d/%d/state", i), fmt.Sprintf("d/%d/load/%d", i, i%3))
	}
	for i := range 40 { // more than are passed one by one
		names = append(names, fmt.Sprintf("d/7/deep/%d", i))
	}
	filters = append(filters, "d/+/state", "d/+/load/1", "d/+/load/+", "d/+", "d/+/state/#", "+/7/#", "d/#", "+/+/+", "d/7/+/3")
	check(t, filters, names)
}

func FuzzMatch(f *testing.F) {
	f.Add("a/b\na/+\n#\n+/b\n$SYS/#", "a/b\na\n$SYS/x\n/\n")
	f.Add("/+\n+\n+/#\na//#", "/\n//\na//b\na")
	f.Fuzz(func(t *testing.T, fs, ns string) {
		var filters, names []string
		for s := range strings.SplitSeq(fs, "\n") {
			if _, _, shared, err := topic.ParseShare(s); err == nil && !shared {
				filters = append(filters, s)
			}
		}
		for s := range strings.SplitSeq(ns, "\n") {
			if topic.ValidateName([]byte(s)) == nil {
				names = append(names, s)
			}
		}
		if len(filters) < 200 && len(names) < 200 {
			check(t, filters, names)
		}
	})
}

// Compare orders names as Names visits them.
func TestCompare(t *testing.T) {
	var names topic.Names[int]
	for i, n := range []string{"a", "a/b", "a!", "a!/x", "a/", "a//", "/a", "/", "b", "a/b/c", "a/b!", "$x", "ab", "ab/c"} {
		names.Put([]byte(n), i)
	}
	var last []byte
	names.All(func(name []byte, _ int) bool {
		if last != nil && (topic.Compare(last, name) >= 0 || topic.Compare(name, last) <= 0) {
			t.Errorf("%q is visited before %q", last, name)
		}
		if topic.Compare(name, name) != 0 {
			t.Errorf("%q differs from itself", name)
		}
		last = name
		return true
	})
}
