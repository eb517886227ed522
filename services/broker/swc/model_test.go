// SPDX-License-Identifier: Apache-2.0

package swc_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/manormq/manor/services/broker/swc"
)

// dots is the naive clock: the set of what is known.
type dots map[swc.Dot]bool

func (s dots) sorted() []swc.Dot { return slices.SortedFunc(maps.Keys(s), swc.Dot.Compare) }

func (s dots) union(o dots) dots {
	out := maps.Clone(s)
	maps.Copy(out, o)
	return out
}

func (s dots) minus(o dots) dots {
	out := dots{}
	for d := range s {
		if !o[d] {
			out[d] = true
		}
	}
	return out
}

// upTo is the last dot of a before the first gap.
func (s dots) upTo(a swc.Actor) (n uint64) {
	for s[swc.Dot{Actor: a, N: n + 1}] {
		n++
	}
	return n
}

const (
	actors = 4
	maxDot = 150 // three words of a bitmap
)

func someDots(r *rand.Rand) dots {
	s := dots{}
	for a := range swc.Actor(actors) {
		density := r.IntN(6) // 0 none, 5 all
		for n := range uint64(r.IntN(maxDot)) {
			if r.IntN(5) < density {
				s[swc.Dot{Actor: a + 1, N: n + 1}] = true
			}
		}
	}
	return s
}

func clockOf(r *rand.Rand, s dots) swc.Clock {
	all := s.sorted()
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var c swc.Clock
	for _, d := range all {
		c.Add(d)
	}
	return c
}

func setOf(c *swc.Clock) dots {
	s, none := dots{}, swc.Clock{}
	for d := range c.Missing(&none) {
		s[d] = true
	}
	return s
}

func someVector(r *rand.Rand) swc.Vector {
	var v swc.Vector
	for a := range swc.Actor(actors) {
		if n := r.Uint64N(12); n > 0 {
			v = v.Raise(swc.Dot{Actor: a + 1, N: n})
		}
	}
	return v
}

// object is the naive container: the dots that it has seen, and those of its
// values. What a dot wrote follows from it.
type object struct{ seen, live dots }

func value(d swc.Dot) []byte { return fmt.Appendf(nil, "%d/%d", d.Actor, d.N) }

func seenBy(v swc.Vector) dots {
	s := dots{}
	for _, d := range v {
		for n := range d.N {
			s[swc.Dot{Actor: d.Actor, N: n + 1}] = true
		}
	}
	return s
}

// someObject is a container as filling makes it: it has seen its values.
func someObject(r *rand.Rand) (swc.Container, object) {
	c := swc.Container{Context: someVector(r)}
	o := object{seen: seenBy(c.Context), live: dots{}}
	for _, d := range o.seen.sorted() {
		if r.IntN(4) == 0 {
			c, o.live[d] = c.Add(d, value(d)), true
		}
	}
	return c, o
}

func objectOf(c swc.Container) object {
	o := object{seen: seenBy(c.Context), live: dots{}}
	for _, v := range c.Versions {
		o.live[v.Dot] = true
	}
	return o
}

func (o object) equal(p object) bool { return maps.Equal(o.seen, p.seen) && maps.Equal(o.live, p.live) }

func syncObjects(a, b object) object {
	out := object{seen: a.seen.union(b.seen), live: a.live.minus(b.seen).union(b.live.minus(a.seen))}
	for d := range a.live {
		if b.live[d] {
			out.live[d] = true
		}
	}
	return out
}

// laws runs check with many seeds and names the one that fails.
func laws(t *testing.T, rounds int, check func(t *testing.T, r *rand.Rand)) {
	t.Helper()
	first := rand.Uint64()
	for i := range uint64(rounds) {
		seed := first + i
		check(t, rand.New(rand.NewPCG(seed, 0)))
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}
