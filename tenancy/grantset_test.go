// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
)

func set(t testing.TB, entries ...GrantEntry) *GrantSet {
	t.Helper()
	s, err := NewGrantSet(2, "test", entries)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func deny(action, filter string, priority int) GrantEntry {
	return GrantEntry{Effect: EffectDeny, Action: action, Filter: filter, Priority: priority}
}

func allow(action, filter string, priority int) GrantEntry {
	return GrantEntry{Action: action, Filter: filter, Priority: priority}
}

func TestGrantSet_Priorities(t *testing.T) {
	one, no := 1, false
	s := set(t,
		allow(ActionAll, "a/#", 0), deny(ActionAll, "a/secret/#", 0), allow(ActionAll, "a/secret/open", 1),
		GrantEntry{Action: ActionAll, Filter: "q/#", QoS: &one, Retain: &no}, GrantEntry{Action: ActionAll, Filter: "q/high", Priority: 2},
	)
	g := s.Bind(&Subject{})
	for _, c := range []struct {
		topic  string
		qos    mqtt.QoS
		retain bool
		want   bool
	}{
		{"a", 2, true, true},
		{"a/b", 2, true, true},
		{"a/secret", 0, false, false},
		{"a/secret/x", 0, false, false},
		{"a/secret/open", 2, true, true},
		{"b", 0, false, false},
		{"q/x", 1, false, true},
		{"q/x", 2, false, false},
		{"q/x", 0, true, false},
		{"q/high", 2, true, true},
	} {
		if got := g.MayPublish([]byte(c.topic), c.qos, c.retain); got != c.want {
			t.Errorf("publish %q at %d, retain %v: %v, want %v", c.topic, c.qos, c.retain, got, c.want)
		}
	}
	for _, c := range []struct {
		filter string
		want   bool
		qos    mqtt.QoS
	}{
		{"a", true, 2},
		{"a/#", false, 0},
		{"a/+", false, 0},
		{"a/b/#", true, 2},
		{"a/secret/open", true, 2},
		{"a/secret/+", false, 0},
		{"q/#", true, 1},
		{"q/high", true, 2},
		{"q/+", true, 1},
		{"#", false, 0},
		{"$share/g/a/b", true, 2},
		{"$share/g/a/secret/x", false, 0},
	} {
		if qos, got := g.MaySubscribe(c.filter); got != c.want || got && qos != c.qos {
			t.Errorf("subscribe %q: %v at %d, want %v at %d", c.filter, got, qos, c.want, c.qos)
		}
	}
}

// TestGrantSet_QoSOfParts: who subscribes to more than an entry of a higher
// priority, which allows less, gets no more than that.
func TestGrantSet_QoSOfParts(t *testing.T) {
	zero := 0
	g := set(t, allow(ActionSubscribe, "a/#", 0), GrantEntry{Action: ActionSubscribe, Filter: "a/b/c", QoS: &zero, Priority: 5}).Bind(&Subject{})
	for filter, want := range map[string]mqtt.QoS{"a/#": 0, "a/b/+": 0, "a/+/c": 0, "a/b/c": 0, "a/c/#": 2, "a/b": 2} {
		if qos, ok := g.MaySubscribe(filter); !ok || qos != want {
			t.Errorf("%q: %v at %d, want %d", filter, ok, qos, want)
		}
	}
}

func TestGrantSet_Placeholders(t *testing.T) {
	s := set(t,
		allow(ActionAll, "d/%c/#", 0), allow(ActionAll, "u-%u/x", 0), allow(ActionAll, "cn/%cn", 0), allow(ActionAll, "site/%claim.site_id/+", 0),
		allow(ActionAll, "g/%group/%c", 0), allow(ActionAll, "100%%/%c%%", 0),
		deny(ActionAll, "d/+/deny/%u", 1), deny(ActionAll, "g/%group/hidden", 1),
	)
	who := Subject{ClientID: "c1", Username: "joe", CommonName: "box", Groups: []string{"g1", "g2", "g/3"}, Claims: map[string]string{"site_id": "s"}}
	g := s.Bind(&who)
	for topic, want := range map[string]bool{
		"d/c1": true, "d/c1/x": true, "d/c2": false, "u-joe/x": true, "u-x/x": false, "cn/box": true, "site/s/x": true, "site/t/x": false,
		"g/g1/c1": true, "g/g2/c1": true, "g/g3/c1": false, "100%/c1%": true, "100%%/c1%%": false, "d/c1/deny/joe": false, "d/c1/deny/x": true,
		"g/g1/hidden": false, "g/%group/%c": false,
	} {
		// One of the groups is unsafe: its deny holds for all of g/+/#.
		if strings.HasPrefix(topic, "g/") {
			want = false
		}
		if got := g.MayPublish([]byte(topic), 0, false); got != want {
			t.Errorf("%q: %v, want %v", topic, got, want)
		}
	}
	who.Groups = []string{"g1", "g2"}
	g = s.Bind(&who)
	for topic, want := range map[string]bool{"g/g1/c1": true, "g/g2/c1": true, "g/g3/c1": false, "g/g1/hidden": false} {
		if got := g.MayPublish([]byte(topic), 0, false); got != want {
			t.Errorf("with safe groups %q: %v, want %v", topic, got, want)
		}
	}
	if _, ok := s.Bind(&Subject{}).MaySubscribe("site/s/x"); ok {
		t.Error("a claim that is not there was granted")
	}
	// What nothing can be meant by never makes a filter wider.
	for _, bad := range []string{"", "+", "#", "a/b", "/", "$SYS", "a\x00", "a+"} {
		g := s.Bind(&Subject{ClientID: bad, Username: bad, CommonName: bad, Groups: []string{bad}, Claims: map[string]string{"site_id": bad}})
		for _, topic := range []string{"d", "d/" + bad, "d/x/y", "d/a/b/c", "u-" + bad + "/x", "cn/" + bad, "cn/x", "site/x/y", "g/a/b"} {
			if g.MayPublish([]byte(topic), 0, false) {
				t.Errorf("the value %q allows %q", bad, topic)
			}
		}
		for _, filter := range []string{"#", "+", "d/#", "d/+/#", "d/" + bad + "/#", "cn/+", "site/+/+", "g/#"} {
			if _, ok := g.MaySubscribe(filter); ok {
				t.Errorf("the value %q allows to subscribe %q", bad, filter)
			}
		}
		// A deny with such a value denies all that it could be.
		g = set(t, allow(ActionAll, "#", 0), deny(ActionAll, "priv/%c/x", 0)).Bind(&Subject{ClientID: bad})
		if g.MayPublish([]byte("priv/any/y"), 0, false) || !g.MayPublish([]byte("priv"), 0, false) || !g.MayPublish([]byte("other/any"), 0, false) {
			t.Errorf("the value %q: a deny with it does not deny what is below", bad)
		}
	}
}

// world is a random set of entries and a client, with all names of a small
// alphabet.
type world struct {
	entries []GrantEntry
	who     Subject
}

var (
	words  = []string{"a", "b", "c1", "ac1", "aa", ""}
	levels = []string{"a", "b", "c1", "", "+", "%c", "%group", "a%c", "%claim.x"}
)

func randomWorld(r *rand.Rand) world {
	w := world{who: Subject{ClientID: []string{"c1", "a", "x/y", ""}[r.IntN(4)], Groups: [][]string{nil, {"a"}, {"a", "b"}, {"b", "#"}}[r.IntN(4)]}}
	if r.IntN(2) == 0 {
		w.who.Claims = map[string]string{"x": "b"}
	}
	for range 1 + r.IntN(8) {
		e := GrantEntry{Action: []string{ActionPublish, ActionSubscribe, ActionAll}[r.IntN(3)], Filter: randomFilter(r, levels), Priority: r.IntN(3)}
		switch r.IntN(4) {
		case 0:
			e.Effect = EffectDeny
		case 1:
			q, no := r.IntN(3), r.IntN(2) == 0
			e.QoS, e.Retain = &q, &no
		}
		w.entries = append(w.entries, e)
	}
	return w
}

func randomFilter(r *rand.Rand, from []string) string {
	for {
		var all []string
		for range 1 + r.IntN(3) {
			all = append(all, from[r.IntN(len(from))])
		}
		if r.IntN(3) == 0 {
			all[len(all)-1] = "#"
		}
		if r.IntN(20) == 0 {
			all[0] = "$SYS"
		}
		if f := strings.Join(all, "/"); f != "" {
			return f
		}
	}
}

func allNames() (names []string) {
	for _, a := range append(words, "$SYS") {
		names = append(names, a)
		for _, b := range words {
			names = append(names, a+"/"+b)
			for _, c := range words {
				names = append(names, a+"/"+b+"/"+c)
			}
		}
	}
	return names
}

// naive is the filters that an entry stands for, written again from its
// description.
func naive(e *GrantEntry, who *Subject) (all []string) {
	all = []string{""}
	var closed []string
	for i, level := range strings.Split(e.Filter, "/") {
		values, bad := []string{level}, false
		for placeholder, v := range map[string][]string{"%c": {who.ClientID}, "%group": who.Groups, "%claim.x": {who.Claims["x"]}} {
			if !strings.Contains(level, placeholder) || placeholder == "%c" && strings.Contains(level, "%claim") {
				continue
			}
			values = nil
			for _, x := range v {
				if x == "" || strings.ContainsAny(x, "+#/$") {
					bad = true
				} else {
					values = append(values, strings.ReplaceAll(level, placeholder, x))
				}
			}
		}
		slash := "/"
		if i == 0 {
			slash = ""
		}
		var next []string
		for _, f := range all {
			if bad && e.Deny() {
				closed = append(closed, f+slash+"+/#")
			}
			for _, v := range values {
				next = append(next, f+slash+v)
			}
		}
		all = next
	}
	return append(all, closed...)
}

// decide is the answer for a topic name, written again from the description.
func (w *world) decide(action, name string, qos mqtt.QoS, retain bool) bool {
	best, allowed, denied := -1, false, false
	for i := range w.entries {
		e := &w.entries[i]
		if e.Action != ActionAll && e.Action != action || action == ActionPublish && strings.HasPrefix(name, "$") {
			continue
		}
		match := false
		for _, f := range naive(e, &w.who) {
			match = match || topic.Match(f, []byte(name))
		}
		if !match || e.Priority < best {
			continue
		}
		if e.Priority > best {
			best, allowed, denied = e.Priority, false, false
		}
		denied = denied || e.Deny()
		allowed = allowed || !e.Deny() && (e.QoS == nil || int(qos) <= *e.QoS) && (!retain || e.Retain == nil || *e.Retain)
	}
	return allowed && !denied
}

// TestGrantSet_Random holds names to decide; and filters to what they may match,
// in both directions: what is granted is allowed name by name, and what is not is
// not covered by one entry or meets a deny.
func TestGrantSet_Random(t *testing.T) {
	names := allNames()
	granted := 0
	for seed := range uint64(600) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := randomWorld(r)
		s, err := NewGrantSet(2, "r", w.entries)
		if err != nil {
			if strings.Contains(fmt.Sprint(w.entries), "$SYS") {
				continue
			}
			t.Fatal(err)
		}
		g := s.Bind(&w.who)
		for _, name := range names {
			if name == "" {
				continue
			}
			qos, retain := mqtt.QoS(r.IntN(3)), r.IntN(2) == 0
			want := w.decide(ActionPublish, name, qos, retain)
			x := g.Explain(Question{ActionPublish, name, qos, retain})
			if got := g.MayPublish([]byte(name), qos, retain); got != want || x.Allowed != want {
				t.Fatalf("seed %d: %+v of %+v: publish %q at %d, retain %v: %v, want %v (%s)", seed, w.entries, w.who, name, qos, retain, got, want, x.Why)
			}
			if got, want := g.MayReceive([]byte(name)), w.decide(ActionSubscribe, name, 0, false); got != want {
				t.Fatalf("seed %d: %+v of %+v: receive %q: %v, want %v", seed, w.entries, w.who, name, got, want)
			}
		}
		for range 20 {
			filter := randomFilter(r, []string{"a", "b", "c1", "", "+"})
			most, ok := g.MaySubscribe(filter)
			x := g.Explain(Question{ActionSubscribe, filter, 0, false})
			covered, met := -1, -1
			for i := range w.entries {
				e := &w.entries[i]
				if e.Action == ActionPublish {
					continue
				}
				for _, f := range naive(e, &w.who) {
					if e.Deny() && meet(names, f, filter) {
						met = max(met, e.Priority)
					}
					if !e.Deny() && filterCovers(f, filter) {
						covered = max(covered, e.Priority)
					}
				}
			}
			if want := covered > met; ok != want || x.Allowed != want {
				t.Fatalf("seed %d: %+v of %+v: subscribe %q: %v, want %v (%s)", seed, w.entries, w.who, filter, ok, want, x.Why)
			}
			if !ok {
				continue
			}
			granted++
			for _, name := range names {
				if name != "" && topic.Match(filter, []byte(name)) && !w.decide(ActionSubscribe, name, most, false) {
					t.Fatalf("seed %d: %+v of %+v: %q is granted at %d and matches %q, which is denied", seed, w.entries, w.who, filter, most, name)
				}
			}
		}
	}
	if granted < 1000 {
		t.Errorf("only %d filters were granted: the test sees little", granted)
	}
}

// meet reports whether both filters match one of the names.
func meet(names []string, a, b string) bool {
	for _, n := range names {
		if n != "" && topic.Match(a, []byte(n)) && topic.Match(b, []byte(n)) {
			return true
		}
	}
	return false
}

// FuzzGrant holds filters to names: if an entry covers a filter, it matches every
// name that the filter matches.
func FuzzGrant(f *testing.F) {
	f.Add("a/+/#", "a/b/#", "a/b/c", "a/x")
	f.Add("#", "+/x", "$a/x", "+")
	f.Add("+/+", "/+", "/", "b")
	f.Fuzz(func(t *testing.T, allows, filter, name, denies string) {
		if topic.ValidateFilter(filter) != nil || topic.ValidateName([]byte(name)) != nil || strings.HasPrefix(filter, sharePrefix) || strings.Contains(allows+denies, "%") {
			return
		}
		s, err := NewGrantSet(2, "", []GrantEntry{allow(ActionSubscribe, allows, 0), deny(ActionSubscribe, denies, 0)})
		if err != nil {
			return
		}
		g := s.Bind(&Subject{})
		if _, ok := g.MaySubscribe(filter); !ok || !topic.Match(filter, []byte(name)) {
			return
		}
		if !topic.Match(allows, []byte(name)) || topic.Match(denies, []byte(name)) || !g.MayReceive([]byte(name)) {
			t.Errorf("%q without %q grants %q, which matches %q", allows, denies, filter, name)
		}
	})
}

func BenchmarkGrant(b *testing.B) {
	var entries []GrantEntry
	for i := range 200 {
		e := allow(ActionAll, fmt.Sprintf("site%d/dev/%%c/+/data", i), 0)
		if i%10 == 0 {
			e = deny(ActionAll, fmt.Sprintf("site%d/dev/+/secret/#", i), 1)
		}
		entries = append(entries, e)
	}
	s, err := NewGrantSet(2, "b", entries)
	if err != nil {
		b.Fatal(err)
	}
	g := s.Bind(&Subject{ClientID: "device-0001"})
	topic, denied := []byte("site117/dev/device-0001/temp/data"), []byte("site110/dev/device-0001/secret/x")
	b.Run("default", func(b *testing.B) {
		for b.Loop() {
			DefaultGrant().MayPublish(topic, 1, false)
		}
	})
	b.Run("publish", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !g.MayPublish(topic, 1, false) {
				b.Fatal("denied")
			}
		}
	})
	b.Run("denied", func(b *testing.B) {
		for b.Loop() {
			if g.MayPublish(denied, 1, false) {
				b.Fatal("allowed")
			}
		}
	})
	b.Run("subscribe", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := g.MaySubscribe("site117/dev/device-0001/+/data"); !ok {
				b.Fatal("denied")
			}
		}
	})
	b.Run("bind", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Bind(&Subject{ClientID: "device-0001"})
		}
	})
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			if _, err := NewGrantSet(2, "b", entries); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// An entry for one user is for that user alone, decides with the others by priority, and
// is stored so that who does not know the field allows less.
func TestGrantSet_User(t *testing.T) {
	alice, nobody := "alice", ""
	own := func(e GrantEntry) GrantEntry {
		e.User = &alice
		return e
	}
	entries := []GrantEntry{allow(ActionAll, "a/#", 0), own(allow(ActionAll, "own/%c", 0)), own(deny(ActionAll, "a/x", 1)), own(allow(ActionSubscribe, "q/#", 0))}
	one := 1
	entries = append(entries, GrantEntry{Action: ActionSubscribe, Filter: "q/low", QoS: &one, Priority: 1})
	s := set(t, entries...)
	if s.Bind(&Subject{Username: "bob"}).own != nil {
		t.Error("bob has entries of his own")
	}
	for _, c := range []struct {
		user, topic      string
		publish, receive bool
	}{
		{"alice", "own/c", true, true},
		{"bob", "own/c", false, false},
		{"", "own/c", false, false},
		{"alice", "a/y", true, true},
		{"alice", "a/x", false, false},
		{"bob", "a/x", true, true},
	} {
		g := s.Bind(&Subject{ClientID: "c", Username: c.user})
		if got := g.MayPublish([]byte(c.topic), 0, false); got != c.publish {
			t.Errorf("%q publishes %s: %v", c.user, c.topic, got)
		}
		if got := g.MayReceive([]byte(c.topic)); got != c.receive {
			t.Errorf("%q receives %s: %v", c.user, c.topic, got)
		}
		if x := g.Explain(Question{Action: ActionPublish, Topic: c.topic}); x.Allowed != c.publish {
			t.Errorf("%q explained %s: %+v", c.user, c.topic, x)
		}
	}
	g := s.Bind(&Subject{ClientID: "c", Username: "alice"})
	if most, ok := g.MaySubscribe("q/#"); !ok || most != 1 {
		t.Errorf("alice subscribes q/#: %v at %d", ok, most)
	}
	if _, ok := g.MaySubscribe("a/#"); ok {
		t.Error("alice subscribes a/#, of which a/x is denied to her")
	}
	stored := NewGrants(entries)
	if len(stored.UserEntries) != 2 || len(stored.Entries) != 3 || len(stored.All()) != len(entries) {
		t.Errorf("stored as %+v", stored)
	}
	if _, err := NewGrantSet(2, "test", []GrantEntry{{Action: ActionAll, Filter: "a", User: &nobody}}); err == nil || !strings.Contains(err.Error(), "expected a user name") {
		t.Errorf("an empty user: %v", err)
	}
}
