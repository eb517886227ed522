// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// TestControlPlaneAway holds that a client which cannot be let in without the control
// plane hears so in CONNACK, at every listener and in every version, and that who is
// connected goes on.
func TestControlPlaneAway(t *testing.T) {
	t.Parallel()
	w := start(t, func(_ *world, c *gateway.Config) {
		c.Listeners = append(c.Listeners, listener.Config{Name: "fixed", Kind: listener.MQTT, Address: "127.0.0.1:0", Tenant: "beta"})
	})
	before := map[string]*client{}
	names := []string{"mqtt", "mqtts", "ws", "wss", "fixed"}
	for _, name := range names {
		before[name] = w.any(name, "acme.localhost").mustConnect(hello("before-" + name))
	}
	for code, text := range map[string]string{
		tenancy.CodeControlPlaneAway:  "the client is not known here, and the control plane",
		tenancy.CodeControlPlaneGone:  "the control plane is away for too long",
		tenancy.CodeControlPlaneNever: "this gateway has not reached the control plane",
		"":                            "credentials cannot be checked now",
	} {
		w.dir.mu.Lock()
		w.dir.down, w.dir.downAs = true, code
		w.dir.mu.Unlock()
		for _, name := range names {
			for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
				p := hello("after")
				p.Version = v
				c := w.any(name, "acme.localhost")
				k := c.connect(p)
				if k.Reason != mqtt.ServerUnavailable || v == packet.V5 && !strings.HasPrefix(k.ReasonString, text) {
					t.Errorf("%q at %s, %v: CONNACK %v %q, expected %v %q", code, name, v, k.Reason, k.ReasonString, mqtt.ServerUnavailable, text)
				}
				c.wantEnd()
			}
		}
	}
	// A host that is nobody's is not let through the handshake meanwhile.
	config := w.tls("example.com")
	config.InsecureSkipVerify = true
	if _, err := tls.Dial("tcp", w.addr("mqtts"), config); err == nil {
		t.Error("a handshake for a host that is nobody's has succeeded")
	}
	for _, c := range before {
		c.roundTrip()
	}
}

// TestControlPlaneAway_Handshake holds that a client which was not asked for the
// certificate that its tenant requires, since nobody could say whose it is, is told to
// come again, although that can be said by the time of its CONNECT.
func TestControlPlaneAway_Handshake(t *testing.T) {
	t.Parallel()
	ca := tenancytest.NewCA(t, "ca")
	w := start(t, nil)
	w.setCAs("acme", &tenancy.ClientCAs{Certificates: ca.PEM(), ClientCerts: tenancy.ClientCertsRequired})
	w.certs = []tls.Certificate{ca.Issue(2, "dev")}
	for _, name := range []string{"mqtts", "wss"} {
		dial := func() *client { return w.any(name, "acme.localhost") }
		w.dir.mu.Lock()
		w.dir.hostsDown = 1
		w.dir.mu.Unlock()
		if k := dial().connect(hello("c")); k.Reason != mqtt.ServerUnavailable {
			t.Errorf("%s: CONNACK %v %q, expected %v", name, k.Reason, k.ReasonString, mqtt.ServerUnavailable)
		}
		if k := dial().connect(hello("c")); k.Reason != mqtt.Success {
			t.Errorf("%s: once more: CONNACK %v %q", name, k.Reason, k.ReasonString)
		}
	}
}
