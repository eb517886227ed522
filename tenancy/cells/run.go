// SPDX-License-Identifier: Apache-2.0

package cells

import (
	"context"
	"encoding/json"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/tenancy/lease"
	"github.com/manormq/manor/tenancy/store"
)

// Run has cells grow, one at a time, until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for ctx.Err() == nil {
			next := lookAgain
			if err := s.leftovers(ctx); err != nil && ctx.Err() == nil {
				next = againAfter
				s.cfg.Log.Warn("it is not known which records of cells are left over", "error", err, "retry_in", next)
			}
			select {
			case <-time.After(next):
			case <-ctx.Done():
			}
		}
	})
	s.worker.Run(ctx)
	return nil
}

// leftovers has the records be forgotten of cells that have nothing to grow by: of tenants that
// were deleted, or got a smaller plan, while no process ran, which nobody is told of.
func (s *Service) leftovers(ctx context.Context) error {
	ids, err := s.cfg.Store.CellTenants(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		switch t, err := s.cfg.Store.Tenant(ctx, id); {
		case errs.Is(err, errs.NotFound):
			s.leftOver(id)
		case err != nil:
			return err
		case t.Grows() == 0:
			s.leftOver(id)
		}
	}
	return nil
}

// leftOver has a record be forgotten, unless the tenant is known: then told says what becomes
// of it.
func (s *Service) leftOver(id string) {
	s.worker.Edit(id, func(c *lease.Item[cell], known bool) bool {
		if !known {
			c.Value.state = stateGrown
		}
		return true
	})
}

// show counts all cells.
func (s *Service) show(all iter.Seq[cell]) {
	n := map[string]int{}
	for c := range all {
		n[c.state]++
	}
	for _, state := range []string{stateGrown, stateWaiting, statePlaced} {
		s.states.WithLabelValues(state).Set(float64(n[state]))
	}
}

// see looks at a cell, has it grow by a wave if it is to, and keeps what became of it. If this
// process has stood still, and so lost the lock of all cells, another may do so too: a broker
// lets a tenant move once at a time, and both ask for the same.
func (s *Service) see(ctx context.Context, tenant string, c cell) {
	if c.wanted == 0 {
		s.forget(ctx, tenant)
		return
	}
	state, err := s.ask(ctx, tenant, 0)
	if err == nil && c.lacks(state) && state.Drawn && !state.Moves {
		var after *link.CellState
		after, err = s.ask(ctx, tenant, c.wanted)
		if err == nil && c.has(after) > c.has(state) {
			s.results.WithLabelValues("grown").Inc()
			s.cfg.Log.Info("the cell of a tenant has grown, as its plan has it", "tenant", tenant, "partitions", c.has(after), "before", c.has(state), "wanted", c.target(after))
		} else {
			s.results.WithLabelValues("failed").Inc()
		}
		if after != nil {
			state = after
		}
	}
	if ctx.Err() != nil {
		return
	}
	s.keep(ctx, tenant, c, state, err)
}

// ask asks a broker about a cell, and with grow above 0 to have it grow. The state is what is
// known, nil for nothing; it may come with an error.
func (s *Service) ask(ctx context.Context, tenant string, grow int) (*link.CellState, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	a, err := s.cfg.Brokers.Query(ctx, link.Query{Kind: link.QueryCell, Tenant: tenant, Limit: grow})
	if err != nil {
		return nil, err
	}
	state := &link.CellState{}
	if err := json.Unmarshal([]byte(a.Next), state); err != nil {
		return nil, errs.New(errs.Internal, "the broker's answer is not readable: %w", err)
	}
	return state, nil
}

// target is how many partitions the cell is to have: no more than there are.
func (c *cell) target(s *link.CellState) int { return min(c.wanted, s.Shared) }

// has is how many it has.
func (c *cell) has(s *link.CellState) int {
	if s.Has == 0 {
		return min(c.made, s.Shared)
	}
	return s.Has
}

func (c *cell) lacks(s *link.CellState) bool { return c.has(s) < c.target(s) }

// keep writes down what became of a cell, and says when it is looked at next. state is nil if
// it is not known. The log hears of another reason only.
func (s *Service) keep(ctx context.Context, tenant string, c cell, state *link.CellState, err error) {
	said, e := s.cfg.Store.Cell(ctx, tenant) // by this process or another
	if e != nil || said == nil {
		said = &store.Cell{}
	}
	now := &store.Cell{Wanted: c.wanted, Has: said.Has, Since: s.cfg.Now().UTC()}
	if state != nil {
		now.Wanted, now.Has = c.target(state), c.has(state)
	}
	next, failures := lookAgain, 0
	switch {
	case err != nil:
		failures, c.state = c.failures+1, stateWaiting
		now.Waits, now.Problem, next = waitsOn(err), err.Error(), wait(failures)
	case !c.lacks(state):
		c.state = stateGrown
	case !state.Drawn:
		c.state, now.Waits = statePlaced, "an operator has placed the tenant in other partitions than those of a plan"
	case state.Moves:
		c.state, now.Waits, next = stateWaiting, "the tenant is on its way to other partitions", waveRest
	default:
		c.state, now.Waits, next = stateWaiting, "the rest of its sessions: they go in waves", waveRest
		if now.Has <= said.Has { // a wave that brought nothing
			failures = c.failures + 1
			next = wait(failures)
		}
	}
	if said.Wanted != now.Wanted || said.Has != now.Has || said.Waits != now.Waits || said.Problem != now.Problem {
		switch {
		case said.Waits == now.Waits && kind(said.Problem) == kind(now.Problem):
		case err != nil:
			s.cfg.Log.Warn("the cell of a tenant does not grow yet", "tenant", tenant, "wanted", now.Wanted, "has", now.Has, "reason", now.Problem, "retry_in", next)
		case now.Waits != "":
			s.cfg.Log.Info("the cell of a tenant has not grown to what its plan has", "tenant", tenant, "wanted", now.Wanted, "has", now.Has, "reason", now.Waits)
		}
		if e := s.cfg.Store.PutCell(ctx, tenant, now); e != nil {
			s.cfg.Log.Warn("it is not kept how far the cell of a tenant has grown", "tenant", tenant, "error", e, "retry_in", againAfter)
			next = min(next, againAfter)
		}
	}
	s.worker.Edit(tenant, func(x *lease.Item[cell], known bool) bool {
		if known && x.Value.wanted == c.wanted { // else the plan has changed meanwhile, and it is due
			x.Value.failures, x.Value.state, x.Due = failures, c.state, s.cfg.Now().Add(next)
		}
		return known
	})
}

// waitsOn says to a tenant why its cell has not grown, without what is said of brokers.
func waitsOn(err error) string {
	if errs.Is(err, errs.Unavailable) {
		return "the brokers of the region do not answer now"
	}
	return "the brokers of the region cannot have it grow now"
}

// kind is a reason without its numbers: sessions come and go.
func kind(reason string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, reason)
}

// forget is for a tenant whose plan has no more partitions than it was made with.
func (s *Service) forget(ctx context.Context, tenant string) {
	err := s.cfg.Store.PutCell(ctx, tenant, nil)
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("it is not forgotten how far the cell of a tenant was to grow", "tenant", tenant, "error", err, "retry_in", againAfter)
	}
	s.worker.Edit(tenant, func(c *lease.Item[cell], known bool) bool {
		switch {
		case !known || c.Value.wanted != 0:
		case err != nil:
			c.Due = s.cfg.Now().Add(againAfter)
		default:
			return false
		}
		return known
	})
}
