// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"io"
)

// RunSessions runs the world of a seed in which brokers have sessions: devices
// subscribe, publish at QoS 1 and 2 and come back, while brokers are killed, lose
// power, are cut off and drained; in a third of the worlds the devices' tenant has
// a cell, and partitions move to brokers that accept a label. Disks write at once and are not lost, so that
// nothing that was acknowledged may be. Planned moves take connections along. trace is written to unless it is nil.
func RunSessions(seed uint64, trace io.Writer) Result {
	w := newWorld(seed, true, trace)
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
	w.await("have subscribed", func() string {
		for _, d := range w.devices {
			if !d.ready() {
				return d.String()
			}
		}
		return ""
	})
	for i := range 3 {
		w.newDevice(fmt.Sprint("p", i), 40+w.rand.IntN(40))
	}
	w.faults = true
	length := w.now + int64(15+w.rand.IntN(20))*second
	w.schedule(length)
	for w.now < length && !w.broken() {
		w.runUntil(w.now + second)
	}
	w.heal()
	w.settle()
	w.await("are done", func() string {
		for _, d := range w.devices {
			if !d.idle() {
				return d.String()
			}
		}
		return w.Messages.Missing()
	})
	w.Messages.Judge(w.History.Break)
	published, acked, delivered := w.Messages.Counts()
	return Result{
		Seed: seed, Events: w.count, Hash: w.hash, Simulated: float64(w.now) / second,
		Appends: published, Acked: acked, Delivered: delivered, Moved: w.moved, Broken: w.History.Broken(),
	}
}

// subscribers are devices with filters of several kinds, and a shared subscription.
func (w *World) subscribers() {
	for i, filters := range [][]string{{"t/#"}, {"t/+"}, {"t/p0", "t/p1", "t/p2"}, {"#"}} {
		w.newDevice(fmt.Sprint("s", i), 0, filters...)
	}
	for i := range 3 {
		w.newDevice(fmt.Sprint("m", i), 0, "$share/g/t/#")
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
