// SPDX-License-Identifier: Apache-2.0

package host

import (
	"log/slog"

	"github.com/manormq/manor/services/broker/partition"
)

// appended is an append that waits for its commit.
type appended struct {
	n    uint64
	done func(error)
}

// held is an append that waits for the end of a hand-over.
type held struct {
	epoch uint64
	batch []byte
	done  func(error)
}

// Append has a batch, a kv.Batch encoded, become the next record of a partition.
// epoch is that of the Change under which the caller read what the batch builds on:
// if the partition was lost since, also if it has come back, that is ErrNotOwner.
// Appends of one goroutine are in their order. The bytes belong to the Host from
// here on. done is called once, by the loop, and must not wait: without an error
// when the record is committed, else with ErrNotOwner, ErrLost or ErrClosed.
func (h *Host) Append(p partition.ID, epoch uint64, batch []byte, done func(error)) {
	if int(p) >= len(h.replicas) {
		done(ErrNotOwner)
		return
	}
	if !h.post(func() { h.append(h.replicas[p], epoch, batch, done) }) {
		done(ErrClosed)
	}
}

func (h *Host) append(r *replica, epoch uint64, batch []byte, done func(error)) {
	switch {
	case h.ended:
		done(ErrClosed)
	case r.broken, r.refused, epoch < r.since:
		done(ErrNotOwner)
	case r.Role() == partition.Handing:
		r.held = append(r.held, held{epoch, batch, done})
	case r.Role() != partition.Serving:
		done(ErrNotOwner)
	default:
		h.counted.appends.Add(1)
		r.waiting = append(r.waiting, appended{r.Last().N + 1, done})
		h.step(r, &partition.Event{Kind: partition.Append, Batch: batch})
	}
}

// committed acknowledges everything up to n.
func (h *Host) committed(r *replica, upTo uint64) {
	n := 0
	for n < len(r.waiting) && r.waiting[n].n <= upTo {
		r.waiting[n].done(nil)
		n++
	}
	h.counted.committed.Add(uint64(n))
	rest := copy(r.waiting, r.waiting[n:])
	clear(r.waiting[rest:])
	r.waiting = r.waiting[:rest]
}

// roleChanged tells those who wait, then the broker.
func (h *Host) roleChanged(r *replica, planned bool) {
	role := r.Role()
	h.log.Debug("role in a partition", slog.Int("partition", int(r.id)), slog.Int("role", int(role)), slog.Uint64("epoch", r.Table().Epoch))
	switch role {
	case partition.Serving:
		if r.cede.ended { // it was Handing, and stays
			h.keepPlan(r)
		}
		if r.lost {
			r.lost, r.since = false, r.Table().Epoch
		}
		for _, a := range r.takeHeld() {
			h.post(func() { h.append(r, a.epoch, a.batch, a.done) })
		}
	case partition.Handing:
	case partition.Following, partition.Claiming, partition.Alarmed:
		r.lose(ErrLost)
		h.cedeOver(r)
	}
	if h.config.Changed != nil {
		h.config.Changed(Change{Partition: r.id, Role: role, Epoch: r.Table().Epoch, Planned: planned})
	}
}

// lose tells all who wait that what they wait for will not come from here.
func (r *replica) lose(err error) {
	r.lost = true
	waiting := r.waiting
	r.waiting = nil
	for _, a := range waiting {
		a.done(err)
	}
	for _, a := range r.takeHeld() {
		a.done(ErrNotOwner)
	}
}

func (r *replica) takeHeld() []held {
	out := r.held
	r.held = nil
	return out
}
