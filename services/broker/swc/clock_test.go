// SPDX-License-Identifier: Apache-2.0

package swc_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/manormq/manor/services/broker/swc"
)

func TestClock_KnowsWhatWasAdded(t *testing.T) {
	laws(t, 300, func(t *testing.T, r *rand.Rand) {
		s := someDots(r)
		c := clockOf(r, s)
		for a := range swc.Actor(actors + 1) {
			top := uint64(0)
			for n := range uint64(maxDot + 70) {
				d := swc.Dot{Actor: a + 1, N: n + 1}
				if c.Contains(d) != s[d] {
					t.Errorf("Contains(%v) = %v", d, !s[d])
				}
				if s[d] {
					top = d.N
				}
			}
			if got, want := c.Base().Get(a+1), s.upTo(a+1); got != want {
				t.Errorf("the base of %d is %d, want %d", a+1, got, want)
			}
			if got := c.Max(a + 1); got != top {
				t.Errorf("Max(%d) = %d, want %d", a+1, got, top)
			}
		}
		if got := setOf(&c); !maps.Equal(got, s) {
			t.Errorf("the clock has %d dots, want %d", len(got), len(s))
		}
	})
}

// The order in which dots come leaves no trace: a clock has one form.
func TestClock_Norm(t *testing.T) {
	laws(t, 200, func(t *testing.T, r *rand.Rand) {
		s := someDots(r)
		a, b := clockOf(r, s), clockOf(r, s)
		if !a.Equal(&b) || string(a.Append(nil)) != string(b.Append(nil)) {
			t.Error("two orders of adding give two clocks")
		}
		for d := range s {
			if a.Add(d) {
				t.Errorf("Add(%v) again is news", d)
			}
		}
		if !a.Equal(&b) {
			t.Error("adding again changes the clock")
		}
		gaps := false
		for d := range s {
			gaps = gaps || d.N > s.upTo(d.Actor)
		}
		if a.Gaps() != gaps {
			t.Errorf("Gaps() = %v, want %v", a.Gaps(), gaps)
		}
	})
}

// The base goes up exactly when the dot behind it comes, and then over all that
// were ahead.
func TestClock_BaseAdvancesWhenContiguous(t *testing.T) {
	laws(t, 100, func(t *testing.T, r *rand.Rand) {
		order := r.Perm(maxDot)
		var c swc.Clock
		s := dots{}
		for _, n := range order {
			d := swc.Dot{Actor: 1, N: uint64(n) + 1}
			before := c.Base().Get(1)
			c.Add(d)
			s[d] = true
			after := c.Base().Get(1)
			if (after > before) != (d.N == before+1) || after != s.upTo(1) {
				t.Fatalf("dot %d moves the base from %d to %d, want %d", d.N, before, after, s.upTo(1))
			}
		}
	})
}

func TestClock_Next(t *testing.T) {
	laws(t, 50, func(t *testing.T, r *rand.Rand) {
		c := clockOf(r, someDots(r))
		for a := range swc.Actor(actors + 1) {
			want := swc.Dot{Actor: a + 1, N: c.Max(a+1) + 1}
			if got := c.Next(a + 1); got != want || !c.Contains(want) {
				t.Errorf("Next is %v, want %v and that it is known", got, want)
			}
		}
	})
}

func TestClock_Join(t *testing.T) {
	laws(t, 300, func(t *testing.T, r *rand.Rand) {
		sa, sb, sc := someDots(r), someDots(r), someDots(r)
		a, b, c := clockOf(r, sa), clockOf(r, sb), clockOf(r, sc)
		join := func(clocks ...*swc.Clock) swc.Clock {
			out := clocks[0].Clone()
			for _, o := range clocks[1:] {
				out.Join(o)
			}
			return out
		}
		ab, ba := join(&a, &b), join(&b, &a)
		if !maps.Equal(setOf(&ab), sa.union(sb)) {
			t.Error("a join is not the union")
		}
		if !ab.Equal(&ba) {
			t.Error("joining is not commutative")
		}
		bc := join(&b, &c)
		left, right := join(&ab, &c), join(&a, &bc)
		if !left.Equal(&right) {
			t.Error("joining is not associative")
		}
		if aa, again := join(&a, &a), join(&ab, &b); !aa.Equal(&a) || !again.Equal(&ab) {
			t.Error("joining is not idempotent")
		}
		if !maps.Equal(setOf(&b), sb) {
			t.Error("joining changed its argument")
		}
	})
}

func TestClock_Missing(t *testing.T) {
	laws(t, 200, func(t *testing.T, r *rand.Rand) {
		sa, sb := someDots(r), someDots(r)
		a, b := clockOf(r, sa), clockOf(r, sb)
		got := slices.Collect(a.Missing(&b))
		if want := sa.minus(sb).sorted(); !slices.Equal(got, want) {
			t.Errorf("missing are %v, want %v", got, want)
		}
		for _, d := range got {
			b.Add(d)
		}
		for range a.Missing(&b) {
			t.Error("something is missing after all of it was added")
			break
		}
		for n := range uint64(maxDot) {
			want := []swc.Dot(nil)
			for i := range n {
				if d := (swc.Dot{Actor: 2, N: i + 1}); !sa[d] {
					want = append(want, d)
				}
			}
			if got := slices.Collect(a.Holes(2, n)); !slices.Equal(got, want) {
				t.Fatalf("the holes up to %d are %v, want %v", n, got, want)
			}
		}
	})
}

func TestClock_CloneSharesNothing(t *testing.T) {
	laws(t, 50, func(t *testing.T, r *rand.Rand) {
		s := someDots(r)
		a := clockOf(r, s)
		b := a.Clone()
		for d := range someDots(r) {
			b.Add(d)
		}
		if !maps.Equal(setOf(&a), s) {
			t.Error("adding to a clone changes the clock")
		}
	})
}

func TestVector(t *testing.T) {
	laws(t, 300, func(t *testing.T, r *rand.Rand) {
		a, b, c := someVector(r), someVector(r), someVector(r)
		if !maps.Equal(seenBy(a.Join(b)), seenBy(a).union(seenBy(b))) {
			t.Error("a join is not the union")
		}
		if !slices.Equal(a.Join(b), b.Join(a)) || !slices.Equal(a.Join(b).Join(c), a.Join(b.Join(c))) || !slices.Equal(a.Join(a), a) {
			t.Error("joining is not commutative, associative and idempotent")
		}
		if !slices.Equal(a.Without(b).Join(b), a.Join(b)) {
			t.Error("what Without drops does not come back with Join")
		}
		for _, d := range a.Without(b) {
			if b.Covers(d) || !a.Covers(d) {
				t.Errorf("Without leaves %v", d)
			}
		}
	})
}
