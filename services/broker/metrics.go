// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/services/broker/shard"
)

// The broker's metrics. docs/metrics.md is made from this table.
var (
	descIn       = prometheus.NewDesc("mqtt_broker_publishes_received_total", "Publishes taken from gateways.", nil, nil)
	descOut      = prometheus.NewDesc("mqtt_broker_deliveries_total", "Deliveries handed to gateways.", nil, nil)
	descMatches  = prometheus.NewDesc("mqtt_broker_router_matches_total", "Sessions that publishes were routed to.", nil, nil)
	descQoS0     = prometheus.NewDesc("mqtt_broker_unhandled_total", "QoS 0 messages for sessions without a connection.", nil, nil)
	descDropped  = prometheus.NewDesc("mqtt_broker_dropped_total", "Messages that a session will not get, by reason.", []string{"reason"}, nil)
	descTaken    = prometheus.NewDesc("mqtt_broker_takeovers_total", "Connections closed because another one brought the same client identifier.", nil, nil)
	descRefused  = prometheus.NewDesc("mqtt_broker_refused_total", "Connections and subscriptions refused by quota.", []string{"what"}, nil)
	descRedeliv  = prometheus.NewDesc("mqtt_broker_shared_redelivered_total", "Messages of shared subscriptions given to another member.", nil, nil)
	descStuck    = prometheus.NewDesc("mqtt_broker_shared_stuck_total", "Members of shared subscriptions disconnected because they did not acknowledge within shared_member_timeout.", nil, nil)
	descMoved    = prometheus.NewDesc("mqtt_broker_moved_connections_total", "Connections of clients whose partition has moved as planned, by outcome: resumed here, refused here since the session did not wait for them, unquiet: closed by the broker that it moved from, since they could not go on elsewhere.", []string{"outcome"}, nil)
	descHanded   = prometheus.NewDesc("mqtt_broker_handed_total", "What was handed to other partitions because its tenant goes there (tenant place): sessions, retained messages.", []string{"what"}, nil)
	descUnwrit   = prometheus.NewDesc("mqtt_broker_unwritten_total", "QoS 1 deliveries to persistent sessions that were over before they had to be written.", nil, nil)
	descPaced    = prometheus.NewDesc("mqtt_broker_retained_paced_total", "Times that a session that had subscribed was made to wait for more of the retained messages that match (quota retained_subscribe).", nil, nil)
	descGroups   = prometheus.NewDesc("mqtt_broker_commit_groups_total", "Group commits written to the store.", nil, nil)
	descBatches  = prometheus.NewDesc("mqtt_broker_commit_batches_total", "Batches of shards in those group commits.", nil, nil)
	descFailing  = prometheus.NewDesc("mqtt_broker_store_failing", "1 while the store refuses writes.", nil, nil)
	descConns    = prometheus.NewDesc("mqtt_broker_connections", "Open channels, by tenant.", []string{"tenant"}, nil)
	descSessions = prometheus.NewDesc("mqtt_broker_sessions", "Sessions with an expiry, by tenant.", []string{"tenant"}, nil)
	descSubs     = prometheus.NewDesc("mqtt_broker_subscriptions", "Subscriptions, by tenant.", []string{"tenant"}, nil)
	descQueue    = prometheus.NewDesc("mqtt_broker_queue_messages", "Messages that wait for sessions, by tenant.", []string{"tenant"}, nil)
	descQueueB   = prometheus.NewDesc("mqtt_broker_queue_bytes", "Bytes that wait for sessions, by tenant.", []string{"tenant"}, nil)
	descRetained = prometheus.NewDesc("mqtt_broker_retained_messages", "Retained messages, by tenant.", []string{"tenant"}, nil)
	descLoad     = prometheus.NewDesc("mqtt_broker_load_level", "How overloaded the node is: 0 calm, 1 slow, 2 refuse, 3 shed (docs/overload.md).", nil, nil)
	descTenant   = prometheus.NewDesc("mqtt_broker_tenant_messages_total", "What became of a tenant's messages, by outcome: received from its clients, own (wills and $SYS, published by the broker), unmatched by any subscription; and of deliveries: sent, unhandled (for a session that is gone, or at QoS 0 without a connection), or the reason of mqtt_broker_dropped_total; queued counts those that had to wait.", []string{"tenant", "outcome"}, nil)
	descRetainB  = prometheus.NewDesc("mqtt_broker_retained_bytes", "Bytes of retained messages, by tenant.", []string{"tenant"}, nil)
)

// Descriptions are all metrics of the broker, for the documentation.
func Descriptions() []*prometheus.Desc { return append(ownDescriptions(), descPartitions) }

// ownDescriptions are those that every broker has, of a cluster or alone.
func ownDescriptions() []*prometheus.Desc {
	return append([]*prometheus.Desc{
		descIn, descOut, descMatches, descQoS0, descDropped, descTaken, descRefused, descRedeliv, descStuck, descMoved, descHanded, descUnwrit, descPaced, descGroups,
		descBatches, descFailing, descConns, descSessions, descSubs, descQueue, descQueueB, descRetained, descRetainB,
		descLoad, descTenant,
	}, netsplitDescriptions()...)
}

// collector reads the shards' counters when it is asked: the data path counts
// without looking a metric up.
type collector struct{ set *shard.Set }

func register(reg prometheus.Registerer, b *Broker) error {
	if reg == nil {
		return nil
	}
	if err := reg.Register(collector{b.shards}); err != nil {
		return err
	}
	return reg.Register(clusterCollector{b.desk})
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range ownDescriptions() {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	var in, out, matches, unhandled, taken, refused, subs, moved, stuck, unwritten, paced, resumed, unresumed, unquiet, handed, handedRetained uint64
	drops := map[string]uint64{}
	c.set.Stats(func(s *shard.Stats) {
		in += s.QueueIn.Load()
		out += s.QueueOut.Load()
		matches += s.Matches.Load()
		unhandled += s.Unhandled.Load()
		taken += s.TakeOvers.Load()
		refused += s.Refused.Load()
		subs += s.SubscribeRefused.Load()
		moved += s.Redelivered.Load()
		stuck += s.Stuck.Load()
		unwritten += s.Unwritten.Load()
		paced += s.Paced.Load()
		resumed += s.Resumed.Load()
		unresumed += s.Unresumed.Load()
		unquiet += s.Unquiet.Load()
		handed += s.Handed.Load()
		handedRetained += s.HandedRetained.Load()
		s.Drops(func(reason string, n uint64) { drops[reason] += n })
	})
	counter(descIn, in)
	counter(descOut, out)
	counter(descMatches, matches)
	counter(descQoS0, unhandled)
	counter(descTaken, taken)
	counter(descRefused, refused, "connection")
	counter(descRefused, subs, "subscription")
	counter(descRedeliv, moved)
	counter(descStuck, stuck)
	counter(descUnwrit, unwritten)
	counter(descPaced, paced)
	counter(descMoved, resumed, "resumed")
	counter(descMoved, unresumed, "refused")
	counter(descMoved, unquiet, "unquiet")
	counter(descHanded, handed, "sessions")
	counter(descHanded, handedRetained, "retained")
	for reason, n := range drops {
		counter(descDropped, n, reason)
	}
	groups, batches := c.set.Commits()
	counter(descGroups, groups)
	counter(descBatches, batches)
	failing := int64(0)
	if c.set.Failing() {
		failing = 1
	}
	gauge(descFailing, failing)
	gauge(descLoad, int64(c.set.Load()))
	c.collectNetsplit(ch)
	c.set.Tenants(func(id string, t *shard.Tenant) {
		u := t.Usage()
		n := t.Counts()
		counter(descTenant, n.Received, id, "received")
		counter(descTenant, n.Sent, id, "sent")
		counter(descTenant, n.Queued, id, "queued")
		counter(descTenant, n.Unhandled, id, "unhandled")
		counter(descTenant, n.Unmatched, id, "unmatched")
		counter(descTenant, n.Own, id, "own")
		for reason, dropped := range n.Dropped {
			counter(descTenant, dropped, id, reason)
		}
		gauge(descConns, u.Connections, id)
		gauge(descSessions, u.PersistentSessions, id)
		gauge(descSubs, u.Subscriptions, id)
		gauge(descQueue, u.QueueMessages, id)
		gauge(descQueueB, u.QueueBytes, id)
		gauge(descRetained, u.Retained, id)
		gauge(descRetainB, u.RetainedBytes, id)
	})
}
