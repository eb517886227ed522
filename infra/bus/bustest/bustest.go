// SPDX-License-Identifier: Apache-2.0

// Package bustest is the suite that every bus.Bus passes. It owns the
// goroutines of its tests and knows no implementation.
package bustest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// Run runs the suite; open returns an empty bus that lives as long as the test.
func Run(t *testing.T, open func(t *testing.T) bus.Bus) {
	t.Run("Events", func(t *testing.T) { testEvents(t, open(t)) })
	t.Run("Requests", func(t *testing.T) { testRequests(t, open(t)) })
	t.Run("Put", func(t *testing.T) { testPut(t, open(t)) })
	t.Run("Delete", func(t *testing.T) { testDelete(t, open(t)) })
	t.Run("Race", func(t *testing.T) { testRace(t, open(t)) })
	t.Run("Keys", func(t *testing.T) { testKeys(t, open(t)) })
	t.Run("Watch", func(t *testing.T) { testWatch(t, open(t)) })
	t.Run("WatchAfter", func(t *testing.T) { testWatchAfter(t, open(t)) })
	t.Run("WatchCurrent", func(t *testing.T) { testWatchCurrent(t, open(t)) })
	t.Run("List", func(t *testing.T) { testList(t, open(t)) })
	t.Run("Entries", func(t *testing.T) { testEntries(t, open(t)) })
	t.Run("TTL", func(t *testing.T) { testTTL(t, open(t)) })
	t.Run("Stream", func(t *testing.T) { testStream(t, open(t)) })
	t.Run("Refuses", func(t *testing.T) { testRefuses(t, open(t)) })
}

func testEvents(t *testing.T, b bus.Bus) {
	ctx := t.Context()
	got := make(chan string, 100)
	stop, err := b.Subscribe("a.*.c", func(subject string, body []byte) { got <- subject + "=" + string(body) })
	if err != nil {
		t.Fatal(err)
	}
	stopAll, err := b.Subscribe("z.>", func(subject string, body []byte) { got <- subject + "=" + string(body) })
	if err != nil {
		t.Fatal(err)
	}
	defer stopAll()
	publish := func(subject, body string) {
		t.Helper()
		if err := b.Publish(ctx, subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	publish("a.b", "no")
	publish("a.b.c", "1")
	publish("a.x.c", "2")
	publish("a.b.c.d", "no")
	publish("a.b.c", "3")
	want := []string{"a.b.c=1", "a.x.c=2", "a.b.c=3"}
	for _, w := range want {
		if g := receive(t, got); g != w {
			t.Fatalf("got %s, want %s", g, w)
		}
	}
	stop()
	publish("a.b.c", "late")
	publish("z.y.x", "end")
	if g := receive(t, got); g != "z.y.x=end" {
		t.Errorf("got %s after stop", g)
	}
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func testRequests(t *testing.T, b bus.Bus) {
	ctx := t.Context()
	if _, err := b.Request(ctx, "svc.echo", nil); !errs.Is(err, errs.Unavailable) {
		t.Errorf("nobody serves: %v, want Unavailable", err)
	}
	stop, err := b.Serve("svc.*", func(_ context.Context, body []byte) ([]byte, error) {
		if string(body) == "bad" {
			return nil, errs.Coded(errs.Conflict, "taken", "it is taken")
		}
		return append([]byte("re:"), body...), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := b.Request(ctx, "svc.echo", []byte("x")); err != nil || string(out) != "re:x" {
		t.Errorf("got %q %v", out, err)
	}
	_, err = b.Request(ctx, "svc.echo", []byte("bad"))
	if !errs.Is(err, errs.Conflict) || errs.CodeOf(err) != "taken" || err.Error() != "it is taken" {
		t.Errorf("got %v, kind %v, code %q", err, errs.KindOf(err), errs.CodeOf(err))
	}
	stop()
	if _, err := b.Request(ctx, "svc.echo", nil); !errs.Is(err, errs.Unavailable) {
		t.Errorf("after stop: %v, want Unavailable", err)
	}

	slow, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	stop, err = b.Serve("slow", func(ctx context.Context, _ []byte) ([]byte, error) {
		select {
		case <-ctx.Done():
		case <-time.After(patience):
		}
		return nil, ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if _, err := b.Request(slow, "slow", nil); !errs.Is(err, errs.Unavailable) {
		t.Errorf("slow server: %v, want Unavailable", err)
	}
}

func bucket(t *testing.T, b bus.Bus, name string) bus.Bucket {
	t.Helper()
	k, err := b.Bucket(t.Context(), bus.BucketConfig{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func put(t *testing.T, k bus.Bucket, key, value string) bus.Revision {
	t.Helper()
	rev, err := k.Put(t.Context(), key, []byte(value), bus.Any)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func testPut(t *testing.T, b bus.Bus) {
	ctx := t.Context()
	k := bucket(t, b, "put")
	if _, err := k.Get(ctx, "a"); !errs.Is(err, errs.NotFound) {
		t.Errorf("get of nothing: %v", err)
	}
	r1, err := k.Put(ctx, "a", []byte("1"), bus.Absent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Put(ctx, "a", []byte("x"), bus.Absent); !errs.Is(err, errs.Conflict) {
		t.Errorf("second create: %v, want Conflict", err)
	}
	r2, err := k.Put(ctx, "a", []byte("2"), r1)
	if err != nil || r2 <= r1 {
		t.Fatalf("update: revision %d after %d, %v", r2, r1, err)
	}
	if _, err := k.Put(ctx, "a", []byte("x"), r1); !errs.Is(err, errs.Conflict) {
		t.Errorf("stale update: %v, want Conflict", err)
	}
	e, err := k.Get(ctx, "a")
	if err != nil || string(e.Value) != "2" || e.Revision != r2 || e.Key != "a" || e.Created.IsZero() {
		t.Errorf("got %+v %v", e, err)
	}
	// The same bucket by name, from wherever.
	if e, err := bucket(t, b, "put").Get(ctx, "a"); err != nil || string(e.Value) != "2" {
		t.Errorf("second handle: %+v %v", e, err)
	}
	if _, err := bucket(t, b, "other").Get(ctx, "a"); !errs.Is(err, errs.NotFound) {
		t.Errorf("other bucket: %v", err)
	}
	put(t, k, "empty", "")
	if e, err := k.Get(ctx, "empty"); err != nil || len(e.Value) != 0 {
		t.Errorf("empty value: %+v %v", e, err)
	}
}

func testDelete(t *testing.T, b bus.Bus) {
	ctx := t.Context()
	k := bucket(t, b, "delete")
	r := put(t, k, "a", "1")
	r2 := put(t, k, "a", "2")
	if err := k.Delete(ctx, "a", r); !errs.Is(err, errs.Conflict) {
		t.Errorf("stale delete: %v, want Conflict", err)
	}
	if err := k.Delete(ctx, "a", bus.Absent); !errs.Is(err, errs.Invalid) {
		t.Errorf("delete at Absent: %v, want Invalid", err)
	}
	if err := k.Delete(ctx, "a", r2); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Get(ctx, "a"); !errs.Is(err, errs.NotFound) {
		t.Errorf("after delete: %v", err)
	}
	if err := k.Delete(ctx, "a", bus.Any); err != nil {
		t.Errorf("second delete: %v", err)
	}
	if err := k.Delete(ctx, "never", bus.Any); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	if _, err := k.Put(ctx, "a", []byte("3"), bus.Absent); err != nil {
		t.Errorf("create after delete: %v", err)
	}
}

// testRace lets many add one to a number by compare and set.
func testRace(t *testing.T, b bus.Bus) {
	ctx := t.Context()
	k := bucket(t, b, "race")
	const workers, rounds = 4, 10
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := 0; n < rounds; {
				at, v := bus.Absent, 0
				if e, err := k.Get(ctx, "n"); err == nil {
					at = e.Revision
					if _, err := fmt.Sscan(string(e.Value), &v); err != nil {
						t.Error(err)
						return
					}
				}
				_, err := k.Put(ctx, "n", []byte(fmt.Sprint(v+1)), at)
				switch {
				case err == nil:
					n++
				case !errs.Is(err, errs.Conflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if e, err := k.Get(ctx, "n"); err != nil || string(e.Value) != fmt.Sprint(workers*rounds) {
		t.Errorf("got %s %v, want %d", e.Value, err, workers*rounds)
	}
}

func testKeys(t *testing.T, b bus.Bus) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	k := bucket(t, b, "keys")
	if keys, err := k.Keys(ctx, ""); err != nil || len(keys) != 0 {
		t.Errorf("empty bucket: %q %v", keys, err)
	}
	for _, key := range []string{"acme.a", "acme.b", "acmeco.a", "beta.a", "acme.gone"} {
		put(t, k, key, "x")
	}
	if err := k.Delete(ctx, "acme.gone", bus.Any); err != nil {
		t.Fatal(err)
	}
	keys, err := k.Keys(ctx, "acme.")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	if d := cmp.Diff([]string{"acme.a", "acme.b"}, keys); d != "" {
		t.Error(d)
	}
	if ctx.Err() != nil {
		t.Error("it waited for the end of its context")
	}
}

// watch collects updates as text in a channel.
func watch(t *testing.T, k bus.Bucket, w bus.Watch) <-chan string {
	t.Helper()
	got := make(chan string, 1000)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		if err := k.Watch(ctx, w, func(u bus.Update) {
			switch {
			case u.Synced:
				got <- "synced"
			case u.Deleted:
				got <- "-" + u.Entry.Key
			default:
				got <- u.Entry.Key + "=" + string(u.Entry.Value)
			}
		}); ctx.Err() == nil {
			t.Errorf("watch ended: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		receive(t, done)
	})
	return got
}

func testWatch(t *testing.T, b bus.Bus) {
	ctx := t.Context()
	k := bucket(t, b, "watch")
	all := watch(t, k, bus.Watch{})
	if g := receive(t, all); g != "synced" {
		t.Fatalf("empty bucket: got %s", g)
	}
	put(t, k, "acme.a", "1")
	put(t, k, "beta.a", "2")
	if err := k.Delete(ctx, "acme.a", bus.Any); err != nil {
		t.Fatal(err)
	}
	put(t, k, "acme.b", "3")
	want := []string{"acme.a=1", "beta.a=2", "-acme.a", "acme.b=3"}
	i := 0
	for i < len(want) {
		g := receive(t, all)
		// The first value of acme.a may have been skipped.
		if g == "-acme.a" && want[i] == "acme.a=1" || g == "beta.a=2" && i == 0 {
			i++
		}
		if g != want[i] {
			t.Fatalf("got %s, want %s", g, want[i])
		}
		i++
	}
	acme := watch(t, k, bus.Watch{Prefix: "acme."})
	var got []string
	for g := ""; g != "synced"; {
		g = receive(t, acme)
		if g != "-acme.a" { // old deletes may be told
			got = append(got, g)
		}
	}
	if d := cmp.Diff([]string{"acme.b=3", "synced"}, got); d != "" {
		t.Error(d)
	}
	put(t, k, "beta.a", "no")
	put(t, k, "acme.c", "4")
	if g := receive(t, acme); g != "acme.c=4" {
		t.Errorf("got %s, want acme.c=4", g)
	}
}

func testWatchAfter(t *testing.T, b bus.Bus) {
	k := bucket(t, b, "after")
	put(t, k, "a", "1")
	r := put(t, k, "b", "2")
	put(t, k, "c", "3")
	after := watch(t, k, bus.Watch{After: r})
	for _, want := range []string{"c=3", "synced"} {
		if g := receive(t, after); g != want {
			t.Fatalf("after %d: got %s, want %s", r, g, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	_ = k.Watch(ctx, bus.Watch{NewOnly: true}, func(u bus.Update) { // ends with its context
		if !u.Synced || u.Entry.Revision != r+1 {
			t.Errorf("new only: %+v, want synced at %d", u, r+1)
		}
		cancel()
	})
	cancel()
	fresh := watch(t, k, bus.Watch{NewOnly: true})
	if g := receive(t, fresh); g != "synced" {
		t.Fatalf("new only: got %s", g)
	}
	put(t, k, "a", "4")
	for _, c := range []<-chan string{after, fresh} {
		if g := receive(t, c); g != "a=4" {
			t.Errorf("got %s, want a=4", g)
		}
	}
}

// testWatchCurrent holds that a watch says up to when it is complete, not before Synced,
// and not before it has told what was there at that time.
func testWatchCurrent(t *testing.T, b bus.Bus) {
	var wg sync.WaitGroup
	for _, newOnly := range []bool{false, true} {
		k := bucket(t, b, fmt.Sprint("current-", newOnly))
		put(t, k, "a", "1")
		wg.Go(func() { watchCurrent(t, k, newOnly) })
	}
	wg.Wait()
}

// watchCurrent watches until a value that is written on the way is part of what the
// watch says to be complete.
func watchCurrent(t *testing.T, k bus.Bucket, newOnly bool) {
	begun := time.Now()
	synced, told, writes, complete := false, false, false, false
	var written atomic.Pointer[time.Time]
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	current := func(at time.Time) {
		if !synced || at.Before(begun) || at.After(time.Now()) {
			t.Errorf("complete at %v, begun at %v, synced %v", at, begun, synced)
		}
		if !writes {
			writes = true
			go func() {
				if _, err := k.Put(ctx, "b", []byte("2"), bus.Any); err != nil {
					t.Error(err)
				}
				now := time.Now()
				written.Store(&now)
			}()
		}
		if w := written.Load(); w != nil && at.After(*w) {
			if !told {
				t.Error("it is complete without a value that was there before")
			}
			complete = true
			cancel()
		}
	}
	_ = k.Watch(ctx, bus.Watch{NewOnly: newOnly, Current: current}, func(u bus.Update) { // ends with its context
		synced, told = synced || u.Synced, told || u.Entry.Key == "b"
	})
	if !complete {
		t.Errorf("new only %v: it never said that it is complete", newOnly)
	}
}

func testList(t *testing.T, b bus.Bus) {
	ctx := t.Context()
	k := bucket(t, b, "list")
	for i := range 5 {
		put(t, k, fmt.Sprintf("t.%d", i), "x")
	}
	put(t, k, "u.1", "x")
	for _, c := range []struct {
		prefix string
		limit  int
		n      int
		more   bool
	}{{"t.", 5, 5, false}, {"t.", 4, 4, true}, {"t.", 10, 5, false}, {"none.", 5, 0, false}, {"", 100, 6, false}} {
		entries, more, err := bus.List(ctx, k, c.prefix, c.limit)
		if err != nil || len(entries) != c.n || more != c.more {
			t.Errorf("List(%q, %d): %d entries, more %v, %v; want %d, %v", c.prefix, c.limit, len(entries), more, err, c.n, c.more)
		}
	}
}

func testEntries(t *testing.T, b bus.Bus) {
	ctx := t.Context()
	k := bucket(t, b, "entries")
	for i := range 5 {
		put(t, k, fmt.Sprintf("t.%d", i), "x")
		put(t, k, fmt.Sprintf("tt.%d", i), "x")
	}
	put(t, k, "u.1", "x")
	newest := put(t, k, "t.0", "y")
	if err := k.Delete(ctx, "t.1", bus.Any); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		prefixes []string
		limit    int
		n        int
		more     bool
	}{
		{[]string{"t."}, 4, 4, false},
		{[]string{"t.", "u."}, 5, 5, false},
		{[]string{"u.", "t.", "none."}, 4, 4, true},
		{[]string{"none.", "nor.any."}, 5, 0, false},
		{[]string{"t.", "u.", "tt."}, 100, 10, false},
	} {
		entries, more, err := k.Entries(ctx, c.prefixes, c.limit)
		if err != nil || len(entries) != c.n || more != c.more {
			t.Errorf("Entries(%q, %d): %d entries, more %v, %v; want %d, %v", c.prefixes, c.limit, len(entries), more, err, c.n, c.more)
		}
		for _, e := range entries {
			if e.Key == "t.1" || e.Key == "t.0" && (string(e.Value) != "y" || e.Revision != newest) {
				t.Errorf("Entries(%q): %s is %q at %d", c.prefixes, e.Key, e.Value, e.Revision)
			}
		}
	}
	for _, prefixes := range [][]string{nil, {""}, {"t"}, {"t.", "t."}, {"t.", "t.1."}, make([]string, bus.EntriesMax+1)} {
		if _, _, err := k.Entries(ctx, prefixes, 1); !errs.Is(err, errs.Invalid) {
			t.Errorf("Entries of %d prefixes: %v, want Invalid", len(prefixes), err)
		}
	}
}

func testTTL(t *testing.T, b bus.Bus) {
	k, err := b.Bucket(t.Context(), bus.BucketConfig{Name: "ttl", TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	put(t, k, "a", "1")
	if _, err := k.Get(t.Context(), "a"); err != nil {
		t.Errorf("before it ended: %v", err)
	}
	deadline := time.Now().Add(patience)
	for {
		_, err := k.Get(t.Context(), "a")
		if errs.Is(err, errs.NotFound) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func testRefuses(t *testing.T, b bus.Bus) {
	ctx := t.Context()
	k := bucket(t, b, "refuses")
	for _, key := range []string{"", ".a", "a.", "a..b", "a b", "a*", ">", "é", "a\x00"} {
		if _, err := k.Put(ctx, key, nil, bus.Any); !errs.Is(err, errs.Invalid) {
			t.Errorf("put %q: %v, want Invalid", key, err)
		}
		if _, err := k.Get(ctx, key); !errs.Is(err, errs.Invalid) {
			t.Errorf("get %q: %v, want Invalid", key, err)
		}
		if err := b.Publish(ctx, key, nil); !errs.Is(err, errs.Invalid) {
			t.Errorf("publish %q: %v, want Invalid", key, err)
		}
	}
	if _, err := k.Keys(ctx, "a"); !errs.Is(err, errs.Invalid) {
		t.Errorf("prefix without dot: %v, want Invalid", err)
	}
	if _, err := b.Bucket(ctx, bus.BucketConfig{Name: "a.b"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("bucket with a dot: %v, want Invalid", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := k.Get(gone, "a"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("cancelled: %v, want Unavailable", err)
	}
}
