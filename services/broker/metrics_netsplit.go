// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/services/broker/shard"
)

// What tenants have who rather go on in a netsplit (docs/operations.md, Netsplits).
var (
	descHandOff      = prometheus.NewDesc("mqtt_broker_hand_off_bytes", "Bytes of messages that were acknowledged and wait for partitions that cannot be reached (allow_publish_during_netsplit), by tenant.", []string{"tenant"}, nil)
	descHandOffs     = prometheus.NewDesc("mqtt_broker_hand_offs_total", "Messages for a partition that could not be reached: acknowledged when they were kept here (kept), made to wait since as much was kept as may be (full).", []string{"outcome"}, nil)
	descGuests       = prometheus.NewDesc("mqtt_broker_guests", "Guest sessions: of clients whose own partition cannot be reached (allow_register_during_netsplit).", nil, nil)
	descGuestsOpened = prometheus.NewDesc("mqtt_broker_guests_opened_total", "Guest sessions that were opened.", nil, nil)
)

func netsplitDescriptions() []*prometheus.Desc {
	return []*prometheus.Desc{descHandOff, descHandOffs, descGuests, descGuestsOpened}
}

func (c collector) collectNetsplit(ch chan<- prometheus.Metric) {
	var kept, full, guests uint64
	c.set.Stats(func(s *shard.Stats) {
		kept += s.HandedOff.Load()
		full += s.HandOffFull.Load()
		guests += s.Guests.Load()
	})
	ch <- prometheus.MustNewConstMetric(descHandOffs, prometheus.CounterValue, float64(kept), "kept")
	ch <- prometheus.MustNewConstMetric(descHandOffs, prometheus.CounterValue, float64(full), "full")
	ch <- prometheus.MustNewConstMetric(descGuestsOpened, prometheus.CounterValue, float64(guests))
	ch <- prometheus.MustNewConstMetric(descGuests, prometheus.GaugeValue, float64(c.set.Guests()))
	c.set.Tenants(func(id string, t *shard.Tenant) {
		ch <- prometheus.MustNewConstMetric(descHandOff, prometheus.GaugeValue, float64(t.HandedOff()), id)
	})
}
