// SPDX-License-Identifier: Apache-2.0

package swc_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/manormq/manor/services/broker/swc"
)

func someWatermark(r *rand.Rand) swc.Watermark {
	var w swc.Watermark
	for a := range swc.Actor(actors) {
		if r.IntN(4) > 0 {
			w.Enter(a + 1)
			w.Update(a+1, someVector(r))
		}
	}
	return w
}

// clone copies by the encoding, which another test holds to be faithful.
func clone(t *testing.T, w *swc.Watermark) swc.Watermark {
	t.Helper()
	out, _, err := swc.DecodeWatermark(w.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWatermark_Min(t *testing.T) {
	laws(t, 200, func(t *testing.T, r *rand.Rand) {
		w := someWatermark(r)
		for p := range swc.Actor(actors + 1) {
			want := ^uint64(0)
			for _, q := range w.Members() {
				want = min(want, w.Known(p+1, q))
			}
			if len(w.Members()) == 0 {
				want = 0
			}
			if got := w.Min(p + 1); got != want {
				t.Errorf("Min(%d) = %d, want %d", p+1, got, want)
			}
			if !w.Settled(swc.Dot{Actor: p + 1, N: max(want, 1)}) && want > 0 || w.Settled(swc.Dot{Actor: p + 1, N: want + 1}) {
				t.Errorf("Settled does not end at %d", want)
			}
		}
	})
}

// Whatever comes, in whatever order: no member is known to know less than before.
func TestWatermark_Monotone(t *testing.T) {
	laws(t, 200, func(t *testing.T, r *rand.Rand) {
		w := someWatermark(r)
		for range 20 {
			before := clone(t, &w)
			news := false
			if o := someWatermark(r); r.IntN(2) == 0 {
				news = w.Join(&o)
			} else {
				news = w.Update(swc.Actor(r.IntN(actors)+1), someVector(r))
			}
			if news == w.Equal(&before) {
				t.Errorf("the change is reported as %v", news)
			}
			for p := range swc.Actor(actors) {
				if w.Min(p+1) < before.Min(p+1) {
					t.Errorf("Min(%d) went back", p+1)
				}
				for q := range swc.Actor(actors) {
					if w.Known(p+1, q+1) < before.Known(p+1, q+1) {
						t.Errorf("what %d knows of %d went back", q+1, p+1)
					}
				}
			}
		}
	})
}

func TestWatermark_Join(t *testing.T) {
	laws(t, 200, func(t *testing.T, r *rand.Rand) {
		full := func() swc.Watermark {
			w := someWatermark(r)
			for a := range swc.Actor(actors) {
				w.Enter(a + 1)
			}
			return w
		}
		a, b, c := full(), full(), full()
		join := func(x, y *swc.Watermark) swc.Watermark {
			out := clone(t, x)
			out.Join(y)
			return out
		}
		ab, ba, bc := join(&a, &b), join(&b, &a), join(&b, &c)
		if !ab.Equal(&ba) {
			t.Error("joining is not commutative")
		}
		if left, right := join(&ab, &c), join(&a, &bc); !left.Equal(&right) {
			t.Error("joining is not associative")
		}
		if again := join(&ab, &a); !again.Equal(&ab) {
			t.Error("joining is not idempotent")
		}
	})
}

func TestWatermark_Members(t *testing.T) {
	var w swc.Watermark
	known := swc.Vector{{Actor: 7, N: 5}}
	if w.Update(1, known) || w.Settled(swc.Dot{Actor: 7, N: 1}) {
		t.Error("a watermark without members knows something")
	}
	w.Enter(1)
	w.Update(1, known)
	w.Enter(1)
	if w.Min(7) != 5 {
		t.Errorf("Min = %d after a member entered again, want 5", w.Min(7))
	}
	w.Enter(2)
	if w.Min(7) != 0 {
		t.Error("a new member does not hold back what it does not know")
	}
	var o swc.Watermark
	o.Enter(3)
	o.Update(3, known)
	if w.Join(&o) || !slices.Equal(w.Members(), []swc.Actor{1, 2}) {
		t.Error("joining brought a member in")
	}
	w.Leave(2)
	if w.Min(7) != 5 {
		t.Error("a member that has left holds something back")
	}
}
