// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestSessions runs the world of many seeds in which brokers have sessions.
func TestSessions(t *testing.T) { playSessions(t, RunSessions, *runs, 200, sessionsKinds) }

// TestPlaced does so where the tenant goes to other partitions, again and again, with what it
// has.
func TestPlaced(t *testing.T) { playSessions(t, RunPlaced, *runs, 200, placedKinds) }

// TestExpiring runs the worlds with sessions that end: a quarter as many.
func TestExpiring(t *testing.T) {
	playSessions(t, RunExpiring, max(*runs/4, min(*runs, 50)), 50, expiringKinds)
}

// TestRough runs worlds in which what the others seldom have happens often: a fifth as many as
// of these, as they take longer.
func TestRough(t *testing.T) {
	playSessions(t, RunRough, max(*runs/5, min(*runs, 40)), 40, roughKinds)
}

// playSessions runs the worlds of some seeds. As many as enough have all kinds of what is to happen.
func playSessions(t *testing.T, run func(seed uint64, trace io.Writer) Result, seeds, enough int, kinds []string) {
	t.Helper()
	start := time.Now()
	sum := Result{Happened: Tally{}}
	for i := range seeds {
		var out io.Writer
		if *trace && i == 0 {
			out = os.Stdout
		}
		r := run(*first+uint64(i), out)
		if len(r.Broken) > 0 && !regexp.MustCompile(*by).MatchString(strings.Join(r.Broken, "\n")) {
			continue
		}
		for _, what := range r.Broken {
			t.Errorf("seed %d: %s", r.Seed, what)
		}
		if len(r.Broken) > 0 {
			t.Fatalf("seed %d breaks a promise after %d events; run it again with -run %s -runs 1 -seed %d -print", r.Seed, r.Events, t.Name(), r.Seed)
		}
		if r.Delivered < r.Acked {
			t.Errorf("seed %d: %d delivered, %d acknowledged", r.Seed, r.Delivered, r.Acked)
		}
		sum.Events += r.Events
		sum.Appends += r.Appends
		sum.Acked += r.Acked
		sum.Delivered += r.Delivered
		sum.Simulated += r.Simulated
		sum.Happened.Add(r.Happened)
	}
	took := time.Since(start)
	n := max(seeds, 1)
	t.Logf("%d seeds from %d in %s, %s each: %d events (%d each), %.0f s simulated, %d published, %d acknowledged, %d delivered",
		seeds, *first, took.Round(time.Millisecond), (took / time.Duration(n)).Round(time.Microsecond), sum.Events, sum.Events/n, sum.Simulated,
		sum.Appends, sum.Acked, sum.Delivered)
	happened(t, seeds, enough, kinds, sum.Happened)
}

// TestSessionsSameSeedSameWorld holds that a seed with sessions replays to the last event.
func TestSessionsSameSeedSameWorld(t *testing.T) {
	for seed := range uint64(5) {
		a, b := RunSessions(seed, nil), RunSessions(seed, io.Discard)
		if a.Hash != b.Hash || a.Events != b.Events {
			t.Errorf("seed %d: %d events with hash %x, then %d with %x", seed, a.Events, a.Hash, b.Events, b.Hash)
		}
		a, b = RunPlaced(seed, nil), RunPlaced(seed, io.Discard)
		if a.Hash != b.Hash || a.Events != b.Events {
			t.Errorf("placed, seed %d: %d events with hash %x, then %d with %x", seed, a.Events, a.Hash, b.Events, b.Hash)
		}
	}
}
