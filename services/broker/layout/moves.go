// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"slices"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
)

// Move says that a tenant leaves for the partitions to, with what it has. plan is how many
// partitions its plan has, 0 for all that are not reserved: a tenant without a list of its own
// leaves what that gives it, and Return records the same, as its clients are there. A negative plan
// is one that is not known. From when a broker has the record nobody of the tenant is let in
// there, until Advance has said twice that the next stage begins. It returns as Place does; the
// error may be Conflict, if the tenant is on its way already or lives in these, or if it was given
// back to a plan that is not known.
func (l *Layout) Move(ctx context.Context, tenant string, to []partition.ID, plan int) (Cell, error) {
	to, err := l.listFor(tenant, to)
	if err != nil {
		return Cell{}, err
	}
	if len(to) == 0 {
		return Cell{}, errs.New(errs.Invalid, "expected the partitions where %s is to live", tenant)
	}
	old, _ := l.Cell(tenant)
	c := Cell{Partitions: old.Partitions, To: to, Stage: Leaving, Revision: max(old.Revision, drawn) + 1}
	if len(c.Partitions) == 0 {
		c.Partitions = l.Draw(tenant, plan)
	}
	switch {
	case len(old.Partitions) == 0 && old.Revision > 0 && plan < 0: // without any record it has all
		return Cell{}, errs.New(errs.Conflict, "no broker has heard yet how many partitions the plan of %s has, and thus which it leaves: "+
			"try again when one of its clients has come", tenant)
	case old.Stage != Settled:
		return Cell{}, errMoves(tenant)
	case slices.Equal(c.Partitions, to):
		return Cell{}, errs.New(errs.Conflict, "%s lives in these partitions", tenant)
	}
	return c, l.write(ctx, []metadata.Mutation{l.cells.Put(tenant, c, c.Revision)})
}

// Moving are the records of the tenants that move, by tenant.
func (l *Layout) Moving() map[string]Cell {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make(map[string]Cell, len(l.mu.moving))
	for tenant := range l.mu.moving {
		out[tenant] = l.mu.cells[tenant]
	}
	return out
}

// Advance says that a tenant is at the stage after that of c, a record of one that moves.
// Who says it twice, or at two brokers, says the same. It returns as Place does.
func (l *Layout) Advance(ctx context.Context, tenant string, c Cell) error {
	return l.follow(ctx, tenant, c, c.next())
}

// Return says that a tenant that was Leaving by the record c stays in its partitions. As for
// Advance all who say something of c must say the same.
func (l *Layout) Return(ctx context.Context, tenant string, c Cell) error {
	return l.follow(ctx, tenant, c, Cell{Partitions: c.Partitions, Revision: c.Revision + 1})
}

// follow writes the record n that follows c, unless one does.
func (l *Layout) follow(ctx context.Context, tenant string, c, n Cell) error {
	if now, _ := l.Cell(tenant); now.Revision > c.Revision {
		return nil
	}
	return l.write(ctx, []metadata.Mutation{l.cells.Put(tenant, n, n.Revision)})
}

// Draw is the list of m partitions that the plan of a tenant gives it, all that are not
// reserved if m is 0, or as many. A list of more has all of one of fewer.
func (l *Layout) Draw(tenant string, m int) []partition.ID {
	if m <= 0 || m >= len(l.drawnFrom) {
		return l.drawnFrom
	}
	return link.Cell(tenant, m, l.drawnFrom)
}
