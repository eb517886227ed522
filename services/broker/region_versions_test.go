// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"testing"

	"github.com/manormq/manor/services/broker/cluster"
)

// Deliveries hold their messages once every member has said that it can read that, and
// not while one is known that cannot, or has said nothing yet.
func TestRegion_WritesWhatAllRead(t *testing.T) {
	t.Parallel()
	w := newTown(t, 2)
	a, b := w.brokers[0], w.brokers[1]
	for _, h := range w.brokers {
		w.eventually("what all can read", func() string {
			if !h.shards.Inside() {
				return h.name + " does not write it"
			}
			return ""
		})
	}
	for _, c := range []struct {
		say  func()
		want bool
	}{
		{func() { a.region.speaks.Store(b.name, uint8(cluster.VersionInside-1)) }, false},
		{func() { a.region.speaks.Store(b.name, uint8(cluster.VersionInside)) }, true},
		{func() { a.region.speaks.Delete(b.name) }, false},
	} {
		c.say()
		a.region.judge()
		if a.shards.Inside() != c.want {
			t.Errorf("what older brokers cannot read is written: %v, expected %v", a.shards.Inside(), c.want)
		}
	}
}
