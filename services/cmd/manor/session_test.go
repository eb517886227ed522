// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/xdg-go/scram"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// talk is a client's side of SCRAM-SHA-256 in AUTH.
type talk struct {
	d *device
	c *scram.ClientConversation
}

func (d *device) talk(username, password string) *talk {
	d.x.Helper()
	c, err := scram.SHA256.NewClient(username, password, "")
	if err != nil {
		d.x.Fatal(err)
	}
	return &talk{d, c.NewConversation()}
}

func (k *talk) step(data []byte) []byte {
	k.d.x.Helper()
	out, err := k.c.Step(string(data))
	if err != nil {
		k.d.x.Fatal(err)
	}
	return []byte(out)
}

func (k *talk) auth(reason mqtt.ReasonCode, data []byte) {
	k.d.x.Helper()
	k.d.send(&packet.Packet{Type: packet.AUTH, Auth: &packet.Auth{Reason: reason, Method: tenancy.MethodSCRAM, HasMethod: true, Data: data}})
}

// scram begins a connection by SCRAM-SHA-256 and returns what CONNACK says.
func (x *tenant) scram(username, password string) (*device, *packet.Connack) {
	x.Helper()
	d := x.dial()
	k := d.talk(username, password)
	d.send(&packet.Packet{Type: packet.CONNECT, Connect: &packet.Connect{
		Version: packet.V5, CleanStart: true, ClientID: username, HasAuthMethod: true, AuthMethod: tenancy.MethodSCRAM, AuthData: k.step(nil),
	}})
	a := d.want(packet.AUTH).Auth
	if a.Reason != mqtt.ContinueAuthentication || a.Method != tenancy.MethodSCRAM {
		x.Fatalf("AUTH %+v", a)
	}
	k.auth(mqtt.ContinueAuthentication, k.step(a.Data))
	ack := d.want(packet.CONNACK).Connack
	if ack.Reason == mqtt.Success {
		k.step(ack.AuthData) // the server knows the password, too
		if ack.AuthMethod != tenancy.MethodSCRAM || !k.c.Valid() {
			x.Errorf("CONNACK %+v", ack)
		}
	}
	return d, ack
}

// Devices authenticate by SCRAM-SHA-256 with the credentials that the API makes,
// and again while they are connected.
func TestSCRAM(t *testing.T) {
	x := startProduct(t).signUp(t, "acme")
	x.do("POST", "/v1/tenants/acme/credentials", `{"username":"chosen","password":"chosen-1","scram":true}`, nil)
	x.do("POST", "/v1/tenants/acme/credentials", `{"username":"without","password":"chosen-1"}`, nil)
	for _, c := range []struct {
		username, word string
		want           mqtt.ReasonCode
	}{
		{"acme:default", x.word, mqtt.Success},
		{"acme:chosen", "chosen-1", mqtt.Success},
		{"acme:default", "wrong", mqtt.NotAuthorized},
		{"acme:without", "chosen-1", mqtt.NotAuthorized},
		{"acme:nobody", "chosen-1", mqtt.NotAuthorized},
		{"default", x.word, mqtt.NotAuthorized},
		{"nowhere:default", x.word, mqtt.NotAuthorized},
	} {
		if _, k := x.scram(c.username, c.word); k.Reason != c.want {
			t.Errorf("%s: CONNACK %v %s", c.username, k.Reason, k.ReasonString)
		}
	}
	d, _ := x.scram("acme:chosen", "chosen-1")
	d.publishAll("t", "x")
	k := d.talk("acme:chosen", "chosen-1") // [MQTT-4.12.1-1]
	k.auth(mqtt.ReAuthenticate, k.step(nil))
	a := d.want(packet.AUTH).Auth
	k.auth(mqtt.ContinueAuthentication, k.step(a.Data))
	if a = d.want(packet.AUTH).Auth; a.Reason != mqtt.Success {
		t.Fatalf("AUTH %+v", a)
	}
	k.step(a.Data)
	d.publishAll("t", "x")
	// A credential that is deleted ends its connections, also this one.
	x.do("DELETE", "/v1/tenants/acme/credentials/chosen", "", nil)
	d.wantDisconnect(mqtt.NotAuthorized)
	if _, k := x.scram("acme:chosen", "chosen-1"); k.Reason != mqtt.NotAuthorized {
		t.Errorf("a deleted credential: CONNACK %v", k.Reason)
	}
}

// What a credential says holds for its sessions over the tenant's: settings
// replace, quotas narrow; also after the tenant has changed.
func TestSessionOverride(t *testing.T) {
	x := startProduct(t).signUp(t, "acme")
	var c struct{ Password string }
	x.do("POST", "/v1/tenants/acme/credentials",
		`{"username":"narrow","session":{"settings":{"maximum_qos":1,"max_inflight_messages":1},"quotas":{"topic_levels":2,"subscriptions_client":1}}}`, &c)
	as := func(p *packet.Connect) { p.Username, p.Password = "acme:narrow", []byte(c.Password) }
	d, k := x.connect(as)
	if !k.HasMaximumQoS || k.MaximumQoS != 1 {
		t.Errorf("CONNACK %+v", k)
	}
	other := x.device()
	check := func() {
		t.Helper()
		d.publish("a/b/c", "x", 1, false)
		if a := d.want(packet.PUBACK).Ack; a.Reason != mqtt.TopicNameInvalid {
			t.Errorf("PUBACK %v", a.Reason)
		}
		if r := d.subscribe("a", 0, 0); r.Failed() {
			t.Errorf("SUBACK %v", r)
		}
		if r := d.subscribe("b", 0, 0); r != mqtt.QuotaExceeded {
			t.Errorf("SUBACK %v", r)
		}
		other.publishAll("a/b/c", "x")
	}
	check()
	x.set(`{"maximum_qos":2,"upgrade_outgoing_qos":true}`)
	x.quota(`{"topic_levels":4,"subscriptions_client":10}`)
	x.within(func() string { // the others have it
		other.publish("a/b/c/d/e", "x", 1, false)
		if other.want(packet.PUBACK).Ack.Reason != mqtt.TopicNameInvalid {
			return "not yet"
		}
		return ""
	})
	check()
	d.publish("t", "x", 2, false)
	d.wantDisconnect(mqtt.QoSNotSupported)
	// A quota of the tenant that is narrower holds.
	x.quota(`{"topic_levels":1}`)
	d = x.device(as)
	x.within(func() string {
		d.publish("a/b", "x", 1, false)
		if d.want(packet.PUBACK).Ack.Reason != mqtt.TopicNameInvalid {
			return "not yet"
		}
		return ""
	})
	// A change of the credential reaches the live session.
	x.do("PUT", "/v1/tenants/acme/credentials/narrow/session", `{"settings":{"maximum_qos":0}}`, nil)
	x.within(func() string {
		d.publish("t", "x", 1, false)
		p := d.next(soon)
		if p.Type == packet.PUBACK {
			return "not yet"
		}
		if p.Type != packet.DISCONNECT || p.Disconnect.Reason != mqtt.QoSNotSupported {
			t.Fatalf("got %+v", p)
		}
		return ""
	})
	if _, k := x.connect(as); !k.HasMaximumQoS || k.MaximumQoS != 0 {
		t.Errorf("CONNACK %+v", k)
	}
}
