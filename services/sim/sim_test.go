// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"flag"
	"io"
	"os"
	"testing"
	"time"
)

var (
	first = flag.Uint64("seed", 1, "the first seed to run")
	runs  = flag.Int("runs", 200, "how many seeds to run")
	by    = flag.String("by", "", "a regular expression: seeds that break promises, but none that it matches, count as kept; for planted bugs")
	trace = flag.Bool("print", false, "print what happens in the first seed")
)

// TestSeeds runs the world of many seeds.
func TestSeeds(t *testing.T) {
	start := time.Now()
	var sum Result
	for i := range *runs {
		var out io.Writer
		if *trace && i == 0 {
			out = os.Stdout
		}
		r := Run(*first+uint64(i), out)
		for _, what := range r.Broken {
			t.Errorf("seed %d: %s", r.Seed, what)
		}
		if len(r.Broken) > 0 {
			t.Fatalf("seed %d breaks a promise after %d events; run it again with -runs 1 -seed %d -print", r.Seed, r.Events, r.Seed)
		}
		if r.Events < 2000 {
			t.Errorf("seed %d has %d events, expected at least 2000", r.Seed, r.Events)
		}
		sum.Events += r.Events
		sum.Appends += r.Appends
		sum.Acked += r.Acked
		sum.Lost += r.Lost
		sum.Dark += r.Dark
		sum.Simulated += r.Simulated
	}
	took := time.Since(start)
	n := max(*runs, 1)
	t.Logf("%d seeds from %d in %s, %s each: %d events (%d each), %.0f s simulated, %d appends, %d acknowledged, %d of them lost with every copy in sync, %d after starts without the bus",
		*runs, *first, took.Round(time.Millisecond), (took / time.Duration(n)).Round(time.Microsecond), sum.Events, sum.Events/n, sum.Simulated,
		sum.Appends, sum.Acked, sum.Lost, sum.Dark)
	if *runs >= 100 && sum.Dark == 0 {
		t.Error("no broker that was started without the bus has acknowledged anything")
	}
}

// TestSameSeedSameWorld holds that a seed replays to the last event.
func TestSameSeedSameWorld(t *testing.T) {
	for seed := range uint64(5) {
		a, b := Run(seed, nil), Run(seed, io.Discard)
		if a.Hash != b.Hash || a.Events != b.Events {
			t.Errorf("seed %d: %d events with hash %x, then %d with %x", seed, a.Events, a.Hash, b.Events, b.Hash)
		}
	}
}
