// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"log/slog"
	"time"

	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
)

const (
	// tick is how often the loop looks at its clocks: so much later than asked a
	// replica may be woken.
	tick = 50 * time.Millisecond
	// pingEvery is how often something goes over each link, and decideEvery how often
	// the controller is asked, in milliseconds.
	pingEvery   = 700
	decideEvery = 1000
)

// replica is one partition here.
type replica struct {
	*partition.Replica
	id     partition.ID
	stored *partition.Stored // until it is started
	wakeAt int64             // 0 for never
	// waiting are the appends that wait for their commit, held those that wait for
	// the end of a hand-over.
	waiting []appended
	held    []held
	// since is the epoch under which the partition came, lost that it is not here now.
	since uint64
	lost  bool
	// shown is what rows has of it.
	shown     placement.Row
	shownRole partition.Role
	// refused says that the broker cannot read what it serves: it is to go to another.
	refused bool
	// broken says that what it wanted written cannot be: it does nothing any more.
	broken bool
	cede   cede
	// unwritable is broken for the disk, and belongs to it.
	unwritable bool
}

// now is in milliseconds, and never 0.
func (h *Host) now() int64 { return time.Since(h.began).Milliseconds() + 1 }

// loop runs turns until ctx is done.
func (h *Host) loop(ctx context.Context) {
	h.watch.At(h.now())
	h.inform()
	for _, r := range h.replicas {
		h.step(r, &partition.Event{Kind: partition.Start, Stored: r.stored})
		r.stored = nil
	}
	h.ops = append(h.ops, op{started: true})
	t := time.NewTicker(tick)
	defer t.Stop()
	var turn []func()
	for {
		h.disk.give(h.ops)
		clear(h.ops)
		h.ops = h.ops[:0]
		select {
		case <-ctx.Done():
			h.end()
			return
		case <-h.wake:
		case <-t.C:
			h.ticked()
		}
		h.mu.Lock()
		turn, h.mu.mailbox = h.mu.mailbox, turn[:0]
		h.mu.Unlock()
		for i, do := range turn {
			do()
			turn[i] = nil
		}
	}
}

// end tells everybody who waits.
func (h *Host) end() {
	h.ended = true
	h.mu.Lock()
	h.mu.closed = true
	turn := h.mu.mailbox
	h.mu.mailbox = nil
	h.mu.Unlock()
	for _, r := range h.replicas {
		r.lose(ErrClosed)
	}
	for _, do := range turn {
		do()
	}
}

// step steps a replica and does what follows.
func (h *Host) step(r *replica, e *partition.Event) {
	if h.ended || r.broken {
		return
	}
	now := h.now()
	h.watch.At(now)
	fx := &h.fx
	fx.Reset()
	r.Step(now, e, fx)
	for i := range fx.Write {
		h.ops = append(h.ops, op{r: r, write: fx.Write[i]})
	}
	for i := range fx.Load {
		h.ops = append(h.ops, op{r: r, load: fx.Load[i]})
	}
	for i := range fx.Send {
		if h.config.Knows != nil && !h.config.Knows(string(fx.Send[i].To), fx.Send[i].Message.Kind) {
			continue // it may be updated later, and is asked again
		}
		h.config.Transport.Send(string(fx.Send[i].To), fx.Send[i].Message.Append(nil))
	}
	if fx.Propose != nil {
		h.counted.proposals.Add(1)
		h.calls.propose(r, *fx.Propose)
	}
	if fx.ReadTable {
		h.calls.ask(r)
	}
	if fx.WakeIn > 0 {
		if at := now + fx.WakeIn; r.wakeAt <= now || at < r.wakeAt {
			r.wakeAt = at
		}
	}
	if fx.Alarm != "" {
		h.counted.alarms.Add(1)
		h.log.Error("a partition needs an operator", slog.Int("partition", int(r.id)), slog.String("alarm", fx.Alarm))
	}
	h.show(r)
	if r.refused && r.Table().Owner != h.config.Self {
		h.fail(r, errUnreadable)
		return
	}
	changed, planned, committed := fx.RoleChanged, fx.Planned, fx.Committed
	if changed {
		h.roleChanged(r, planned)
	}
	if committed > 0 {
		h.committed(r, committed)
	}
}

// show lets others see what the replica is.
func (h *Host) show(r *replica) {
	role, table := r.Role(), r.Table()
	if r.broken || r.refused {
		role = partition.Alarmed
	}
	row := placement.Row{ID: r.id, Table: table, Serving: role == partition.Serving}
	if role == r.shownRole && table.Revision == r.shown.Table.Revision && table.Epoch == r.shown.Table.Epoch {
		return
	}
	r.shown, r.shownRole = row, role
	h.mu.Lock()
	h.mu.rows[r.id], h.mu.roles[r.id] = row, role
	h.mu.Unlock()
	if h.config.Seen != nil {
		h.config.Seen(r.id, table)
	}
}

func (h *Host) heard(from partition.Broker) {
	h.watch.At(h.now())
	h.watch.Heard(from)
}

// received takes a message, of which the replica keeps views.
func (h *Host) received(from partition.Broker, b []byte) {
	m, err := partition.ParseMessage(b)
	if err != nil || int(m.Partition) >= len(h.replicas) {
		h.log.Warn("a replica's message is not for here", slog.String("from", string(from)), slog.Int("partition", int(m.Partition)), slog.Any("error", err))
		return
	}
	h.step(h.replicas[m.Partition], &partition.Event{Kind: partition.Received, Peer: from, Message: m})
}

// Informed reports whether this broker knows what the others do (Config.Informed). Once it
// does, it goes on doing so.
func (h *Host) Informed() bool { return h.informed.Load() }

// inform looks whether this broker is informed, until it is.
func (h *Host) inform() {
	if !h.informed.Load() && h.config.Informed() {
		h.informed.Store(true)
		signal(h.beatNow)
	}
}

// ticked does what it is time for.
func (h *Host) ticked() {
	now := h.now()
	h.watch.At(now)
	h.busTicked(now)
	h.inform()
	for _, r := range h.replicas {
		if r.wakeAt != 0 && r.wakeAt <= now {
			r.wakeAt = 0
			h.step(r, &partition.Event{Kind: partition.Tick})
		}
	}
	h.cedeTicked(now)
	if now >= h.pingAt {
		h.pingAt = now + pingEvery
		for _, to := range h.config.Transport.Peers() {
			h.config.Transport.Send(to, nil)
		}
	}
	if now >= h.decideAt {
		h.decideAt = now + decideEvery
		h.decide()
	}
}

// decide asks the controller.
func (h *Host) decide() {
	if !h.tableSeen {
		return // what is missing may be there
	}
	rows := make([]placement.Row, 0, len(h.replicas))
	for _, r := range h.replicas {
		rows = append(rows, placement.Row{ID: r.id, Table: r.Table(), Serving: r.Role() == partition.Serving && !r.broken && !r.refused})
	}
	h.control.Moves = h.config.Moves()
	for _, d := range h.control.Decide(&h.watch, rows) {
		if d.Create != nil {
			h.calls.create(d.ID, *d.Create)
			continue
		}
		h.plan(h.replicas[d.ID], d)
	}
	for _, r := range h.replicas {
		if r.refused && !r.broken {
			h.handOn(r)
		}
	}
}

// fail ends a replica whose writes cannot be carried out.
func (h *Host) fail(r *replica, err error) {
	if r.broken || h.ended {
		return
	}
	r.broken = true
	h.counted.alarms.Add(1)
	h.log.Error("a replica has ended: what it wants written cannot be", slog.Int("partition", int(r.id)), slog.Any("error", err))
	r.lose(ErrLost)
	h.cedeOver(r)
	h.show(r)
	if h.config.Changed != nil {
		h.config.Changed(Change{Partition: r.id, Role: partition.Alarmed, Epoch: r.Table().Epoch})
	}
}
