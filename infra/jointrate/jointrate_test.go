// SPDX-License-Identifier: Apache-2.0

package jointrate

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

const (
	tick  = time.Millisecond
	every = 250 * time.Millisecond // from one exchange to the next
)

// world are processes that take from one bucket, of which each hears late what the others
// took.
type world struct {
	limit  int64
	burst  float64
	now    time.Time
	rates  []*Rate
	others []int64 // that a process has heard of and not exchanged
	taken  []int64
}

func newWorld(n int, limit int64, burst float64) *world {
	w := &world{limit: limit, burst: burst, now: time.Unix(1, 0), others: make([]int64, n), taken: make([]int64, n)}
	for range n {
		w.rates = append(w.rates, &Rate{})
	}
	return w
}

// run has process i want demand[i] per second for a time, and returns what all took.
func (w *world) run(past time.Duration, demand ...float64) (total int64) {
	before := int64(0)
	for _, n := range w.taken {
		before += n
	}
	due := make([]float64, len(w.rates))
	for end := w.now.Add(past); w.now.Before(end); w.now = w.now.Add(tick) {
		for i, r := range w.rates {
			for due[i] += demand[i] * tick.Seconds(); due[i] >= 1; due[i]-- {
				if _, ok := r.Take(w.now, w.limit, w.burst, len(w.rates)); ok {
					w.taken[i]++
				}
			}
			// Each at another time.
			if w.now.UnixMilli()%every.Milliseconds() == int64(i)*37 {
				said := r.Exchange(w.now, w.others[i], len(w.rates), every)
				w.others[i] = 0
				for k := range w.others {
					if k != i && said > 0 {
						w.others[k] += said
						w.rates[k].Limited(w.now, w.limit, w.burst)
					}
				}
			}
		}
	}
	for _, n := range w.taken {
		total += n
	}
	return total - before
}

// Whoever asks where, and however it changes, all together take the limit, within 5 %.
func TestRate_Together(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		burst  float64
		limit  int64
		demand [][]float64 // each for 10 s
	}{
		"all":           {2, 20, [][]float64{{100, 100, 100}}},
		"one":           {2, 20, [][]float64{{100, 0, 0}}},
		"one, then all": {2, 20, [][]float64{{100, 0, 0}, {100, 100, 100}, {0, 0, 100}}},
		"uneven":        {2, 200, [][]float64{{900, 40, 10}, {10, 900, 300}}},
		"of a second":   {1, 50, [][]float64{{100, 100, 100}, {0, 200, 0}}},
		"small":         {2, 1, [][]float64{{5, 5, 5}, {5, 0, 0}}},
		"turns":         {2, 5, [][]float64{{3, 3, 3}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(3, c.limit, c.burst)
			w.run(10*time.Second, c.demand[0]...) // uses up what was there
			for i, demand := range c.demand {
				w.run(5*time.Second, demand...)
				got, want := w.run(60*time.Second, demand...), 60*float64(c.limit)
				if d := float64(got) - want; max(d, -d) > 0.05*want {
					t.Errorf("%d: %d taken in a minute by %v, expected %.0f", i, got, demand, want)
				}
			}
		})
	}
}

// What may be taken at once is once that of a bucket, wherever it is asked for.
func TestRate_AtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(3, 100, 2)
	if got := w.run(30*tick, 1e5, 1e5, 1e5); got < 190 || got > 206 {
		t.Errorf("%d at once, expected 200", got)
	}
	if got := w.run(10*time.Second-30*tick, 1e5, 1e5, 1e5); got > 1000*105/100 {
		t.Errorf("%d in the ten seconds after that, expected 1000", got)
	}
	one := &Rate{}
	for i := range 4 {
		if _, ok := one.Take(w.now, 2, 2, 1); !ok {
			t.Errorf("the %d. of 4 is refused", i+1)
		}
	}
	if wait, ok := one.Take(w.now, 2, 2, 1); ok || wait != 500*time.Millisecond {
		t.Errorf("one too many: %v, wait %v", ok, wait)
	}
	if _, ok := one.Take(w.now, 0, 2, 1); ok {
		t.Error("one of none")
	}
	if _, ok := one.Take(w.now, 3, 2, 1); !ok {
		t.Error("another limit does not begin full")
	}
}

// Demand that comes and goes at random is never given more than 5 % and a burst too much.
func TestRate_Never(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			n := 2 + r.IntN(6)
			w := newWorld(n, int64(10+r.IntN(200)), 2)
			total := int64(0)
			for range 20 {
				demand := make([]float64, n)
				for i := range demand {
					demand[i] = float64(r.IntN(2)*r.IntN(3)) * float64(w.limit)
				}
				total += w.run(2*time.Second, demand...)
			}
			// What every process takes in an exchange is known to the others only later.
			if most := 40*float64(w.limit)*1.05 + 2*2*float64(w.limit); float64(total) > most {
				t.Errorf("%d taken of at most %.0f, by %d", total, most, n)
			}
		})
	}
}
