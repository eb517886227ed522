// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/layout"
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
	w.arrived()
}

// arrived waits until the town's tenant is where it goes.
func (w *town) arrived() {
	w.t.Helper()
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

// The broker that would see to a move is away when the move begins: the tenant stays where it is
// within the time that clients wait at their gateways, and goes when all are back. Nothing is lost
// and nothing at QoS 2 comes twice.
func TestRegion_PlacedWhileABrokerIsAway(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("half a minute")
	}
	w := newTown(t, 3, func(_ int, c *Config) { c.Cluster.Reserved = 4 })
	w.spread = 3
	disturb(t, w, func() {
		old, _ := w.brokers[0].region.layout.Cell("acme")
		owner, _ := w.brokers[0].region.Owner(old.Partitions[0])
		at := slices.IndexFunc(w.brokers, func(h *house) bool { return h.name == owner })
		victim, other := w.brokers[at], w.brokers[(at+1)%3]
		victim.stop()
		if _, err := other.region.layout.Move(t.Context(), "acme", []partition.ID{12, 13}, 0); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		w.eventually("it stays", func() string {
			for _, h := range w.brokers {
				if c, _ := h.region.layout.Cell("acme"); h.up && (c.Revision != old.Revision+2 || c.Stage != layout.Settled || !slices.Equal(c.Partitions, old.Partitions)) {
					return fmt.Sprintf("%s has %+v: %+v", h.name, c, h.desk.Progress(t.Context(), "acme"))
				}
			}
			return ""
		})
		if took := time.Since(begun); took > owners {
			t.Errorf("its clients waited for %v, longer than gateways do", took)
		}
		w.othersServe()
		code, out := other.command(http.MethodPost, "tenant/place?tenant=acme&partitions=12-15")
		// Unavailable as long as the other has not seen yet that it is away.
		if err := operate.Err(code, out); !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.Unavailable) {
			t.Errorf("it is placed while a broker is away: %v", err)
		}
		victim.start()
		// It refuses for as long as it may not know of what was said while it was away.
		w.eventually("it is placed", func() string {
			code, out := victim.command(http.MethodPost, "tenant/place?tenant=acme&partitions=12-15")
			err := operate.Err(code, out)
			if err != nil && strings.Contains(err.Error(), "has stayed") {
				t.Fatalf("it went by what %s knew before: %v", victim.name, err)
			}
			if err != nil {
				return err.Error()
			}
			return ""
		})
		w.arrived()
		if c, _ := other.region.layout.Cell("acme"); c.Revision != old.Revision+5 || !slices.Equal(c.Partitions, []partition.ID{12, 13, 14, 15}) {
			t.Errorf("it lives by %+v", c)
		}
	})
}

// owners is for how long gateways wait for the owner of a client's partition by default.
const owners = 10 * time.Second
