// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"context"
	"encoding/json"
	"log/slog"
	"runtime"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/fair"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
	"github.com/manormq/manor/tenancy/store"
)

// candidatesKept is how many compiled revisions are kept, of a megabyte or so each; the
// others are compiled again when they are needed.
const candidatesKept = 200

// arrivalsSubject is where it is told what mqtt.connect has said, to all tenancyds.
const arrivalsSubject = "policy.arrivals"

// Config says what a Service stands on.
type Config struct {
	Store *store.Store
	Log   *slog.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Metrics is the table of the service's metrics.
func Metrics() []telemetry.Metric {
	return []telemetry.Metric{
		{
			Name: "manor_policy_connects_total", Kind: telemetry.Counter, Labels: []string{"answer"},
			Help: "Clients of which gateways asked what mqtt.connect says: allowed, denied, or failed, which denies too.",
		},
		{
			Name: "manor_policy_connect_seconds", Kind: telemetry.Histogram, Help: "Time to answer that, in seconds.",
			Buckets: []float64{0.0002, 0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 2},
		},
		{
			Name: "manor_policy_checks_total", Kind: telemetry.Counter, Labels: []string{"answer"},
			Help: "Publishes and subscriptions of which gateways asked what mqtt.check says: allowed, denied, or failed, which denies too.",
		},
	}
}

// Service follows tenants' policies. It is safe for concurrent use. Make it with New.
type Service struct {
	cfg     Config
	bus     bus.Bus
	log     *slog.Logger
	stored  *lru.Cache[string, *Candidate] // by tenant and revision
	loads   singleflight.Group
	answers *prometheus.CounterVec
	checks  *prometheus.CounterVec
	seconds prometheus.Observer
	// turns bounds how many policies are compiled and tested at once, a quarter of them of one
	// tenant. Who wants one has one of its organization first, of which an organization has
	// half.
	turns, organizations *fair.Turns

	mu       sync.Mutex
	recorded *lru.Cache[string, *record] // by tenant; guarded by mu

	// checking are the turns to have mqtt.check evaluated, connecting those of mqtt.connect: as
	// many as there are processors, half of them one tenant's at most, so that a policy that
	// works long keeps its own tenant waiting.
	checking, connecting *fair.Turns
	// checkWarned is when the log had the last line about a tenant's mqtt.check.
	checkWarned *lru.Cache[string, time.Time]
	rests       *rests
}

// evaluationsOfTenant is how many of a tenant go on at once.
func evaluationsOfTenant() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// New returns a Service that answers gateways while Run runs.
func New(cfg Config) (*Service, error) {
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	t := Metrics()
	atOnce := max(runtime.GOMAXPROCS(0), 2)
	compiling := max(runtime.GOMAXPROCS(0), 4)
	s := &Service{
		cfg: cfg, bus: cfg.Store.Bus(), log: cfg.Log, turns: fair.NewTurns(compiling, compiling/4), organizations: fair.NewTurns(compiling, compiling/2), checking: fair.NewTurns(atOnce, evaluationsOfTenant()), connecting: fair.NewTurns(atOnce, evaluationsOfTenant()),
		answers: t[0].CounterVec(cfg.Registerer), seconds: t[1].HistogramVec(cfg.Registerer).WithLabelValues(), checks: t[2].CounterVec(cfg.Registerer),
	}
	var err error
	if s.rests, err = newRests(time.Now); err != nil {
		return nil, err
	}
	if s.stored, err = lru.New[string, *Candidate](candidatesKept); err != nil {
		return nil, errs.New(errs.Internal, "decide: %w", err)
	}
	if s.recorded, err = lru.New[string, *record](tenantsRecorded); err != nil {
		return nil, errs.New(errs.Internal, "decide: %w", err)
	}
	if s.checkWarned, err = lru.New[string, time.Time](tenantsRecorded); err != nil {
		return nil, errs.New(errs.Internal, "decide: %w", err)
	}
	return s, nil
}

// Run answers and listens until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	stop, err := s.bus.Serve(tenancy.ConnectSubject, s.connect)
	if err != nil {
		return err
	}
	defer stop()
	end, err := s.bus.Serve(tenancy.CheckSubject, s.check)
	if err != nil {
		return err
	}
	defer end()
	deaf, err := s.bus.Subscribe(tenancy.DecisionsSubject, func(_ string, body []byte) { s.heard(ctx, body) })
	if err != nil {
		return err
	}
	defer deaf()
	deafer, err := s.bus.Subscribe(arrivalsSubject, func(_ string, body []byte) { s.arrived(ctx, body) })
	if err != nil {
		return err
	}
	defer deafer()
	<-ctx.Done()
	return nil
}

// Compile compiles a policy under the tenant's quotas, and the grants of each of its
// classes. The errors are those of policy.Compile and Program.Grants.
func (s *Service) Compile(ctx context.Context, t *tenancy.TenantRecord, files policy.Source) (*policy.Program, []*tenancy.GrantSet, error) {
	limits, err := t.Limits()
	if err != nil {
		return nil, nil, err
	}
	end, err := s.turn(ctx, t)
	if err != nil {
		return nil, nil, errs.New(errs.Unavailable, "too many policies are being compiled: %w", err)
	}
	defer end()
	p, err := policy.Compile(ctx, files, policy.LimitsOf(&limits))
	if err != nil {
		return nil, nil, err
	}
	var sets []*tenancy.GrantSet
	for _, class := range p.Classes {
		set, err := p.Grants(ctx, inputOf(t), class)
		if err != nil {
			return nil, nil, err
		}
		sets = append(sets, set)
	}
	return p, sets, nil
}

// Test runs the tests of a tenant's policy, which has been compiled.
func (s *Service) Test(ctx context.Context, t *tenancy.TenantRecord, p *policy.Program) (*policy.Report, error) {
	end, err := s.turn(ctx, t)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "too many policies are being tested: %w", err)
	}
	defer end()
	return p.Test(ctx)
}

// turn waits for the turn of a tenant to have a policy compiled or tested, which lasts as
// long as that does, whoever waits for it.
func (s *Service) turn(ctx context.Context, t *tenancy.TenantRecord) (end func(), err error) {
	whose := "organization." + t.Organization
	if t.Organization == "" {
		whose = "tenant." + t.ID
	}
	left, err := s.organizations.Take(ctx, whose)
	if err != nil {
		return nil, err
	}
	done, err := s.turns.Take(ctx, t.ID)
	if err != nil {
		left()
		return nil, err
	}
	return func() {
		done()
		left()
	}, nil
}

func inputOf(t *tenancy.TenantRecord) policy.TenantInput {
	return policy.TenantInput{ID: t.ID, Plan: t.Plan}
}

// connect answers a tenancy.ConnectQuestion.
func (s *Service) connect(ctx context.Context, body []byte) ([]byte, error) {
	timer := prometheus.NewTimer(s.seconds)
	defer timer.ObserveDuration()
	var q tenancy.ConnectQuestion
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, errs.New(errs.Invalid, "expected a question about a client: %w", err)
	}
	a, err := s.admit(ctx, &q)
	if errs.Is(err, errs.Unavailable) {
		return nil, err // the gateway may know
	}
	answer := "allowed"
	switch {
	case err != nil:
		a = tenancy.ConnectAnswer{Why: err.Error()}
		answer = "failed"
	case a.Why != "":
		answer = "failed"
	case !a.Allow:
		answer = "denied"
	}
	s.answers.WithLabelValues(answer).Inc()
	if answer == "failed" {
		s.log.Warn("a tenant's policy has failed, which denies", "tenant", q.Tenant, "revision", q.Revision, "client_id", q.Arrival.Client.ClientID, "why", a.Why)
	}
	if b, err := json.Marshal(arrival{Tenant: q.Tenant, Arrival: q.Arrival, Answer: a}); err == nil {
		_ = s.bus.Publish(ctx, arrivalsSubject, b) // what is lost is not recorded
	}
	return json.Marshal(a)
}

func (s *Service) admit(ctx context.Context, q *tenancy.ConnectQuestion) (tenancy.ConnectAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, tenancy.ConnectTime) // no gateway waits longer
	defer cancel()
	if why := s.rests.why(q.Tenant); why != "" {
		return tenancy.ConnectAnswer{Why: "mqtt.connect: " + why}, nil
	}
	end, err := s.connecting.Take(ctx, q.Tenant)
	if err != nil {
		return tenancy.ConnectAnswer{}, errs.New(errs.Unavailable, "the policy of tenant %s is being asked %d times already: %w", q.Tenant, evaluationsOfTenant(), err)
	}
	defer end()
	t, err := s.cfg.Store.Tenant(ctx, q.Tenant)
	if err != nil {
		return tenancy.ConnectAnswer{}, err
	}
	c, err := s.Kept(ctx, t, q.Revision)
	if err != nil {
		return tenancy.ConnectAnswer{}, err
	}
	defer s.rests.watch(q.Tenant, c.program.Patience())()
	return c.program.Admit(ctx, c.tenant, &q.Arrival), nil
}
