// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// TestAttacks is the list of what one tenant may try against another one of
// another organization, a line for each way. Each is tried by real clients against
// the whole product; what it gets is compared with what it should get, and then an
// exchange in both tenants shows that nothing has crossed, and that the victim is
// as it was.
func TestAttacks(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	s := newSiege(t)
	for _, a := range []struct {
		way    string
		attack func(*siege, *testing.T)
	}{
		{"foreign tenant by id", (*siege).byID},
		{"hostname", (*siege).byHostname},
		{"certificate", (*siege).byCertificate},
		{"username prefix", (*siege).byPrefix},
		{"PROXY header", (*siege).byProxy},
		{"WebSocket Host", (*siege).byWebSocketHost},
		{"$share name", (*siege).byShare},
		{"retained", (*siege).byRetained},
		{"will topic", (*siege).byWill},
		{"$SYS", (*siege).bySys},
		{"response topic", (*siege).byResponseTopic},
		{"policy data", (*siege).byPolicy},
		{"API key of another organization", (*siege).byKey},
		{"path tricks in ids", (*siege).byPath},
		{"timing of sign-in", (*siege).byTiming},
	} {
		t.Run(a.way, func(t *testing.T) {
			was := s.victimState(t)
			a.attack(s, t)
			s.exchange(t)
			is := s.victimState(t)
			for asked, now := range is {
				if now != was[asked] {
					t.Errorf("the victim has changed: %s answers\n%s\nand answered before\n%s", asked, now, was[asked])
				}
			}
		})
	}
}

const (
	// jewel is in everything that is the victim's own, and in nothing else.
	jewel = "crownjewel"
	// loot is in every payload of the attacker.
	loot = "plunder"
)

// siege is two tenants of two organizations, beside each other.
type siege struct {
	*testing.T
	p                *Product
	victim, attacker *besieged
	// proxied takes PROXY headers from anybody here, fixed too and belongs to the
	// victim, and distrustful only from elsewhere: addresses.
	proxied, fixed, distrustful string
	document                    openAPI
	rounds                      int
}

// besieged is one of the two.
type besieged struct {
	*account
	organization string
	ca           *tenancytest.CA
	// watcher has subscribed to everything that there is.
	watcher *party
	// ids fill the paths of operations, by the names of their parameters.
	ids map[string]string
}

// party is a client and what it has heard.
type party struct {
	*Device
	mu  sync.Mutex
	got []string // topic and payload; guarded by mu
}

func newSiege(t *testing.T) *siege {
	t.Setenv("MANOR_BROKER_SYSTREE_INTERVAL", "1s")
	bin := Programs(t, built)
	s := &siege{T: t}
	s.p = Start(t, bin, "--data", t.TempDir(), "--listen-offset", Offset(t), "--log-level", "error", "--brokers", "1", "--gateways", "2", "--no-restart")
	s.document = readOpenAPI(t)
	s.victim, s.attacker = s.besiege("victim"), s.besiege("attacker")
	s.proxied, s.fixed, s.distrustful = net.JoinHostPort("127.0.0.1", freePort(t)), net.JoinHostPort("127.0.0.1", freePort(t)), net.JoinHostPort("127.0.0.1", freePort(t))
	ownGateway(t, bin, s.p.Of("gateway")[1], fmt.Sprintf(`
listeners:
  - {name: proxied, kind: mqtt, address: '%s', proxy_protocol: true, trusted_proxies: [127.0.0.1]}
  - {name: fixed, kind: mqtt, address: '%s', proxy_protocol: true, tenant: victim}
  - {name: distrustful, kind: mqtt, address: '%s', proxy_protocol: true, trusted_proxies: [192.0.2.1]}
`, s.proxied, s.fixed, s.distrustful))
	s.treasure()
	s.victim.watcher = s.open(t, s.victim, s.victim.ids["client_id"], "#", "$SYS/#")
	s.attacker.watcher = s.open(t, s.attacker, "watcher", "#", "$SYS/#")
	return s
}

// besiege signs a tenant up that has a CA.
func (s *siege) besiege(id string) *besieged {
	b := &besieged{account: signUp(s.T, s.p, id), ca: tenancytest.NewCA(s, id)}
	var me struct{ Organization string }
	Get(s, s.p.API+"/v1/me", b.Key, &me)
	b.organization = me.Organization
	b.ids = map[string]string{"organization": me.Organization, "tenant": id}
	s.ask(s.T, b, http.MethodPut, "/v1/tenants/"+id+"/client-cas", map[string]any{
		"certificates": b.ca.PEM(), "client_certs": "optional", "use_identity_as_username": "cn", "certificate_authenticates": true,
	}).want(s.T, http.StatusOK)
	return b
}

// treasure gives the victim one of everything that has an id.
func (s *siege) treasure() {
	v := s.victim
	tenant, organization := "/v1/tenants/"+v.ID, "/v1/organizations/"+v.organization
	made := func(method, path string, body map[string]any, status int) map[string]any {
		return s.ask(s.T, v, method, path, body).want(s.T, status).object(s.T)
	}
	made(http.MethodPost, tenant+"/credentials", map[string]any{"username": jewel + "-press", "password": "correct-horse-" + jewel}, http.StatusCreated)
	made(http.MethodPut, tenant+"/devices/"+jewel+"-7", map[string]any{"groups": []string{jewel}}, http.StatusOK)
	made(http.MethodPut, tenant+"/policies", map[string]any{"description": jewel, "files": map[string]string{"policy.rego": victimPolicy}}, http.StatusOK)
	made(http.MethodPost, tenant+"/managed-ca", nil, http.StatusCreated)
	v.ids["username"], v.ids["device"], v.ids["client_id"], v.ids["revision"] = jewel+"-press", jewel+"-7", jewel+"-watcher", "1"
	v.ids["domain"] = made(http.MethodPost, tenant+"/domains", map[string]any{"fqdn": "mqtt." + jewel + ".example", "certificate": "uploaded"}, http.StatusCreated)["fqdn"].(string)
	v.ids["ban"] = made(http.MethodPost, tenant+"/bans", map[string]any{"kind": "client_id", "value": jewel}, http.StatusCreated)["id"].(string)
	v.ids["claim"] = made(http.MethodPost, tenant+"/claims", map[string]any{"username": jewel}, http.StatusCreated)["id"].(string)
	v.ids["key"] = made(http.MethodPost, organization+"/api-keys", map[string]any{"name": jewel, "role": "viewer"}, http.StatusCreated)["id"].(string)
	v.ids["member"] = made(http.MethodPost, organization+"/members", map[string]any{"email": jewel + "@victim.example", "role": "viewer"}, http.StatusCreated)["id"].(string)
	v.ids["operation"] = made(http.MethodPost, tenant+"/credentials:import", map[string]any{"items": []any{map[string]any{"username": jewel + "-imported", "password": "correct-horse"}}}, http.StatusAccepted)["id"].(string)
	waitFor(s.T, "the import is done", func() bool {
		return s.ask(s.T, v, http.MethodGet, tenant+"/operations/"+v.ids["operation"], nil).want(s.T, http.StatusOK).object(s.T)["state"] == "done"
	})
}

// options are a CONNECT of a tenant's credential where the hostname does not say
// which tenant.
func (b *besieged) options(id string) packet.Connect {
	return packet.Connect{
		Version: packet.V5, ClientID: id, CleanStart: true, KeepAlive: 60,
		Username: b.UserPlain, HasUsername: true, Password: []byte(b.Password), HasPassword: true,
	}
}

// open connects a client of b and has it subscribe, also to the marker.
func (s *siege) open(t *testing.T, b *besieged, id string, filters ...string) *party {
	t.Helper()
	p := &party{Device: &Device{Address: b.gateway.Addr("mqtt"), Options: b.options(id)}}
	p.join(t, filters...)
	return p
}

// join connects and subscribes; the end of the test takes the client away.
func (p *party) join(t *testing.T, filters ...string) {
	t.Helper()
	p.OnMessage = func(m Delivered) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.got = append(p.got, fmt.Sprintf("%s %s", m.Topic, m.Payload))
	}
	if _, err := p.Connect(); err != nil {
		t.Fatalf("%s: %v", p.Options.ClientID, err)
	}
	t.Cleanup(p.Kill)
	for _, f := range append(filters, "marker") {
		if got, err := p.Subscribe(mqtt.Subscription{Filter: f, QoS: 1}); err != nil || got[0].Failed() {
			t.Fatalf("%s subscribes to %s: %v %v", p.Options.ClientID, f, got, err)
		}
	}
}

// publish publishes at QoS 1 and waits for the PUBACK.
func (p *party) publish(t *testing.T, m mqtt.Message) mqtt.ReasonCode {
	t.Helper()
	m.QoS = mqtt.AtLeastOnce
	sent, err := p.Publish(m)
	if err != nil {
		t.Fatalf("%s publishes to %s: %v", p.Options.ClientID, m.Topic, err)
	}
	select {
	case <-sent.Acked:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s publishes to %s: no PUBACK in 10 s", p.Options.ClientID, m.Topic)
	}
	return sent.Reason
}

// say is publish of something that is taken.
func (p *party) say(t *testing.T, topic, payload string, retain bool) {
	t.Helper()
	if r := p.publish(t, mqtt.Message{Topic: []byte(topic), Payload: []byte(payload), Retain: retain}); r.Failed() {
		t.Fatalf("%s publishes to %s: %v", p.Options.ClientID, topic, r)
	}
}

// heard is what has come so far.
func (p *party) heard() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// until waits until a message has come.
func (p *party) until(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !slices.Contains(p.heard(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: %q does not come in 10 s; it has %.2000q", p.Options.ClientID, want, p.heard())
		}
	}
}

// exchange publishes in both tenants, to the same topics, and holds that the
// attacker's clients, its watcher and more, have heard the attacker's messages up to
// the last one and none of the victim's, and the victim's watcher likewise. So what
// would have crossed before has had its time: it would be in front of the markers.
func (s *siege) exchange(t *testing.T, more ...*party) {
	t.Helper()
	s.rounds++
	v, a := s.victim.watcher, s.attacker.watcher
	for _, topic := range []string{"line/1", "victim/line", "attacker/line"} {
		v.say(t, topic, fmt.Sprint(jewel, s.rounds), false)
		a.say(t, topic, fmt.Sprint(loot, s.rounds), false)
	}
	for _, x := range []struct {
		by      *party
		parties []*party
		alien   string
	}{{v, []*party{v}, loot}, {a, append(more, a), jewel}} {
		marker := fmt.Sprint("marker", s.rounds)
		x.by.say(t, "marker", marker, false)
		for _, p := range x.parties {
			p.until(t, "marker "+marker)
			for _, m := range p.heard() {
				if strings.Contains(m, x.alien) {
					t.Errorf("%s of %s heard %q", p.Options.ClientID, p.Options.Username, m)
				}
			}
		}
	}
	v.until(t, fmt.Sprint("line/1 ", jewel, s.rounds))
	a.until(t, fmt.Sprint("line/1 ", loot, s.rounds))
}

// greet sends CONNECT over a connection and returns the answer. The error is that
// of a connection that ends without one.
func greet(conn net.Conn, o packet.Connect) (mqtt.ReasonCode, error) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(packet.AppendConnect(nil, &o)); err != nil {
		return 0, err
	}
	p, err := (&stream{conn: conn, version: o.Version}).next()
	if err != nil {
		return 0, err
	}
	if p.Type != packet.CONNACK {
		return 0, fmt.Errorf("%s in place of CONNACK", p.Type)
	}
	return p.Connack.Reason, nil
}

// denied holds that a CONNECT was answered with one of the reasons, or, without
// reasons, that the connection ended without a word.
func denied(t *testing.T, how string, got mqtt.ReasonCode, err error, want ...mqtt.ReasonCode) {
	t.Helper()
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		t.Errorf("%s: no answer in 10 s", how)
	case len(want) == 0 && err == nil:
		t.Errorf("%s: CONNACK %v, expected the connection to be closed", how, got)
	case len(want) > 0 && (err != nil || !slices.Contains(want, got)):
		t.Errorf("%s: CONNACK %v, %v, expected %v", how, got, err, want)
	}
}

// dial opens a TCP connection, within TLS if there is a configuration.
func (s *siege) dial(t *testing.T, addr string, c *tls.Config) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if c != nil {
		conn = tls.Client(conn, c)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// escape writes ids into the path of an operation.
func escape(path string, ids map[string]string) string {
	for name, id := range ids {
		path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(id))
	}
	return path
}
