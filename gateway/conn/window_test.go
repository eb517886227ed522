// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"math"
	"testing"
)

func TestWindowOf(t *testing.T) {
	for _, c := range []struct {
		bytes, messages int64
		want            uint64
	}{
		{-1, -1, CreditWindow},
		{math.MaxInt64, math.MaxInt64, CreditWindow},
		{0, -1, smallestCredit},
		{-1, 0, smallestCredit},
		{100_000, -1, 100_000},
		{-1, 20, smallestCredit},
		{-1, 1000, 64_000},
		{50_000, 1000, 50_000},
		{100_000, 1000, 64_000},
	} {
		if got := windowOf(c.bytes, c.messages); got != c.want {
			t.Errorf("%d bytes and %d messages a second: a window of %d, expected %d", c.bytes, c.messages, got, c.want)
		}
	}
}
