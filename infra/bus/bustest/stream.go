// SPDX-License-Identifier: Apache-2.0

package bustest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

func testStream(t *testing.T, b bus.Bus) {
	ctx := t.Context()
	s := must(b.Stream(ctx, bus.StreamConfig{Name: "events", Age: time.Hour, PerSubject: 3}))(t)
	var last uint64
	for i := range 5 {
		for _, subject := range []string{"acme.1", "beta.1"} {
			n := must(s.Append(ctx, subject, fmt.Appendf(nil, "%s %d", subject, i)))(t)
			if n <= last {
				t.Fatalf("sequence %d after %d", n, last)
			}
			last = n
		}
	}
	read := func(r bus.Read) (bodies []string, records []bus.Record) {
		t.Helper()
		for _, rec := range must(s.Read(ctx, r))(t) {
			bodies, records = append(bodies, string(rec.Body)), append(records, rec)
		}
		return bodies, records
	}
	// want reads until that is there: a server of several may not have the newest for a moment.
	want := func(what string, r bus.Read, want ...string) (records []bus.Record) {
		t.Helper()
		for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			got, records := read(r)
			d := cmp.Diff(want, got)
			if d == "" {
				return records
			}
			if time.Since(begun) > 5*time.Second {
				t.Fatalf("%s: %s", what, d)
			}
		}
	}
	records := want("the newest three of a subject", bus.Read{Filter: "acme.*", Most: 100}, "acme.1 2", "acme.1 3", "acme.1 4")
	if r := records[0]; r.Subject != "acme.1" || r.Sequence == 0 || time.Since(r.Time) > time.Minute {
		t.Errorf("record %+v", r)
	}
	want("one", bus.Read{Filter: "acme.>", Most: 1}, "acme.1 2")
	want("after", bus.Read{Filter: ">", Most: 100, After: records[1].Sequence}, "beta.1 3", "acme.1 4", "beta.1 4")
	want("none since", bus.Read{Filter: "acme.1", Most: 1, Since: time.Now().Add(time.Minute)})
	want("nobody", bus.Read{Filter: "nobody", Most: 1})
	again := must(b.Stream(ctx, bus.StreamConfig{Name: "events"}))(t)
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		n := len(must(again.Read(ctx, bus.Read{Filter: ">", Most: 9}))(t))
		if n == 6 {
			break
		}
		if time.Since(begun) > 5*time.Second {
			t.Fatalf("%d records when opened again, want 6", n)
		}
	}
	for _, r := range []bus.Read{{Filter: "a b", Most: 1}, {Filter: "a", Most: 0}, {Filter: "a.>.b", Most: 1}} {
		if _, err := s.Read(ctx, r); !errs.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v, want Invalid", r, err)
		}
	}
	if _, err := s.Append(ctx, "a.*", nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("append: %v, want Invalid", err)
	}
	if _, err := b.Stream(ctx, bus.StreamConfig{Name: "a.b"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("name: %v, want Invalid", err)
	}
	testRemove(t, s)
	testFollow(t, s)
}

// testRemove removes what is older than a time, of some subjects.
func testRemove(t *testing.T, s bus.Stream) {
	ctx := t.Context()
	there := func(want string) {
		t.Helper()
		var all []string
		for _, r := range must(s.Read(ctx, bus.Read{Filter: ">", Most: 100}))(t) {
			all = append(all, string(r.Body))
		}
		if got := strings.Join(all, ", "); got != want {
			t.Errorf("%q is there, want %q", got, want)
		}
	}
	remove := func(filter string, before time.Time) {
		t.Helper()
		if err := s.Remove(ctx, filter, before); err != nil {
			t.Errorf("remove %s: %v", filter, err)
		}
	}
	remove("acme.*", time.Now().Add(-time.Minute))
	remove("nobody.*", time.Now())
	there("acme.1 2, beta.1 2, acme.1 3, beta.1 3, acme.1 4, beta.1 4")
	records := must(s.Read(ctx, bus.Read{Filter: "acme.*", Most: 9}))(t)
	remove("acme.*", records[2].Time)
	there("beta.1 2, beta.1 3, acme.1 4, beta.1 4")
	remove("acme.*", time.Now().Add(time.Minute))
	there("beta.1 2, beta.1 3, beta.1 4")
	remove("acme.*", time.Now())
	if err := s.Remove(ctx, "a b", time.Now()); !errs.Is(err, errs.Invalid) {
		t.Errorf("remove: %v, want Invalid", err)
	}
}

func testFollow(t *testing.T, s bus.Stream) {
	ctx, cancel := context.WithCancel(t.Context())
	got, done := make(chan string, 1000), make(chan error, 1)
	go func() { done <- s.Follow(ctx, "acme.*", func(r bus.Record) { got <- string(r.Body) }) }()
	// It says nothing when it has begun.
	deadline := time.Now().Add(patience)
	for n := 0; len(got) == 0; n++ {
		if time.Now().After(deadline) {
			t.Fatal("nothing is followed")
		}
		must(s.Append(ctx, "beta.1", []byte("other")))(t)
		must(s.Append(ctx, "acme.2", fmt.Appendf(nil, "%d", n)))(t)
		time.Sleep(10 * time.Millisecond)
	}
	must(s.Append(ctx, "acme.3", []byte("last")))(t)
	before := -1
	for body := receive(t, got); body != "last"; body = receive(t, got) {
		n := -1
		if _, err := fmt.Sscan(body, &n); err != nil || n <= before {
			t.Errorf("%q came after %d", body, before)
		}
		before = n
	}
	cancel()
	if err := receive(t, done); !errors.Is(err, context.Canceled) {
		t.Errorf("the end: %v", err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
