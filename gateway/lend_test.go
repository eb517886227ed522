// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/quota"
	"github.com/manormq/manor/tenancy/quota/usage"
)

// wire is one gateway's way to the bus, which may be cut: nothing of it comes out. What
// comes out may be late by so many nanoseconds.
type wire struct {
	bus.Bus
	cut  atomic.Bool
	late atomic.Int64
}

func (w *wire) Publish(ctx context.Context, subject string, b []byte) error {
	if w.cut.Load() {
		return nil
	}
	if late := time.Duration(w.late.Load()); late > 0 {
		time.AfterFunc(late, func() { _ = w.Bus.Publish(context.WithoutCancel(ctx), subject, b) })
		return nil
	}
	return w.Bus.Publish(ctx, subject, b)
}

// region3 is three gateways on one bus, each with a broker of its own.
type region3 struct {
	t     *testing.T
	bus   *mem.Bus
	at    [3]*world
	wires [3]*wire
}

func startThree(t *testing.T, limits func(l *tenancy.Limits)) *region3 {
	t.Helper()
	r := &region3{t: t, bus: mem.New()}
	for n := range r.at {
		r.wires[n] = &wire{Bus: r.bus}
		r.at[n] = start(t, func(w *world, c *gateway.Config) {
			c.Name, c.Bus, c.ShedAfter = fmt.Sprint("gw-", n), r.wires[n], time.Hour
			c.Events = events.NewWriter(r.events, telemetry.Discard())
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() { defer close(ended); _ = c.Events.Run(ctx) }()
			t.Cleanup(func() { cancel(); <-ended })
			w.dir.edit("acme", func(t *tenancy.Tenant) { limits(&t.Limits) })
		})
	}
	for _, w := range r.at {
		w.eventually("it has heard of the others", func() bool { return w.metric("mqtt_gateway_quota_gateways") == 3 })
	}
	time.Sleep(settling)
	return r
}

// settling is what gateways that have met wait for, by the clock, before they take what the
// others leave: a second of listening and two intervals.
const settling = time.Second + 2*quota.Interval

func (r *region3) events(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, r.bus) }

// change has all gateways hear of other limits.
func (r *region3) change(limits func(l *tenancy.Limits)) {
	for _, w := range r.at {
		w.dir.edit("acme", func(t *tenancy.Tenant) { limits(&t.Limits) })
		w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"}
	}
}

// passed is how many messages have reached the brokers, but from gateways that are cut:
// those read on what their clients have sent.
func (r *region3) passed() (n int) {
	for i, w := range r.at {
		if r.wires[i].cut.Load() {
			continue
		}
		w.broker.mu.Lock()
		for _, c := range w.broker.channels {
			n += len(c.topics)
		}
		w.broker.mu.Unlock()
	}
	return n
}

// rateOf is how much count has grown in a second, measured for d.
func rateOf(count func() int, d time.Duration) float64 {
	before, begin := count(), time.Now()
	time.Sleep(d)
	return float64(count()-before) / time.Since(begin).Seconds()
}

// pump publishes on a new connection: a message each time, or as fast as it may.
func (r *region3) pump(n int, id string, each time.Duration) { r.pumpOf(n, id, each, "x") }

// pumpBytes publishes messages of a size as fast as it may.
func (r *region3) pumpBytes(n int, id string, size int) {
	r.pumpOf(n, id, 0, strings.Repeat("x", size))
}

func (r *region3) pumpOf(n int, id string, each time.Duration, payload string) {
	c := r.at[n].dial("mqtt").mustConnect(hello(id))
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			b := packet.Append(nil, c.v, publish("t", payload, 0), 0)
			if each == 0 && len(payload) == 1 {
				b = []byte(strings.Repeat(string(b), 50))
			}
			if _, err := c.c.Write(b); err != nil {
				return
			}
			if each > 0 {
				time.Sleep(each)
			}
		}
	}()
	r.t.Cleanup(func() {
		cancel()
		_ = c.c.Close()
		<-ended
	})
}

// wantRate is wantRateOf the messages that have passed.
func (r *region3) wantRate(what string, want float64) {
	r.t.Helper()
	r.wantRateOf(what, r.passed, want)
}

// wantRateOf measures: never more than 5% beyond the limit, and at most 5% less once it has
// settled, which a busy machine may make late.
func (r *region3) wantRateOf(what string, count func() int, want float64) {
	r.t.Helper()
	for try := range 3 {
		got := rateOf(count, 1500*time.Millisecond)
		r.t.Logf("%s: %.1f a second at the limit %.0f", what, got, want)
		if got > 1.05*want || got < 0.95*want && try == 2 {
			r.t.Errorf("%s: %.1f a second, expected %.0f within 5%%", what, got, want)
		}
		if got >= 0.95*want {
			return
		}
	}
}

// uneven has the tenant's clients send more than they may at two gateways, and little at
// the third.
func (r *region3) uneven() {
	r.pump(0, "a", 0)
	r.pump(0, "b", 0)
	r.pump(1, "c", 0)
	r.pump(2, "d", 25*time.Millisecond)
	time.Sleep(1500 * time.Millisecond) // by when parts have moved to where the demand is
}

// The part of a gateway that is dead is the others' when its lease is over.
func TestRateOfThreeGateways_OneDies(t *testing.T) {
	t.Parallel()
	r := startThree(t, func(l *tenancy.Limits) { l.PublishRate = 800 })
	r.uneven()
	r.wires[1].cut.Store(true)          // as if it were dead
	time.Sleep(3250 * time.Millisecond) // the lease, and what it takes to move
	r.wantRate("one gateway is dead", 800)
}

// One rate holds for three gateways, wherever the tenant's clients are, and who has used
// it up finds that in its history.
func TestRateOfThreeGateways(t *testing.T) {
	t.Parallel()
	r := startThree(t, func(l *tenancy.Limits) { l.PublishRate = 400 })
	r.uneven()
	r.wantRate("uneven demand", 400)
	r.change(func(l *tenancy.Limits) { l.PublishRate = 800 })
	time.Sleep(time.Second) // a change holds in two seconds: half of that
	r.wantRate("changed", 800)
	page, err := events.NewLog(r.events).List(t.Context(), "acme", events.Query{Most: 1000})
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, e := range page.Events {
		if e.Kind == events.QuotaReached && e.Reason == "publish_rate" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("it is told %d times that publish_rate is used up, expected once", told)
	}
}

// One number of connections holds for three gateways: all of them may be at one, and
// what one has left another may have.
func TestConnectionsOfThreeGateways(t *testing.T) {
	t.Parallel()
	r := startThree(t, func(l *tenancy.Limits) { l.Connections = 12 })
	connect := func(n int, id string) (*client, *packet.Connack) {
		c := r.at[n].dial("mqtt")
		p := hello(id)
		p.Version = packet.V5
		return c, c.connect(p)
	}
	type result struct {
		c *client
		k *packet.Connack
	}
	results := make(chan result, 12)
	for i := range cap(results) { // four times what each has at first
		go func() {
			c, k := connect(0, fmt.Sprint("c-", i))
			results <- result{c, k}
		}()
	}
	var in []*client
	for range cap(results) {
		x := <-results
		if x.k.Reason != mqtt.Success {
			t.Errorf("one of 12 is refused: %s %q", x.k.Reason, x.k.ReasonString)
			continue
		}
		in = append(in, x.c)
	}
	r.at[1].eventually("the 13th is refused in half a second, since all are known to be used", func() bool {
		begin := time.Now()
		if _, k := connect(1, "one-more"); k.Reason != mqtt.QuotaExceeded || !strings.Contains(k.ReasonString, "connections") {
			t.Errorf("the 13th: CONNACK %s %q", k.Reason, k.ReasonString)
		}
		return time.Since(begin) < 1200*time.Millisecond
	})
	asker := usage.New(r.bus)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = asker.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	r.at[0].eventually("all gateways say what is used", func() bool {
		u, err := asker.Usage(t.Context(), "acme")
		return err == nil && u[quota.Connections] == 12
	})
	_ = in[0].c.Close()
	r.at[0].eventually("it is gone", func() bool { return r.at[0].gw.Connections() == 11 })
	if _, k := connect(2, "instead"); k.Reason != mqtt.Success {
		t.Errorf("in the place of one that is gone: CONNACK %s %q", k.Reason, k.ReasonString)
	}
	log := events.NewLog(r.events)
	r.at[0].eventually("80% and 100% are told once each", func() bool {
		page, err := log.List(t.Context(), "acme", events.Query{Most: 1000})
		near, reached := 0, 0
		for _, e := range page.Events {
			switch e.Kind {
			case events.QuotaNear:
				near++
			case events.QuotaReached:
				reached++
			}
		}
		return err == nil && near <= 1 && reached == 1
	})
}

// A CONNECT that would have to wait for too long with what its gateway has of the rate
// tells the others so, and is let in with what they leave.
func TestConnectRateOfThreeGateways(t *testing.T) {
	t.Parallel()
	r := startThree(t, func(l *tenancy.Limits) { l.ConnectRate = 1 })
	for i := range 2 {
		// The bucket of a third of 1 a second has one; the next would come in 3 s.
		p := hello(fmt.Sprint("c-", i))
		p.Version = packet.V5
		if k := r.at[0].dial("mqtt").connect(p); k.Reason != mqtt.Success {
			t.Errorf("CONNECT %d: %s %q", i, k.Reason, k.ReasonString)
		}
	}
}
