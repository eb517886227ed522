// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/events"
)

// What a gateway tells of its clients; nothing of tenants that do not exist.
func TestEvents(t *testing.T) {
	b := mem.New()
	open := func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, b) }
	history := events.NewWriter(open, telemetry.Discard())
	w := start(t, func(w *world, c *gateway.Config) {
		c.Events = history
		w.dir.edit("beta", func(t *tenancy.Tenant) { t.Limits.Connections = 0 })
	})
	good := w.dial("mqtt").mustConnect(hello("good"))
	good.send(publish("$SYS/x", "no", 0)) // the grant does not allow it
	good.send(&packet.Packet{Type: packet.PINGREQ})
	good.want(packet.PINGRESP) // what comes of packets of one turn is not in their order
	good.send(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "$nobody/#"}}}})
	good.want(packet.SUBACK)
	good.send(&packet.Packet{Type: packet.DISCONNECT, Disconnect: &packet.Disconnect{}})
	good.wantEnd()
	lost := w.dial("mqtt").mustConnect(hello("lost"))
	if err := lost.c.Close(); err != nil {
		t.Fatal(err)
	}
	for id, edit := range map[string]func(p *packet.Connect){
		"wrong":  func(p *packet.Connect) { p.Password = []byte("guess") },
		"many":   func(p *packet.Connect) { p.Username = "beta:dev" },
		"nobody": func(p *packet.Connect) { p.Username = "nobody:dev" },
	} {
		p := hello(id)
		edit(p)
		if k := w.dial("mqtt").connect(p); k.Reason == mqtt.Success {
			t.Errorf("%s is let in", id)
		}
	}
	w.eventually("connections stay", func() bool { return w.gw.Connections() == 0 })
	ended, end := context.WithCancel(t.Context())
	end()
	if err := history.Run(ended); err != nil { // writes what there is
		t.Fatal(err)
	}
	log := events.NewLog(open)
	var said []string
	for _, tenant := range []string{"acme", "beta", "nobody"} {
		page, err := log.List(t.Context(), tenant, events.Query{Most: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			if e.Listener != "mqtt" || e.Gateway != "gw" || !strings.HasPrefix(e.Address, "127.0.0.1:") || e.Protocol != "5" || time.Since(e.At) > time.Minute || e.Username != "dev" {
				t.Errorf("event %+v", e)
			}
			said = append(said, strings.TrimRight(fmt.Sprintf("%s %s %s: %s %s", tenant, e.ClientID, e.Kind, e.Reason, e.Topic), " "))
		}
	}
	slices.SortStableFunc(said, func(a, b string) int { return strings.Compare(a[:8], b[:8]) }) // by client
	want := []string{
		"acme good connected:",
		"acme good dropped: denied",
		"acme good denied: grants $nobody/#",
		"acme good disconnected: success",
		"acme lost connected:",
		"acme lost disconnected: connection lost",
		"acme wrong denied: bad user name or password",
		"beta many throttled: quota exceeded",
	}
	if d := cmp.Diff(want, said); d != "" {
		t.Error(d)
	}
}

// written has a history write what there is, and returns what it has of acme.
func written(t *testing.T, history *events.Writer, open func(context.Context) (bus.Stream, error)) []events.Event {
	t.Helper()
	ended, end := context.WithCancel(t.Context())
	end()
	if err := history.Run(ended); err != nil {
		t.Fatal(err)
	}
	page, err := events.NewLog(open).List(t.Context(), "acme", events.Query{Most: 100})
	if err != nil {
		t.Fatal(err)
	}
	return page.Events
}

// A client that one quota has slowed down is told of another, too, and of each once.
func TestEvents_ThrottledByTwo(t *testing.T) {
	t.Parallel()
	b := mem.New()
	open := func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, b) }
	history := events.NewWriter(open, telemetry.Discard())
	w := start(t, func(w *world, c *gateway.Config) {
		c.Events = history
		w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.PublishRateClient = 50 })
	})
	c := w.dial("mqtt").mustConnect(hello("c"))
	c.flood(75, 1, "x")
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.PublishRateClient, t.Limits.DeliveryRate = tenancy.Unlimited, 1 })
	w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"}
	c.subscribe("t")
	w.eventually("deliveries are held back", func() bool {
		c.send(publish("t", "x", 0))
		return w.metric("mqtt_gateway_throttled_total", "delivery_rate") > 0
	})
	var said []string
	for _, e := range written(t, history, open) {
		if e.Kind == events.Throttled {
			said = append(said, e.Reason)
		}
	}
	slices.Sort(said)
	if d := cmp.Diff([]string{"delivery_rate", "publish_rate_client"}, said); d != "" {
		t.Error(d)
	}
}

// That a tenant comes to a quota of the brokers is in its history, of no client.
func TestEvents_Levels(t *testing.T) {
	b := mem.New()
	open := func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, b) }
	history := events.NewWriter(open, telemetry.Discard())
	w := start(t, func(_ *world, c *gateway.Config) { c.Events = history })
	w.dial("mqtt").mustConnect(hello("c"))
	for i := range 4 { // of two brokers
		at, percent := level.Near, uint32(83)
		if i%2 == 1 {
			at, percent = level.Reached, 100
		}
		w.broker.link(link.DownFrame{Kind: link.DownNote, Note: &link.Note{Tenant: "acme", Loose: true, Reason: "subscriptions", Level: at, Count: percent}})
	}
	var said []string
	for _, e := range written(t, history, open) {
		if e.Kind == events.QuotaNear || e.Kind == events.QuotaReached {
			said = append(said, fmt.Sprintf("%s %q %s: %s (%s, %d)", e.Kind, e.ClientID, e.Reason, e.Why, e.Gateway, e.Count))
		}
	}
	slices.Sort(said)
	want := []string{
		`quota_100 "" subscriptions: the quota is used up: who needs more of it waits, or is refused (gw, 0)`,
		`quota_80 "" subscriptions: 83% of the quota is used (gw, 0)`,
	}
	if d := cmp.Diff(want, said); d != "" {
		t.Error(d)
	}
}
