// SPDX-License-Identifier: Apache-2.0

package route

import (
	"testing"

	"github.com/manormq/manor/services/broker/partition"
)

// How many subscriptions a part has is known without its list, about.
func TestPart_Count(t *testing.T) {
	var r Tenant[int]
	count := func() int {
		var last Last[int]
		for _, e := range r.AppendLast(nil, []byte("t"), &last) {
			for _, p := range e.Parts() {
				if p.ID == 7 {
					return p.Count()
				}
			}
		}
		return 0
	}
	ok := func(n, about int) bool {
		return about >= 1 && about <= n && (n < 4 && 3*about >= n || n >= 4 && 2*about > n)
	}
	r.Subscribe(3, "t", Sub[int]{Session: -1})
	for n := 1; n <= 1000; n++ {
		r.Subscribe(partition.ID(7), "t", Sub[int]{Session: n, Durable: n%3 == 0})
		if c := count(); !ok(n, c) {
			t.Fatalf("%d of %d subscriptions", c, n)
		}
	}
	for n := 999; n > 0; n-- {
		r.Unsubscribe(7, n+1, "t")
		if c := count(); !ok(n, c) {
			t.Fatalf("%d of %d subscriptions are left", c, n)
		}
	}
}
