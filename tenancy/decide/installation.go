// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"context"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
	"github.com/manormq/manor/tenancy/store"
)

// InstallationMetrics is the table of an Installation's metrics.
func InstallationMetrics() []telemetry.Metric {
	return []telemetry.Metric{
		{
			Name: "manor_installation_policy_total", Kind: telemetry.Counter, Labels: []string{"entry", "answer"},
			Help: "Questions to the installation's policy: quota.limits (answered, failed: the tenant keeps the limits that it has) and admission.deny (allowed, denied, failed: the change is refused).",
		},
		{
			Name: "manor_installation_policy_broken", Kind: telemetry.Gauge,
			Help: "1 while the files of the installation's policy are not what is followed, because they do not compile or their tests fail.",
		},
	}
}

// InstallationConfig says what an Installation stands on.
type InstallationConfig struct {
	// Dir is the folder with the files; empty has no policy.
	Dir string
	Log *slog.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
	// Every is how often the files are looked at; 0 is each second.
	Every time.Duration
}

// Installation follows the operator's own policy: it is read from a folder, and again
// when the files change; files that do not compile change nothing. It is safe for
// concurrent use. Make it with OpenInstallation.
type Installation struct {
	cfg     InstallationConfig
	log     *slog.Logger
	answers *prometheus.CounterVec
	broken  prometheus.Gauge
	live    atomic.Pointer[policy.Installation]
	source  policy.Source // that was looked at last; Run's
	// failed is set when quota.limits has failed for a tenant, which is looked at again.
	failed atomic.Bool
}

// OpenInstallation reads and compiles the policy. The error is Invalid, with the file and
// line, if that cannot be done.
func OpenInstallation(ctx context.Context, cfg InstallationConfig) (*Installation, error) {
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	t := InstallationMetrics()
	i := &Installation{cfg: cfg, log: cfg.Log, answers: t[0].CounterVec(cfg.Registerer), broken: t[1].Gauge(cfg.Registerer)}
	if cfg.Dir == "" {
		return i, nil
	}
	var err error
	if i.source, err = policy.ReadSource(cfg.Dir); err != nil {
		return nil, err
	}
	p, err := policy.CompileInstallation(ctx, i.source)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the installation's policy in %s: %w", cfg.Dir, err)
	}
	i.live.Store(p)
	return i, nil
}

// Limiter is the installation as a store wants it; nil without a policy.
func (i *Installation) Limiter() store.Limiter {
	if i.cfg.Dir == "" {
		return nil
	}
	return i
}

// Limits implements store.Limiter.
func (i *Installation) Limits(ctx context.Context, t *tenancy.TenantRecord, organization string) (map[string]int64, error) {
	p := i.live.Load()
	if p == nil || !p.HasLimits {
		return nil, nil
	}
	limits, err := p.Limits(ctx, t, organization)
	if err != nil {
		i.failed.Store(true)
		i.answers.WithLabelValues("quota.limits", "failed").Inc()
		i.log.Error("quota.limits of the installation's policy has failed: the tenant keeps the limits that it has", "tenant", t.ID, "plan", t.Plan, "error", err)
		return nil, err
	}
	i.answers.WithLabelValues("quota.limits", "answered").Inc()
	return limits, nil
}

// Admits reports whether there is anybody to ask Deny.
func (i *Installation) Admits() bool {
	p := i.live.Load()
	return p != nil && p.HasAdmission
}

// Deny returns why a change is refused; empty lets it through. With an error it must not
// be let through.
func (i *Installation) Deny(ctx context.Context, a *policy.Admission) ([]string, error) {
	p := i.live.Load()
	if p == nil || !p.HasAdmission {
		return nil, nil
	}
	all, err := p.Deny(ctx, a)
	answer := "allowed"
	switch {
	case err != nil:
		answer = "failed"
		i.log.Error("admission.deny of the installation's policy has failed, which refuses the change", "operation", a.Operation, "organization", a.Resource.Organization, "tenant", a.Resource.Tenant, "error", err)
	case len(all) > 0:
		answer = "denied"
		i.log.Warn("a change was refused by the installation's policy", "operation", a.Operation, "organization", a.Resource.Organization, "tenant", a.Resource.Tenant, "actor", a.Actor.ID, "why", all[0])
	}
	i.answers.WithLabelValues("admission.deny", answer).Inc()
	return all, err
}

// Limited is a store whose tenants have what the policy says; see store.Store.LimitAll.
type Limited interface {
	LimitAll(ctx context.Context) (changed int, err error)
}

// sweepAgain is after what time the tenants are looked at again when that has failed, or
// quota.limits has.
const sweepAgain = 30 * time.Second

// Run follows the files until ctx is done, and has the store's tenants have what they say.
func (i *Installation) Run(ctx context.Context, tenants Limited) error {
	again := time.Time{} // at once: somebody may have been away
	tick := time.NewTicker(i.cfg.Every)
	defer tick.Stop()
	for {
		if i.follow(ctx) {
			again = time.Time{}
		}
		if now := time.Now(); !now.Before(again) {
			again = i.sweep(ctx, tenants, now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if i.failed.Load() && time.Until(again) > sweepAgain {
				again = time.Now().Add(sweepAgain)
			}
		}
	}
}

// sweep has all tenants looked at, and returns when to do that again.
func (i *Installation) sweep(ctx context.Context, tenants Limited, now time.Time) time.Time {
	const never = 1000 * time.Hour
	i.failed.Store(false)
	n, err := tenants.LimitAll(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		i.log.Warn("the tenants were not all given the limits that the installation's policy says; they will be", "changed", n, "error", err)
		return now.Add(sweepAgain)
	case n > 0 && i.cfg.Dir == "":
		i.log.Warn("limits that an installation's policy had set were taken away, because this process has none: expected the same policy_dir at every tenancyd of the region", "tenants", n)
	case n > 0:
		i.log.Info("limits of tenants have changed by the installation's policy", "tenants", n)
	}
	return now.Add(never)
}

// follow compiles the files if they have changed, and reports whether another policy is
// live.
func (i *Installation) follow(ctx context.Context) bool {
	if i.cfg.Dir == "" {
		return false
	}
	s, err := policy.ReadSource(i.cfg.Dir)
	if err == nil {
		if maps.Equal(s, i.source) {
			return false
		}
		i.source = s
		var p *policy.Installation
		if p, err = policy.CompileInstallation(ctx, s); err == nil {
			i.live.Store(p)
			i.broken.Set(0)
			i.log.Info("the installation's policy has changed", "files", len(s), "limits", p.HasLimits, "admission", p.HasAdmission)
			return true
		}
	} else {
		if i.source == nil {
			return false // said before
		}
		i.source = nil
	}
	if ctx.Err() == nil {
		i.broken.Set(1)
		i.log.Error("the installation's policy has changed and cannot be followed: the last good one is", "dir", i.cfg.Dir, "error", err)
	}
	return false
}
