// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"io"
	"os"
	"testing"
	"time"
)

// TestSessions runs the world of many seeds in which brokers have sessions.
func TestSessions(t *testing.T) {
	start := time.Now()
	var sum Result
	for i := range *runs {
		var out io.Writer
		if *trace && i == 0 {
			out = os.Stdout
		}
		r := RunSessions(*first+uint64(i), out)
		for _, what := range r.Broken {
			t.Errorf("seed %d: %s", r.Seed, what)
		}
		if len(r.Broken) > 0 {
			t.Fatalf("seed %d breaks a promise after %d events; run it again with -run TestSessions -runs 1 -seed %d -print", r.Seed, r.Events, r.Seed)
		}
		if r.Delivered < r.Acked {
			t.Errorf("seed %d: %d delivered, %d acknowledged", r.Seed, r.Delivered, r.Acked)
		}
		sum.Events += r.Events
		sum.Appends += r.Appends
		sum.Acked += r.Acked
		sum.Delivered += r.Delivered
		sum.Moved += r.Moved
		sum.Unmoved += r.Unmoved
		sum.Wills += r.Wills
		sum.Simulated += r.Simulated
	}
	if *runs >= 20 && sum.Moved == 0 {
		t.Error("no connection went on at another broker")
	}
	if *runs >= 20 && sum.Wills == 0 {
		t.Error("nobody left a will")
	}
	took := time.Since(start)
	n := max(*runs, 1)
	t.Logf("%d seeds from %d in %s, %s each: %d events (%d each), %.0f s simulated, %d published, %d acknowledged, %d delivered, %d connections moved, %d closed by a move, %d wills",
		*runs, *first, took.Round(time.Millisecond), (took / time.Duration(n)).Round(time.Microsecond), sum.Events, sum.Events/n, sum.Simulated,
		sum.Appends, sum.Acked, sum.Delivered, sum.Moved, sum.Unmoved, sum.Wills)
}

// TestSessionsSameSeedSameWorld holds that a seed with sessions replays to the last event.
func TestSessionsSameSeedSameWorld(t *testing.T) {
	for seed := range uint64(5) {
		a, b := RunSessions(seed, nil), RunSessions(seed, io.Discard)
		if a.Hash != b.Hash || a.Events != b.Events {
			t.Errorf("seed %d: %d events with hash %x, then %d with %x", seed, a.Events, a.Hash, b.Events, b.Hash)
		}
	}
}
