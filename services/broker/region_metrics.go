// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/services/broker/host"
)

var descPartitions = prometheus.NewDesc("mqtt_broker_partitions",
	"Partitions, by what they are to this broker: serving, in_sync (of those, with as many replicas as they should have), followed, claiming, handing, alarmed (stand still until an operator decides), unowned (of nobody, as far as it knows).",
	[]string{"state"}, nil)

// partitionCollector reads the replicas of a broker of a cluster.
type partitionCollector struct{ host *host.Host }

// Describe implements prometheus.Collector.
func (c partitionCollector) Describe(ch chan<- *prometheus.Desc) { ch <- descPartitions }

// Collect implements prometheus.Collector.
func (c partitionCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.host.Stats()
	for state, n := range map[string]int{
		"serving": s.Serving, "in_sync": s.InSync, "followed": s.Followed, "claiming": s.Claiming,
		"handing": s.Handing, "alarmed": s.Alarmed, "unowned": s.Unowned,
	} {
		ch <- prometheus.MustNewConstMetric(descPartitions, prometheus.GaugeValue, float64(n), state)
	}
}
