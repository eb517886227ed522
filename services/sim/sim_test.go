// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"flag"
	"io"
	"os"
	"slices"
	"strings"
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
	sum := Result{Happened: Tally{}}
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
		sum.Happened.Add(r.Happened)
	}
	took := time.Since(start)
	n := max(*runs, 1)
	t.Logf("%d seeds from %d in %s, %s each: %d events (%d each), %.0f s simulated, %d appends, %d acknowledged, %d of them lost with every copy in sync, %d after starts without the bus",
		*runs, *first, took.Round(time.Millisecond), (took / time.Duration(n)).Round(time.Microsecond), sum.Events, sum.Events/n, sum.Simulated,
		sum.Appends, sum.Acked, sum.Lost, sum.Dark)
	happened(t, *runs, 200, seedsKinds, sum.Happened)
	if *runs >= 100 && sum.Dark == 0 {
		t.Error("no broker that was started without the bus has acknowledged anything")
	}
}

// happened logs what there was, and fails where a kind is missing that so many seeds have.
func happened(t *testing.T, seeds, enough int, kinds []string, tally Tally) {
	t.Helper()
	t.Logf("%d seeds: %s", seeds, tally)
	if missing := tally.Missing(kinds); seeds >= enough && *by == "" && len(missing) > 0 {
		t.Errorf("in none of %d seeds there was: %s; have the worlds do that more often, or say in tally.go that they do not have it", seeds, strings.Join(missing, ", "))
	}
}

// TestTally_Missing holds that a kind that never happened is told from those that did.
func TestTally_Missing(t *testing.T) {
	sum := Tally{"kill": 1}
	sum.Add(Tally{"kill": 1, "split": 0})
	if got := sum.Missing([]string{"kill", "split", "flap"}); !slices.Equal(got, []string{"split", "flap"}) || sum["kill"] != 2 {
		t.Errorf("%v is missing of %v, expected split and flap, and kill to be 2", got, sum)
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
