// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// policy makes a revision of the tenant's policy.
func (x *tenant) policy(text string, more ...string) {
	x.Helper()
	v := map[string]any{"files": map[string]string{"policy.rego": "package mqtt\n\n" + text + "\n"}}
	for i := 0; i+1 < len(more); i += 2 {
		v[more[i]] = more[i+1]
	}
	b, err := json.Marshal(v)
	if err != nil {
		x.Fatal(err)
	}
	x.do("PUT", "/v1/tenants/"+x.id+"/policies", string(b), nil)
}

// acked publishes at QoS 1 and returns the reason of the answer.
func (d *device) acked(topic string) mqtt.ReasonCode {
	d.x.Helper()
	d.publish(topic, "x", 1, false)
	return d.want(packet.PUBACK).Ack.Reason
}

// filters are those of the client's session.
func (x *tenant) filters(client string) string {
	x.Helper()
	var info struct {
		Subscriptions []struct {
			Filter string
			QoS    int `json:"qos"`
		}
	}
	x.do("GET", "/v1/tenants/"+x.id+"/clients/"+client, "", &info)
	all := ""
	for _, s := range info.Subscriptions {
		all += fmt.Sprintf("%s@%d ", s.Filter, s.QoS)
	}
	return all
}

const onlyB = `grants contains {"action": "all", "filter": "b/#"}`

// TestPolicy_Live: a new revision holds for what live connections publish, for what
// they subscribe to, and for what their sessions hold.
func TestPolicy_Live(t *testing.T) {
	p := startProduct(t)
	x := p.signUp(t, "acme")
	pub := x.device()
	held := x.device(clientID("held"))
	for _, f := range []string{"a/#", "b/#", "$share/g/a/x"} {
		if r := held.subscribe(f, 2, 0); r != 2 {
			t.Fatalf("subscribe %s: %v", f, r)
		}
	}
	x.policy(onlyB)
	x.within(func() string {
		if r := pub.acked("a/1"); r != mqtt.NotAuthorized {
			return fmt.Sprintf("a publish to a/1 is answered %v", r)
		}
		return ""
	})
	x.within(func() string {
		if got := x.filters("held"); got != "b/#@2 " {
			return "the session holds " + got
		}
		return ""
	})
	if r := pub.subscribe("a/1", 0, 0); r != mqtt.NotAuthorized {
		t.Errorf("subscribe a/1: %v", r)
	}
	if r := pub.subscribe("+/1", 0, 0); r != mqtt.NotAuthorized {
		t.Errorf("subscribe +/1: %v", r)
	}
	// The client that lost subscriptions goes on with the others, and has heard of
	// nothing it did not ask for.
	pub.publishAll("b/1", "one")
	for {
		m := held.want(packet.PUBLISH).Publish.Message
		if string(m.Topic) == "b/1" {
			break
		}
		if string(m.Topic) != "a/1" { // from before the change
			t.Fatalf("got %s", m.Topic)
		}
	}
	// QoS is lowered in what is held.
	x.policy(`grants contains {"action": "all", "filter": "b/#", "qos": 1}`)
	x.within(func() string {
		if got := x.filters("held"); got != "b/#@1 " {
			return "the session holds " + got
		}
		return ""
	})
	x.within(func() string {
		pub.publish("b/1", "x", 2, false)
		if r := pub.want(packet.PUBREC).Ack.Reason; r != mqtt.NotAuthorized {
			return fmt.Sprintf("a publish at QoS 2 is answered %v", r)
		}
		return ""
	})
	// Back to the default.
	x.do("DELETE", "/v1/tenants/acme/policies", "", nil)
	x.within(func() string {
		if r := pub.acked("c/1"); r.Failed() {
			return fmt.Sprintf("under the default: %v", r)
		}
		return ""
	})
}

// TestPolicy_Disconnect: with on_revoke disconnect whoever holds what is not granted
// any more is told, and does not hold it when it comes back.
func TestPolicy_Disconnect(t *testing.T) {
	x := startProduct(t).signUp(t, "acme")
	held, other := x.device(clientID("held"), stored), x.device(clientID("other"))
	held.subscribe("a/#", 1, 0)
	held.subscribe("b/#", 1, 0)
	other.subscribe("b/#", 1, 0)
	other.subscribe("c/#", 2, 0)
	// Who only gets less goes on.
	x.policy(`grants contains {"action": "all", "filter": "#", "qos": 1}`, "on_revoke", "disconnect")
	x.within(func() string {
		if got := x.filters("other"); got != "b/#@1 c/#@1 " && got != "c/#@1 b/#@1 " {
			return "the session holds " + got
		}
		return ""
	})
	x.policy(`grants contains {"action": "all", "filter": ["b/#", "c/#"][_]}`)
	if d := held.want(packet.DISCONNECT).Disconnect; d.Reason != mqtt.NotAuthorized {
		t.Errorf("told %v %s", d.Reason, d.ReasonString)
	}
	x.within(func() string {
		if got := x.filters("held"); got != "b/#@1 " {
			return "the session holds " + got
		}
		return ""
	})
	back, k := x.connect(clientID("held"), stored)
	if k.Reason != mqtt.Success || !k.SessionPresent {
		t.Fatalf("CONNACK %+v", k)
	}
	x.device().publishAll("b/1", "one")
	if got := string(back.want(packet.PUBLISH).Publish.Message.Payload); got != "one" {
		t.Errorf("got %q", got)
	}
	if got := string(other.want(packet.PUBLISH).Publish.Message.Payload); got != "one" {
		t.Errorf("got %q", got)
	}
}

// TestPolicy_Queued: what waited for a session, by a subscription that was taken
// away meanwhile, is not delivered; what is granted is.
func TestPolicy_Queued(t *testing.T) {
	x := startProduct(t).signUp(t, "acme")
	d := x.device(clientID("held"), stored)
	d.subscribe("a/#", 1, 0)
	d.subscribe("b/#", 2, 0)
	d.send(&packet.Packet{Type: packet.DISCONNECT, Disconnect: &packet.Disconnect{}})
	d.wantEnd()
	pub := x.device()
	pub.publishAll("a/1", "secret 1", "secret 2")
	pub.publishAll("b/1", "one")
	pub.publishAll("a/1", "secret 3")
	pub.publishAll("b/1", "two")
	x.policy(onlyB)
	x.within(func() string {
		if r := pub.acked("a/1"); r != mqtt.NotAuthorized {
			return fmt.Sprintf("a publish to a/1 is answered %v", r)
		}
		return ""
	})
	back, k := x.connect(clientID("held"), stored)
	if !k.SessionPresent {
		t.Fatal("the session is gone")
	}
	for _, want := range []string{"one", "two"} {
		m := back.want(packet.PUBLISH).Publish
		if string(m.Message.Payload) != want {
			t.Fatalf("got %s %q, want %q", m.Message.Topic, m.Message.Payload, want)
		}
		back.ack(packet.PUBACK, m.PacketID)
	}
	x.within(func() string {
		if got := x.filters("held"); got != "b/#@2 " {
			return "the session holds " + got
		}
		return ""
	})
	if p := back.next(100 * time.Millisecond); p != nil {
		t.Errorf("then came %+v", p)
	}
	if got := x.queued("held"); got != 0 {
		t.Errorf("%d messages still wait", got)
	}
}

// queued is how many messages wait for the client, or are in flight.
func (x *tenant) queued(client string) int {
	x.Helper()
	var info struct {
		QueueMessages int `json:"queue_messages"`
		Inflight      int
	}
	x.do("GET", "/v1/tenants/"+x.id+"/clients/"+client, "", &info)
	return info.QueueMessages + info.Inflight
}

// TestPolicy_Explained: what a gateway has denied is recorded, held against another
// policy, and explained by its id.
func TestPolicy_Explained(t *testing.T) {
	x := startProduct(t).signUp(t, "acme")
	x.policy(onlyB)
	d := x.device(clientID("c"))
	if r := d.acked("a/1"); r != mqtt.NotAuthorized {
		t.Fatalf("publish: %v", r)
	}
	var diff struct {
		Looked  int
		Changes []struct{ Decision, Action, Topic, Why string }
	}
	for end := time.Now().Add(soon); len(diff.Changes) == 0; time.Sleep(20 * time.Millisecond) {
		x.do("POST", "/v1/tenants/acme/policies:simulate", `{"files":{"p.rego":"package mqtt\n\ngrants contains {\"action\": \"all\", \"filter\": \"#\"}"}}`, &diff)
		if time.Now().After(end) {
			t.Fatal("the denial is not recorded")
		}
	}
	if c := diff.Changes[0]; c.Topic != "a/1" || c.Action != "publish" || !strings.HasPrefix(c.Why, "allowed by the entry (p.rego:3)") {
		t.Errorf("got %+v", c)
	}
	// The client's history names it too.
	for end := time.Now().Add(soon); ; time.Sleep(20 * time.Millisecond) {
		var history struct {
			Items []struct{ Kind, Why string }
		}
		x.do("GET", "/v1/tenants/acme/events?client=c", "", &history)
		if strings.Contains(fmt.Sprint(history.Items), "dropped decision "+diff.Changes[0].Decision) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the history has no decision: %+v", history.Items)
		}
	}
	var answer struct {
		Allowed  bool
		Revision uint64
		Why      string
		Recorded struct {
			ClientID string `json:"client_id"`
		}
	}
	x.do("POST", "/v1/tenants/acme/policies:explain", fmt.Sprintf(`{"decision":%q}`, diff.Changes[0].Decision), &answer)
	if answer.Allowed || answer.Revision != 1 || answer.Recorded.ClientID != "c" || !strings.HasPrefix(answer.Why, "no entry allows") {
		t.Errorf("explained by %+v", answer)
	}
}

// TestPolicy_Connect: mqtt.connect decides who comes in, with what class, and who may
// stay.
func TestPolicy_Connect(t *testing.T) {
	x := startProduct(t).signUp(t, "acme")
	stays, goes := x.device(clientID("dev-1")), x.device(clientID("old"))
	x.policy(`classes := {"device", "operator"}

connect := {"allow": true, "class": "device"} if {
	startswith(input.client.id, "dev-")
	input.ip == "127.0.0.1"
	input.client.user == "default"
}

connect := {"allow": true, "class": "operator"} if input.client.id == "op"

connect := {"allow": false, "reason": "use dev-N"} if input.client.id == "told"

connect := {"allow": true, "class": "nobody's"} if input.client.id == "wrong"

grants contains {"action": "publish", "filter": "d/%c"} if input.class == "device"

grants contains {"action": "all", "filter": "#"} if input.class == "operator"`)
	if d := goes.want(packet.DISCONNECT).Disconnect; d.Reason != mqtt.NotAuthorized {
		t.Errorf("told %v %s", d.Reason, d.ReasonString)
	}
	x.within(func() string {
		if r := stays.acked("x"); r != mqtt.NotAuthorized {
			return fmt.Sprintf("publish: %v", r)
		}
		return ""
	})
	if r := stays.acked("d/dev-1"); r.Failed() {
		t.Errorf("publish: %v", r)
	}
	op := x.device(clientID("op"))
	if r := op.subscribe("#", 1, 0); r != 1 {
		t.Errorf("subscribe: %v", r)
	}
	for id, want := range map[string]string{"told": "use dev-N", "other": "undefined", "wrong": ""} {
		_, k := x.connect(clientID(id))
		if k.Reason != mqtt.NotAuthorized || want != "" && !strings.Contains(k.ReasonString, want) {
			t.Errorf("%s: CONNACK %v %q", id, k.Reason, k.ReasonString)
		}
	}
	// A will that is not granted.
	if _, k := x.connect(clientID("dev-2"), willOn("d/dev-3")); k.Reason != mqtt.NotAuthorized {
		t.Errorf("will: CONNACK %v %q", k.Reason, k.ReasonString)
	}
	x.device(clientID("dev-3"), willOn("d/dev-3"))
}
