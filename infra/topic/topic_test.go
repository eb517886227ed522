// SPDX-License-Identifier: Apache-2.0

package topic_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
)

func TestValidateName(t *testing.T) {
	for _, c := range []struct {
		name string
		want error
	}{
		{"a", nil},
		{"/", nil},
		{"a//b/", nil},
		{"$SYS/x", nil},
		{"\ufeffa", nil}, // [MQTT-1.5.4-3]
		{strings.Repeat("x", 65535), nil},
		{"", mqtt.TopicNameInvalid},
		{strings.Repeat("x", 65536), mqtt.TopicNameInvalid},
		{"a/+", mqtt.TopicNameInvalid},
		{"a#", mqtt.TopicNameInvalid},
		{"a\x00b", mqtt.MalformedPacket},
		{"\xed\xa0\x80", mqtt.MalformedPacket}, // a surrogate
		{"\xc0\x80", mqtt.MalformedPacket},     // U+0000 overlong
		{"\xff", mqtt.MalformedPacket},
	} {
		if err := topic.ValidateName([]byte(c.name)); !errors.Is(err, c.want) {
			t.Errorf("ValidateName(%.20q) = %v, want %v", c.name, err, c.want)
		}
	}
}

func TestParseShare(t *testing.T) {
	for _, c := range []struct {
		filter, share, rest string
		shared              bool
		want                error
	}{
		{"#", "", "#", false, nil},
		{"a/+/b", "", "a/+/b", false, nil},
		{"+", "", "+", false, nil},
		{"/+/", "", "/+/", false, nil},
		{"$share/g/a/#", "g", "a/#", true, nil},
		{"$share/g//", "g", "/", true, nil},
		{"$share/g/$SYS/x", "g", "$SYS/x", true, nil},
		{"$shared/g", "", "$shared/g", false, nil},
		{"", "", "", false, mqtt.TopicFilterInvalid},
		{"a/#/b", "", "", false, mqtt.TopicFilterInvalid},
		{"a#", "", "", false, mqtt.TopicFilterInvalid},
		{"a+/b", "", "", false, mqtt.TopicFilterInvalid},
		{"a/+b", "", "", false, mqtt.TopicFilterInvalid},
		{"$share", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/g", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/g/", "", "", false, mqtt.TopicFilterInvalid},
		{"$share//a", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/g+/a", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/#/a", "", "", false, mqtt.TopicFilterInvalid},
		{"$share/g/a#", "", "", false, mqtt.TopicFilterInvalid},
		{strings.Repeat("x", 65536), "", "", false, mqtt.TopicFilterInvalid},
		{"a\x00", "", "", false, mqtt.MalformedPacket},
		{"\xed\xa0\x80", "", "", false, mqtt.MalformedPacket},
	} {
		share, rest, shared, err := topic.ParseShare(c.filter)
		if !errors.Is(err, c.want) || share != c.share || rest != c.rest || shared != c.shared {
			t.Errorf("ParseShare(%.20q) = %q, %q, %v, %v", c.filter, share, rest, shared, err)
		}
	}
}

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
		tr.Put(c.filter, 1)
		if got := len(tr.AppendMatches(nil, []byte(c.name))) == 1; got != c.want {
			t.Errorf("Trie{%q}.AppendMatches(%q): %v", c.filter, c.name, got)
		}
		var names topic.Names[int]
		names.Put(c.name, 1)
		got := false
		names.MatchFilter(c.filter, "", func(string, int) bool { got = true; return true })
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

// check puts filters and names in every structure and compares each with the
// naive matcher, then deletes all and looks that nothing is left.
func check(t *testing.T, filters, names []string) {
	t.Helper()
	var trie topic.Trie[string]
	var snap *topic.Snapshot[string]
	var stored topic.Names[string]
	for _, f := range filters {
		trie.Put(f, f)
		snap = snap.With(f, f)
	}
	for _, n := range names {
		stored.Put(n, n)
	}
	filters, names = unique(filters), unique(names)
	for round := range 2 {
		if trie.Len() != len(filters) || snap.Len() != len(filters) || stored.Len() != len(names) {
			t.Fatalf("Len: trie %d snapshot %d of %d, names %d of %d", trie.Len(), snap.Len(), len(filters), stored.Len(), len(names))
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
			var visited []string
			trie.Match([]byte(n), func(v string) { visited = append(visited, v) })
			for what, got := range map[string][]string{
				"Trie.Match":             visited,
				"Trie.AppendMatches":     trie.AppendMatches(nil, []byte(n)),
				"Snapshot.AppendMatches": snap.AppendMatches(nil, []byte(n)),
			} {
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Fatalf("%s(%q) = %q, want %q", what, n, got, want)
				}
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
			stored.MatchFilter(f, "", func(n, _ string) bool { got = append(got, n); return true })
			if !slices.Equal(got, want) {
				t.Fatalf("MatchFilter(%q) = %q, want %q", f, got, want)
			}
			// One at a time, each behind the last, is the same list.
			var paged []string
			for after, more := "", true; more; {
				more = false
				stored.MatchFilter(f, after, func(n, _ string) bool { paged, after, more = append(paged, n), n, true; return false })
				if len(paged) > len(want) {
					break
				}
			}
			if !slices.Equal(paged, want) && !slices.Contains(want, "") {
				t.Fatalf("MatchFilter(%q) paged = %q, want %q", f, paged, want)
			}
			if v, ok := trie.Get(f); !ok || v != f {
				t.Fatalf("Get(%q) = %q, %v", f, v, ok)
			}
		}
		if round == 1 {
			break
		}
		half := snap
		for _, f := range filters[len(filters)/2:] {
			if !trie.Delete(f) || trie.Delete(f) {
				t.Fatalf("Delete(%q)", f)
			}
			snap = snap.Without(f)
		}
		for _, f := range filters {
			if _, ok := half.Get(f); !ok {
				t.Fatalf("an older snapshot lost %q", f)
			}
		}
		filters = filters[:len(filters)/2]
		for _, n := range names[len(names)/2:] {
			if !stored.Delete(n) || stored.Delete(n) {
				t.Fatalf("Delete(%q)", n)
			}
		}
		names = names[:len(names)/2]
	}
	for _, f := range filters {
		trie.Delete(f)
		snap = snap.Without(f)
	}
	for _, n := range names {
		stored.Delete(n)
	}
	if !trie.Empty() || !snap.Empty() || !stored.Empty() {
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
		names = append(names, fmt.Sprintf("w/%d", i*7))
	}
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

func TestMatchAllocatesNothing(t *testing.T) {
	var trie topic.Trie[int]
	var snap *topic.Snapshot[int]
	for i, f := range []string{"a/b/c", "a/+/c", "a/#", "#", "+/b/+"} {
		trie.Put(f, i)
		snap = snap.With(f, i)
	}
	name, dst, n := []byte("a/b/c"), make([]int, 0, 8), 0
	if got := testing.AllocsPerRun(100, func() {
		dst = trie.AppendMatches(dst[:0], name)
		dst = snap.AppendMatches(dst[:0], name)
		trie.Match(name, func(int) { n++ })
		if topic.ValidateName(name) != nil || !topic.Match("a/+/c", name) {
			t.Fail()
		}
	}); got != 0 || len(dst) != 5 {
		t.Errorf("%v allocations, %d matches", got, len(dst))
	}
}

func TestSnapshotOfManyFiltersIsQuick(t *testing.T) {
	start := time.Now()
	var s *topic.Snapshot[int]
	for i := range 100_000 {
		s = s.With(fmt.Sprintf("wide/%d", i), i)
	}
	if d := time.Since(start); d > 3*time.Second { // < 1 s on an idle machine
		t.Errorf("100,000 filters took %v", d)
	}
	if s.Len() != 100_000 {
		t.Errorf("Len = %d", s.Len())
	}
}

func BenchmarkTrieMatch(b *testing.B) {
	var trie topic.Trie[int]
	for i := range 100_000 {
		trie.Put(fmt.Sprintf("site/%d/sensor/%d", i%1000, i), i)
	}
	trie.Put("site/+/sensor/+", 1)
	name := []byte("site/7/sensor/7")
	var dst []int
	b.ReportAllocs()
	for b.Loop() {
		dst = trie.AppendMatches(dst[:0], name)
	}
}

func BenchmarkSnapshotWith(b *testing.B) {
	var s *topic.Snapshot[int]
	for i := range 100_000 {
		s = s.With(fmt.Sprintf("wide/%d", i), i)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.With("wide/new", 1)
	}
}

// Compare orders names as Names visits them.
func TestCompare(t *testing.T) {
	var names topic.Names[int]
	for i, n := range []string{"a", "a/b", "a!", "a!/x", "a/", "a//", "/a", "/", "b", "a/b/c", "a/b!", "$x", "ab", "ab/c"} {
		names.Put(n, i)
	}
	last := ""
	names.All(func(name string, _ int) bool {
		if last != "" && (topic.Compare([]byte(last), []byte(name)) >= 0 || topic.Compare([]byte(name), []byte(last)) <= 0) {
			t.Errorf("%q is visited before %q", last, name)
		}
		if topic.Compare([]byte(name), []byte(name)) != 0 {
			t.Errorf("%q differs from itself", name)
		}
		last = name
		return true
	})
}
