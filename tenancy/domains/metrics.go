// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
)

// Metrics is the table of the service's metrics.
func Metrics() []telemetry.Metric {
	return []telemetry.Metric{
		{Name: "manor_domains", Kind: telemetry.Gauge, Labels: []string{"state"}, Help: "Custom domains by state: pending, verified, active, failed."},
		{
			Name: "manor_domain_certificates_total", Kind: telemetry.Counter, Labels: []string{"source", "result"},
			Help: "Certificates of custom domains by source, acme or uploaded, and result: issued, or failed, which is tried again.",
		},
		{
			Name: "manor_domain_certificate_expiry_timestamp_seconds", Kind: telemetry.Gauge,
			Help: "When the certificate of a custom domain ends that is the first to do so, in seconds since 1970; 0 without any. (value - time()) / 86400 is the days that are left.",
		},
	}
}

type metrics struct {
	domains      *prometheus.GaugeVec
	certificates *prometheus.CounterVec
	expiry       prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	t := Metrics()
	return metrics{t[0].GaugeVec(r), t[1].CounterVec(r), t[2].GaugeVec(r).WithLabelValues()}
}

// show counts all domains. Its caller keeps them from changing.
func (m *metrics) show(all map[string]*tenancy.Domain) {
	n := map[tenancy.DomainState]int{}
	var first time.Time
	for _, d := range all {
		n[d.State]++
		if !d.NotAfter.IsZero() && (first.IsZero() || d.NotAfter.Before(first)) {
			first = d.NotAfter
		}
	}
	for _, state := range []tenancy.DomainState{tenancy.DomainPending, tenancy.DomainVerified, tenancy.DomainActive, tenancy.DomainFailed} {
		m.domains.WithLabelValues(string(state)).Set(float64(n[state]))
	}
	at := 0.0
	if !first.IsZero() {
		at = float64(first.Unix())
	}
	m.expiry.Set(at)
}
