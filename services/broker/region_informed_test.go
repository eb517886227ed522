// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/partition"
)

// A broker that comes back with an empty disk serves nothing before it knows all
// subscriptions of the others: what is published to it would match nobody, be acknowledged
// and be lost.
func TestRegion_InformedBeforeItServes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("seconds of work")
	}
	w := newTown(t, 2)
	const filters, each = 20_000, 500
	c := w.connect("many", 3600)
	for i := 0; i < filters; i += each {
		var subs []mqtt.Subscription
		for k := range each {
			subs = append(subs, mqtt.Subscription{Filter: fmt.Sprintf("site/%d/+/state", i+k), QoS: 1})
		}
		c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: subs})
		c.want(link.DownSuback)
	}
	back := w.brokers[0]
	keeper := w.brokers[1]
	known := func(h *house) int { return h.shards.Tenant("acme").Filters() }
	w.eventually("known to both", func() string {
		if n := known(back); n < filters {
			return fmt.Sprintf("%s knows %d filters", back.name, n)
		}
		return ""
	})
	back.stop()
	if err := os.RemoveAll(back.config.Data); err != nil {
		t.Fatal(err)
	}
	back.start()
	if _, err := back.store.Get(uninformedKey); err != nil {
		t.Fatalf("a new store does not say that it knows nothing: %v", err)
	}
	code, out := back.command(http.MethodPost, "cluster/config/set?name=moves&value=2")
	if err := operate.Err(code, out); !back.region.host.Informed() && !errs.Is(err, errs.Unavailable) {
		t.Errorf("a setting is changed by a broker that knows nothing: %v", err)
	}
	served := time.Time{}
	w.eventually("served again", func() string {
		if !slices.Contains(back.region.host.Roles(), partition.Serving) {
			return "it serves nothing"
		}
		served = time.Now()
		if n := known(back); n < filters {
			t.Fatalf("it serves, and knows %d of %d filters", n, filters)
		}
		return ""
	})
	if !back.region.meta.Synced() || served.IsZero() {
		t.Errorf("it serves by itself: %+v", back.region.meta.Stats())
	}
	w.settled()
	if owned, _ := keeper.region.host.Holds(partition.Broker(back.name)); owned == 0 {
		t.Errorf("%s owns nothing", back.name)
	}
	w.eventually("noted", func() string {
		if _, err := back.store.Get(uninformedKey); !errors.Is(err, kv.ErrNotFound) {
			return fmt.Sprintf("the mark of a store that knows nothing is still there: %v", err)
		}
		return ""
	})
}
