// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

func enhancedHello(id, method, data string) *packet.Connect {
	return &packet.Connect{
		Version: packet.V5, CleanStart: true, ClientID: id, KeepAlive: 60, HasAuthMethod: true, AuthMethod: method, AuthData: []byte(data),
	}
}

func (c *client) auth(reason mqtt.ReasonCode, data string) {
	c.t.Helper()
	c.send(&packet.Packet{Type: packet.AUTH, Auth: &packet.Auth{Reason: reason, Method: "FAKE", HasMethod: true, Data: []byte(data)}})
}

func (c *client) wantAuth(reason mqtt.ReasonCode, data string) {
	c.t.Helper()
	a := c.want(packet.AUTH).Auth
	if a.Reason != reason || a.Method != "FAKE" || string(a.Data) != data {
		c.t.Fatalf("AUTH %v %s %q, expected %v %q", a.Reason, a.Method, a.Data, reason, data)
	}
}

// authenticate connects with the method FAKE.
func (c *client) authenticate(p *packet.Connect) *packet.Connack {
	c.t.Helper()
	c.send(&packet.Packet{Type: packet.CONNECT, Connect: p})
	c.wantAuth(mqtt.ContinueAuthentication, "prove it, "+string(p.AuthData)) // [MQTT-4.12.0-2]
	c.auth(mqtt.ContinueAuthentication, "secret")
	return c.want(packet.CONNACK).Connack
}

func TestEnhanced_MQTT_4_12_0(t *testing.T) {
	w := start(t, nil)
	for name, p := range map[string]*packet.Connect{
		"tenant in the data": enhancedHello("a", "FAKE", "acme:dev"),
		"tenant in the user name": func() *packet.Connect {
			p := enhancedHello("b", "FAKE", "dev")
			p.Username, p.HasUsername = "acme:", true
			return p
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			c := w.dial("mqtt")
			k := c.authenticate(p)
			if k.Reason != mqtt.Success || k.AuthMethod != "FAKE" || string(k.AuthData) != "welcome" { // [MQTT-4.12.0-5]
				t.Fatalf("CONNACK %+v", k)
			}
			c.subscribe("t")
			c.send(publish("t", "x", 0))
			c.want(packet.PUBLISH)
		})
	}
	t.Run("unknown method", func(t *testing.T) { // [MQTT-4.12.0-1]
		c := w.dial("mqtt")
		if k := c.connect(enhancedHello("c", "KERBEROS", "x")); k.Reason != mqtt.BadAuthenticationMethod || k.AuthMethod != "" {
			t.Errorf("CONNACK %+v", k)
		}
		c.wantEnd()
	})
	t.Run("wrong", func(t *testing.T) { // [MQTT-4.12.0-4]
		c := w.dial("mqtt")
		c.send(&packet.Packet{Type: packet.CONNECT, Connect: enhancedHello("c", "FAKE", "acme:dev")})
		c.wantAuth(mqtt.ContinueAuthentication, "prove it, acme:dev")
		c.auth(mqtt.ContinueAuthentication, "guess")
		if k := c.want(packet.CONNACK).Connack; k.Reason != mqtt.NotAuthorized {
			t.Errorf("CONNACK %+v", k)
		}
		c.wantEnd()
	})
	t.Run("tenant that is suspended", func(t *testing.T) {
		w.dir.edit("beta", func(t *tenancy.Tenant) { t.State = tenancy.StateSuspended })
		if k := w.dial("mqtt").authenticate(enhancedHello("c", "FAKE", "beta:dev")); k.Reason != mqtt.Banned {
			t.Errorf("CONNACK %+v", k)
		}
	})
	t.Run("no control plane", func(t *testing.T) {
		w := start(t, nil)
		w.dir.mu.Lock()
		w.dir.down = true
		w.dir.mu.Unlock()
		c := w.dial("mqtt")
		if k := c.connect(enhancedHello("c", "FAKE", "acme:dev")); k.Reason != mqtt.ServerUnavailable {
			t.Errorf("CONNACK %+v", k)
		}
		c.wantEnd()
	})
	t.Run("goes away", func(t *testing.T) {
		c := w.dial("mqtt")
		c.send(&packet.Packet{Type: packet.CONNECT, Connect: enhancedHello("c", "FAKE", "acme:dev")})
		c.wantAuth(mqtt.ContinueAuthentication, "prove it, acme:dev")
		c.send(&packet.Packet{Type: packet.DISCONNECT, Disconnect: &packet.Disconnect{}})
		c.wantEnd()
	})
	t.Run("something else before CONNACK", func(t *testing.T) {
		c := w.dial("mqtt")
		c.send(&packet.Packet{Type: packet.CONNECT, Connect: enhancedHello("c", "FAKE", "acme:dev")})
		c.wantAuth(mqtt.ContinueAuthentication, "prove it, acme:dev")
		c.send(publish("t", "x", 0))
		if k := c.want(packet.CONNACK).Connack; k.Reason != mqtt.ProtocolError {
			t.Errorf("CONNACK %+v", k)
		}
		c.wantEnd()
	})
}

// A client authenticates again while it is served, as often as it likes; who
// fails, or is somebody else then, is disconnected.
func TestEnhanced_MQTT_4_12_1_Again(t *testing.T) {
	w := start(t, nil)
	c := w.dial("mqtt")
	if k := c.authenticate(enhancedHello("a", "FAKE", "acme:dev")); k.Reason != mqtt.Success {
		t.Fatalf("CONNACK %+v", k)
	}
	c.subscribe("t")
	for range 3 {
		c.auth(mqtt.ReAuthenticate, "acme:dev")
		c.wantAuth(mqtt.ContinueAuthentication, "prove it, acme:dev")
		c.send(publish("t", "served", 0))
		c.want(packet.PUBLISH)
		c.auth(mqtt.ContinueAuthentication, "secret")
		c.wantAuth(mqtt.Success, "welcome")
	}
	if n := w.metric("mqtt_gateway_reauthentications_total", "succeeded"); n != 3 {
		t.Errorf("%v succeeded", n)
	}
	c.auth(mqtt.ReAuthenticate, "acme:dev")
	c.wantAuth(mqtt.ContinueAuthentication, "prove it, acme:dev")
	c.auth(mqtt.ContinueAuthentication, "guess")
	if d := c.want(packet.DISCONNECT).Disconnect; d.Reason != mqtt.NotAuthorized { // [MQTT-4.12.1-2]
		t.Errorf("DISCONNECT %+v", d)
	}
	c.wantEnd()
	for name, steps := range map[string]struct {
		data   []string
		reason mqtt.ReasonCode
	}{
		"somebody else":     {[]string{"acme:other", "secret"}, mqtt.NotAuthorized},
		"another tenant":    {[]string{"beta:dev", "secret"}, mqtt.NotAuthorized},
		"begins in between": {[]string{""}, mqtt.ProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			c := w.dial("mqtt")
			c.authenticate(enhancedHello("b", "FAKE", "acme:dev"))
			if steps.data[0] == "" {
				c.auth(mqtt.ContinueAuthentication, "x")
			} else {
				c.auth(mqtt.ReAuthenticate, steps.data[0])
				c.wantAuth(mqtt.ContinueAuthentication, "prove it, "+steps.data[0])
				c.auth(mqtt.ContinueAuthentication, steps.data[1])
			}
			if d := c.want(packet.DISCONNECT).Disconnect; d.Reason != steps.reason {
				t.Errorf("DISCONNECT %+v", d)
			}
			c.wantEnd()
		})
	}
}
