// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// waits are the runtime's histograms of how long goroutines wait for a processor
// and how long garbage collection stops all of them; of that, stopping is how
// long the last one took to stop.
var waits = regexp.MustCompile(`^/sched/(latencies|pauses/(total|stopping)/gc):seconds$`)

// NewRegistry returns a registry that already has the Go runtime's and the
// process's own metrics, and manor_build_info with role and version.
func NewRegistry(role, version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: waits})),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "manor_build_info",
		Help:        "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"role": role, "version": version},
	})
	info.Set(1)
	r.MustRegister(info)
	return r
}

// MetricKind is what a metric does over time.
type MetricKind string

// The kinds of metric.
const (
	Counter   MetricKind = "counter"
	Gauge     MetricKind = "gauge"
	Histogram MetricKind = "histogram"
)

// Metric is one row of a role's table of metrics.
type Metric struct {
	Name string
	Kind MetricKind
	// Help is one sentence with the unit.
	Help   string
	Labels []string
	// Buckets are upper bounds, of a Histogram.
	Buckets []float64
}

// Desc is for a collector that gives the metric itself.
func (m Metric) Desc() *prometheus.Desc { return prometheus.NewDesc(m.Name, m.Help, m.Labels, nil) }

// CounterVec registers the metric, which must be a Counter.
func (m Metric) CounterVec(r prometheus.Registerer) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.Name, Help: m.Help}, m.Labels)
	r.MustRegister(v)
	return v
}

// Counter registers the metric, which must be a Counter without labels.
func (m Metric) Counter(r prometheus.Registerer) prometheus.Counter {
	return m.CounterVec(r).WithLabelValues()
}

// CounterFunc registers the metric as a Counter whose value f knows. f may be
// called concurrently.
func (m Metric) CounterFunc(r prometheus.Registerer, f func() float64) {
	r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: m.Name, Help: m.Help}, f))
}

// GaugeVec registers the metric, which must be a Gauge.
func (m Metric) GaugeVec(r prometheus.Registerer) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: m.Name, Help: m.Help}, m.Labels)
	r.MustRegister(v)
	return v
}

// Gauge registers the metric, which must be a Gauge without labels.
func (m Metric) Gauge(r prometheus.Registerer) prometheus.Gauge {
	return m.GaugeVec(r).WithLabelValues()
}

// GaugeFunc registers the metric as a Gauge whose value f knows. f may be
// called concurrently.
func (m Metric) GaugeFunc(r prometheus.Registerer, f func() float64) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: m.Name, Help: m.Help}, f))
}

// HistogramVec registers the metric, which must be a Histogram.
func (m Metric) HistogramVec(r prometheus.Registerer) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.Name, Help: m.Help, Buckets: m.Buckets}, m.Labels)
	r.MustRegister(v)
	return v
}

// Describe writes a table of metrics as Markdown.
func Describe(w io.Writer, table []Metric) error {
	if _, err := fmt.Fprint(w, "| name | kind | labels | meaning |\n|---|---|---|---|\n"); err != nil {
		return err
	}
	for _, m := range table {
		labels := strings.Join(m.Labels, ", ")
		if labels == "" {
			labels = "-"
		}
		if _, err := fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, labels, m.Help); err != nil {
			return err
		}
	}
	return nil
}
