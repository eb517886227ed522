// SPDX-License-Identifier: Apache-2.0

package fair_test

import (
	"math/rand/v2"
	"testing"

	"github.com/manormq/manor/infra/fair"
)

type work struct{ flow, n, cost int }

// Flows that always have something get equal shares, whatever the sizes of their
// pieces, and each its pieces in order.
func TestShares(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		q := fair.Queue[work]{Quantum: 1000}
		flows := make([]fair.Flow[work], 2+random.IntN(6))
		sizes, pushed, seen, used := make([]int, len(flows)), make([]int, len(flows)), make([]int, len(flows)), make([]int, len(flows))
		for i := range flows {
			sizes[i] = 1 + random.IntN(3000)
		}
		const total = 2_000_000
		for sum := 0; sum < total; {
			for i := range flows {
				for flows[i].Len() < 3 {
					q.Push(&flows[i], work{i, pushed[i], 1 + random.IntN(sizes[i])})
					pushed[i]++
				}
			}
			w, f, ok := q.Next()
			if !ok || f != &flows[w.flow] {
				t.Fatalf("Next: %v, %v", w, ok)
			}
			if w.n != seen[w.flow] {
				t.Fatalf("flow %d: got piece %d, expected %d", w.flow, w.n, seen[w.flow])
			}
			seen[w.flow]++
			q.Charge(f, int64(w.cost))
			used[w.flow] += w.cost
			sum += w.cost
		}
		for i, u := range used {
			if want := total / len(flows); u < want-8000 || u > want+8000 {
				t.Errorf("flow %d of %d, pieces up to %d: %d, expected about %d", i, len(flows), sizes[i], u, want)
			}
		}
	}
}

// Who uses less than a share waits for one piece of others', however many those
// are.
func TestSparseComesFirst(t *testing.T) {
	q := fair.Queue[work]{Quantum: 100}
	loud := make([]fair.Flow[work], 50)
	var quiet fair.Flow[work]
	for n := range 5000 {
		for i := range loud {
			if loud[i].Len() < 2 {
				q.Push(&loud[i], work{1 + i, n, 90})
			}
		}
		if n%200 == 199 {
			q.Push(&quiet, work{0, n, 50})
			if w, f, _ := q.Next(); w.flow != 0 {
				t.Fatalf("round %d: flow %d came before the quiet one", n, w.flow)
			} else {
				q.Charge(f, 50)
			}
			continue
		}
		w, f, ok := q.Next()
		if !ok || w.flow == 0 {
			t.Fatalf("round %d: %v %v", n, w, ok)
		}
		q.Charge(f, 90)
	}
}

// Who goes idle all the time gains nothing by that.
func TestNoGainByPausing(t *testing.T) {
	q := fair.Queue[work]{Quantum: 100}
	var steady, pausing fair.Flow[work]
	used := [2]int{}
	for n := range 20_000 {
		if steady.Len() == 0 {
			q.Push(&steady, work{0, n, 100})
		}
		if pausing.Len() == 0 {
			q.Push(&pausing, work{1, n, 700})
		}
		w, f, _ := q.Next()
		q.Charge(f, int64(w.cost))
		used[w.flow] += w.cost
	}
	if used[1] > used[0]+1000 {
		t.Errorf("in pieces of 700: %d, in pieces of 100: %d", used[1], used[0])
	}
}

func TestEmpty(t *testing.T) {
	q := fair.Queue[work]{Quantum: 1}
	var f fair.Flow[work]
	for range 3 {
		if _, _, ok := q.Next(); ok || q.Len() != 0 || q.Flows() != 0 {
			t.Fatal("an empty queue has something")
		}
		q.Push(&f, work{})
		if q.Len() != 1 || q.Flows() != 1 || f.Len() != 1 {
			t.Fatalf("after Push: %d items of %d flows", q.Len(), q.Flows())
		}
		if _, _, ok := q.Next(); !ok {
			t.Fatal("nothing comes")
		}
	}
}

// An item is fresh until it is taken, not until the next one is.
func TestFresh(t *testing.T) {
	q := fair.Queue[string]{Quantum: 100}
	var loud, quiet fair.Flow[string]
	for range 10 {
		q.Push(&loud, "loud")
	}
	for range 3 {
		_, f, _ := q.Next()
		q.Charge(f, 50) // until it is among the old ones
	}
	q.Push(&quiet, "quiet")
	if !q.Fresh() {
		t.Error("what has just come is not fresh")
	}
	if v, _, _ := q.Next(); v != "quiet" || q.Fresh() {
		t.Errorf("%q came first, and fresh is %v after it", v, q.Fresh())
	}
}
