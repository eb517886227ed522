// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/services/broker/swc"
)

// messages is one of every kind, from the actor 7.
func messages() map[kind][]byte {
	var clock swc.Clock
	for _, n := range []uint64{1, 2, 5, 80} {
		clock.Add(swc.Dot{Actor: 7, N: n})
	}
	var marks swc.Watermark
	marks.Enter(7)
	marks.Update(7, clock.Base())
	d := swc.Dot{Actor: 7, N: 3}
	object := swc.Container{}.Add(d, Value{4, []byte("value")}.append(nil))
	entries := []entry{{Key{"space", "name"}.path(), []swc.Dot{d}, object}}
	rep := report{id: 9, roster: roster{{"a", 7, true}, {"b", 8, true}, {"c", 0, false}}, clock: clock, sum: 11, marks: marks}
	out := map[kind][]byte{}
	add := func(k kind, body func(*writer)) {
		w := head{kind: k, groups: 2, group: 1, actor: 7}.writer()
		body(w)
		out[k] = w.b
	}
	n := news{clock.Base(), entries}
	a := answer{report: rep, more: true, lost: []swc.Dot{{Actor: 7, N: 4}}, entries: entries}
	p := page{id: 9, from: "k", next: "o\x01", clock: clock, records: []record{{"o" + entries[0].path, object.Append(nil)}}}
	add(kindNews, n.append)
	add(kindSeen, func(w *writer) { w.number(5) })
	add(kindCompare, rep.append)
	add(kindAnswer, a.append)
	add(kindFetch, func(w *writer) { w.number(9); w.text("k") })
	add(kindPage, p.append)
	add(kindRefused, func(w *writer) { w.u64(3) })
	return out
}

// rewrite reads a message and writes what it has read.
func rewrite(b []byte) ([]byte, error) {
	h, r, err := readHead(b)
	if err != nil {
		return nil, err
	}
	w := h.writer()
	switch h.kind {
	case kindNews:
		r.news().append(w)
	case kindSeen:
		w.number(r.number())
	case kindCompare:
		p := r.report()
		p.append(w)
	case kindAnswer:
		a := r.answer()
		a.append(w)
	case kindFetch:
		w.number(r.number())
		w.text(r.text())
	case kindPage:
		p := r.page()
		p.append(w)
	case kindRefused:
		w.u64(r.u64())
	default:
		r.fail()
	}
	return w.b, r.end()
}

func TestMessages(t *testing.T) {
	for k, b := range messages() {
		if again, err := rewrite(b); err != nil || !bytes.Equal(again, b) {
			t.Errorf("kind %d: %x is read as %x, error %v", k, b, again, err)
		}
		for n := range b {
			if _, err := rewrite(b[:n]); err == nil {
				t.Errorf("kind %d: %d of %d bytes are a message", k, n, len(b))
			}
		}
		if _, err := rewrite(append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("kind %d: a byte more is a message", k)
		}
	}
	if _, err := rewrite([]byte{Version + 1, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 7}); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v, want ErrVersion", err)
	}
}

// Whatever a member sends, the Machine goes on, and what it stores can be read.
func FuzzMachine(f *testing.F) {
	for _, b := range messages() {
		f.Add(b, []byte{})
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		for _, b := range [][]byte{one, two} {
			once, err := rewrite(b)
			if err != nil {
				continue
			}
			if twice, err := rewrite(once); err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("%x is read as %x, then as %x, error %v", b, once, twice, err)
			}
		}
		actor := swc.Actor(100)
		cfg := Config{Name: "me", Groups: 2, Mint: func() swc.Actor { actor++; return actor }}
		store := mem.New()
		var fx Effects
		m, err := New(cfg, store, &fx)
		if err != nil {
			t.Fatal(err)
		}
		write := func() {
			if err := store.Apply(&fx.Batch, fx.Sync); err != nil {
				t.Fatal(err)
			}
			m.Written(&fx)
			fx.Reset()
		}
		write()
		now := time.Unix(0, 0)
		for _, e := range []Event{
			Join{"a"},
			Tick{Reachable: []string{"a"}},
			Write{ID: 1, Mutations: []Mutation{{Key: Key{"space", "name"}, Value: []byte("mine")}}},
			Received{"a", one},
			Received{"a", two},
			Tick{Reachable: []string{"a"}},
		} {
			now = now.Add(time.Second)
			m.Step(now, e, &fx)
			if err := m.Flush(&fx); err != nil {
				t.Fatal(err)
			}
			write()
		}
		if _, err := New(cfg, store, &fx); err != nil {
			t.Fatalf("the store cannot be opened again: %v", err)
		}
	})
}

// docs/store/keys.md names the kinds of record.
func TestKeys_Documented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/store/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^    (?:group|FF   ) +\| '(.)'`).FindAllSubmatch(text, -1) {
		documented = append(documented, string(m[1]))
	}
	want := []string{
		string(kindClock), string(kindDot), string(kindObject), string(kindContext), string(kindMarks), string(kindRoster),
	}
	if !slices.Equal(documented, want) {
		t.Errorf("docs/store/keys.md has the kinds %q, the code %q", documented, want)
	}
}
