// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"io"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/topic"
)

// rough is what a rough world has beside others with sessions: faults that are made for the rules
// that others seldom need.
type rough struct {
	// begun: there are, or have been, faults.
	begun bool
	// hush is until when devices do nothing by themselves.
	hush int64
	// stay is until when the tenant does not begin to move by itself.
	stay int64
	// calm is until when no other fault begins.
	calm int64
	// taste is which ploy is the most frequent one.
	taste int
	// late is by node until when nothing arrives that it sends over its lines.
	late []int64
}

// hushed: nobody does anything by itself now.
func (w *World) hushed() bool { return w.rough != nil && w.faults && w.now < w.rough.hush }

// RunRough runs the world of RunSessions or, for three seeds of four, that of RunPlaced, in which
// devices publish more, the tenant goes elsewhere more often, under fire, and brokers are there that
// know less than they believe.
func RunRough(seed uint64, trace io.Writer) Result {
	return runSessions(seed, trace, manner{roams: seed%4 != 0, rude: true})
}

// roughen makes a world rough.
func (w *World) roughen() {
	w.rough = &rough{taste: w.rand.IntN(1 << 16), late: make([]int64, len(w.nodes))}
	w.commit = w.chance(50)
	for i := range w.replicas {
		if w.chance(60) {
			w.replicas[i] = 2 // some brokers have it, and others do not
		}
	}
}

// ploy is one of the faults that rough worlds have beside others: most have a taste for one.
func (w *World) ploy() fault {
	all := []fault{changeling, cornered}
	if w.places.record.Revision > 0 {
		all = append(all, usurped, usurped, heir, heir)
	}
	if w.chance(75) {
		return all[w.rough.taste%len(all)]
	}
	return all[w.rand.IntN(len(all))]
}

// overture is the ploy with which most rough worlds begin, with no other fault beside it.
func (w *World) overture() {
	if w.rough == nil {
		return
	}
	w.rough.begun = true
	if w.chance(50) {
		w.after(w.between(3*second, 15*second), w.departure)
	}
	if w.chance(30) {
		return
	}
	w.after(w.between(0, 2*second), func() {
		w.rough.calm = w.now + 12*second
		w.ploy()(w)
	})
}

// calm: no other fault begins now.
func (w *World) calm() bool { return w.rough != nil && w.now < w.rough.calm }

// neighbours are the devices of a second tenant, which have the names of those of the first one.
func (w *World) neighbours() {
	h := w.newHouse(neighbour, true)
	for _, d := range [][2]string{{"s0", "t/#"}, {"s3", "#"}, {"m0", "$share/g/t/#"}, {"m1", "$share/g/t/#"}} {
		w.newDevice(h, d[0], 0, d[1])
	}
}

// fickle has a device of a rough world unsubscribe from its last filter now and then, and subscribe to it
// again. It reports whether it does.
func (d *device) fickle() bool {
	w := d.w
	switch {
	case w.rough == nil || d.moving != nil || !d.opened:
	case d.fewer && (!w.faults || w.chance(10)):
		d.fewer = false
		d.w.happens("subscribed anew")
		d.subscribe()
		return true
	case w.faults && d.ready() && !d.parting && d.mayUnsubscribe() && w.chance(4):
		d.parting = true
		d.asked++
		d.house.Unsubscribing(d.id, d.filters[len(d.filters)-1])
		d.unsubscribe()
		return true
	}
	return false
}

// mayUnsubscribe reports whether it has a filter that is not a group's.
func (d *device) mayUnsubscribe() bool {
	return len(d.filters) > 0 && !strings.HasPrefix(d.filters[0], topic.SharePrefix)
}

func (d *device) unsubscribe() {
	d.send(link.UpFrame{Kind: link.UpUnsubscribe, PacketID: 60002, Unsubscribe: d.filters[len(d.filters)-1:]})
}

// unsubscribed takes an UNSUBACK.
func (d *device) unsubscribed() {
	if !d.parting {
		d.w.History.Break("%s gets an UNSUBACK that it has not asked for", d.label)
		return
	}
	d.w.happens("unsubscribed")
	d.parting, d.fewer = false, true
	d.suback--
	d.house.Unsubscribed(d.id, d.filters[d.suback])
}

// hasSubscribed is that a device has a SUBACK. That comes after 250 ms when some broker does not know the
// subscription yet, as nobody reaches it or its disk is slow (docs/guarantees.md): the device is owed what is
// published from when all know it.
func (d *device) hasSubscribed(filter string) {
	w := d.w
	if w.rough == nil || !w.rough.begun {
		d.house.Subscribed(d.id, filter)
		return
	}
	asked := d.asked
	w.until(1000*second, func() bool { return d.asked != asked || w.known() }, func() {
		if d.asked == asked {
			d.house.Subscribed(d.id, filter)
		}
	})
}

// known reports whether all brokers that are up know the same subscriptions, and have told their
// shards. One that is down serves nothing before it knows them too (docs/adr/0053).
func (w *World) known() bool {
	up := slices.DeleteFunc(w.members(), func(n *node) bool { return !n.up })
	return len(up) > 0 && !slices.ContainsFunc(up, func(n *node) bool {
		return n.station.meta.writing || n.station.meta.machine.Digest() != up[0].station.meta.machine.Digest()
	})
}

// toPublish is how many messages a device publishes.
func (w *World) toPublish() int {
	n := 40 + w.rand.IntN(40)
	if w.rough != nil {
		n *= 2
	}
	return n
}

// often is with which chance, in percent, a tenant that is settled begins to move in a tick.
func (p *places) often() int {
	switch r := p.w.rough; {
	case r == nil:
		return 2
	case p.w.now < r.stay:
		return 0
	}
	return 5
}
