// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"io"
	"strings"

	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/retain"
	"github.com/manormq/manor/services/broker/shard"
)

// RunSessions runs the world of a seed in which brokers have sessions: devices
// subscribe, publish at QoS 1 and 2 and come back, while brokers are killed, lose
// power, are cut off and drained; in a third of the worlds the devices' tenant has
// a cell, and partitions move to brokers that accept a label. Disks write at once, so that nothing that was
// acknowledged may be lost but with the last whole copy of a partition (losses.go). Planned moves take
// connections along. trace is written to unless it is nil.
func RunSessions(seed uint64, trace io.Writer) Result { return runSessions(seed, trace, manner{}) }

// RunPlaced runs the world of RunSessions in which the devices' tenant goes to other
// partitions again and again, with what it has.
func RunPlaced(seed uint64, trace io.Writer) Result {
	return runSessions(seed, trace, manner{roams: true})
}

// manner is what the worlds with sessions differ by.
type manner struct {
	// roams: the tenant goes to other partitions. rude: see rough. expires: some sessions do.
	roams, rude, expires bool
}

func runSessions(seed uint64, trace io.Writer, m manner) Result {
	w := newWorld(seed, true, trace)
	w.newHouse(tenant, m.rude)
	w.expires = m.expires
	if m.rude {
		w.roughen()
	}
	if seed%3 == 0 { // else messages cross all partitions
		w.spread = 1 + int(seed/3)%(w.partitions-1)
	}
	for i, n := range w.nodes {
		if i%2 == 0 {
			n.accepts = []string{"", gold}
		}
	}
	w.faults = false // until everybody has subscribed
	w.subscribers()
	if m.expires {
		w.expiring(w.houses[0])
	}
	if m.rude {
		w.neighbours()
	}
	w.await("have subscribed", func() string {
		for _, d := range w.devices {
			if !d.ready() {
				return d.String()
			}
		}
		return ""
	})
	for i := range 3 {
		w.newDevice(w.houses[0], fmt.Sprint("p", i), w.toPublish()).will = true
	}
	if m.rude {
		for i := range 2 {
			w.newDevice(w.houses[1], fmt.Sprint("p", i), 40+w.rand.IntN(40)).will = true
		}
	}
	if m.roams {
		w.places.roam()
	}
	w.faults = true
	length := w.now + int64(15+w.rand.IntN(20))*second
	w.schedule(length)
	for w.now < length && !w.broken() {
		w.runUntil(w.now + second)
	}
	w.heal()
	w.settle()
	w.stays()
	w.await("are done", func() string {
		if w.places.record.Stage != shard.Settled {
			return "the tenant has not arrived"
		}
		for _, d := range w.devices {
			if !d.idle() {
				return d.String()
			}
		}
		for _, h := range w.houses {
			if what := h.Missing() + h.Wills.Missing(); what != "" {
				return what
			}
		}
		return ""
	})
	w.await("have the right routes", w.astray)
	w.await("know the same", w.differing)
	w.retained()
	published, acked, delivered := 0, 0, 0
	for _, h := range w.houses {
		h.Wills.Judge(w.History.Break)
		h.Judge(w.History.Break)
		p, a, d := h.Counts()
		published, acked, delivered = published+p, acked+a, delivered+d
		w.tally["will"] += h.Wills.Count()
	}
	return Result{
		Seed: seed, Events: w.count, Hash: w.hash, Simulated: float64(w.now) / second,
		Appends: published, Acked: acked, Delivered: delivered, Happened: w.tally, Broken: w.History.Broken(),
	}
}

// retained holds that the newest message of each device that was to be retained is.
func (w *World) retained() {
	for _, d := range w.devices {
		want := d.house.Retained(d.id)
		if want == nil || w.broken() || w.retainedGone(d.house, want.Topic) {
			continue
		}
		id := partition.Choose(w.cell(d.house), want.Topic)
		space := retain.New(id)
		if err := space.Restore(w.node(w.bus.table(id).Owner).store, func(string, *retain.Retained) {}); err != nil {
			w.History.Break("retained messages of partition %d: %v", id, err)
			continue
		}
		got := ""
		if r := space.Get(d.house.name, []byte(want.Topic)); r != nil {
			got, _, _ = strings.Cut(string(r.Message.Payload), "\x00")
		}
		if got != want.Payload {
			w.History.Break("%q is retained under %s, the newest is %q", got, want.Topic, want.Payload)
		}
	}
}

// subscribers are devices with filters of several kinds, and a shared subscription.
func (w *World) subscribers() {
	for i, filters := range [][]string{{"t/#"}, {"t/+"}, {"t/p0", "t/p1", "t/p2"}, {"#"}, {"w/+"}} {
		w.newDevice(w.houses[0], fmt.Sprint("s", i), 0, filters...)
	}
	for i := range 3 {
		w.newDevice(w.houses[0], fmt.Sprint("m", i), 0, "$share/g/t/#")
	}
}

// await goes on until missing is empty, for the time that the world may take to heal.
func (w *World) await(what string, missing func() string) {
	for end := w.now + healed; !w.broken(); w.runUntil(w.now + 100*ms) {
		m := missing()
		if m == "" {
			return
		}
		if w.now >= end {
			w.History.Break("%d s later not all %s: %s", healed/second, what, m)
		}
	}
}
