// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"slices"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
)

// What operators look at and do. Everything here may be called concurrently.

// SetDraining says whether this broker is to give up all its partitions, owned or
// followed. It is told at once and acted on by the controllers of all brokers.
func (h *Host) SetDraining(on bool) {
	h.draining.Store(on)
	signal(h.beatNow)
}

// SetStopping says whether this broker ends and will be back: others become the owners
// of what it has, and it stays their follower.
func (h *Host) SetStopping(on bool) {
	h.stopping.Store(on)
	signal(h.beatNow)
}

// Holds counts the partitions that the table gives b: those that it owns, and those of
// others of which it has a replica.
func (h *Host) Holds(b partition.Broker) (owned, followed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.mu.rows {
		switch e := &h.mu.rows[i].Table.Entry; {
		case e.Owner == b:
			owned++
		case e.Holds(b):
			followed++
		}
	}
	return owned, followed
}

// Roles is what this broker's replicas do, by partition.
func (h *Host) Roles() []partition.Role {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.mu.roles)
}

// Replicas is how many brokers should hold a partition.
func (h *Host) Replicas(p partition.ID) int { return h.config.Replicas(p) }

// Label is that which a broker must accept to hold a partition.
func (h *Host) Label(p partition.ID) string { return h.config.Label(p) }

// Accepting are the brokers that are there, do not give up what they have, and take
// partitions with a label, in the order of their names. The error is Unavailable.
func (h *Host) Accepting(ctx context.Context, label string) (out []partition.Broker, err error) {
	err = h.inLoop(ctx, func() {
		for _, c := range h.watch.Brokers(0) {
			if c.Accepts(label) && !c.Draining {
				out = append(out, c.Name)
			}
		}
	})
	slices.Sort(out)
	return out, err
}

// Wanted is where each partition should be as this broker sees the others, the owner
// first; nothing for one while nobody is known to take it. The error is Unavailable.
func (h *Host) Wanted(ctx context.Context) ([][]partition.Broker, error) {
	wanted := make([][]partition.Broker, len(h.replicas)) // of the loop, until it is done
	err := h.inLoop(ctx, func() {
		for i, r := range h.replicas {
			wanted[i] = h.control.Wanted(&h.watch, &placement.Row{ID: r.id, Table: r.Table()})
		}
	})
	if err != nil {
		return nil, err
	}
	return wanted, nil
}

// Copy is what this broker's copy of a partition is worth, and its newest record. The
// error is Unavailable, or NotFound if there is no such partition.
func (h *Host) Copy(ctx context.Context, p partition.ID) (c partition.Copy, last partition.Last, err error) {
	if int(p) >= len(h.replicas) {
		return c, last, errs.New(errs.NotFound, "expected a partition from 0 to %d, found %d", len(h.replicas)-1, p)
	}
	type answer struct {
		partition.Copy
		partition.Last
	}
	var a answer
	if err := h.inLoop(ctx, func() { a = answer{h.replicas[p].Copy(), h.replicas[p].Last()} }); err != nil {
		return c, last, err
	}
	return a.Copy, a.Last, nil
}

// inLoop has do run in the loop and waits for it. do is not run, or runs to nobody's
// use, if there is an error, which is Unavailable.
func (h *Host) inLoop(ctx context.Context, do func()) error {
	done := make(chan struct{})
	posted := h.post(func() {
		defer close(done)
		do()
	})
	if !posted {
		return errs.New(errs.Unavailable, "%w", ErrClosed)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errs.New(errs.Unavailable, "the replicas of this broker do not answer: %w", ctx.Err())
	}
}

// Abandon makes to the only one in sync of a partition whose entry is t, whatever its
// copy is worth; what other brokers alone have is given up, for ever. others are those
// of the replicas that may be made anew from it. The caller has an operator's word that
// no broker in sync can serve it. The error is Conflict if the entry is another one by
// now, or Unavailable if it is not known what became of it.
func (h *Host) Abandon(ctx context.Context, p partition.ID, t partition.Table, to partition.Broker, others []partition.Broker) error {
	_, outcome := h.config.Table.Propose(ctx, p, partition.Proposal{At: t.Revision, Entry: partition.Abandon(&t.Entry, to, others)})
	switch outcome {
	case partition.Won:
		return nil
	case partition.Beaten:
		return errs.New(errs.Conflict, "the entry of partition %d has changed meanwhile: look at it again", p)
	default:
		return errs.New(errs.Unavailable, "the control plane does not say whether partition %d was abandoned: look at it again", p)
	}
}
