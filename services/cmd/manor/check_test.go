// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

const dynamic = `dynamic := true

grants contains {"action": "all", "filter": "#"}

check := {"allow": true, "ttl": 60} if {
	input.action == "publish"
	input.payload_size < 10
	not startswith(input.topic, "old/")
}

check := {"allow": true, "topic": concat("/", ["new", substring(input.topic, 4, -1)])} if {
	input.action == "publish"
	startswith(input.topic, "old/")
	some p in input.user_properties
	p == {"name": "site", "value": "north"}
}

check := {"allow": true, "qos": 0} if input.action == "subscribe"

check := {"allow": false, "reason": "too large for this tenant"} if input.payload_size >= 10
`

// TestCheck: a policy that is dynamic is asked about what the grants allow, through the
// whole product, and is live for what connections and sessions hold.
func TestCheck(t *testing.T) {
	p := startProduct(t)
	x, free := p.signUp(t, "acme"), p.signUp(t, "free")
	keeps := x.device(clientID("keeps"), stored)
	if r := keeps.subscribe("secret/#", 1, 0); r.Failed() {
		t.Fatal(r)
	}
	d := x.device(clientID("dev-1"))
	x.policy(dynamic)
	large := func() *packet.Ack {
		d.publish("a", "0123456789", 1, false)
		a := d.want(packet.PUBACK).Ack
		return &a
	}
	x.within(func() string {
		if a := large(); a.Reason != mqtt.NotAuthorized || string(a.ReasonString) != "too large for this tenant" {
			return fmt.Sprintf("PUBACK %v %q", a.Reason, a.ReasonString)
		}
		return ""
	})
	if r := d.acked("a"); r.Failed() {
		t.Errorf("PUBACK %v", r)
	}
	x.within(func() string {
		if got := x.filters("keeps"); got != "secret/#@0 " {
			return "the session holds " + got
		}
		return ""
	})
	// Rewritten by its user property.
	if r := d.subscribe("new/#", 1, 0); r != 0 {
		t.Errorf("SUBACK %v", r)
	}
	m := mqtt.Message{Topic: []byte("old/7"), Payload: []byte("x"), QoS: 1, Properties: packet.AppendUserProperty(nil, "site", "north")}
	d.send(&packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{PacketID: d.id(), Message: m}})
	for range 2 {
		switch p := d.next(soon); {
		case p == nil:
			t.Fatal("nothing comes")
		case p.Type == packet.PUBLISH && string(p.Publish.Message.Topic) != "new/7":
			t.Errorf("PUBLISH to %s", p.Publish.Message.Topic)
		case p.Type == packet.PUBACK && p.Ack.Reason.Failed():
			t.Errorf("PUBACK %v", p.Ack.Reason)
		}
	}
	m.Properties = nil
	d.send(&packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{PacketID: d.id(), Message: m}})
	if a := d.want(packet.PUBACK).Ack; a.Reason != mqtt.NotAuthorized {
		t.Errorf("PUBACK %v", a.Reason)
	}
	// A will is asked about, too: this one has no user property.
	if _, k := x.connect(willOn("old/1")); k.Reason != mqtt.NotAuthorized {
		t.Errorf("CONNACK %v %q", k.Reason, k.ReasonString)
	}
	x.device(willOn("w"))
	// Another revision forgets what was said, and what sessions hold is looked at again.
	x.policy(`dynamic := true

grants contains {"action": "all", "filter": "#"}

check := {"allow": true} if input.topic == "b"`)
	x.within(func() string {
		if r := d.acked("a"); r != mqtt.NotAuthorized {
			return fmt.Sprintf("PUBACK %v", r)
		}
		return ""
	})
	if r := d.acked("b"); r.Failed() {
		t.Errorf("PUBACK %v", r)
	}
	x.within(func() string {
		if got := x.filters("keeps"); got != "" {
			return "the session holds " + got
		}
		return ""
	})
	if r := free.device().acked("a"); r.Failed() {
		t.Errorf("another tenant: PUBACK %v", r)
	}
}

// TestCheck_Away: what no tenancyd answers is denied on every gateway, but what is
// remembered; tenants whose policy is not dynamic notice nothing.
func TestCheck_Away(t *testing.T) {
	all, away := startPolicyGateways(t, 2)
	x, static := all[0].signUp(t, "acme"), all[0].signUp(t, "static")
	static.policy(`grants contains {"action": "all", "filter": "#"}`)
	x.policy(`dynamic := true

grants contains {"action": "all", "filter": "#"}

check := {"allow": true, "ttl": 60} if input.topic == "kept"

check := {"allow": true} if input.topic == "asked"`)
	var devices, others []*device
	for i, p := range all {
		own, other := *x, *static
		own.p, own.n, other.p, other.n = p, 100*i, p, 100*i
		devices, others = append(devices, own.device()), append(others, other.device())
	}
	for _, d := range devices {
		x.within(func() string {
			if r := d.acked("else"); r != mqtt.NotAuthorized {
				return fmt.Sprintf("PUBACK %v", r)
			}
			return ""
		})
		if kept, asked := d.acked("kept"), d.acked("asked"); kept.Failed() || asked.Failed() {
			t.Errorf("PUBACK %v and %v", kept, asked)
		}
	}
	away()
	for i, d := range devices {
		x.within(func() string {
			d.publish("asked", "x", 1, false)
			if a := d.want(packet.PUBACK).Ack; a.Reason != mqtt.NotAuthorized || !strings.Contains(string(a.ReasonString), "cannot be asked now") {
				return fmt.Sprintf("PUBACK %v %q", a.Reason, a.ReasonString)
			}
			return ""
		})
		if kept, other := d.acked("kept"), others[i].acked("asked"); kept.Failed() || other.Failed() {
			t.Errorf("gateway %d: PUBACK %v for what is remembered, %v for another tenant", i+1, kept, other)
		}
	}
}
