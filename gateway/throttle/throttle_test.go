// SPDX-License-Identifier: Apache-2.0

package throttle_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/manormq/manor/gateway/throttle"
)

// Who takes what there is and waits as told gets the rate, whatever the sizes of
// the pieces, and a second's worth on top at most.
func TestTheRateIsHeld(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		r := throttle.Rate{Messages: 1 + random.Int64N(5000), Bytes: -1}
		size := 1 + random.IntN(2000)
		if random.IntN(2) == 0 {
			r.Bytes = 70_000 + random.Int64N(1_000_000)
		}
		var th throttle.Throttle
		start := time.Unix(1_800_000_000, 0)
		now := start
		th.Set(now, r)
		messages := 0
		const seconds = 30
		for now.Before(start.Add(seconds * time.Second)) {
			b := th.Budget(now)
			if wait, _ := th.Wait(now); (wait > 0) != b.Spent() {
				t.Fatalf("%+v: wait %s with the budget %+v", r, wait, b)
			}
			if b.Spent() {
				wait, _ := th.Wait(now)
				now = now.Add(wait + time.Duration(random.Int64N(int64(10*time.Millisecond))))
				continue
			}
			n := 0
			for int64(n) < min(b.Messages, 64) && int64(n*size) < b.Bytes {
				n++
			}
			th.Spend(now, n, n*size)
			messages += n
		}
		want := float64(r.Messages)
		if r.Bytes >= 0 {
			want = min(want, float64(r.Bytes)/float64(size))
		}
		got := float64(messages) / seconds
		if got < 0.95*want-1 || got > want*(seconds+1)/seconds+1 {
			t.Errorf("%+v, messages of %d bytes: %.1f a second, expected %.1f", r, size, got, want)
		}
	}
}

func TestNoLimit(t *testing.T) {
	var th throttle.Throttle
	now := time.Now()
	th.Spend(now, 1<<30, 1<<30)
	if wait, _ := th.Wait(now); wait != 0 || th.Budget(now).Spent() {
		t.Errorf("wait %s, budget %+v without a limit", wait, th.Budget(now))
	}
}

func TestChange(t *testing.T) {
	var th throttle.Throttle
	now := time.Unix(1_800_000_000, 0)
	th.Set(now, throttle.Rate{Messages: 10, Bytes: -1})
	th.Spend(now, 20, 0)
	if wait, byBytes := th.Wait(now); wait.Round(time.Millisecond) != 1100*time.Millisecond || byBytes {
		t.Errorf("in debt of a second: wait %s (bytes: %v), expected 1.1s", wait, byBytes)
	}
	th.Set(now, throttle.Rate{Messages: 100, Bytes: -1})
	if wait, _ := th.Wait(now); wait.Round(time.Millisecond) != 110*time.Millisecond {
		t.Errorf("at ten times the rate: wait %s, expected 0.11s", wait)
	}
	th.Set(now, throttle.Rate{Messages: 0, Bytes: -1})
	if wait, _ := th.Wait(now); wait != time.Minute {
		t.Errorf("at the rate 0: wait %s, expected a minute", wait)
	}
	th.Set(now, throttle.Rate{Messages: -1, Bytes: -1})
	if wait, _ := th.Wait(now); wait != 0 {
		t.Errorf("without a limit: wait %s", wait)
	}
}

func TestSlow(t *testing.T) {
	var th throttle.Throttle
	now := time.Unix(1_800_000_000, 0)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	th.Set(now, throttle.Rate{Messages: 10, Bytes: -1})
	th.Spend(now, 10, 0)
	th.Slow(now)
	for s := range 10 { // always a little, never half
		th.Budget(at(time.Duration(s)*time.Second + 300*time.Millisecond))
		th.Spend(at(time.Duration(s)*time.Second+300*time.Millisecond), 10, 0)
	}
	if d := th.Slow(at(9500 * time.Millisecond)); d != 9500*time.Millisecond {
		t.Errorf("slow for %s, expected 9.5s", d)
	}
	th.Budget(at(time.Minute))
	if d := th.Slow(at(time.Minute)); d != 0 {
		t.Errorf("slow for %s after a rest", d)
	}
}

// A share is a part of the rate, and of what may pass at once; what was spent counts on.
func TestShare(t *testing.T) {
	var th throttle.Throttle
	now := time.Unix(1_800_000_000, 0)
	r := throttle.Rate{Messages: 100, MessagesShare: 0.25, Bytes: 1_000_000, BytesShare: 0.5}
	th.Set(now, r)
	if b := th.Budget(now); b.Messages != 25 || b.Bytes != 500_000 {
		t.Errorf("budget %+v, expected 25 messages and 500000 bytes", b)
	}
	th.Spend(now, 50, 0)
	if wait, _ := th.Wait(now); wait.Round(time.Millisecond) != 1040*time.Millisecond {
		t.Errorf("wait %s in debt of a second, expected 1.04s", wait)
	}
	r.MessagesShare = 1
	th.Set(now, r)
	if wait, _ := th.Wait(now); wait.Round(time.Millisecond) != 260*time.Millisecond {
		t.Errorf("wait %s with all of the rate, expected 0.26s", wait)
	}
	r.Messages, r.MessagesShare = 3, 0.01
	th.Set(now, r)
	if b := th.Budget(now.Add(time.Hour)); b.Messages != 1 {
		t.Errorf("budget %+v of a small part, expected 1 message", b)
	}
}

// What is given back is there again, and no more than fits.
func TestThrottle_Give(t *testing.T) {
	now := time.Now()
	var x throttle.Throttle
	x.Give(now, 5, 5) // without a rate it does nothing
	if x.Limited() {
		t.Error("there is a rate")
	}
	x.Set(now, throttle.Rate{Messages: 10, Bytes: 100_000})
	if !x.Limited() {
		t.Error("there is no rate")
	}
	for _, c := range []struct{ spend, give, want int64 }{{4, 3, 9}, {4, 0, 5}, {30, 20, -5}, {0, 5, 0}, {0, 100, 10}} {
		x.Spend(now, int(c.spend), int(c.spend))
		x.Give(now, int(c.give), int(c.give))
		if b := x.Budget(now); b.Messages != c.want {
			t.Errorf("%+v: %d messages may pass", c, b.Messages)
		}
	}
	if b := x.Budget(now); b.Bytes != 100_000 {
		t.Errorf("%d bytes may pass", b.Bytes)
	}
}
