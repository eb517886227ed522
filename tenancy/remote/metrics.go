// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/telemetry"
)

// Rows of Metrics.
const (
	mAge = iota
	mLimit
	mCredentials
	mRefusals
)

// Metrics is the table of the directory's metrics.
var Metrics = []telemetry.Metric{
	mAge:         {Name: "mqtt_directory_age_seconds", Kind: telemetry.Gauge, Help: "How old what is known of tenants and credentials is: for how long changes may not have been heard of; -1 if the control plane was never reached. It is below 5 while that is there. Beyond mqtt_directory_limit_seconds nobody is let in."},
	mLimit:       {Name: "mqtt_directory_limit_seconds", Kind: telemetry.Gauge, Help: "For how many seconds without the control plane known clients are let in."},
	mCredentials: {Name: "mqtt_directory_credentials", Kind: telemetry.Gauge, Help: "Credentials that are kept, with which devices are let in without the control plane."},
	mRefusals:    {Name: "mqtt_directory_unanswered_total", Kind: telemetry.Counter, Labels: []string{"about"}, Help: "Look-ups for clients that were refused because the control plane could not be asked, by what was not known: tenant, credential, device, grants, policy (what mqtt.connect says) or keys (of a token's issuer); all: whatever it was, after the limit."},
}

// refusals counts by what was not known.
type refusals [abouts]atomic.Uint64

// Describe implements prometheus.Collector.
func (r *refusals) Describe(out chan<- *prometheus.Desc) { out <- Metrics[mRefusals].Desc() }

// Collect implements prometheus.Collector.
func (r *refusals) Collect(out chan<- prometheus.Metric) {
	desc := Metrics[mRefusals].Desc()
	for about, name := range aboutNames {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(r[about].Load()), name)
	}
}

// Register registers the Metrics.
func (d *Directory) Register(r prometheus.Registerer) {
	Metrics[mAge].GaugeFunc(r, func() float64 {
		contact := d.Contact()
		if contact.IsZero() {
			return -1
		}
		return d.now().Sub(contact).Seconds()
	})
	Metrics[mLimit].GaugeFunc(r, func() float64 { return d.cfg.Keep.Seconds() })
	Metrics[mCredentials].GaugeFunc(r, func() float64 { return float64(d.Kept()) })
	r.MustRegister(&d.refusals)
}
