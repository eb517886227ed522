// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// Subscriptions that are made at one broker lead there from all others: 100,000 with
// ROUTES=100000, and the time that it takes is printed.
func TestRegion_Routes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("seconds of work")
	}
	n := 10_000
	if s := os.Getenv("ROUTES"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
	}
	w := newTown(t, 3)
	const each = 500
	c := w.connect("many", 3600)
	begun := time.Now()
	for i := 0; i < n; i += each {
		var subs []mqtt.Subscription
		for k := range each {
			subs = append(subs, mqtt.Subscription{Filter: fmt.Sprintf("site/%d/+/state", i+k), QoS: 1})
		}
		c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: subs})
		c.want(link.DownSuback)
	}
	t.Logf("%d subscriptions in %v", n, time.Since(begun).Round(time.Millisecond))
	acked := time.Now()
	w.eventually("known to all", func() string {
		for _, h := range w.brokers {
			if k := h.shards.Tenant("acme").Filters(); k < n {
				return fmt.Sprintf("%s knows %d filters", h.name, k)
			}
		}
		return ""
	})
	t.Logf("known to all %v after the last SUBACK", time.Since(acked).Round(time.Millisecond))
	p := w.connect("publisher", 0)
	p.publish(mqtt.AtLeastOnce, fmt.Sprintf("site/%d/x/state", n-1), "there", 9)
	if f := p.want(link.DownAck); f.Reason != mqtt.Success {
		t.Errorf("a publish is answered %s", f.Reason)
	}
	c.wantPayload("there 1")
}
