// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/partition"
)

// A large message that waits for several sessions of a partition is stored once there; a small one, and
// one for a single session, is in the record of its delivery.
func TestBody_StoredOnce(t *testing.T) {
	for _, c := range []struct{ sessions, size, bodies int }{{3, 4096, 1}, {3, 100, 0}, {1, 4096, 0}} {
		t.Run(fmt.Sprintf("%d sessions, %d bytes", c.sessions, c.size), func(t *testing.T) {
			w, rec, _, pub := recorded(t, 1, 0)
			for i := range c.sessions {
				sub := w.open(clientIn(3, fmt.Sprint("away-", i)), persistent)
				sub.want(link.DownOpened)
				sub.subscribe("large", 1)
				sub.close(link.CloseNormal)
			}
			w.settle()
			begin := rec.applied()
			pub.publish(1, "large", strings.Repeat("x", c.size), 1)
			w.settle()
			rec.mu.Lock()
			defer rec.mu.Unlock()
			bodies := 0
			for _, enc := range rec.batches[begin:] {
				var b kv.Batch
				if err := b.Decode(enc); err != nil {
					t.Fatal(err)
				}
				b.Each(func(_ bool, key, _ []byte) {
					if partition.Kind(key[2]) == partition.KindBody {
						bodies++
					}
				})
			}
			if bodies != c.bodies {
				t.Errorf("%d bodies are stored, expected %d", bodies, c.bodies)
			}
		})
	}
}
