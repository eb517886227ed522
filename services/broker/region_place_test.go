// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/partition"
)

// placed says where the town's tenant is to live, and waits until it has arrived.
func (w *town) placed(at int, how string) {
	w.t.Helper()
	code, all := w.brokers[at].command(http.MethodPost, "tenant/place?tenant="+w.tenant+"&"+how)
	if err := operate.Err(code, all); err != nil {
		w.t.Errorf("%s: %v", how, err)
		return
	}
	w.eventually("arrived", func() string {
		for _, h := range w.brokers {
			if c, _ := h.region.layout.Cell(w.tenant); c.Stage != 0 {
				return fmt.Sprintf("%s has %+v: %+v", h.name, c, h.desk.Progress(w.t.Context(), w.tenant))
			}
		}
		return ""
	})
}

// A tenant goes to partitions of its own and back, and grows, while its clients of every kind
// talk: nobody is closed, all that was acknowledged comes once and in order, no will is sent.
func TestRegion_PlacedConnected(t *testing.T) {
	t.Parallel()
	w := newTown(t, 3, func(_ int, c *Config) { c.Cluster.Reserved = 4 })
	w.spread = 2
	var want []string
	unbroken(t, w, func() {
		want = w.retainSome()
		w.placed(0, "partitions=12-13")
		w.findRetained(want)
		w.placed(1, "partitions=13-15")
		w.placed(2, "grow=4")
		w.placed(0, "shared")
	})
	w.findRetained(want)
	var all []partition.ID
	for p := range partition.ID(12) {
		all = append(all, p)
	}
	w.livesIn(link.Cell(w.tenant, 2, all))
}

// A broker dies while a tenant goes elsewhere with sessions whose messages wait: nothing is
// lost and nothing at QoS 2 comes twice.
func TestRegion_PlacedWhileABrokerDies(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("half a minute")
	}
	w := newTown(t, 3, func(_ int, c *Config) { c.Cluster.Reserved = 4 })
	w.spread = 3
	disturb(t, w, func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 100 { // once begun it goes on by itself; with a broker missing it may not begin
				code, _ := w.brokers[0].command(http.MethodPost, "tenant/place?tenant=acme&partitions=12-15")
				if c, _ := w.brokers[0].region.layout.Cell("acme"); code == http.StatusOK || c.Stage != 0 {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}()
		w.eventually("it is under way", func() string {
			if c, _ := w.brokers[0].region.layout.Cell("acme"); c.Stage == 0 && !c.Placed() {
				return "it has not begun"
			}
			return ""
		})
		w.brokers[1].stop()
		w.othersServe()
		w.brokers[1].start()
		<-done
		w.settled()
		w.eventually("it has arrived", func() string {
			for _, h := range w.brokers {
				if c, _ := h.region.layout.Cell("acme"); c.Stage != 0 || !c.Placed() {
					return fmt.Sprintf("%s has %+v: %+v", h.name, c, h.desk.Progress(t.Context(), "acme"))
				}
			}
			return ""
		})
	})
}
