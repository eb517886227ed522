// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"testing"

	"github.com/manormq/manor/infra/errs"
)

func TestGrant_Default(t *testing.T) {
	g := DefaultGrant()
	for topic, want := range map[string]bool{
		"a": true, "a/b": true, "/": true, "/$a": true, "a/$b": true, "$SYS/x": false, "$": false, "": false,
	} {
		if got := g.MayPublish([]byte(topic), 2, true); got != want {
			t.Errorf("MayPublish(%q) = %v, want %v", topic, got, want)
		}
	}
	for filter, want := range map[string]bool{
		"#": true, "+": true, "+/#": true, "a/b": true, "$SYS/#": true, "$SYS": false, "$other/#": false, "$share/g/a/#": true, "$share/g/#": true,
		"$share/g/$SYS/#": true, "$share/g/$x/#": false, "$share/g": false, "$share/g/": false, "$share": false, "": false, "$shared/a": false,
	} {
		if _, got := g.MaySubscribe(filter); got != want {
			t.Errorf("MaySubscribe(%q) = %v, want %v", filter, got, want)
		}
	}
}

func TestGrant_MayPublish(t *testing.T) {
	for _, c := range []struct {
		allow, topic string
		want         bool
	}{
		{"a", "a", true},
		{"a", "a/b", false},
		{"a/b", "a", false},
		{"a/", "a/", true},
		{"a/", "a", false},
		{"/a", "/a", true},
		{"+", "a", true},
		{"+", "/a", false},
		{"+/+", "/a", true},
		{"+/+", "a/", true},
		{"a/+", "a", false},
		{"a/+/c", "a/b/c", true},
		{"a/+/c", "a//c", true},
		{"a/+/c", "a/b/d", false},
		{"a/#", "a", true},
		{"a/#", "a/b/c", true},
		{"a/#", "ab", false},
		{"a/+/#", "a", false},
		{"a/+/#", "a/b", true},
		{"#", "$a", false},
		{"+/a", "$x/a", false},
		{"a/b", "$SYS/b", false},
	} {
		g, err := NewGrant(2, []string{c.allow}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.MayPublish([]byte(c.topic), 2, true); got != c.want {
			t.Errorf("%q allows %q: %v, want %v", c.allow, c.topic, got, c.want)
		}
		if _, ok := g.MaySubscribe(c.topic); ok {
			t.Errorf("a grant without subscribe filters allows %q", c.topic)
		}
	}
}

func TestGrant_MaySubscribe(t *testing.T) {
	for _, c := range []struct {
		allow, filter string
		want          bool
	}{
		{"a", "a", true},
		{"a", "+", false},
		{"a", "#", false},
		{"+", "+", true},
		{"+", "a", true},
		{"+", "#", false},
		{"+", "$a", false},
		{"#", "+/a", true},
		{"#", "$a/#", false},
		{"a/#", "a", true},
		{"a/#", "a/#", true},
		{"a/#", "a/+/b", true},
		{"a/#", "+/b", false},
		{"a/#", "#", false},
		{"a/+", "a/#", false},
		{"a/+", "a/+", true},
		{"a/+", "a/+/+", false},
		{"a/+/#", "a/#", false},
		{"a/+/#", "a/+", true},
		{"a/+/#", "a/b/#", true},
		{"$SYS/#", "$SYS/a", true},
		{"$SYS/#", "$share/g/$SYS/a", true},
		{"$SYS/+", "$SYS/#", false},
		{"$SYS/a", "#", false},
		{"a/#", "$share/g/a/+", true},
		{"a/#", "$share/g/b", false},
	} {
		g, err := NewGrant(2, nil, []string{c.allow})
		if err != nil {
			t.Fatal(err)
		}
		if _, got := g.MaySubscribe(c.filter); got != c.want {
			t.Errorf("%q allows %q: %v, want %v", c.allow, c.filter, got, c.want)
		}
	}
}

func TestNewGrant_Refuses(t *testing.T) {
	for _, f := range []string{"", "a#", "#/a", "a/+b", "$share/g/a", "a\x00", "$x/a", "%x", "a/%", "%group%group", "%claim./a"} {
		if _, err := NewGrant(1, []string{f}, nil); errs.KindOf(err) != errs.Invalid || err == nil {
			t.Errorf("NewGrant(%q): %v, want Invalid", f, err)
		}
	}
}

func TestGrant_DoesNotAllocate(t *testing.T) {
	s, err := NewGrantSet(2, "x", []GrantEntry{
		{Action: ActionPublish, Filter: "x/y"},
		{Action: ActionAll, Filter: "a/+/%c/#"},
		{Action: ActionSubscribe, Filter: "a/#"},
		{Effect: EffectDeny, Action: ActionSubscribe, Filter: "a/+/secret"},
		{Action: ActionSubscribe, Filter: "a/#", Priority: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	g := s.Bind(&Subject{ClientID: "c"})
	topic, filter := []byte("a/b/c/d"), "$share/g/a/+/#"
	if n := testing.AllocsPerRun(100, func() {
		_, ok := g.MaySubscribe(filter)
		if !ok || !g.MayPublish(topic, 1, false) || !g.MayReceive(topic) || !DefaultGrant().MayPublish(topic, 0, true) {
			t.Fatal("denied")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
