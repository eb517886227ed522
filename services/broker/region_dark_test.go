// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// gated is a bus that cannot be reached before it is opened.
type gated struct {
	bus.Bus
	open *atomic.Bool
}

func (g gated) Bucket(ctx context.Context, c bus.BucketConfig) (bus.Bucket, error) {
	if !g.open.Load() {
		return nil, errs.New(errs.Unavailable, "the bus is away")
	}
	return g.Bus.Bucket(ctx, c)
}

// All brokers stop and start anew while the control plane is away: they join their links
// by the addresses that they kept, and serve by the table that they kept. When it is back
// nothing stands still either.
func TestRegion_StartsWithoutTheBus(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("three brokers wait 2 s each for the bus")
	}
	w := newTown(t, 3)
	for _, h := range w.brokers {
		h.config.Cluster.Listen = h.region.listener.Addr().String()
	}
	var subs []*resident
	for i := range 8 {
		c := w.connect(fmt.Sprintf("sub-%d", i), 3600)
		c.subscribe("t/#", mqtt.AtLeastOnce)
		_ = c.link.Close()
		subs = append(subs, c)
	}
	pub := w.connect("pub", 3600)
	pub.publish(mqtt.AtLeastOnce, "t/x", "before", 1)
	pub.want(link.DownAck)

	var open atomic.Bool
	gate := func(b bus.Bus) bus.Bus { return gated{b, &open} }
	var stopping sync.WaitGroup
	for _, h := range w.brokers {
		stopping.Go(h.stop)
	}
	stopping.Wait()
	for _, h := range w.brokers {
		h.gate = gate
		h.start()
	}
	w.eventually("served without the bus", func() string {
		served := 0
		for _, h := range w.brokers {
			served += h.region.host.Stats().Serving
		}
		if served != 16 {
			return fmt.Sprintf("%d served", served)
		}
		return ""
	})
	for _, h := range w.brokers {
		if n := h.desk.figures(); n.BusAge != -1 {
			t.Errorf("%s has heard of the control plane %v s ago, expected never", h.name, n.BusAge)
		}
	}
	pub = w.connect("pub", 3600)
	pub.publish(mqtt.AtLeastOnce, "t/x", "without the bus", 2)
	if f := pub.want(link.DownAck); f.Reason.Failed() {
		t.Errorf("the publish is answered %+v", f)
	}
	for i, c := range subs {
		subs[i] = w.connect(c.id, 3600)
		subs[i].wantPayload("before 1")
		subs[i].wantPayload("without the bus 1")
	}
	epochs := map[partition.ID]uint64{}
	for p := range partition.ID(16) {
		epochs[p] = w.brokers[0].region.host.Entry(p).Table.Epoch
	}

	open.Store(true)
	w.eventually("claimed anew with the bus", func() string {
		for p, was := range epochs {
			if e := w.brokers[0].region.host.Entry(p).Table; e.Epoch <= was {
				return fmt.Sprintf("partition %d has epoch %d still", p, e.Epoch)
			}
		}
		return ""
	})
	w.settled()
	w.eventually("what is known is fresh", func() string {
		for _, h := range w.brokers {
			if n := h.desk.figures(); n.BusAge < 0 || n.BusAge > 10 {
				return fmt.Sprintf("%s: %v s old", h.name, n.BusAge)
			}
		}
		return ""
	})
	for _, c := range subs {
		c.again() // what was not acknowledged comes again; its partition may have moved
	}
	pub = w.connect("pub", 3600)
	pub.publish(mqtt.AtLeastOnce, "t/x", "after", 3)
	pub.want(link.DownAck)
	for _, c := range subs {
		if got := c.collect(300 * time.Millisecond); !slices.Contains(got, "after") {
			t.Errorf("%s got %q at last, expected the message after the return of the bus", c.id, got)
		}
	}
	for _, h := range w.brokers {
		if n := h.region.host.Stats().Alarms; n > 0 {
			t.Errorf("%s gave %d alarms", h.name, n)
		}
	}
}
