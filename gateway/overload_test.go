// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// overloaded has the broker say of itself that it is.
func (w *world) overloaded(l load.Level) {
	w.t.Helper()
	w.broker.link(link.DownFrame{Kind: link.DownLoad, Load: l})
	w.eventually("the gateway takes the level "+l.String(), func() bool {
		return w.metric("mqtt_gateway_load_level") == float64(l)
	})
}

// A tenant that sends most is read more slowly while the node is overloaded, others
// are not, and when that is over neither is.
func TestOverload_SlowsTheHeaviest(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	other := hello("light")
	other.Username = "beta:dev"
	heavy, light := w.dial("mqtt").mustConnect(hello("heavy")), w.dial("mqtt").mustConnect(other)
	w.overloaded(load.Slow)
	payload := strings.Repeat("x", 4000)
	w.eventually("the heavy tenant is slowed down", func() bool {
		heavy.flood(50, 1, payload)
		return w.metric("mqtt_gateway_throttled_total", "overload") > 0
	})
	begin := time.Now()
	light.flood(10, 1, "x")
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("10 small messages of the light tenant took %s", took)
	}
	w.overloaded(load.Calm)
	w.eventually("it is as fast as before", func() bool {
		begin := time.Now()
		heavy.flood(50, 1, payload)
		return time.Since(begin) < 300*time.Millisecond
	})
}

// Tenants that send the same are slowed down all, and what waits for that goes on
// soon after it is over.
func TestOverload_EqualTenants(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	other := hello("b")
	other.Username = "beta:dev"
	a, b := w.dial("mqtt").mustConnect(hello("a")), w.dial("mqtt").mustConnect(other)
	w.overloaded(load.Slow)
	large := strings.Repeat("x", 100_000)
	w.eventually("both are slowed down", func() bool {
		var wg sync.WaitGroup
		for _, c := range []*client{a, b} {
			wg.Go(func() { c.flood(5, 1, large) })
		}
		wg.Wait()
		return w.metric("mqtt_gateway_throttled_total", "overload") >= 2
	})
	a.send(publish("t", strings.Repeat("x", 4<<20), 0)) // 16 s at the least rate
	a.send(publish("t", "behind it", 0))
	w.overloaded(load.Calm)
	begin := time.Now()
	a.flood(1, 1, "x")
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("after the overload the next message took %s", took)
	}
}

// Above that, CONNECTs are taken at a rate, and refused with the time to wait.
func TestOverload_RefusesConnects(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.overloaded(load.Refuse)
	w.eventually("some are refused", func() bool {
		for range 20 {
			w.dial("mqtt").send(&packet.Packet{Type: packet.CONNECT, Connect: hello("")})
		}
		return w.metric("mqtt_gateway_connects_total", mqtt.ConnectionRateExceeded.String()) > 0
	})
	if n := w.metric("mqtt_gateway_tenant_connects_refused_total", "acme"); n == 0 {
		t.Error("refused CONNECTs are not counted for their tenant")
	}
	w.overloaded(load.Calm)
	w.eventually("one is let in", func() bool {
		return w.dial("mqtt").connect(hello("late")).Reason == mqtt.Success
	})
}

// Above that, what the heaviest tenant sends too fast is dropped at QoS 0, and
// counted; QoS 1 waits.
func TestOverload_ShedsQoS0(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	heavy := w.dial("mqtt").mustConnect(hello("heavy"))
	w.overloaded(load.Shed)
	payload, sent := strings.Repeat("x", 4000), 0
	dropped := func() float64 { return w.metric("mqtt_gateway_tenant_publishes_total", "overload", "acme") }
	w.eventually("QoS 0 is dropped", func() bool {
		for range 50 {
			heavy.send(publish("t", payload, 0))
			sent++
		}
		return dropped() > 0
	})
	_, reasons := heavy.flood(30, 1, payload)
	if n := reasons[mqtt.Success] + reasons[mqtt.NoMatchingSubscribers]; n != 30 {
		t.Errorf("PUBACKs %v, expected 30 with success", reasons)
	}
	w.eventually("all are counted", func() bool {
		return dropped()+w.metric("mqtt_gateway_tenant_publishes_total", "passed", "acme") == float64(sent+30)
	})
}
