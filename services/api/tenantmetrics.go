// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"math"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/manormq/manor/infra/telemetry"
)

// metricsType is the text format of Prometheus, 0.0.4.
var metricsType = string(expfmt.NewFormat(expfmt.TypeTextPlain))

type metricsOutput struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

// tenantMetrics are those that a tenant is shown of itself.
var tenantMetrics = [...]telemetry.Metric{
	{Name: "manor_quota_limit", Kind: telemetry.Gauge, Help: "The limit of a quota, +Inf without one.", Labels: []string{"tenant", "quota"}},
	{Name: "manor_quota_usage", Kind: telemetry.Gauge, Help: "How much of a quota is used now; of a rate, in a second lately. Quotas of which that is not known now are left out.", Labels: []string{"tenant", "quota"}},
}

func (s *Server) metricsRoutes() {
	op := operation("get-tenant-metrics", http.MethodGet, "/v1/tenants/{tenant}/metrics", "Tenants", "Get the limits and the usage of a tenant's quotas for Prometheus")
	op.Description = "Have Prometheus scrape it with an API key of the role viewer as `authorization: credentials`. Each scrape counts for `api_rate`."
	op.Responses = map[string]*huma.Response{"200": {Description: "The metrics, in the text format of Prometheus.", Content: map[string]*huma.MediaType{
		"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}},
	}}}
	register(s, op, s.getTenantMetrics)
}

func (s *Server) getTenantMetrics(ctx context.Context, _ *tenantInput) (*metricsOutput, error) {
	t := tenantOf(ctx)
	q, err := s.quotas(ctx, t)
	if err != nil {
		return nil, err
	}
	r := prometheus.NewRegistry()
	limits, usage := tenantMetrics[0].GaugeVec(r), tenantMetrics[1].GaugeVec(r)
	for _, item := range q.Body.Items {
		limit := float64(item.Limit)
		if item.Limit < 0 {
			limit = math.Inf(1)
		}
		limits.WithLabelValues(t.ID, item.Name).Set(limit)
		if item.Usage != nil {
			usage.WithLabelValues(t.ID, item.Name).Set(float64(*item.Usage))
		}
	}
	families, err := r.Gather()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	text := expfmt.NewEncoder(&b, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := text.Encode(f); err != nil {
			return nil, err
		}
	}
	return &metricsOutput{ContentType: metricsType, Body: b.Bytes()}, nil
}
