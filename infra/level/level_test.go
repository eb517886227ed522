// SPDX-License-Identifier: Apache-2.0

package level

import (
	"testing"
	"time"
)

// Each level is told once when it begins; again when much less was used meanwhile, and not
// soon.
func TestTold(t *testing.T) {
	var x Told[string]
	now := time.Unix(1000, 0)
	for i, c := range []struct {
		used  float64
		waits bool
		after time.Duration
		want  Level
	}{
		{used: 0.79, want: Below},
		{used: 0.8, want: Near},
		{used: 0.79, want: Below},
		{used: 0.8, want: Below},  // it has not been below 0.7
		{used: 0.6, want: Below},  // now it has
		{used: 0.8, want: Below},  // but not long ago
		{used: 0.91, want: Below}, // nobody waits
		{used: 0.91, waits: true, want: Reached},
		{used: 1, want: Below},
		{used: 0.5, after: Quiet, want: Below},
		{used: 1, want: Reached}, // both at once: the higher one
		{used: 0.1, want: Below},
		{used: 0.85, want: Below}, // told with the higher one
		{used: 0.1, after: Quiet + 1, want: Below},
		{used: 0.85, want: Near},
	} {
		now = now.Add(time.Second + c.after)
		if got := x.Look(now, "k", c.used, c.waits); got != c.want {
			t.Errorf("%d: %v used, waits %t: told %d, expected %d", i, c.used, c.waits, got, c.want)
		}
		x.Forget(now)
	}
	if got := x.Look(now, "other", 1, false); got != Reached {
		t.Errorf("another limit: told %d", got)
	}
	x.Look(now, "k", 0, false)
	x.Look(now, "other", 0, false)
	if x.Forget(now.Add(Quiet + 1)); len(x.all) != 0 {
		t.Errorf("%d limits are remembered of which nothing is used", len(x.all))
	}
}

func TestCrossed(t *testing.T) {
	for _, c := range []struct {
		before, now, most int64
		want              Level
	}{
		{0, 7, 10, Below},
		{7, 8, 10, Near},
		{8, 9, 10, Below},
		{9, 10, 10, Reached},
		{0, 10, 10, Reached},
		{10, 11, 10, Below},
		{0, 1, 1, Reached},
		{0, 1, 0, Below},
		{0, 5, -1, Below},
		{9, 7, 10, Below},
	} {
		if got := Crossed(c.before, c.now, c.most); got != c.want {
			t.Errorf("from %d to %d of %d: %d, expected %d", c.before, c.now, c.most, got, c.want)
		}
	}
}
