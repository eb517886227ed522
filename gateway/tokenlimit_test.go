// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// What a token limits its client to holds whatever the tenant's policy grants, also
// when that has another revision.
func TestTokenLimit(t *testing.T) {
	w := start(t, nil)
	limit, err := tenancy.NewGrant(0, []string{"a/#", "z"}, []string{"a/#", "z"})
	if err != nil {
		t.Fatal(err)
	}
	grant := func(revision uint64, filters ...string) {
		g, err := tenancy.NewGrant(tenancy.GrantRevision(revision), filters, filters)
		if err != nil {
			t.Fatal(err)
		}
		w.dir.mu.Lock()
		w.dir.authorize = func(*tenancy.Tenant, *tenancy.Arrival) (*tenancy.Grant, error) { return g, nil }
		w.dir.mu.Unlock()
	}
	w.dir.edit("acme", func(t *tenancy.Tenant) {
		t.Issuers = []tenancy.Issuer{{Issuer: "issuer"}}
		t.Policy = &tenancy.PolicyRef{Revision: 1}
	})
	grant(1, "a/#", "b/#")
	w.token("limited", tenancy.Identity{Username: "tom", Issuer: "issuer", Expires: time.Now().Add(time.Hour), Limit: limit})
	hi := hello("c")
	hi.Username, hi.Password = "acme:tom", []byte("limited")
	c := w.dial("mqtt").mustConnect(hi)
	may := func(topic string) bool {
		t.Helper()
		c.send(publish(topic, "x", 1))
		return c.want(packet.PUBACK).Ack.Reason != mqtt.NotAuthorized
	}
	subscribed := func(filter string) bool {
		t.Helper()
		c.send(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: filter}}}})
		return c.want(packet.SUBACK).Suback.Reasons[0] != mqtt.NotAuthorized
	}
	check := func(a, b, z bool) {
		t.Helper()
		for topic, want := range map[string]bool{"a/x": a, "b/x": b, "z": z} {
			if got := may(topic); got != want {
				t.Errorf("publish to %s: %v", topic, got)
			}
			if got := subscribed(topic); got != want {
				t.Errorf("subscribe to %s: %v", topic, got)
			}
		}
	}
	check(true, false, false) // z is the token's, b the policy's
	grant(2, "b/#", "z")
	w.change("acme", func(t *tenancy.Tenant) { t.Policy = &tenancy.PolicyRef{Revision: 2} })
	w.eventually("the new revision does not hold", func() bool { return may("z") })
	check(false, false, true)
}

// What a session holds from before, when its client was allowed more, is not delivered
// beyond what its token names, also where the tenant has no policy.
func TestTokenLimit_ResumedSession(t *testing.T) {
	w := start(t, nil)
	limit, err := tenancy.NewGrant(0, []string{"a/#"}, []string{"a/#"})
	if err != nil {
		t.Fatal(err)
	}
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Issuers = []tenancy.Issuer{{Issuer: "issuer"}} })
	w.token("limited", tenancy.Identity{Username: "tom", Issuer: "issuer", Expires: time.Now().Add(time.Hour), Limit: limit})
	w.broker.mu.Lock()
	w.broker.present = true
	w.broker.mu.Unlock()
	hi := hello("c")
	hi.Username, hi.Password, hi.CleanStart = "acme:tom", []byte("limited"), false
	c := w.dial("mqtt").mustConnect(hi)
	w.broker.mu.Lock()
	for _, ch := range w.broker.channels {
		ch.filters = []string{"#"} // of its session
	}
	w.broker.mu.Unlock()
	other := w.dial("mqtt").mustConnect(hello("other"))
	for _, topic := range []string{"secret", "a/1"} {
		other.send(publish(topic, topic, 1))
		other.want(packet.PUBACK)
	}
	if p := c.want(packet.PUBLISH).Publish; string(p.Message.Topic) != "a/1" {
		t.Errorf("%s came to a client whose token names a/#", p.Message.Topic)
	}
}
