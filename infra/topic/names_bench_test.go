// SPDX-License-Identifier: Apache-2.0

package topic_test

import (
	"fmt"
	"testing"

	"github.com/manormq/manor/infra/topic"
)

// BenchmarkNames is the cost of one name that is visited, of 300,000: all below a level,
// and one of each device's three.
func BenchmarkNames(b *testing.B) {
	var names topic.Names[int]
	for i := range 100_000 {
		for _, of := range []string{"state", "load", "log/last"} {
			names.Put(fmt.Appendf(nil, "site/%d/device/%d/%s", i%1000, i, of), i)
		}
	}
	for _, filter := range []string{"site/#", "#", "site/+/device/+/state", "site/7/device/+/load", "site/+/device/77/state", "site/7/device/7/state"} {
		b.Run(filter, func(b *testing.B) {
			n := 0
			for b.Loop() {
				names.MatchFilter(filter, nil, func([]byte, int) bool { n++; return true })
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/name")
		})
	}
}
