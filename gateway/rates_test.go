// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// flood publishes n messages at once and returns how long the answers take, and
// how many of them have which reason.
func (c *client) flood(n int, qos mqtt.QoS, payload string) (took time.Duration, reasons map[mqtt.ReasonCode]int) {
	c.t.Helper()
	start := time.Now()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range n {
			p := publish("t", payload, qos)
			p.Publish.PacketID = uint16(i + 1)
			c.send(p)
		}
	}()
	reasons = map[mqtt.ReasonCode]int{}
	for range n {
		reasons[c.want(packet.PUBACK).Ack.Reason]++
	}
	<-sent
	return time.Since(start), reasons
}

// A client over its rate is read more slowly, on a loop and on a goroutine, and
// loses nothing.
func TestRateOfAClient(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mqtt", "mqtts", "ws"} {
		for quota, edit := range map[string]func(l *tenancy.Limits){
			"publish_rate_client":  func(l *tenancy.Limits) { l.PublishRateClient = 50 },
			"bytes_in_rate_client": func(l *tenancy.Limits) { l.BytesInRateClient = 200_000 },
			"publish_rate":         func(l *tenancy.Limits) { l.PublishRate = 50 },
			"bytes_in_rate":        func(l *tenancy.Limits) { l.BytesInRate = 200_000 },
		} {
			t.Run(name+"/"+quota, func(t *testing.T) {
				t.Parallel()
				w := start(t, nil)
				w.dir.edit("acme", func(t *tenancy.Tenant) { edit(&t.Limits) })
				c := w.any(name, "acme.localhost").mustConnect(hello("a"))
				// 75 messages of 4000 bytes: a second's worth at once, and the rest in 0.5 s.
				took, reasons := c.flood(75, 1, strings.Repeat("x", 4000))
				if reasons[mqtt.Success]+reasons[mqtt.NoMatchingSubscribers] != 75 {
					t.Errorf("PUBACKs %v, expected 75 with success", reasons)
				}
				if took < 400*time.Millisecond || took > 3*time.Second {
					t.Errorf("75 messages at 50 a second took %s, expected 0.5 s", took)
				}
				if n := w.metric("mqtt_gateway_throttled_total", quota); n == 0 || n > 200 {
					t.Errorf("%s is counted %g times", quota, n)
				}
			})
		}
	}
}

// A rate out that begins, or ends, while messages flow counts from then, at once.
func TestRateOutChangesLive(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	change := func(rate int64) {
		w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.DeliveryRate = rate })
		w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"}
	}
	sub := w.dial("mqtt").mustConnect(hello("s"))
	sub.subscribe("t")
	p := w.dial("mqtt").mustConnect(hello("p"))
	rounds := func(n int, most time.Duration) {
		t.Helper()
		begin := time.Now()
		for range n {
			p.send(publish("t", "x", 0))
			sub.want(packet.PUBLISH)
		}
		if took := time.Since(begin); took > most {
			t.Errorf("%d messages took %s", n, took)
		}
	}
	rounds(3000, 20*time.Second)
	change(1000)
	rounds(200, 2*time.Second) // what was delivered before does not count
	if n := w.metric("mqtt_gateway_throttled_total", "delivery_rate"); n != 0 {
		t.Errorf("%g times held back", n)
	}
	change(1)
	w.eventually("deliveries are held back", func() bool {
		p.send(publish("t", "x", 0))
		return w.metric("mqtt_gateway_throttled_total", "delivery_rate") > 0
	})
	change(tenancy.Unlimited)
	begin := time.Now()
	large := strings.Repeat("x", 300<<10) // more than half of the credit that is left
	for got := 0; got < 20; {
		p.send(publish("t", large, 0))
		if m := sub.want(packet.PUBLISH); len(m.Publish.Message.Payload) == len(large) {
			got++
		}
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("20 messages took %s without a rate", took)
	}
}

// What a tenant sends beyond its rate for long is refused, and who sends it told.
func TestRateOfATenantSheds(t *testing.T) {
	t.Parallel()
	w := start(t, func(_ *world, c *gateway.Config) { c.ShedAfter = 300 * time.Millisecond })
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.PublishRate = 50 })
	p := hello("a")
	p.Version = packet.V5
	took, reasons := w.dial("mqtt").mustConnect(p).flood(2000, 1, "x")
	passed := reasons[mqtt.Success] + reasons[mqtt.NoMatchingSubscribers]
	if refused := reasons[mqtt.QuotaExceeded]; refused == 0 || refused+passed != 2000 || float64(refused) != w.metric("mqtt_gateway_dropped_total", "tenant_rate") {
		t.Errorf("PUBACKs %v, counted %g", reasons, w.metric("mqtt_gateway_dropped_total", "tenant_rate"))
	}
	if most := 51 + 50*took.Seconds(); float64(passed) > most+50 {
		t.Errorf("%d messages passed in %s at 50 a second", passed, took)
	}
}

func TestRateChangesLive(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	c := w.dial("mqtt").mustConnect(hello("a"))
	for i, rate := range []int64{1, tenancy.Unlimited, 2, 1_000_000} {
		w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.PublishRateClient = rate })
		w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"}
		if rate == tenancy.Unlimited || rate > 2 {
			took, _ := c.flood(300, 1, "x")
			if took > 2*time.Second {
				t.Errorf("change %d: 300 messages took %s at the rate %d", i, took, rate)
			}
			continue
		}
		before := w.metric("mqtt_gateway_throttled_total")
		w.eventually("the client is slowed down", func() bool {
			c.send(publish("t", "x", 0))
			return w.metric("mqtt_gateway_throttled_total") > before
		})
	}
}

func TestConnectRates(t *testing.T) {
	t.Parallel()
	for quota, edit := range map[string]func(l *tenancy.Limits){
		"connect_rate":        func(l *tenancy.Limits) { l.ConnectRate = 1 },
		"connect_rate_client": func(l *tenancy.Limits) { l.ConnectRateClient = 1 },
	} {
		t.Run(quota, func(t *testing.T) {
			t.Parallel()
			w := start(t, nil)
			w.dir.edit("acme", func(t *tenancy.Tenant) { edit(&t.Limits) })
			// Five at once, then one that waits up to a second, and no more.
			results := make(chan *packet.Connack, 12)
			for range cap(results) {
				c := w.dial("mqtt")
				p := hello("same")
				p.Version = packet.V5
				go func() { results <- c.connect(p) }()
			}
			in, refused := 0, 0
			for range cap(results) {
				switch k := <-results; k.Reason {
				case mqtt.Success:
					in++
				case mqtt.ConnectionRateExceeded:
					refused++
					if !strings.Contains(k.ReasonString, quota) {
						t.Errorf("the client is told %q", k.ReasonString)
					}
				default:
					t.Errorf("CONNACK %s", k.Reason)
				}
			}
			if in < 5 || in > 9 || refused == 0 {
				t.Errorf("%d let in, %d refused, of %d at 1 a second", in, refused, cap(results))
			}
			if n := w.metric("mqtt_gateway_throttled_total", quota); n < float64(refused) {
				t.Error(fmt.Sprint("counted ", n))
			}
		})
	}
}

// What goes out to a subscriber comes at its rate: each message waits at the gateway until it
// may be passed, as many as the credit has room for; the fake broker drops what is beyond that.
func TestRateOut(t *testing.T) {
	t.Parallel()
	for quota, edit := range map[string]func(l *tenancy.Limits){
		"bytes_out_rate_client": func(l *tenancy.Limits) { l.BytesOutRateClient = 100_000 },
		"bytes_out_rate":        func(l *tenancy.Limits) { l.BytesOutRate = 100_000 },
	} {
		t.Run(quota, func(t *testing.T) {
			t.Parallel()
			rateOut(t, quota, edit)
		})
	}
}

func rateOut(t *testing.T, quota string, edit func(*tenancy.Limits)) {
	w := start(t, nil)
	w.dir.edit("acme", func(t *tenancy.Tenant) { edit(&t.Limits) })
	slow := w.dial("mqtt").mustConnect(hello("slow"))
	slow.subscribe("t")
	p := hello("p")
	fast := w.dial("mqtt").mustConnect(p)
	begin := time.Now()
	payload := strings.Repeat("x", 10_000)
	got := 0
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond): // more than the rate allows
				fast.send(publish("t", payload, 0))
			}
		}
	}()
	for time.Since(begin) < 4*time.Second {
		p := slow.next()
		if p == nil {
			t.Fatal("the connection ended")
		}
		got += len(p.Publish.Message.Payload)
	}
	close(stop)
	<-done
	// A second's worth at once, the window of credit, and four seconds.
	if got > 600_000 || got < 300_000 {
		t.Errorf("%d bytes in 4 s at 100,000 a second", got)
	}
	if w.metric("mqtt_gateway_throttled_total", quota) == 0 {
		t.Error("not counted")
	}
}
