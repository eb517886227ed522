// SPDX-License-Identifier: Apache-2.0

// Package purge removes all that deleted tenants had when their grace is over (docs/adr/0060):
// at the brokers, which forget it in portions, in the buckets of the store, the domains, and the
// history of events; then it looks whether anything is left, and writes down what it has removed.
// Any number of processes may run a Service: one purges a tenant at a time, by a lock that they
// have in common, and each step can be done again, so that what one leaves undone another ends.
// Run owns its goroutines. It must not know how a broker stores anything.
package purge

import (
	"context"
	"iter"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/lease"
	"github.com/manormq/manor/tenancy/store"
)

const (
	// DefaultSettle is how long after its deletion a tenant is purged at the earliest: longer
	// than a request to the API may take that found the tenant as it was before.
	DefaultSettle = 30 * time.Second
	// askTime is for how long a broker is waited for, which answers within 20 s.
	askTime = 30 * time.Second
	// rest is the pause between two portions that brokers forget, and before the look that
	// finds nothing a second time: what was under way in between has come then.
	rest = 100 * time.Millisecond
	// firstRest and longest are the first pause and the longest between two failures.
	firstRest = 5 * time.Second
	longest   = 5 * time.Minute
	// lookAgain is when tenants that were purged in the last sweepFor are swept again: an
	// import may have gone on for that long.
	lookAgain = time.Hour
	sweepFor  = 24 * time.Hour
)

// Brokers is the way to the brokers: *dataplane.Plane, or its like in tests.
type Brokers interface {
	// Query asks; the error may be of any kind. See link.QueryForget.
	Query(ctx context.Context, q link.Query) (*link.Answer, error)
}

// Domains are custom domains: *domains.Service.
type Domains interface {
	// Purge removes all domains of a tenant with their certificates, and returns how many.
	Purge(ctx context.Context, tenant string) (int64, error)
}

// Events are what has happened to clients: *events.Log.
type Events interface {
	// Forget removes all events of a tenant.
	Forget(ctx context.Context, tenant string) error
}

// Config says what a Service stands on. All but the last four are needed.
type Config struct {
	Store   *store.Store
	Brokers Brokers
	Domains Domains
	Events  Events
	Audit   *audit.Log
	Log     *slog.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
	// Settle is how long after its deletion a tenant is purged at the earliest; 0 means
	// DefaultSettle.
	Settle time.Duration
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
			Name: "manor_tenants_deleted", Kind: telemetry.Gauge, Labels: []string{"state"},
			Help: "Deleted tenants, as this process sees them, by state: waiting, until their grace is over; purging, of which all that they have is being removed.",
		},
		{
			Name: "manor_tenant_purges_total", Kind: telemetry.Counter, Labels: []string{"result"},
			Help: "Times that what a deleted tenant had was to be removed, by result: done, or failed, which is tried again.",
		},
	}
}

// Service purges. Make it with New; Run is called once.
type Service struct {
	cfg     Config
	worker  *lease.Worker[*deleted]
	states  *prometheus.GaugeVec
	results *prometheus.CounterVec
}

// deleted is a tenant that is deleted, as the worker guards it.
type deleted struct {
	purging  bool
	failures int
}

// New returns a Service that works while Run runs. The error is the bus's.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Settle == 0 {
		cfg.Settle = DefaultSettle
	}
	locks, err := cfg.Store.Bus().Bucket(ctx, bus.BucketConfig{Name: "purge_locks"})
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "open the locks of purges: %w", err)
	}
	t := Metrics()
	s := &Service{cfg: cfg, states: t[0].GaugeVec(cfg.Registerer), results: t[1].CounterVec(cfg.Registerer)}
	s.worker = lease.NewWorker(lease.WorkerConfig[*deleted]{
		Leases: lease.New(lease.Config{Bucket: locks, Log: cfg.Log, Life: cfg.LockLife, Now: cfg.Now}),
		Name:   "purge", Lock: func(tenant string) string { return tenant },
		Watch: func(ctx context.Context) error { return cfg.Store.WatchTenants(ctx, s.told) },
		See:   s.see, Show: s.show, Log: cfg.Log, Now: cfg.Now,
	})
	for _, result := range []string{"done", "failed"} {
		s.results.WithLabelValues(result)
	}
	return s, nil
}

// told is what the store says of a tenant.
func (s *Service) told(id string, t *tenancy.TenantRecord) {
	at, is := time.Time{}, false
	if t != nil {
		at, is = t.PurgeDue()
	}
	s.worker.Edit(id, func(x *lease.Item[*deleted], known bool) bool {
		if !is || known && x.Value.purging { // its failures say when
			return is
		}
		if settled := t.Life.Since.Add(s.cfg.Settle); settled.After(at) {
			at = settled
		}
		x.Value, x.Due = &deleted{purging: t.Life.Purging}, at
		return true
	})
}

// show counts all that are known.
func (s *Service) show(all iter.Seq[*deleted]) {
	n := map[bool]float64{}
	for x := range all {
		n[x.purging]++
	}
	s.states.WithLabelValues("waiting").Set(n[false])
	s.states.WithLabelValues("purging").Set(n[true])
}
