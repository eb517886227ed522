// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
)

// clock is a clock that is moved by hand.
type clock struct {
	mu sync.Mutex
	by time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.by)
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by += d
}

func open(t *testing.T, b bus.Bus, c *clock) *audit.Log {
	t.Helper()
	l, err := audit.Open(t.Context(), audit.Config{
		Bus: b, Log: telemetry.Discard(), Now: c.now,
		Days: func(context.Context, string) (int64, error) { return 30, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func begin(t *testing.T, l *audit.Log, organization, target string) *audit.Pending {
	t.Helper()
	p, err := l.Begin(t.Context(), audit.Change{
		Organization: organization, Actor: audit.Actor{Kind: audit.ActorKey, ID: "key_1"}, Address: "192.0.2.1", Method: "PUT", Operation: "replace-x",
		Target: target, Before: map[string]int{"a": 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func change(t *testing.T, l *audit.Log, organization, target string) {
	t.Helper()
	if err := begin(t, l, organization, target).Done(t.Context(), map[string]int{"a": 2}); err != nil {
		t.Error(err)
	}
}

// buses are what a log can stand on.
func buses(t *testing.T, f func(t *testing.T, b bus.Bus)) {
	t.Run("mem", func(t *testing.T) { f(t, mem.New()) })
	t.Run("embed", func(t *testing.T) {
		s, err := embed.Start(t.Context(), embed.Config{Dir: t.TempDir(), Log: telemetry.Discard()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Shutdown)
		b, err := s.Bus("test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		f(t, b)
	})
}

// TestLog_Processes has two processes write to two chains at once.
func TestLog_Processes(t *testing.T) {
	buses(t, func(t *testing.T, b bus.Bus) {
		const each = 30
		var all sync.WaitGroup
		c := &clock{}
		logs := []*audit.Log{open(t, b, c), open(t, b, c)}
		for i, l := range logs {
			for range 2 {
				all.Go(func() {
					for n := range each {
						change(t, l, fmt.Sprintf("org_%d", n%2), fmt.Sprintf("thing %d", i))
					}
				})
			}
		}
		all.Wait()
		for _, o := range []string{"org_0", "org_1"} {
			got, err := logs[0].Verify(t.Context(), o)
			if err != nil || got.First != 1 || got.Last != 2*each {
				t.Errorf("%s: %+v, %v, want 1 to %d", o, got, err, 2*each)
			}
		}
		// Pages go from the newest to the oldest, and miss none.
		seen, before := uint64(2*each), uint64(0)
		for {
			page, next, err := logs[1].List(t.Context(), "org_0", audit.Query{Before: before}, 7)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page {
				if r.N != seen {
					t.Fatalf("record %d, want %d", r.N, seen)
				}
				seen--
			}
			if next == 0 {
				break
			}
			before = next
		}
		if seen != 0 {
			t.Errorf("%d records are in no page", seen)
		}
	})
}

func TestLog_List(t *testing.T) {
	c := &clock{}
	l := open(t, mem.New(), c)
	change(t, l, "org_1", "a")
	c.move(24 * time.Hour)
	change(t, l, "org_1", "b")
	one := func(q audit.Query, want string) {
		t.Helper()
		page, _, err := l.List(t.Context(), "org_1", q, 10)
		var got []string
		for _, r := range page {
			got = append(got, r.Target)
		}
		if err != nil || strings.Join(got, "") != want {
			t.Errorf("%+v: %v, %v, want %q", q, got, err, want)
		}
	}
	one(audit.Query{}, "ba")
	one(audit.Query{From: c.now().Add(-time.Hour)}, "b")
	one(audit.Query{To: c.now().Add(-time.Hour)}, "a")
	one(audit.Query{Actor: "key_1"}, "ba")
	one(audit.Query{Actor: "key_2"}, "")
	one(audit.Query{Operation: "other"}, "")
	one(audit.Query{Tenant: "acme"}, "")
}

// TestLog_Tampering changes what is stored behind the log's back.
// A path may hold what is no text: what is recorded of it is, and the chain is whole.
func TestLog_NoText(t *testing.T) {
	l := open(t, mem.New(), &clock{})
	p, err := l.Begin(t.Context(), audit.Change{Organization: "org_1", Operation: "delete-client", Method: "DELETE", Target: "client \xff"})
	if err != nil {
		t.Fatal(err)
	}
	p.Target("client \xfe<\u2028")
	if err := p.Done(t.Context(), map[string]string{"a": "\xfd"}); err != nil {
		t.Fatal(err)
	}
	change(t, l, "org_1", "x")
	if c, err := l.Verify(t.Context(), "org_1"); err != nil || c.Last != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestLog_Tampering(t *testing.T) {
	for name, tamper := range map[string]func(t *testing.T, b bus.Bucket){
		"changed": func(t *testing.T, b bus.Bucket) { edit(t, b, 3, `"a":2`, `"a":9`) },
		"changed with its hash": func(t *testing.T, b bus.Bucket) {
			e := get(t, b, 3)
			r, err := audit.Decode(e.Value)
			if err != nil {
				t.Fatal(err)
			}
			edit(t, b, 3, r.Hash, strings.Repeat("0", 64))
		},
		"first taken":  func(t *testing.T, b bus.Bucket) { remove(t, b, 1) },
		"middle taken": func(t *testing.T, b bus.Bucket) { remove(t, b, 3) },
		"last taken":   func(t *testing.T, b bus.Bucket) { remove(t, b, 5) },
		"all taken": func(t *testing.T, b bus.Bucket) {
			for n := uint64(1); n <= 5; n++ {
				remove(t, b, n)
			}
		},
		"moved": func(t *testing.T, b bus.Bucket) {
			if _, err := b.Put(t.Context(), key(4), get(t, b, 3).Value, bus.Any); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := mem.New()
			l := open(t, m, &clock{})
			for range 5 {
				change(t, l, "org_1", "x")
			}
			if c, err := l.Verify(t.Context(), "org_1"); err != nil || c.Last != 5 {
				t.Fatal(c, err)
			}
			b, err := m.Bucket(t.Context(), bus.BucketConfig{Name: "audit"})
			if err != nil {
				t.Fatal(err)
			}
			tamper(t, b)
			if _, err := l.Verify(t.Context(), "org_1"); errs.CodeOf(err) != "audit_broken" {
				t.Errorf("got %v, want audit_broken", err)
			}
		})
	}
}

func key(n uint64) string { return fmt.Sprintf("org_1.%016d", n) }

func get(t *testing.T, b bus.Bucket, n uint64) bus.Entry {
	t.Helper()
	e, err := b.Get(t.Context(), key(n))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func edit(t *testing.T, b bus.Bucket, n uint64, old, with string) {
	t.Helper()
	e := get(t, b, n)
	value := strings.Replace(string(e.Value), old, with, 1)
	if value == string(e.Value) {
		t.Fatalf("no %s in %s", old, value)
	}
	if _, err := b.Put(t.Context(), e.Key, []byte(value), bus.Any); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, b bus.Bucket, n uint64) {
	t.Helper()
	if err := b.Delete(t.Context(), key(n), bus.Any); err != nil {
		t.Fatal(err)
	}
}

// TestLog_Recover ends what a process has left that died in between.
func TestLog_Recover(t *testing.T) {
	buses(t, func(t *testing.T, b bus.Bus) {
		c := &clock{}
		one, two := open(t, b, c), open(t, b, c)
		change(t, one, "org_1", "done")
		begin(t, one, "org_1", "left")
		begin(t, one, "org_1", "not made").Drop(t.Context())
		// A process that died after it had recorded: its note is left.
		p := begin(t, one, "org_1", "recorded")
		note := notes(t, b)["recorded"]
		if err := p.Done(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		bucket, err := b.Bucket(t.Context(), bus.BucketConfig{Name: "audit_pending"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bucket.Put(t.Context(), note.Key, note.Value, bus.Absent); err != nil {
			t.Fatal(err)
		}
		if n, err := one.Recover(t.Context()); n != 0 || err != nil {
			t.Errorf("%d recovered at once, %v", n, err)
		}
		c.move(3 * time.Minute)
		total := make(chan int, 2)
		for _, l := range []*audit.Log{one, two} {
			go func() {
				n, err := l.Recover(t.Context())
				if err != nil {
					t.Error(err)
				}
				total <- n
			}()
		}
		if n := <-total + <-total; n != 1 {
			t.Errorf("%d recovered, want 1", n)
		}
		page, _, err := two.List(t.Context(), "org_1", audit.Query{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, r := range page {
			got += r.Target + " " + r.Outcome + "; "
		}
		if want := "left unknown; recorded done; done done; "; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if left := notes(t, b); len(left) != 0 {
			t.Errorf("notes left: %v", left)
		}
		if _, err := one.Verify(t.Context(), "org_1"); err != nil {
			t.Error(err)
		}
	})
}

// notes are the pending changes by target.
func notes(t *testing.T, b bus.Bus) map[string]bus.Entry {
	t.Helper()
	bucket, err := b.Bucket(t.Context(), bus.BucketConfig{Name: "audit_pending"})
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := bus.List(t.Context(), bucket, "", 100)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]bus.Entry{}
	for _, e := range all {
		r, err := audit.Decode(e.Value)
		if err != nil {
			t.Fatal(err)
		}
		m[r.Target] = e
	}
	return m
}

func TestLog_Prune(t *testing.T) {
	buses(t, func(t *testing.T, b bus.Bus) {
		c := &clock{}
		l, other := open(t, b, c), open(t, b, c)
		for range 3 {
			change(t, l, "org_1", "old")
		}
		c.move(20 * 24 * time.Hour)
		change(t, l, "org_1", "new")
		c.move(11 * 24 * time.Hour)
		if n, err := l.Prune(t.Context()); n != 3 || err != nil {
			t.Errorf("%d removed, %v, want 3", n, err)
		}
		if got, err := l.Verify(t.Context(), "org_1"); err != nil || got.First != 4 || got.Last != 4 {
			t.Errorf("%+v, %v", got, err)
		}
		// The newest stays however old it is, so that the chain goes on.
		c.move(365 * 24 * time.Hour)
		if n, err := l.Prune(t.Context()); n != 0 || err != nil {
			t.Errorf("%d removed, %v, want none", n, err)
		}
		change(t, other, "org_1", "newest")
		if got, err := l.Verify(t.Context(), "org_1"); err != nil || got.First != 4 || got.Last != 5 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestLog_Redacts(t *testing.T) {
	m := mem.New()
	l := open(t, m, &clock{})
	type body struct {
		Name   string
		Secret tenancy.Secret
		Empty  tenancy.Secret
		Deep   *body          `json:",omitempty"`
		Any    any            `json:",omitempty"`
		Map    map[string]any `json:",omitempty"`
		At     time.Time
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := func(i int) tenancy.Secret { return tenancy.Secret(fmt.Sprintf("hunter%d", i)) }
	p, err := l.Begin(t.Context(), audit.Change{Organization: "org_1", Target: "x", Before: &body{Secret: s(1)}})
	if err != nil {
		t.Fatal(err)
	}
	after := &body{
		Name: "open", Secret: s(2), At: at,
		Deep: &body{Secret: s(3)}, Any: []tenancy.Secret{s(4)}, Map: map[string]any{"x": body{Secret: s(5)}, "y": [1]any{s(6)}},
	}
	if err := p.Done(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	if after.Secret != "hunter2" || after.Deep.Secret != "hunter3" {
		t.Error("what was given was changed")
	}
	page, _, err := l.List(t.Context(), "org_1", audit.Query{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(page)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("hunter")) || bytes.Count(text, []byte("[redacted]")) != 6 {
		t.Errorf("got %s", text)
	}
	if !bytes.Contains(text, []byte(`"open"`)) || !bytes.Contains(text, []byte("2026-01-02T03:04:05Z")) {
		t.Errorf("more than secrets is away: %s", text)
	}
}

// TestLog_Bounded keeps a large value out of the log, but for its digest.
func TestLog_Bounded(t *testing.T) {
	l := open(t, mem.New(), &clock{})
	if err := begin(t, l, "org_1", "x").Done(t.Context(), strings.Repeat("x", 1<<20)); err != nil {
		t.Fatal(err)
	}
	page, _, err := l.List(t.Context(), "org_1", audit.Query{}, 1)
	if err != nil || len(page[0].After) > 200 || !strings.Contains(string(page[0].After), `"bytes":1048578`) {
		t.Errorf("%.200s, %v", page[0].After, err)
	}
}

func TestVerifyExport(t *testing.T) {
	l := open(t, mem.New(), &clock{})
	for i := range 4 {
		change(t, l, "org_1", fmt.Sprintf("<thing> & %d", i))
	}
	var lines []string
	if err := l.Each(t.Context(), "org_1", func(r audit.Record) error {
		b, err := json.Marshal(r)
		lines = append(lines, string(b))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	verify := func(lines ...string) error {
		_, err := audit.VerifyExport(strings.NewReader(strings.Join(lines, "\n") + "\n"))
		return err
	}
	if err := verify(lines...); err != nil {
		t.Error(err)
	}
	if err := verify(lines[2:]...); err != nil {
		t.Errorf("after retention: %v", err)
	}
	for name, wrong := range map[string][]string{
		"gap":     {lines[0], lines[2]},
		"order":   {lines[1], lines[0]},
		"twice":   {lines[0], lines[0]},
		"changed": {lines[0], strings.Replace(lines[1], "thing", "other", 1)},
		"added":   {lines[0], strings.Replace(lines[1], "{", `{"extra":1,`, 1)},
		"no JSON": {lines[0], "x"},
	} {
		if err := verify(wrong...); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: got %v, want Invalid", name, err)
		}
	}
}
