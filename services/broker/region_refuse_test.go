// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"fmt"
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

// A partition that its owner cannot read goes to the other broker that is in sync, and the
// owner says so.
func TestRegion_CannotRead(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a partition is handed on 10 s after it was claimed")
	}
	w := newTown(t, 2)
	for _, h := range w.brokers {
		h.config.Cluster.Listen = h.region.listener.Addr().String()
	}
	const p = partition.ID(3)
	at, other := w.brokers[0], w.brokers[1]
	if !at.region.host.Entry(p).Serving {
		at, other = other, at
	}
	var b kv.Batch
	b.Put(partition.KeyNamed(nil, p, partition.KindSession, "acme", "c"), []byte{0xFF})
	if err := at.store.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	at.stop()
	at.start()
	w.eventually("alarmed", func() string {
		if s := at.region.host.Stats(); s.Alarmed == 0 || s.Alarms == 0 {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	w.eventually("served by the other", func() string {
		if !other.region.host.Entry(p).Serving || !other.shards.Serves(p) {
			return fmt.Sprintf("%+v", other.region.host.Entry(p))
		}
		return ""
	})
	if n := at.desk.figures(); len(n.Problems) == 0 {
		t.Error("the broker that cannot read it has no problem")
	}
}
