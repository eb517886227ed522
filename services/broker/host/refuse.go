// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/manormq/manor/services/broker/partition"
)

// errUnreadable ends a replica that was handed on since it cannot be read: it answers no
// owner any more, so that it is not in sync, and nobody makes it the owner again.
var errUnreadable = errors.New("what the store has of the partition cannot be read: it has another owner now, or waits for one; empty this broker's data folder, or put a copy of it back")

// Refuse says that this broker cannot serve what its store has of a partition, which came
// to it under epoch: the partition is shown as alarmed, and handed to another broker that is
// in sync, if there is one. It does not wait.
func (h *Host) Refuse(p partition.ID, epoch uint64) {
	if int(p) >= len(h.replicas) {
		return
	}
	h.post(func() {
		r := h.replicas[p]
		if h.ended || r.broken || r.refused || epoch < r.since {
			return
		}
		r.refused = true
		h.counted.alarms.Add(1)
		h.log.Error("a partition needs an operator", slog.Int("partition", int(p)), slog.Any("alarm", errUnreadable))
		r.lose(ErrLost)
		h.show(r)
		h.handOn(r)
	})
}

// handOn has the owner hand a partition that it cannot serve to the others in sync.
func (h *Host) handOn(r *replica) {
	t := r.Table()
	others := slices.DeleteFunc(slices.Clone(t.InSync), func(b partition.Broker) bool { return b == h.config.Self })
	if t.Owner == h.config.Self && len(others) > 0 {
		h.step(r, &partition.Event{Kind: partition.Plan, Wanted: others})
	}
}
