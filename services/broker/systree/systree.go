// SPDX-License-Identifier: Apache-2.0

// Package systree says what a broker counts to its clients, as messages below
// $SYS: every metric of the node to the tenant of its operator, in VerneMQ's form,
// and to each tenant what is its own. A Tree owns the goroutine of Run.
package systree

import (
	"context"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/manormq/manor/infra/mqtt"
)

// Figures are what is counted of one tenant at this broker.
type Figures struct {
	Connections, Sessions, Subscriptions int64
	QueueMessages, QueueBytes            int64
	Retained, RetainedBytes              int64
	Received, Sent                       uint64 // messages, since the start
}

// Config says what a Tree publishes.
type Config struct {
	Interval time.Duration // 0 is never
	Node     string
	// Operator is the tenant that hears of the node; empty is none.
	Operator string
	Metrics  prometheus.Gatherer // nil is none
	Log      *slog.Logger
	// Tenants calls yield for each tenant that listens.
	Tenants func(yield func(tenant string, f Figures))
	// Listens reports whether a tenant does: nothing is gathered for nobody.
	Listens func(tenant string) bool
	// Publish sends messages to a tenant.
	Publish func(tenant string, messages []mqtt.Message)
}

// Tree publishes on $SYS.
type Tree struct {
	Config
	last map[string]counted // by tenant
}

// counted is what was counted at a time.
type counted struct {
	at             time.Time
	received, sent uint64
}

// New returns a Tree that publishes while its Run runs.
func New(c Config) *Tree { return &Tree{Config: c, last: map[string]counted{}} }

// Run publishes until ctx is done.
func (t *Tree) Run(ctx context.Context) {
	if t.Interval <= 0 {
		return
	}
	tick := time.NewTicker(t.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			t.tell(now)
		}
	}
}

// tell publishes everything once.
func (t *Tree) tell(now time.Time) {
	seen := make(map[string]counted, len(t.last))
	all := map[string][]mqtt.Message{}
	t.Tenants(func(tenant string, f Figures) {
		all[tenant] = t.tenant(now, t.last[tenant], f)
		seen[tenant] = counted{now, f.Received, f.Sent}
	})
	t.last = seen
	for tenant, messages := range all {
		t.Publish(tenant, messages)
	}
	if t.Operator == "" || t.Metrics == nil || !t.Listens(t.Operator) {
		return
	}
	families, err := t.Metrics.Gather()
	if err != nil {
		t.Log.Warn("some metrics are missing below $SYS", "error", err)
	}
	t.Publish(t.Operator, t.node(families))
}

// tenant are the messages to a tenant about itself. Rates are per second since
// the last time, and missing at the first.
func (t *Tree) tenant(now time.Time, last counted, f Figures) []mqtt.Message {
	p := tree{prefix: "$SYS/tenant"}
	p.add(float64(f.Connections), "connections")
	p.add(float64(f.Sessions), "sessions")
	p.add(float64(f.Subscriptions), "subscriptions")
	p.add(float64(f.QueueMessages), "queue", "messages")
	p.add(float64(f.QueueBytes), "queue", "bytes")
	p.add(float64(f.Retained), "retained", "messages")
	p.add(float64(f.RetainedBytes), "retained", "bytes")
	p.add(float64(f.Received), "messages", "received")
	p.add(float64(f.Sent), "messages", "sent")
	if seconds := now.Sub(last.at).Seconds(); !last.at.IsZero() && seconds > 0 {
		p.add(round(float64(f.Received-last.received)/seconds), "messages", "received", "rate")
		p.add(round(float64(f.Sent-last.sent)/seconds), "messages", "sent", "rate")
	}
	return p.messages
}

// round keeps a tenth.
func round(f float64) float64 { return math.Round(f*10) / 10 }

// node are the messages about the node: a metric's name is split at "_", and the
// values of its labels follow; histograms have /count, /sum and /bucket/<bound>.
func (t *Tree) node(families []*dto.MetricFamily) []mqtt.Message {
	p := tree{prefix: "$SYS/" + level(t.Node)}
	for _, f := range families {
		name := strings.Split(f.GetName(), "_")
		for _, m := range f.GetMetric() {
			at := append([]string(nil), name...)
			for _, l := range m.GetLabel() {
				at = append(at, level(l.GetValue()))
			}
			switch {
			case m.GetCounter() != nil:
				p.add(m.GetCounter().GetValue(), at...)
			case m.GetGauge() != nil:
				p.add(m.GetGauge().GetValue(), at...)
			case m.GetUntyped() != nil:
				p.add(m.GetUntyped().GetValue(), at...)
			case m.GetSummary() != nil:
				p.add(float64(m.GetSummary().GetSampleCount()), append(at, "count")...)
				p.add(m.GetSummary().GetSampleSum(), append(at, "sum")...)
			case m.GetHistogram() != nil:
				h := m.GetHistogram()
				p.add(float64(h.GetSampleCount()), append(at, "count")...)
				p.add(h.GetSampleSum(), append(at, "sum")...)
				for _, b := range h.GetBucket() {
					p.add(float64(b.GetCumulativeCount()), append(at, "bucket", number(b.GetUpperBound()))...)
				}
				p.add(float64(h.GetSampleCount()), append(at, "bucket", "inf")...)
			}
		}
	}
	return p.messages
}

// tree collects messages below a prefix.
type tree struct {
	prefix   string
	messages []mqtt.Message
}

func (t *tree) add(value float64, levels ...string) {
	t.messages = append(t.messages, mqtt.Message{
		Topic: []byte(t.prefix + "/" + strings.Join(levels, "/")), Payload: []byte(number(value)),
	})
}

// number writes a value as decimal text.
func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// level makes text one level of a topic.
func level(s string) string {
	if s == "" {
		return "none"
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '/', '+', '#', 0, ' ':
			return '_'
		}
		return r
	}, s)
}
