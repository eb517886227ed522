// SPDX-License-Identifier: Apache-2.0

package throttle

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// A bucket answers as x/time/rate does, to a thousandth of a token and a tick for each time
// that something is taken, also when its rate changes. Debts stay below 9 years.
func TestBucket_AsXTimeRate(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		now := time.Unix(1_800_000_000, 0)
		var b bucket
		var want *rate.Limiter
		slack := 1e-3
		change := func() {
			perSecond := int64(math.Pow(10, 1+5*random.Float64()))
			burst := int(perSecond)
			b.set(now, perSecond, 0, 1, 1)
			if want == nil {
				want = rate.NewLimiter(rate.Limit(perSecond), burst)
				return
			}
			want.SetLimitAt(now, rate.Limit(perSecond))
			want.SetBurstAt(now, burst)
			want.AllowN(now, 0) // what is above the burst is lost
		}
		change()
		for step := range 200 {
			switch random.IntN(8) {
			case 0:
				change()
			case 1, 2, 3:
				now = now.Add(time.Duration(random.ExpFloat64() * float64(100*time.Millisecond)))
			default:
				n := 1 + random.IntN(1+2*want.Burst()/3)
				b.spend(now, n)
				want.ReserveN(now, n)
				slack += float64(want.Limit()) / tick / 1e9
			}
			got, f := b.has(now)
			if w := want.TokensAt(now); math.Abs(got-w) > slack+1e-6*math.Abs(w) {
				t.Fatalf("step %d, rate %v: %v tokens, x/time/rate has %v, expected at most %v of difference", step, f.rate, got, w, slack)
			}
		}
	}
}

// What is spent while the rate changes is neither lost nor counted twice, and nothing is
// allocated for it.
func TestBucket_Concurrent(t *testing.T) {
	var b bucket
	now := time.Unix(1_800_000_000, 0)
	b.set(now, 1000, 0, 1, 1)
	const each, workers = 2000, 4
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				b.spend(now, 1)
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for n := range 200 {
				b.set(now, int64(1000+n%2), 0, 1, 1)
			}
		})
	}
	wg.Wait()
	b.set(now, 1000, 0, 1, 1)
	if got, _ := b.has(now); math.Abs(got-(1000-each*workers)) > 1 {
		t.Errorf("%v tokens are left, expected %d", got, 1000-each*workers)
	}
	if n := testing.AllocsPerRun(100, func() { b.spend(now, 1); b.has(now); b.wait(now) }); n > 0 {
		t.Errorf("%v allocations, expected none", n)
	}
}

// Without time passing, at the rate 0, debts are as exact as at others.
func TestBucket_Still(t *testing.T) {
	var b bucket
	now := time.Unix(1_800_000_000, 0)
	b.set(now, 0, 0, 1, leastBytes)
	b.spend(now, 100_000)
	later := now.Add(24 * time.Hour)
	if got, _ := b.has(later); got != leastBytes-100_000 {
		t.Errorf("%v are left at the rate 0, expected %d", got, leastBytes-100_000)
	}
	b.set(later, 1_000_000, 0, 1, leastBytes)
	if got, _ := b.has(later); math.Abs(got-(leastBytes-100_000)) > 1 {
		t.Errorf("%v are left, expected the debt of before, %d", got, leastBytes-100_000)
	}
}

// A change of the rate moves what is there to the new rate, at any two rates, and leaves
// nobody waiting for it.
func TestBucket_AnyRates(t *testing.T) {
	perSecond := []int64{-1, 0, 1, 7, 1e6, 1e9, math.MaxInt64}
	shares := []float64{0, 1, 0.5, 1e-6, 1e-12, 1e-300, math.SmallestNonzeroFloat64, math.MaxFloat64, math.Inf(1)}
	leasts := []int64{0, 1, leastBytes}
	amounts := []int{0, 1, 1000, 1 << 40, math.MaxInt}
	random := rand.New(rand.NewPCG(5, 6))
	pick := func(of []int64) int64 { return of[random.IntN(len(of))] }
	done := make(chan struct{})
	go func() {
		defer close(done)
		for round := range 3000 {
			now := time.Unix(1_800_000_000, 0)
			var b bucket
			for step := range 30 {
				switch random.IntN(5) {
				case 0, 1:
					before, f := b.has(now)
					n, share, least := pick(perSecond), shares[random.IntN(len(shares))], pick(leasts)
					b.set(now, n, share, random.Int64N(6), least)
					after, next := b.has(now)
					if f == nil || next == nil || f == next {
						break
					}
					want := min(before, next.burst)
					capped := next.burst - float64(fullMax)/next.ticks
					if math.Abs(after-max(want, capped)) > 1/next.ticks+1e-6*(math.Abs(want)+next.burst) && next.ticks > 1 {
						t.Errorf("round %d, step %d: %v of %v tokens are left at %v a second, expected %v as before", round, step, after, next.burst, next.rate, want)
						return
					}
				case 2:
					now = now.Add(time.Duration(random.Int64N(int64(20*365*24*time.Hour)) - int64(10*365*24*time.Hour)))
				case 3:
					b.spend(now, amounts[random.IntN(len(amounts))])
				case 4:
					if w := b.wait(now); w < 0 || w > longest {
						t.Errorf("round %d, step %d: a wait of %v, expected one of 0 to %v", round, step, w, longest)
						return
					}
				}
				tokens, f := b.has(now)
				if f == nil {
					continue
				}
				if full := f.full.Load(); math.IsNaN(tokens) || tokens > f.burst || full < 0 || full > fullMax {
					t.Errorf("round %d, step %d: %v tokens of %v, full at %d, at %v a second", round, step, tokens, f.burst, full, f.rate)
					return
				}
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("somebody waits for a bucket for ever")
	}
}

// A bucket that was full at a high rate is full at a low one.
func TestBucket_FastToSlow(t *testing.T) {
	for _, c := range []struct {
		fast, slow int64
		share      float64
	}{{1e9, 1, 1}, {1e9, 1, 1e-6}, {1e6, 1, 1e-6}, {math.MaxInt64, 1, 1e-300}} {
		var b bucket
		now := time.Unix(1_800_000_000, 0)
		b.set(now, c.fast, 1, 1, leastBytes)
		b.set(now, c.slow, c.share, 1, leastBytes)
		if full := b.p.Load().full.Load(); full != 0 {
			t.Fatalf("from %d to %v a second it is full at %d, expected now, at 0", c.fast, float64(c.slow)*c.share, full)
		}
		if got, _ := b.has(now); got != leastBytes {
			t.Errorf("from %d to %v a second %v tokens are left, expected %d", c.fast, float64(c.slow)*c.share, got, leastBytes)
		}
	}
}
