// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"

	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
)

// cede is how far a partition is that another broker is to serve: what package host does
// between the plan and the replica, so that clients keep their connections.
type cede struct {
	plan         placement.Decision
	asked, ended bool
	at           int64 // when it ended
	notBefore    int64 // when it may be asked again
}

// Times of host, in microseconds.
const (
	cedePatience = second
	cedePause    = 10 * second
)

// plan tells a replica where its partition should be; with sessions it goes elsewhere
// only when it is ceded.
func (n *node) plan(r *replica, d placement.Decision) {
	r.cede.plan = placement.Decision{}
	if n.station != nil && len(d.Wanted) > 0 && d.Wanted[0] != n.name && r.Role() == partition.Serving && !r.cede.ended {
		r.cede.plan = d
		n.stay(r, d)
		n.cedeNext(r)
		return
	}
	n.step(r, &partition.Event{Kind: partition.Plan, Wanted: d.Wanted, Draining: d.Draining})
}

// stay has the brokers of a plan get the records, and this one serve.
func (n *node) stay(r *replica, d placement.Decision) {
	wanted := []partition.Broker{n.name}
	for _, b := range d.Wanted {
		if b != n.name {
			wanted = append(wanted, b)
		}
	}
	n.step(r, &partition.Event{Kind: partition.Plan, Wanted: wanted, Draining: d.Draining})
}

// cedes reports whether a partition here is being ceded.
func (n *node) cedes() bool {
	return slices.ContainsFunc(n.replicas, func(r *replica) bool { return r.cede.asked && !r.cede.ended })
}

// cedeNext has a partition be ceded if its next owner is ready.
func (n *node) cedeNext(r *replica) {
	c := &r.cede
	if c.asked || len(c.plan.Wanted) == 0 || n.w.now < c.notBefore || !r.MayHand(n.clock(), c.plan.Wanted[0]) {
		return
	}
	n.w.note("cede", n.name, uint64(r.id))
	c.asked = true
	s := n.station
	s.set.Cede(r.id, func() { n.w.after(0, s.during(func() { n.ceded(r) })) })
	s.step()
}

// ceded hands over what is not served here any more.
func (n *node) ceded(r *replica) {
	c := &r.cede
	if !c.asked || c.ended {
		return // it was lost meanwhile
	}
	n.w.begins("ceded", n.name, uint64(r.id))
	c.ended, c.at = true, n.w.now
	if d := c.plan; len(d.Wanted) > 0 {
		n.step(r, &partition.Event{Kind: partition.Plan, Wanted: d.Wanted, Draining: d.Draining})
		return
	}
	n.keep(r)
}

// keep has a partition that was ceded be served here again.
func (n *node) keep(r *replica) {
	n.keepPlan(r)
	n.station.serve(r)
}

// keepPlan has the replica of a partition that stays know that it does.
func (n *node) keepPlan(r *replica) {
	n.w.note("keep", n.name, uint64(r.id))
	if d := r.cede.plan; len(d.Wanted) > 0 {
		n.w.after(0, n.during(func() { n.stay(r, d) }))
	}
	r.cede = cede{notBefore: n.w.now + cedePause}
}

// cedeTicked looks for hand-overs that do not begin, and for those that may by now.
func (n *node) cedeTicked() {
	for _, r := range n.replicas {
		if c := &r.cede; c.ended && r.Role() == partition.Serving && n.w.now-c.at >= cedePatience {
			n.keep(r)
		}
		n.cedeNext(r)
	}
}
