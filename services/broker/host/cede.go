// SPDX-License-Identifier: Apache-2.0

package host

import (
	"log/slog"

	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
)

const (
	// cedesLeast is how many partitions are ceded at once, and where it is more one of each cedesOf
	// of the region: clients of the others go on meanwhile, so that each pauses for the time of its
	// own move alone.
	cedesLeast, cedesOf = 4, 64
	// cedePatience is how long a ceded partition may wait for its hand-over to begin, and
	// cedePause after what time one that came to nothing is tried again, in milliseconds.
	cedePatience = 1000
	cedePause    = 10_000
)

// cede is how far a partition is that another broker is to serve: the replica is not
// told of a plan that has it hand over before Config.Cede has ended.
type cede struct {
	// plan is the newest that has another owner; its Wanted is empty without one.
	plan placement.Decision
	// asked: Config.Cede was called; ended: it has ended, at that time. Both hold until
	// the partition is elsewhere, or stays.
	asked, ended bool
	at           int64
	// notBefore is when it may be asked again.
	notBefore int64
}

// plan tells a replica where its partition should be. It may go elsewhere only when it
// is ceded.
func (h *Host) plan(r *replica, d placement.Decision) {
	r.cede.plan = placement.Decision{}
	if h.config.Cede != nil && len(d.Wanted) > 0 && d.Wanted[0] != h.config.Self && r.Role() == partition.Serving && !r.cede.ended {
		r.cede.plan = d
		h.stay(r, d)
		h.cedeNext()
		return
	}
	h.step(r, &partition.Event{Kind: partition.Plan, Wanted: d.Wanted, Draining: d.Draining})
}

// stay has the brokers of a plan get the partition's records, and this one serve it.
func (h *Host) stay(r *replica, d placement.Decision) {
	wanted := append([]partition.Broker{h.config.Self}, d.Wanted...)
	for i := 1; i < len(wanted); i++ {
		if wanted[i] == h.config.Self {
			wanted = append(wanted[:i], wanted[i+1:]...)
			break
		}
	}
	h.step(r, &partition.Event{Kind: partition.Plan, Wanted: wanted, Draining: d.Draining})
}

// cedeNext has partitions be ceded whose next owners are ready, as many as may be.
func (h *Host) cedeNext() {
	now := h.now()
	for _, r := range h.replicas {
		if h.cedes >= max(cedesLeast, h.config.Partitions/cedesOf) {
			return
		}
		c := &r.cede
		if c.asked || len(c.plan.Wanted) == 0 || r.broken || now < c.notBefore || !r.MayHand(now, c.plan.Wanted[0]) {
			continue
		}
		c.asked = true
		h.cedes++
		h.config.Cede(r.id, func() { h.post(func() { h.ceded(r) }) })
	}
}

// ceded hands a partition over that is not served here any more.
func (h *Host) ceded(r *replica) {
	c := &r.cede
	if !c.asked || c.ended || h.ended {
		return // it was lost meanwhile
	}
	c.ended, c.at = true, h.now()
	if d := c.plan; len(d.Wanted) > 0 {
		h.step(r, &partition.Event{Kind: partition.Plan, Wanted: d.Wanted, Draining: d.Draining})
		return
	}
	h.keep(r) // the plan has changed
}

// cedeOver ends what was begun for a move: the replica has another role, or the
// partition stays.
func (h *Host) cedeOver(r *replica) {
	if !r.cede.asked {
		return
	}
	r.cede = cede{notBefore: r.cede.notBefore}
	h.cedes--
	h.cedeNext()
}

// keep has a partition that was ceded be served here again.
func (h *Host) keep(r *replica) {
	h.keepPlan(r)
	if h.config.Changed != nil {
		h.config.Changed(Change{Partition: r.id, Role: partition.Serving, Epoch: r.Table().Epoch})
	}
}

// keepPlan has the replica of a partition that stays know that it does.
func (h *Host) keepPlan(r *replica) {
	h.log.Warn("a partition that was to move stays, since it could not be handed over", slog.Int("partition", int(r.id)))
	if d := r.cede.plan; len(d.Wanted) > 0 {
		h.post(func() { h.stay(r, d) })
	}
	r.cede.notBefore = h.now() + cedePause
	h.cedeOver(r)
}

// cedeTicked looks for partitions that nobody serves because their hand-over does not
// begin, and for those that may be ceded by now.
func (h *Host) cedeTicked(now int64) {
	for _, r := range h.replicas {
		if c := &r.cede; c.ended && r.Role() == partition.Serving && now-c.at >= cedePatience {
			h.keep(r)
		}
	}
	h.cedeNext()
}
