// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"container/heap"
	"math/rand/v2"
	"testing"
)

// BenchmarkDeadlines is what a session costs that goes away and comes back, its place among
// a million others that are away.
func BenchmarkDeadlines(b *testing.B) {
	const n = 1_000_000
	r := rand.New(rand.NewPCG(1, 1))
	var d deadlines
	all := make([]sess, n)
	for i := range all {
		all[i].deadline = 3_600_000 + r.Int64N(3_600_000)
		heap.Push(&d, &all[i])
	}
	now := int64(3_600_000)
	for b.Loop() {
		now++
		se := &all[r.IntN(n)]
		heap.Remove(&d, se.place-1) // it comes back
		se.deadline = now + 7_200_000
		heap.Push(&d, se) // and goes away
	}
}
