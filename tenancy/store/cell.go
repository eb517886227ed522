// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Cell is how far the cell of a tenant has grown, as tenancy/cells has seen it last. It says
// nothing of where sessions are: the brokers' record does. It is a plain value.
type Cell struct {
	// Wanted is how many partitions the plan has, Has in how many the tenant lives.
	Wanted int `json:"wanted"`
	Has    int `json:"has"`
	// Waits is why the cell has not grown to what is wanted; empty if it has.
	Waits string `json:"waits,omitempty"`
	// Problem is what the brokers have said to that, in the words of operators; Waits is for
	// tenants.
	Problem string `json:"problem,omitempty"`
	// Since is when one of the others changed last.
	Since time.Time `json:"since"`
}

// Cell returns how far the cell of a tenant has grown; nil of one that had nothing to grow by.
func (s *Store) Cell(ctx context.Context, tenant string) (*Cell, error) {
	e, err := s.cells.Get(ctx, tenant)
	if errs.Is(err, errs.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c := &Cell{}
	if err := json.Unmarshal(e.Value, c); err != nil {
		return nil, errs.New(errs.Internal, "stored cell of %s: %w", tenant, err)
	}
	return c, nil
}

// PutCell keeps how far the cell of a tenant has grown; nil forgets it. The last one to write
// has the word.
func (s *Store) PutCell(ctx context.Context, tenant string, c *Cell) error {
	if c == nil {
		if err := s.cells.Delete(ctx, tenant, bus.Any); err != nil && !errs.Is(err, errs.NotFound) {
			return err
		}
		return nil
	}
	_, err := put(ctx, s.cells, tenant, c, bus.Any)
	return err
}

// CellTenants are the ids of the tenants that have a Cell, in no order, whether there are such
// tenants or not.
func (s *Store) CellTenants(ctx context.Context) ([]string, error) { return s.cells.Keys(ctx, "") }

// Plan is a change of a tenant for ChangeTenant: another plan. Its overrides stay, and so does
// Partitions, by which gateways find its sessions until brokers say otherwise; tenancy/cells has
// its cell grow. The error is Invalid if there is no such plan.
func Plan(name string) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		if _, err := tenancy.PlanByName(name); err != nil {
			return err
		}
		r.Plan = name
		return nil
	}
}
