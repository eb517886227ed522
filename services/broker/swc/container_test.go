// SPDX-License-Identifier: Apache-2.0

package swc_test

import (
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/manormq/manor/services/broker/swc"
)

func TestSync(t *testing.T) {
	laws(t, 500, func(t *testing.T, r *rand.Rand) {
		a, oa := someObject(r)
		b, ob := someObject(r)
		c, _ := someObject(r)
		ab := swc.Sync(a, b)
		if !objectOf(ab).equal(syncObjects(oa, ob)) {
			t.Error("Sync differs from the sets of dots")
		}
		if !ab.Equal(swc.Sync(b, a)) {
			t.Error("Sync is not commutative")
		}
		if !swc.Sync(ab, c).Equal(swc.Sync(a, swc.Sync(b, c))) {
			t.Error("Sync is not associative")
		}
		if !swc.Sync(a, a).Equal(a) || !swc.Sync(ab, b).Equal(ab) {
			t.Error("Sync is not idempotent")
		}
	})
}

func TestSync_KeepsConcurrentDropsSuperseded(t *testing.T) {
	first, second, third := swc.Dot{Actor: 1, N: 1}, swc.Dot{Actor: 2, N: 1}, swc.Dot{Actor: 2, N: 2}
	var none swc.Container
	one := none.Add(first, []byte("one"))
	two := none.Add(second, []byte("two"))
	both := swc.Sync(one, two)
	if len(both.Versions) != 2 {
		t.Errorf("two concurrent writes leave %d values, want 2", len(both.Versions))
	}
	after := both.Discard(both.Context).Add(third, []byte("three"))
	if got := swc.Sync(both, after); len(got.Versions) != 1 || got.Versions[0].Dot != third {
		t.Errorf("a write that has seen both leaves %v, want the third alone", got.Versions)
	}
	deleted := one.Discard(one.Context).See(swc.Dot{Actor: 1, N: 2})
	if got := swc.Sync(deleted, both); len(got.Versions) != 1 || got.Versions[0].Dot != second {
		t.Errorf("a delete that has seen one leaves %v, want the second alone", got.Versions)
	}
}

func TestContainer_FillStrip(t *testing.T) {
	laws(t, 500, func(t *testing.T, r *rand.Rand) {
		c, o := someObject(r)
		base, later := someVector(r), someVector(r)
		later = later.Join(base)
		full := c.Fill(base)
		if !objectOf(full).equal(object{seen: o.seen.union(seenBy(base)), live: o.live}) {
			t.Error("Fill has not seen what the clock has")
		}
		if !full.Strip(base).Fill(base).Equal(full) {
			t.Error("Fill does not give back what Strip takes")
		}
		if once := c.Strip(base); !once.Strip(base).Equal(once) {
			t.Error("Strip is not idempotent")
		}
		if !c.Strip(base).Strip(later).Equal(c.Strip(later)) || !c.Strip(base).Fill(later).Equal(c.Fill(later)) {
			t.Error("a clock that has gone on does not take over what an earlier one stripped")
		}
		if got := c.Strip(c.Context); len(got.Context) != 0 || !maps.Equal(objectOf(got).live, o.live) {
			t.Error("Strip by all that was seen leaves a context, or takes a value")
		}
	})
}

func TestContainer_Discard(t *testing.T) {
	laws(t, 300, func(t *testing.T, r *rand.Rand) {
		c, o := someObject(r)
		v := someVector(r)
		got := c.Discard(v)
		if !objectOf(got).equal(object{seen: o.seen.union(seenBy(v)), live: o.live.minus(seenBy(v))}) {
			t.Error("Discard differs from the sets of dots")
		}
		if !got.Discard(v).Equal(got) {
			t.Error("Discard is not idempotent")
		}
		if !got.Equal(swc.Sync(c, swc.Container{Context: v})) {
			t.Error("Discard is not a Sync with an object without values")
		}
	})
}

func TestContainer_AddSee(t *testing.T) {
	laws(t, 100, func(t *testing.T, r *rand.Rand) {
		c, o := someObject(r)
		d := swc.Dot{Actor: 1, N: c.Context.Get(1) + 1}
		o.seen[d] = true
		if !objectOf(c.See(d)).equal(o) {
			t.Error("See is not one dot more that was seen")
		}
		o.live[d] = true
		if !objectOf(c.Add(d, value(d))).equal(o) {
			t.Error("Add is not one value more")
		}
	})
}
