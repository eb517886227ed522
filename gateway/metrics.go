// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/loop"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/infra/telemetry"
)

// Rows of Metrics.
const (
	mConnections = iota
	mAccepted
	mRefused
	mConnects
	mDisconnects
	mPackets
	mDeliveries
	mBytesIn
	mBytesOut
	mDropped
	mPaused
	mThrottled
	mBacklog
	mOverruns
	mLinks
	mRefusedSubscriptions
	mPolls
	mReads
	mWrites
	mControls
	mPolicies
	mReauths
	mLoad
	mTenantPublishes
	mTenantBytes
	mTenantRefused
	mOpens
	mWaiting
	mGuests
	mGuestSessions
	mEvents
	mEventsDropped
	mAuthentications
	mKeptOut
	mQuotaGateways
	mQuotaResources
	mChecks
)

// Metrics is the table of the gateway's metrics.
var Metrics = []telemetry.Metric{
	mConnections:          {Name: "mqtt_gateway_connections", Kind: telemetry.Gauge, Help: "Network connections that are open, after their handshakes."},
	mAccepted:             {Name: "mqtt_gateway_connections_accepted_total", Kind: telemetry.Counter, Labels: []string{"listener"}, Help: "Network connections that came to MQTT, by listener."},
	mRefused:              {Name: "mqtt_gateway_connections_refused_total", Kind: telemetry.Counter, Labels: []string{"listener", "reason"}, Help: "Network connections that were closed before MQTT began."},
	mConnects:             {Name: "mqtt_gateway_connects_total", Kind: telemetry.Counter, Labels: []string{"version", "reason"}, Help: "CONNECT packets that were answered, by the reason code of CONNACK."},
	mDisconnects:          {Name: "mqtt_gateway_disconnects_total", Kind: telemetry.Counter, Labels: []string{"by", "reason"}, Help: "Clients whose connection ended after CONNACK, by who ended it and the reason code."},
	mPackets:              {Name: "mqtt_gateway_packets_received_total", Kind: telemetry.Counter, Labels: []string{"type"}, Help: "Packets received."},
	mDeliveries:           {Name: "mqtt_gateway_publish_sent_total", Kind: telemetry.Counter, Help: "PUBLISH packets sent to clients."},
	mBytesIn:              {Name: "mqtt_gateway_bytes_received_total", Kind: telemetry.Counter, Help: "Bytes received from clients, inside TLS and WebSocket."},
	mBytesOut:             {Name: "mqtt_gateway_bytes_sent_total", Kind: telemetry.Counter, Help: "Bytes sent to clients, inside TLS and WebSocket."},
	mDropped:              {Name: "mqtt_gateway_dropped_total", Kind: telemetry.Counter, Labels: []string{"reason"}, Help: "Messages that were not passed on, either way."},
	mPaused:               {Name: "mqtt_gateway_pauses_total", Kind: telemetry.Counter, Help: "Times that a connection was not read because the broker's window was used up."},
	mThrottled:            {Name: "mqtt_gateway_throttled_total", Kind: telemetry.Counter, Labels: []string{"quota"}, Help: "Times that a connection was not read, or not written to, because of the quota of that name, or because the node is overloaded (overload); for connect_rate, connect_rate_client and overload_connects, CONNECTs that were delayed or refused."},
	mBacklog:              {Name: "mqtt_gateway_slow_connections", Kind: telemetry.Gauge, Help: "Connections whose socket does not take what waits for it."},
	mOverruns:             {Name: "mqtt_gateway_socket_overruns_total", Kind: telemetry.Counter, Help: "Connections that were closed because more waited for their socket than may."},
	mLinks:                {Name: "mqtt_gateway_links", Kind: telemetry.Gauge, Help: "Links to brokers that are up."},
	mRefusedSubscriptions: {Name: "mqtt_gateway_subscriptions_refused_total", Kind: telemetry.Counter, Labels: []string{"reason"}, Help: "Subscriptions that the gateway refused: by the grants, or by the quota or setting of that name."},
	mPolls:                {Name: "mqtt_gateway_loop_polls_total", Kind: telemetry.Counter, Help: "Times that an event loop asked the kernel for events."},
	mReads:                {Name: "mqtt_gateway_loop_reads_total", Kind: telemetry.Counter, Help: "Reads from sockets that event loops have."},
	mReauths:              {Name: "mqtt_gateway_reauthentications_total", Kind: telemetry.Counter, Labels: []string{"result"}, Help: "Steps of authentications on live connections (AUTH), by how they ended: continued, succeeded or failed."},
	mLoad:                 {Name: "mqtt_gateway_load_level", Kind: telemetry.Gauge, Help: "How overloaded the gateway, or a broker that it has a link to, is: 0 calm, 1 slow, 2 refuse, 3 shed (docs/overload.md)."},
	mTenantPublishes:      {Name: "mqtt_gateway_tenant_publishes_total", Kind: telemetry.Counter, Labels: []string{"tenant", "outcome"}, Help: "PUBLISH packets that came from a tenant's clients, by outcome: passed on to a broker, or the reason of mqtt_gateway_dropped_total why not."},
	mTenantBytes:          {Name: "mqtt_gateway_tenant_received_bytes_total", Kind: telemetry.Counter, Labels: []string{"tenant"}, Help: "Bytes of packets that came from a tenant's clients after CONNECT, inside TLS and WebSocket."},
	mTenantRefused:        {Name: "mqtt_gateway_tenant_connects_refused_total", Kind: telemetry.Counter, Labels: []string{"tenant"}, Help: "CONNECTs of a tenant's clients that were refused by a quota, or because the node is overloaded."},
	mOpens:                {Name: "mqtt_gateway_opens_total", Kind: telemetry.Counter, Labels: []string{"event"}, Help: "CONNECTs that did not find the broker of their client's partition at once: answered by a broker that does not have it (moved, each time), made to wait (waited), refused after waiting (timed_out). resumed are clients whose partition has moved to another broker without their connection being closed."},
	mWaiting:              {Name: "mqtt_gateway_opens_waiting", Kind: telemetry.Gauge, Help: "Clients that wait for their partition to have a broker."},
	mGuests:               {Name: "mqtt_gateway_guests", Kind: telemetry.Gauge, Help: "Clients that have a guest session (allow_register_during_netsplit)."},
	mGuestSessions:        {Name: "mqtt_gateway_guest_sessions_total", Kind: telemetry.Counter, Labels: []string{"event"}, Help: "Guest sessions: opened, sent back to their own partition when that was reached again (ended), asked for and not given (refused)."},
	mEvents:               {Name: "mqtt_gateway_events_total", Kind: telemetry.Counter, Help: "Events in the histories of tenants' clients that were written."},
	mEventsDropped:        {Name: "mqtt_gateway_events_dropped_total", Kind: telemetry.Counter, Help: "Events of which at most the number was written: too many had gathered, or the bus was away for long."},
	mPolicies:             {Name: "mqtt_gateway_policy_events_total", Kind: telemetry.Counter, Labels: []string{"event"}, Help: "What tenants' policies of their own have led to beside what they grant: clients that mqtt.connect has denied (denied), that were refused or kept what they had because nobody could be asked (unknown), or because the policy cannot be followed (failed); live connections that have the grants of a new revision (regranted), or were ended by it (ended); filters that were taken from sessions (subscriptions_taken)."},
	mAuthentications:      {Name: "mqtt_gateway_authentications_total", Kind: telemetry.Counter, Labels: []string{"method", "result"}, Help: "What the methods of authentication have said of CONNECTs: accepted, refused, passed (the next method is asked), unavailable (it could not be known)."},
	mKeptOut:              {Name: "mqtt_gateway_kept_out_total", Kind: telemetry.Counter, Labels: []string{"reason"}, Help: "Clients that were refused at CONNECT, or whose connection was ended, although who they are was not the reason: by a ban (ban), because they connect again and again (flapping), by the tenant's allow-list (address), because the tenant takes their method, or their token's issuer, no more (method)."},
	mQuotaGateways:        {Name: "mqtt_gateway_quota_gateways", Kind: telemetry.Gauge, Help: "Gateways that divide tenants' quotas, this one included, as far as it has heard (docs/quotas.md)."},
	mQuotaResources:       {Name: "mqtt_gateway_quota_resources", Kind: telemetry.Gauge, Help: "Quotas of tenants of which gateways tell each other the use, because one needs more than half of its equal part."},
	mChecks:               {Name: "mqtt_gateway_policy_checks_total", Kind: telemetry.Counter, Labels: []string{"answer"}, Help: "Publishes, subscriptions and wills of which mqtt.check of a tenant's policy was asked: allowed, denied, or unknown, which denies too, because nobody has answered in time. What a connection remembers is not asked and not counted."},
	mControls:             {Name: "mqtt_gateway_loop_controls_total", Kind: telemetry.Counter, Help: "Times that an event loop told the kernel what to wait for."},
	mWrites:               {Name: "mqtt_gateway_loop_writes_total", Kind: telemetry.Counter, Help: "Writes to sockets that event loops have."},
}

type metrics struct {
	accepted, refused, connects, disconnects, dropped, reauths *prometheus.CounterVec
	packets                                                    [16]prometheus.Counter
	drops                                                      [conn.DropOverload + 1]prometheus.Counter
	subscriptions                                              [conn.RefusedCheck + 1]prometheus.Counter
	deliveries, bytesIn, bytesOut, paused, overruns            prometheus.Counter
	slow                                                       prometheus.Gauge
	throttled                                                  [quotas]prometheus.Counter
	opens                                                      [len(openEvents)]prometheus.Counter
	guests                                                     [len(guestEvents)]prometheus.Counter
	policies                                                   [len(policyEvents)]prometheus.Counter
	checks                                                     [len(checkEvents)]prometheus.Counter
	authentications, keptOut                                   *prometheus.CounterVec
}

// What happens to CONNECTs that do not find their broker at once.
const (
	openMoved = iota
	openWaited
	openTimedOut
	openResumed
)

var openEvents = [...]string{openMoved: "moved", openWaited: "waited", openTimedOut: "timed_out", openResumed: "resumed"}

func newMetrics(r prometheus.Registerer, g *Gateway) *metrics {
	m := &metrics{
		accepted:        Metrics[mAccepted].CounterVec(r),
		refused:         Metrics[mRefused].CounterVec(r),
		connects:        Metrics[mConnects].CounterVec(r),
		disconnects:     Metrics[mDisconnects].CounterVec(r),
		reauths:         Metrics[mReauths].CounterVec(r),
		authentications: Metrics[mAuthentications].CounterVec(r),
		keptOut:         Metrics[mKeptOut].CounterVec(r),
		dropped:         Metrics[mDropped].CounterVec(r),
		deliveries:      Metrics[mDeliveries].Counter(r),
		bytesIn:         Metrics[mBytesIn].Counter(r),
		bytesOut:        Metrics[mBytesOut].Counter(r),
		paused:          Metrics[mPaused].Counter(r),
		overruns:        Metrics[mOverruns].Counter(r),
		slow:            Metrics[mBacklog].Gauge(r),
	}
	throttled := Metrics[mThrottled].CounterVec(r)
	for q := range quotas {
		m.throttled[q] = throttled.WithLabelValues(q.String())
	}
	packets := Metrics[mPackets].CounterVec(r)
	for t := packet.CONNECT; t <= packet.AUTH; t++ {
		m.packets[t] = packets.WithLabelValues(t.String())
	}
	m.packets[0] = packets.WithLabelValues("malformed")
	for d := conn.DropDenied; d <= conn.DropOverload; d++ {
		m.drops[d] = m.dropped.WithLabelValues(d.String())
	}
	subscriptions := Metrics[mRefusedSubscriptions].CounterVec(r)
	for s := conn.RefusedGrants; s <= conn.RefusedCheck; s++ {
		m.subscriptions[s] = subscriptions.WithLabelValues(s.String())
	}
	opens := Metrics[mOpens].CounterVec(r)
	for i, event := range openEvents {
		m.opens[i] = opens.WithLabelValues(event)
	}
	policies := Metrics[mPolicies].CounterVec(r)
	checks := Metrics[mChecks].CounterVec(r)
	for i, event := range checkEvents {
		m.checks[i] = checks.WithLabelValues(event)
	}
	for i, event := range policyEvents {
		m.policies[i] = policies.WithLabelValues(event)
	}
	guests := Metrics[mGuestSessions].CounterVec(r)
	for i, event := range guestEvents {
		m.guests[i] = guests.WithLabelValues(event)
	}
	Metrics[mGuests].GaugeFunc(r, func() float64 { return float64(g.guests.len()) })
	Metrics[mQuotaGateways].GaugeFunc(r, func() float64 { n, _ := g.lending.size(); return float64(n) })
	Metrics[mQuotaResources].GaugeFunc(r, func() float64 { _, n := g.lending.size(); return float64(n) })
	Metrics[mWaiting].GaugeFunc(r, func() float64 { return float64(g.waiting.len()) })
	Metrics[mConnections].GaugeFunc(r, func() float64 { return float64(g.registry.wheel.len()) })
	Metrics[mPolls].CounterFunc(r, g.loopCalls(func(c *loop.Calls) *atomic.Uint64 { return &c.Polls }))
	Metrics[mReads].CounterFunc(r, g.loopCalls(func(c *loop.Calls) *atomic.Uint64 { return &c.Reads }))
	Metrics[mWrites].CounterFunc(r, g.loopCalls(func(c *loop.Calls) *atomic.Uint64 { return &c.Writes }))
	Metrics[mControls].CounterFunc(r, g.loopCalls(func(c *loop.Calls) *atomic.Uint64 { return &c.Controls }))
	Metrics[mEvents].CounterFunc(r, func() float64 { return float64(g.cfg.Events.Written()) })
	Metrics[mEventsDropped].CounterFunc(r, func() float64 { return float64(g.cfg.Events.Dropped()) })
	Metrics[mLoad].GaugeFunc(r, func() float64 { return float64(g.load.level.Load()) })
	r.MustRegister(tenantCollector{g})
	Metrics[mLinks].GaugeFunc(r, func() float64 { return float64(g.brokers.Up()) })
	return m
}

// tenantCollector reads the tenants' counters when it is asked.
type tenantCollector struct{ g *Gateway }

var (
	descPublishes = Metrics[mTenantPublishes].Desc()
	descBytes     = Metrics[mTenantBytes].Desc()
	descRefused   = Metrics[mTenantRefused].Desc()
)

// Describe implements prometheus.Collector.
func (tenantCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descPublishes
	ch <- descBytes
	ch <- descRefused
}

// Collect implements prometheus.Collector.
func (t tenantCollector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	t.g.registry.states(func(tenant string, s *tenantState) {
		// Drops are read first: a publish is counted before it is dropped, so that
		// none is passed on that was not.
		dropped := uint64(0)
		for why := conn.DropDenied; why <= conn.DropOverload; why++ {
			if n := s.drops[why].Load(); n > 0 {
				counter(descPublishes, n, tenant, why.String())
				dropped += n
			}
		}
		counter(descPublishes, s.publishes.Load()-dropped, tenant, "passed")
		counter(descBytes, s.bytes.Load(), tenant)
		counter(descRefused, s.refused.Load(), tenant)
	})
}
