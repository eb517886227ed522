// SPDX-License-Identifier: Apache-2.0

package systree

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/infra/topic"
)

// heard has the newest payload of each topic, by tenant.
type heard map[string]map[string]string

// ear hears, on another goroutine.
type ear struct {
	mu  sync.Mutex
	got heard
}

func (e *ear) publish(tenant string, messages []mqtt.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got.publish(tenant, messages)
}

func (h heard) publish(tenant string, messages []mqtt.Message) {
	if h[tenant] == nil {
		h[tenant] = map[string]string{}
	}
	for _, m := range messages {
		h[tenant][string(m.Topic)] = string(m.Payload)
	}
}

func TestTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mqtt_publish_received"}, []string{"reason"})
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "wait_seconds", Buckets: []float64{.5, 2}})
		reg.MustRegister(c, h)
		c.WithLabelValues("a/b + c").Add(3)
		h.Observe(1)
		var gathered, listens atomic.Bool
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "up"}, func() float64 { gathered.Store(true); return 1 }))
		received := uint64(0)
		got := heard{}
		e := &ear{got: got}
		tree := New(Config{
			Interval: 20 * time.Second, Node: "broker-1", Operator: "ops", Metrics: reg, Log: telemetry.Discard(),
			Tenants: func(yield func(string, Figures)) {
				received += 50
				yield("acme", Figures{Connections: 2, QueueBytes: 1 << 40, Received: received})
			},
			Listens: func(tenant string) bool { return tenant == "ops" && listens.Load() },
			Publish: e.publish,
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); tree.Run(ctx) }()
		time.Sleep(21 * time.Second)
		synctest.Wait()
		e.mu.Lock()
		if got["ops"] != nil || gathered.Load() {
			t.Error("the node's metrics are gathered though nobody listens")
		}
		listens.Store(true)
		if got["acme"]["$SYS/tenant/messages/received/rate"] != "" {
			t.Error("there is a rate at the first time")
		}
		e.mu.Unlock()
		time.Sleep(20 * time.Second)
		cancel()
		<-done
		want := heard{
			"acme": {"$SYS/tenant/connections": "2", "$SYS/tenant/queue/bytes": "1099511627776", "$SYS/tenant/messages/received": "100", "$SYS/tenant/messages/received/rate": "2.5"},
			"ops": {
				"$SYS/broker-1/mqtt/publish/received/a_b___c": "3",
				"$SYS/broker-1/wait/seconds/count":            "1", "$SYS/broker-1/wait/seconds/sum": "1",
				"$SYS/broker-1/wait/seconds/bucket/0.5": "0", "$SYS/broker-1/wait/seconds/bucket/2": "1", "$SYS/broker-1/wait/seconds/bucket/inf": "1",
			},
		}
		for tenant, want := range want {
			for name, value := range want {
				if got[tenant][name] != value {
					t.Errorf("%s: %s is %q, expected %q", tenant, name, got[tenant][name], value)
				}
			}
			for name := range got[tenant] {
				if err := topic.ValidateName([]byte(name)); err != nil || !strings.HasPrefix(name, "$SYS/") {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		if tenants := slices.Sorted(maps.Keys(got)); !slices.Equal(tenants, []string{"acme", "ops"}) {
			t.Errorf("told %v", tenants)
		}
	})
}
