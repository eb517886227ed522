// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/telemetry"
)

// Metrics is the table of the API's metrics.
func Metrics() []telemetry.Metric {
	return []telemetry.Metric{
		{Name: "manor_api_requests_total", Kind: telemetry.Counter, Help: "Answered API requests.", Labels: []string{"operation", "status"}},
		{
			Name: "manor_api_request_seconds", Kind: telemetry.Histogram, Help: "Time to answer an API request, in seconds.",
			Labels: []string{"operation"}, Buckets: []float64{0.001, 0.005, 0.02, 0.1, 0.5, 2, 10},
		},
	}
}

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	t := Metrics()
	return metrics{requests: t[0].CounterVec(r), seconds: t[1].HistogramVec(r)}
}

// measure is a huma middleware.
func (s *Server) measure(ctx huma.Context, next func(huma.Context)) {
	begin := time.Now()
	next(ctx)
	id := ctx.Operation().OperationID
	s.metrics.requests.WithLabelValues(id, strconv.Itoa(ownStatus(ctx.Status()))).Inc()
	s.metrics.seconds.WithLabelValues(id).Observe(time.Since(begin).Seconds())
}
