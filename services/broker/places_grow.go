// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/layout"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/partition"
)

// Cells grow in waves, each of as many partitions as what leaves its partition by it can be
// handed over while clients wait (docs/adr/0057).

const (
	// waveSessions is how many sessions leave their partition in one wave, if not more do in
	// the smallest that there is. It is below moveSessions: more pauses, and shorter ones.
	waveSessions = 5000
	// waveRest is the pause between two waves of a command, in which clients send and get
	// what has waited.
	waveRest = time.Second
	// growTime is for how long a command begins new waves: its answer is waited for 20 s.
	growTime = 8 * time.Second
)

// placeWaves is place, and again for as long as a cell that is to grow has not done so. A
// wave that fails behind another one leaves the tenant where that has brought it, with all
// that it has; the error says so.
func (d *desk) placeWaves(ctx context.Context, tenant string, to operate.Place) (operate.Placement, error) {
	begun := time.Now()
	for had := 0; ; {
		p, err := d.place(ctx, tenant, to)
		if err != nil && had > 0 {
			err = errs.New(errs.KindOf(err), "%s has %d of %d partitions by now, and grows no further: %w", tenant, had, to.Grow, err)
		}
		n := len(p.Partitions)
		if err != nil || p.Stage != "" || n <= had || n >= min(to.Grow, d.region.layout.Shared()) || time.Since(begun) > growTime {
			return p, err
		}
		had = n
		select {
		case <-time.After(waveRest):
		case <-ctx.Done():
			return p, nil
		}
	}
}

// wave is the list of up to want partitions to which a tenant grows at once that has u in
// those of from: the longest that is bearable and has waveSessions leave at most, or else
// the shortest, which bearable may refuse.
func (d *desk) wave(tenant string, from []partition.ID, want int, u *link.Usage) []partition.ID {
	list := d.region.layout.Draw(tenant, want)
	if !slices.Equal(from, d.region.layout.Draw(tenant, len(from))) {
		return list // it does not grow by one after the other
	}
	for n := len(list); n > len(from); n-- {
		list = d.region.layout.Draw(tenant, n)
		if leaving(from, list)*float64(u.PersistentSessions) <= waveSessions && bearable(tenant, from, list, u) == nil {
			return list
		}
	}
	return list
}

// leaving is which part of a tenant's sessions, or retained messages, leaves its partition
// when they go from one list to another: partition.Choose leaves them in one of both if that
// has the highest weight of all. A tenant of few may have more or fewer.
func leaving(from, to []partition.ID) float64 {
	both := 0
	for _, p := range to {
		if slices.Contains(from, p) {
			both++
		}
	}
	return 1 - float64(both)/float64(len(from)+len(to)-both)
}

// bearable refuses what cannot be handed over while clients wait. The error is Conflict.
func bearable(tenant string, from, to []partition.ID, u *link.Usage) error {
	part := leaving(from, to)
	sessions, messages, bytes := part*float64(u.PersistentSessions), part*float64(u.QueueMessages+u.Retained), part*float64(u.QueueBytes+u.RetainedBytes)
	if sessions <= moveSessions && messages <= moveMessages && bytes <= moveBytes {
		return nil
	}
	return errs.New(errs.Conflict, "about %.0f sessions and %.0f messages of %.0f MiB of %s would go to other partitions, and its clients would wait too long: at most %d, %d and %d MiB are handed over. "+
		"Its partitions can be moved with all that they have: partition label", sessions, messages, bytes/(1<<20), tenant, moveSessions, moveMessages, moveBytes>>20)
}

// cellState is where a tenant lives, as the API is told.
func (d *desk) cellState(tenant string) link.CellState {
	if n := d.config.Partitions; d.region == nil { // alone it has every tenant in all
		return link.CellState{Has: n, Shared: n, Drawn: true}
	}
	c, _ := d.region.layout.Cell(tenant)
	return link.CellState{
		Has: len(c.Partitions), Shared: d.region.layout.Shared(), Moves: c.Stage != layout.Settled,
		Drawn: len(c.Partitions) == 0 || slices.Equal(c.Partitions, d.region.layout.Draw(tenant, len(c.Partitions))),
	}
}

// answerTenant answers what the API asks of a tenant as a whole.
func (d *desk) answerTenant(q *link.Query) *link.Answer {
	if q.Kind == link.QueryForget {
		return d.answerForget(q)
	}
	return d.answerCell(q)
}

// answerForget answers a link.QueryForget. All brokers must be there: the disk of one that is
// down has something of the tenant too. What has been said of where the tenant lives goes last: the
// record stays, with a revision that only grows, and says that the tenant was purged.
func (d *desk) answerForget(q *link.Query) *link.Answer {
	if d.region == nil {
		return d.shards.Ask(q)
	}
	for _, m := range d.Members() {
		if m.State != "alive" {
			return &link.Answer{Found: true, Error: fmt.Sprintf("%s is %s, and has something of the tenant on its disk: bring it back, or have it leave the cluster", m.Name, m.State)}
		}
	}
	a := d.shards.Ask(q)
	if a.Usage.PersistentSessions+a.Usage.Retained > 0 {
		d.log.Info("the API has a purged tenant be forgotten", slog.String("tenant", q.Tenant),
			slog.Int64("sessions", a.Usage.PersistentSessions), slog.Int64("queued", a.Usage.QueueMessages), slog.Int64("retained", a.Usage.Retained))
	}
	if c, ok := d.region.layout.Cell(q.Tenant); a.Error == "" && !a.Found && ok && !c.Purged {
		ctx, cancel := context.WithTimeout(context.Background(), holdTime+moveWait)
		defer cancel()
		a.Found = true // also if something has come meanwhile: it is asked again
		if _, err := d.placeEmpty(ctx, q.Tenant, func(ctx context.Context) (layout.Cell, error) { return d.region.layout.Purge(ctx, q.Tenant) }); err != nil {
			a.Error = err.Error()
		}
	}
	return a
}

// answerCell answers a link.QueryCell.
func (d *desk) answerCell(q *link.Query) *link.Answer {
	s := d.cellState(q.Tenant)
	a := &link.Answer{Found: true}
	if want := min(q.Limit, s.Shared); want > s.Has && s.Drawn && !s.Moves {
		ctx, cancel := context.WithTimeout(context.Background(), holdTime+moveWait)
		defer cancel()
		d.log.Info("the cell of a tenant is to grow, as its plan has it", slog.String("tenant", q.Tenant), slog.Int("has", s.Has), slog.Int("wants", want))
		if _, err := d.place(ctx, q.Tenant, operate.Place{Grow: want}); err != nil {
			a.Error = err.Error()
		}
		s = d.cellState(q.Tenant)
	}
	text, err := json.Marshal(&s)
	if err != nil {
		a.Error = err.Error()
	}
	a.Next = string(text)
	return a
}
