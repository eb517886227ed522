// SPDX-License-Identifier: Apache-2.0

// Package cells has the cell of a tenant grow when its plan has more partitions than it was
// made with (docs/adr/0057). It asks a broker, whose record says where sessions are; that of
// the tenant (tenancy.TenantRecord.Partitions) stays as it is. Any number of processes may run
// a Service: one cell of the region grows at a time, by a lock that they have in common. A cell
// never shrinks, and that of an operator is left alone. Run owns its goroutines.
package cells

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/lease"
	"github.com/manormq/manor/tenancy/store"
)

const (
	// askTime is for how long a broker is waited for. Its growing of a cell takes up to 20 s,
	// in which the tenant's clients wait.
	askTime = 30 * time.Second
	// lookAgain is when a cell is looked at again that has what it is to have, or is an
	// operator's: it may be given back to its plan.
	lookAgain = 15 * time.Minute
	// waveRest is the pause between two waves of a tenant, in which its clients send and get
	// what has waited.
	waveRest = 5 * time.Second
	// againAfter is when the bus is asked again that was away.
	againAfter = 5 * time.Second
	// lockName is the lock of who has a cell grow.
	lockName = "growth"
)

// backoff is how long after the nth failure in a row a cell is tried again; the last holds
// for all others.
var backoff = []time.Duration{5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute}

func wait(failures int) time.Duration { return backoff[max(0, min(failures, len(backoff))-1)] }

// Brokers is the way to the brokers: *dataplane.Plane, or its like in tests.
type Brokers interface {
	// Query asks; the error may be of any kind. See link.QueryCell.
	Query(ctx context.Context, q link.Query) (*link.Answer, error)
}

// Config says what a Service stands on.
type Config struct {
	Store   *store.Store
	Brokers Brokers
	Log     *slog.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
	// LockLife is for how long the lock of a process that is gone stands; 0 means
	// lease.DefaultLife.
	LockLife time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Metrics is the table of the service's metrics.
func Metrics() []telemetry.Metric {
	return []telemetry.Metric{
		{
			Name: "manor_cells", Kind: telemetry.Gauge, Labels: []string{"state"},
			Help: "Cells of tenants whose plan has more partitions than they were made with, as this process sees them, by state: grown; waiting, to grow, for what GET /v1/tenants/{tenant} says in cell.waits; placed, by an operator, and left alone.",
		},
		{
			Name: "manor_cell_growths_total", Kind: telemetry.Counter, Labels: []string{"result"},
			Help: "Times that a cell was to grow, by result: grown, by one partition at least, or failed, which is tried again.",
		},
	}
}

// The states of a cell, as in the metric.
const (
	stateGrown   = "grown"
	stateWaiting = "waiting"
	statePlaced  = "placed"
)

// Service has cells grow. Make it with New; Run is called once.
type Service struct {
	cfg     Config
	worker  *lease.Worker[cell] // of those that are to grow or have grown, by tenant
	states  *prometheus.GaugeVec
	results *prometheus.CounterVec
}

// cell is one that is to grow, or has.
type cell struct {
	// wanted and made are what the plan has now and had when the tenant was made, 0 for all.
	wanted, made int
	failures     int
	state        string
}

// New returns a Service that works while Run runs. The error is the bus's.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	locks, err := cfg.Store.Bus().Bucket(ctx, bus.BucketConfig{Name: "cell_locks"})
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "open the lock of cells: %w", err)
	}
	t := Metrics()
	s := &Service{cfg: cfg, states: t[0].GaugeVec(cfg.Registerer), results: t[1].CounterVec(cfg.Registerer)}
	s.worker = lease.NewWorker(lease.WorkerConfig[cell]{
		Leases: lease.New(lease.Config{Bucket: locks, Log: cfg.Log, Life: cfg.LockLife, Now: cfg.Now}),
		Name:   "growth of cells", Lock: func(string) string { return lockName },
		Watch: func(ctx context.Context) error { return cfg.Store.WatchTenants(ctx, s.told) },
		See:   s.see, Show: s.show, Log: cfg.Log, Now: cfg.Now,
	})
	for _, result := range []string{"grown", "failed"} {
		s.results.WithLabelValues(result)
	}
	return s, nil
}

// told is what the store says of a tenant.
func (s *Service) told(id string, t *tenancy.TenantRecord) {
	n := 0
	if t != nil {
		n = t.Grows()
	}
	s.worker.Edit(id, func(c *lease.Item[cell], known bool) bool {
		switch {
		case n == 0: // what is known of it is forgotten by see
			c.Value.wanted, c.Due = 0, time.Time{}
			return known
		case c.Value.wanted != n:
			*c = lease.Item[cell]{Value: cell{wanted: n, made: t.Partitions, state: stateWaiting}}
		}
		return true
	})
}
