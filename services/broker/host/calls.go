// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/manormq/manor/services/broker/partition"
)

const (
	// callTimeout is after what time a question to the bus is given up.
	callTimeout = 2 * time.Second
	// callsMost is how many proposals are on their way at once.
	callsMost = 16
)

// calls are the questions to the table.
type calls struct {
	host *Host
	ctx  context.Context // of Run
	wg   sync.WaitGroup
	// speaking has a place for each proposal on its way.
	speaking chan struct{}
	wake     chan struct{}

	mu    sync.Mutex
	asked []*replica // guarded by mu: those that wait for a read
}

// begin says how long calls live. It comes before the first.
func (c *calls) begin(ctx context.Context) { c.ctx = ctx }

// propose has a proposal carried out and its outcome told.
func (c *calls) propose(r *replica, p partition.Proposal) {
	c.call(func(ctx context.Context) {
		table, outcome := c.host.config.Table.Propose(ctx, r.id, p)
		c.host.post(func() {
			c.host.step(r, &partition.Event{Kind: partition.Proposed, At: p.At, Outcome: outcome, Table: table})
		})
	})
}

// create makes an entry that is missing. Who wins is told by the watch.
func (c *calls) create(p partition.ID, e partition.Entry) {
	c.call(func(ctx context.Context) {
		_, _ = c.host.config.Table.Propose(ctx, p, partition.Proposal{Entry: e})
	})
}

func (c *calls) call(do func(context.Context)) {
	c.wg.Go(func() {
		select {
		case c.speaking <- struct{}{}:
		case <-c.ctx.Done():
			return
		}
		defer func() { <-c.speaking }()
		ctx, cancel := context.WithTimeout(c.ctx, callTimeout)
		defer cancel()
		do(ctx)
	})
}

// ask has the entry read for a replica.
func (c *calls) ask(r *replica) {
	c.mu.Lock()
	c.asked = append(c.asked, r)
	c.mu.Unlock()
	signal(c.wake)
}

// read answers all that were asked before it began with one look.
func (c *calls) read(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		c.mu.Lock()
		asked := c.asked
		c.asked = nil
		c.mu.Unlock()
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := c.host.config.Table.Fresh(call)
		cancel()
		if err != nil && ctx.Err() == nil {
			c.host.log.Warn("the partition table cannot be read", slog.Any("error", err))
		}
		c.host.post(func() {
			for _, r := range asked {
				e := partition.Event{Kind: partition.TableRead, Failed: err != nil}
				if err == nil {
					e.Table = c.host.config.Table.Entry(r.id)
				}
				c.host.step(r, &e)
			}
		})
	}
}

// watchTable tells the replicas what becomes of the table.
func (h *Host) watchTable(ctx context.Context) {
	err := h.config.Table.Watch(ctx, func(p partition.ID, t partition.Table) {
		if int(p) >= len(h.replicas) {
			return
		}
		h.post(func() { h.step(h.replicas[p], &partition.Event{Kind: partition.TableSeen, Table: t}) })
	}, func() { h.post(func() { h.tableSeen = true }) })
	if ctx.Err() == nil {
		h.log.Error("the watch of the partition table has ended", slog.Any("error", err))
	}
}
