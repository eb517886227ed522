// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"strings"
	"testing"

	"github.com/manormq/manor/infra/errs"
)

func TestGrant_Default(t *testing.T) {
	g := DefaultGrant()
	for topic, want := range map[string]bool{
		"a": true, "a/b": true, "/": true, "/$a": true, "a/$b": true, "$SYS/x": false, "$": false, "": false,
	} {
		if got := g.MayPublish([]byte(topic)); got != want {
			t.Errorf("MayPublish(%q) = %v, want %v", topic, got, want)
		}
	}
	for filter, want := range map[string]bool{
		"#": true, "+": true, "+/#": true, "a/b": true, "$SYS/#": true, "$SYS": false, "$other/#": false, "$share/g/a/#": true, "$share/g/#": true,
		"$share/g/$SYS/#": true, "$share/g/$x/#": false, "$share/g": false, "$share/g/": false, "$share": false, "": false, "$shared/a": false,
	} {
		if got := g.MaySubscribe(filter); got != want {
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
		{"$x/#", "$x/a", true},
		{"$x/+", "$x/a", true},
	} {
		g, err := NewGrant(2, []string{c.allow}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.MayPublish([]byte(c.topic)); got != c.want {
			t.Errorf("%q allows %q: %v, want %v", c.allow, c.topic, got, c.want)
		}
		if g.MaySubscribe(c.topic) {
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
		{"$x/#", "$x/a", true},
		{"$x/#", "$share/g/$x/a", true},
		{"a/#", "$share/g/a/+", true},
		{"a/#", "$share/g/b", false},
	} {
		g, err := NewGrant(2, nil, []string{c.allow})
		if err != nil {
			t.Fatal(err)
		}
		if got := g.MaySubscribe(c.filter); got != c.want {
			t.Errorf("%q allows %q: %v, want %v", c.allow, c.filter, got, c.want)
		}
	}
}

func TestNewGrant_Refuses(t *testing.T) {
	for _, f := range []string{"", "a#", "#/a", "a/+b", "$share/g/a", "a\x00"} {
		if _, err := NewGrant(1, []string{f}, nil); errs.KindOf(err) != errs.Invalid || err == nil {
			t.Errorf("NewGrant(%q): %v, want Invalid", f, err)
		}
	}
}

func TestGrant_DoesNotAllocate(t *testing.T) {
	g, err := NewGrant(1, []string{"x/y", "a/+/c/#"}, []string{"x", "a/#"})
	if err != nil {
		t.Fatal(err)
	}
	topic, filter := []byte("a/b/c/d"), "$share/g/a/+/c"
	if n := testing.AllocsPerRun(100, func() {
		if !g.MayPublish(topic) || !g.MaySubscribe(filter) || !DefaultGrant().MayPublish(topic) {
			t.Fatal("denied")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// FuzzGrant holds covers to what matches says: if a grant allows a filter, it
// allows every topic that the filter matches.
func FuzzGrant(f *testing.F) {
	f.Add("a/+/#", "a/b/#", "a/b/c")
	f.Add("#", "+/x", "$a/x")
	f.Add("+/+", "/+", "/")
	f.Fuzz(func(t *testing.T, allow, filter, topic string) {
		if !validFilter(allow) || !validFilter(filter) || topic == "" || strings.ContainsAny(topic, "+#\x00") {
			return
		}
		if covers(allow, filter) && matches(filter, []byte(topic)) && !matches(allow, []byte(topic)) {
			t.Errorf("%q covers %q, which matches %q, which it does not match", allow, filter, topic)
		}
	})
}
