// SPDX-License-Identifier: Apache-2.0

// Package kvtest is the suite that every kv.Store passes, and the random
// comparison that finds what the suite did not think of. It is for tests only
// and owns no goroutine beyond a test's life.
package kvtest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/kv"
)

// Subject is an implementation under test.
type Subject struct {
	// Open returns an empty store. It is closed by the test.
	Open func(t testing.TB) kv.Store
	// Reopen closes s and returns what is then found in the same place; nil if
	// that makes no sense.
	Reopen func(t testing.TB, s kv.Store) kv.Store
}

// Entry is a key and its value.
type Entry struct{ Key, Value string }

// Dump returns what a Scan of s gives.
func Dump(t testing.TB, s kv.Store, start, end []byte) []Entry {
	t.Helper()
	var out []Entry
	it := s.Scan(start, end)
	defer it.Close()
	for it.Next() {
		out = append(out, Entry{string(it.Key()), string(it.Value())})
	}
	if err := it.Err(); err != nil {
		t.Fatalf("Scan(%q, %q): %v", start, end, err)
	}
	return out
}

// Put applies one batch of key, value pairs.
func Put(t testing.TB, s kv.Store, sync bool, pairs ...string) {
	t.Helper()
	var b kv.Batch
	for i := 0; i < len(pairs); i += 2 {
		b.Put([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	if err := s.Apply(&b, sync); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

// Run holds sub to the contract of kv.Store.
func Run(t *testing.T, sub Subject) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Subject)
	}{
		{"get", testGet},
		{"scan bounds", testScanBounds},
		{"scan is a snapshot", testSnapshot},
		{"last write of a batch wins", testLastWins},
		{"apply keeps nothing of the batch", testBatchReused},
		{"empty batch", testEmptyBatch},
		{"big batch", testBigBatch},
		{"concurrent use", testConcurrent},
		{"reopen", testReopen},
		{"closed", testClosed},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, sub) })
	}
}

func open(t *testing.T, sub Subject) kv.Store {
	t.Helper()
	s := sub.Open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, kv.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func testGet(t *testing.T, sub Subject) {
	s := open(t, sub)
	if _, err := s.Get([]byte("a")); !errors.Is(err, kv.ErrNotFound) {
		t.Fatalf("Get of a missing key: %v, want ErrNotFound", err)
	}
	Put(t, s, false, "a", "1", "empty", "")
	got, err := s.Get([]byte("a"))
	if err != nil || string(got) != "1" {
		t.Fatalf("Get(a) = %q, %v, want 1", got, err)
	}
	got[0] = 'x' // ours: the store must not notice
	if again, _ := s.Get([]byte("a")); string(again) != "1" {
		t.Fatalf("a changed to %q with the slice that Get gave", again)
	}
	if got, err := s.Get([]byte("empty")); err != nil || len(got) != 0 {
		t.Fatalf("Get of an empty value: %q, %v", got, err)
	}
}

func testScanBounds(t *testing.T, sub Subject) {
	s := open(t, sub)
	Put(t, s, false, "", "e", "a", "1", "b", "2", "b\x00", "3", "c", "4", "\xff", "5", "\xff\xff", "6")
	for _, c := range []struct {
		start, end []byte
		want       string
	}{
		{nil, nil, "e123456"},
		{[]byte("b"), []byte("c"), "23"},
		{[]byte("aa"), []byte("bb"), "23"},
		{[]byte("c"), nil, "456"},
		{nil, []byte("a"), "e"},
		{[]byte("b"), []byte("b"), ""},
		{[]byte("c"), []byte("a"), ""},
		{[]byte("\xff"), kv.PrefixEnd(nil, []byte("\xff")), "56"},
		{[]byte("b"), kv.PrefixEnd(nil, []byte("b")), "23"},
	} {
		var values strings.Builder
		for _, e := range Dump(t, s, c.start, c.end) {
			values.WriteString(e.Value)
		}
		if got := values.String(); got != c.want {
			t.Errorf("Scan(%q, %q) gave %q, want %q", c.start, c.end, got, c.want)
		}
	}
}

func testSnapshot(t *testing.T, sub Subject) {
	s := open(t, sub)
	Put(t, s, false, "a", "1", "c", "3")
	it := s.Scan(nil, nil)
	Put(t, s, false, "a", "changed", "b", "2")
	var b kv.Batch
	b.Delete([]byte("c"))
	if err := s.Apply(&b, false); err != nil {
		t.Fatal(err)
	}
	var got []Entry
	for it.Next() {
		got = append(got, Entry{string(it.Key()), string(it.Value())})
	}
	it.Close()
	it.Close()
	if diff := cmp.Diff([]Entry{{"a", "1"}, {"c", "3"}}, got); diff != "" {
		t.Errorf("a scan saw later writes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Entry{{"a", "changed"}, {"b", "2"}}, Dump(t, s, nil, nil)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func testLastWins(t *testing.T, sub Subject) {
	s := open(t, sub)
	var b kv.Batch
	b.Put([]byte("a"), []byte("1"))
	b.Put([]byte("a"), []byte("2"))
	b.Put([]byte("gone"), []byte("x"))
	b.Delete([]byte("gone"))
	b.Delete([]byte("back"))
	b.Put([]byte("back"), []byte("y"))
	b.Delete([]byte("never was"))
	if err := s.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Entry{{"a", "2"}, {"back", "y"}}, Dump(t, s, nil, nil)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func testBatchReused(t *testing.T, sub Subject) {
	s := open(t, sub)
	var b kv.Batch
	for i := range 100 {
		b.Reset()
		b.Put(fmt.Appendf(nil, "k%02d", i), fmt.Appendf(nil, "v%02d", i))
		if err := s.Apply(&b, false); err != nil {
			t.Fatal(err)
		}
	}
	for i, e := range Dump(t, s, nil, nil) {
		if want := (Entry{fmt.Sprintf("k%02d", i), fmt.Sprintf("v%02d", i)}); e != want {
			t.Fatalf("entry %d is %v, want %v", i, e, want)
		}
	}
}

func testEmptyBatch(t *testing.T, sub Subject) {
	s := open(t, sub)
	for _, sync := range []bool{false, true} {
		if err := s.Apply(new(kv.Batch), sync); err != nil {
			t.Fatalf("Apply of an empty batch, sync %v: %v", sync, err)
		}
	}
	if got := Dump(t, s, nil, nil); got != nil {
		t.Fatalf("an empty batch wrote %v", got)
	}
}

func testBigBatch(t *testing.T, sub Subject) {
	s := open(t, sub)
	var b kv.Batch
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	for i := range 700 { // 44 MiB: beyond LevelDB's write buffer
		b.Put(fmt.Appendf(nil, "k%03d", i), value)
	}
	if err := s.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	n := 0
	it := s.Scan(nil, nil)
	defer it.Close()
	for ; it.Next(); n++ {
		if !bytes.Equal(it.Value(), value) {
			t.Fatalf("value of %q differs", it.Key())
		}
	}
	if n != 700 || it.Err() != nil {
		t.Fatalf("%d entries, %v, want 700", n, it.Err())
	}
}

func testConcurrent(t *testing.T, sub Subject) {
	s := open(t, sub)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			var b kv.Batch
			for i := range 200 {
				b.Reset()
				b.Put(fmt.Appendf(nil, "%d/%03d/x", w, i), []byte("v"))
				b.Put(fmt.Appendf(nil, "%d/%03d/y", w, i), []byte("v"))
				if err := s.Apply(&b, i%50 == 0); err != nil {
					t.Errorf("Apply: %v", err)
				}
				n := 0
				it := s.Scan(fmt.Appendf(nil, "%d/", w), fmt.Appendf(nil, "%d0", w))
				for it.Next() {
					n++
				}
				it.Close()
				if n != 2*(i+1) {
					t.Errorf("writer %d sees %d entries after %d batches of 2", w, n, i+1)
					return
				}
			}
		})
	}
	wg.Wait()
}

func testReopen(t *testing.T, sub Subject) {
	if sub.Reopen == nil {
		t.Skip("the subject does not outlive its process")
	}
	s := sub.Open(t)
	Put(t, s, true, "synced", "1")
	Put(t, s, false, "not synced", "2")
	s = sub.Reopen(t, s)
	defer func() { _ = s.Close() }()
	if diff := cmp.Diff([]Entry{{"not synced", "2"}, {"synced", "1"}}, Dump(t, s, nil, nil)); diff != "" {
		t.Errorf("after a reopen (-want +got):\n%s", diff)
	}
}

func testClosed(t *testing.T, sub Subject) {
	s := sub.Open(t)
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	var b kv.Batch
	b.Put([]byte("a"), []byte("1"))
	it := s.Scan(nil, nil)
	it.Next()
	_, getErr := s.Get([]byte("a"))
	for call, err := range map[string]error{
		"Get": getErr, "Apply": s.Apply(&b, true), "Apply of nothing": s.Apply(new(kv.Batch), true),
		"Scan": it.Err(), "Close": s.Close(),
	} {
		if !errors.Is(err, kv.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", call, err)
		}
	}
	it.Close()
}
