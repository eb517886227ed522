// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/services/broker/host"
	"github.com/manormq/manor/services/broker/member"
	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/routes"
)

// The metrics of a broker as one of a cluster; those that VerneMQ has too have its
// names and its label node. A broker that is alone has them at 0.
var (
	descLocal    = prometheus.NewDesc("vernemq_router_matches_local", "Deliveries to sessions of this broker.", []string{"node"}, nil)
	descRemote   = prometheus.NewDesc("vernemq_router_matches_remote", "Messages sent to other brokers, each once whoever it is for there.", []string{"node"}, nil)
	descSent     = prometheus.NewDesc("vernemq_cluster_bytes_sent", "Bytes sent to other brokers, inside TLS.", []string{"node"}, nil)
	descReceived = prometheus.NewDesc("vernemq_cluster_bytes_received", "Bytes received from other brokers, inside TLS.", []string{"node"}, nil)
	descCut      = prometheus.NewDesc("vernemq_cluster_bytes_dropped", "Bytes for other brokers that were refused or lost, at QoS 0.", []string{"node"}, nil)
	descSplit    = prometheus.NewDesc("vernemq_netsplit_detected", "Times that a member was not reached any more while all were before.", []string{"node"}, nil)
	descHealed   = prometheus.NewDesc("vernemq_netsplit_resolved", "Times that all members were reached again.", []string{"node"}, nil)
	descObjects  = prometheus.NewDesc("vernemq_swc_object_count", "Objects of the replicated metadata.", []string{"node"}, nil)
	descTombs    = prometheus.NewDesc("vernemq_swc_tombstone_count", "Deleted objects of the replicated metadata that must be remembered yet.", []string{"node"}, nil)

	descDots       = prometheus.NewDesc("mqtt_broker_metadata_dots", "Writes to the replicated metadata that not all members are known to have.", nil, nil)
	descPartitions = prometheus.NewDesc("mqtt_broker_partitions", "Partitions by what this broker has of them: serving; in_sync, those of them with as many replicas in sync as they should have; followed; claiming, owned and not served yet; handing, on the move; alarmed, an operator must decide; unowned, without an entry.", []string{"state"}, nil)
	descMembers    = prometheus.NewDesc("mqtt_broker_members", "Brokers of the cluster, this one included, by state as this one sees it.", []string{"state"}, nil)
	descBus        = prometheus.NewDesc("mqtt_broker_bus_up", "1 while the control plane is reached; without it nothing fails over or moves.", nil, nil)
	descBusAge     = prometheus.NewDesc("mqtt_broker_bus_age_seconds", "How old what this broker knows of the partition table is: below 5 while the control plane is there, -1 if it was never reached; 0 of a broker that is alone.", nil, nil)
	descAppends    = prometheus.NewDesc("mqtt_broker_partition_appends_total", "Batches appended to the logs of partitions that are served here, by outcome: taken, committed.", []string{"outcome"}, nil)
	descProposals  = prometheus.NewDesc("mqtt_broker_partition_proposals_total", "Changes of the partition table that this broker proposed.", nil, nil)
	descAlarms     = prometheus.NewDesc("mqtt_broker_partition_alarms_total", "Things of partitions that needed an operator; the log has them.", nil, nil)
	descCopied     = prometheus.NewDesc("mqtt_broker_partition_sent_total", "What followers were sent to catch up: snapshots, and pieces of them and of the log.", []string{"what"}, nil)
	descRoutes     = prometheus.NewDesc("mqtt_broker_routes", "Keys of the replicated routes.", nil, nil)
	descRoutesWait = prometheus.NewDesc("mqtt_broker_routes_pending", "Keys of routes that wait to be written.", nil, nil)
	descCells      = prometheus.NewDesc("mqtt_broker_cells", "Tenants with a record of their partitions, by who said it: plan or operator.", []string{"by"}, nil)
	descMoving     = prometheus.NewDesc("mqtt_broker_tenants_moving", "Tenants on their way to other partitions, whose clients wait (tenant place).", nil, nil)
	descRequests   = prometheus.NewDesc("mqtt_broker_cluster_requests_total", "Messages for other brokers, by what became of them: sent, refused because too much waited, lost with the link at QoS 0.", []string{"outcome"}, nil)
)

// ClusterDescriptions are the metrics of a broker as one of a cluster.
func ClusterDescriptions() []*prometheus.Desc {
	return []*prometheus.Desc{
		descLocal, descRemote, descSent, descReceived, descCut, descSplit, descHealed, descObjects, descTombs,
		descDots, descPartitions, descMembers, descBus, descBusAge, descAppends, descProposals, descAlarms, descCopied, descRoutes, descRoutesWait, descCells, descMoving, descRequests,
	}
}

// clusterCollector reads the counters when it is asked.
type clusterCollector struct{ desk *desk }

// Describe implements prometheus.Collector.
func (clusterCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range ClusterDescriptions() {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c clusterCollector) Collect(ch chan<- prometheus.Metric) {
	d := c.desk
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		send(d, prometheus.GaugeValue, float64(v), labels...)
	}
	var (
		replicas                              host.Stats
		meta                                  metadata.Stats
		keys                                  routes.Stats
		enqueued, full, lost, dropped         uint64
		sent, received, splits, healed, local uint64
	)
	states := map[member.State]int{member.Alive: 1}
	busUp, cells, placed, moving := true, 0, 0, 0
	if r := d.region; r != nil {
		cells, placed = r.layout.Count()
		moving = len(r.layout.Moving())
		replicas, meta, keys = r.replicas(), r.meta.Stats(), r.routes.Stats()
		s := r.mesh.Stats()
		enqueued, full, lost, dropped = s.Enqueued.Load(), s.Full.Load(), s.Lost.Load(), s.Dropped.Load()
		sent, received = r.mesh.Traffic()
		splits, healed = r.splits.counts()
		snapshot := r.members.Snapshot()
		states, busUp = map[member.State]int{}, snapshot.BusUp
		for _, m := range snapshot.Members {
			states[m.State]++
		}
	} else {
		replicas.Serving, replicas.InSync = d.config.Partitions, d.config.Partitions
	}
	local = d.matches()
	counter(descLocal, local, d.name)
	counter(descRemote, enqueued, d.name)
	counter(descSent, sent, d.name)
	counter(descReceived, received, d.name)
	counter(descCut, dropped, d.name)
	counter(descSplit, splits, d.name)
	counter(descHealed, healed, d.name)
	gauge(descObjects, meta.Objects, d.name)
	gauge(descTombs, meta.Tombstones, d.name)
	gauge(descDots, meta.Dots)
	for _, x := range []struct {
		state string
		n     int
	}{
		{"serving", replicas.Serving},
		{"in_sync", replicas.InSync},
		{"followed", replicas.Followed},
		{"claiming", replicas.Claiming},
		{"handing", replicas.Handing},
		{"alarmed", replicas.Alarmed},
		{"unowned", replicas.Unowned},
	} {
		gauge(descPartitions, x.n, x.state)
	}
	for _, s := range []member.State{member.Alive, member.Suspected, member.Down} {
		gauge(descMembers, states[s], s.String())
	}
	up := 0
	if busUp {
		up = 1
	}
	gauge(descBus, up)
	send(descBusAge, prometheus.GaugeValue, d.region.age())
	counter(descAppends, replicas.Appends, "taken")
	counter(descAppends, replicas.Committed, "committed")
	counter(descProposals, replicas.Proposals)
	counter(descAlarms, replicas.Alarms)
	counter(descCopied, replicas.Snapshots, "snapshots")
	counter(descCopied, replicas.Pieces, "pieces")
	gauge(descRoutes, keys.Keys)
	gauge(descRoutesWait, keys.Pending)
	gauge(descCells, cells-placed, "plan")
	gauge(descCells, placed, "operator")
	gauge(descMoving, moving)
	counter(descRequests, enqueued, "sent")
	counter(descRequests, full, "refused")
	counter(descRequests, lost, "lost")
}
