// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pires/go-proxyproto"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// roundTrip subscribes and publishes to itself.
func (c *client) roundTrip() {
	c.t.Helper()
	c.subscribe("a/#")
	for _, payload := range []string{"x", strings.Repeat("large", 50_000)} {
		c.send(publish("a/b", payload, 1))
		deliver, ack := false, false
		for !deliver || !ack {
			switch p := c.next(); {
			case p == nil:
				c.t.Fatal("the connection ended")
			case p.Type == packet.PUBLISH:
				deliver = string(p.Publish.Message.Payload) == payload
			case p.Type == packet.PUBACK:
				ack = p.Ack.PacketID == 5
			}
		}
	}
	c.send(&packet.Packet{Type: packet.PINGREQ})
	c.want(packet.PINGRESP)
	c.send(&packet.Packet{Type: packet.DISCONNECT, Disconnect: &packet.Disconnect{}})
	c.wantEnd()
}

func TestEveryListenerAndVersion(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for _, name := range []string{"mqtt", "mqtts", "ws", "wss"} {
		for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
			t.Run(name+"/"+v.String(), func(t *testing.T) {
				w := *w
				w.t = t
				p := hello("c-" + name)
				p.Version = v
				w.any(name, "acme.localhost").mustConnect(p).roundTrip()
			})
		}
	}
	w.eventually("no connection", func() bool { return w.gw.Connections() == 0 })
	for _, cause := range w.broker.closed() {
		if cause != link.CloseNormal {
			t.Errorf("closed with cause %d", cause)
		}
	}
}

// any dials a listener of any kind; the user name of hello then needs no
// tenant, but says it, which rule 1 does not mind.
func (w *world) any(name, host string) *client {
	w.t.Helper()
	switch name {
	case "mqtts":
		c, err := tls.Dial("tcp", w.addr(name), w.tls(host))
		if err != nil {
			w.t.Fatal(err)
		}
		return w.client(c)
	case "ws", "wss":
		return w.ws(name, host, nil)
	}
	return w.dial(name)
}

func (w *world) ws(name, host string, header http.Header) *client {
	w.t.Helper()
	ctx := context.Background()
	ws, _, err := websocket.Dial(ctx, name+"://"+w.addr(name)+"/mqtt", &websocket.DialOptions{
		Subprotocols: []string{"mqtt"}, Host: host, HTTPHeader: header,
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: w.tls(host)}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	c := w.client(websocket.NetConn(ctx, ws, websocket.MessageBinary))
	c.cut = ws.CloseNow
	return c
}

func TestTenantSelection(t *testing.T) {
	t.Parallel()
	w := start(t, func(w *world, c *gateway.Config) {
		c.Anonymous = "beta"
		c.Listeners = append(c.Listeners, listener.Config{Name: "fixed", Kind: listener.MQTT, Address: "127.0.0.1:0", Tenant: "beta"})
	})
	for _, c := range []struct {
		listener, host, user, password string
		tenant                         string // empty: refused with reason
		reason                         mqtt.ReasonCode
	}{
		{"mqtts", "acme.localhost", "dev", "secret", "acme", 0},
		{"mqtts", "acme.localhost", "dev", "wrong", "", mqtt.BadUserNameOrPassword},
		{"mqtts", "acme.localhost", "", "", "", mqtt.NotAuthorized},
		{"mqtts", "", "beta:dev", "secret", "beta", 0},
		{"mqtts", "", "dev", "secret", "", mqtt.NotAuthorized},
		{"ws", "acme.localhost", "dev", "secret", "acme", 0},
		{"ws", "127.0.0.1", "acme:dev", "secret", "acme", 0},
		{"ws", "acme.localhost:1234", "beta:dev", "secret", "acme", 0}, // the first rule wins
		{"wss", "acme.localhost", "dev", "secret", "acme", 0},
		{"fixed", "", "acme:dev", "secret", "beta", 0},
		{"mqtt", "", "acme:dev", "secret", "acme", 0},
		{"mqtt", "", "acme:dev", "", "", mqtt.BadUserNameOrPassword},
		{"mqtt", "", "", "", "beta", 0}, // anonymous
		{"mqtt", "", "somebody", "", "beta", 0},
		{"mqtt", "", "no:tenant", "", "beta", 0},
		{"mqtt", "", "somebody", "wrong", "", mqtt.BadUserNameOrPassword},
		{"mqtt", "", "beta:dev", "secret", "beta", 0},
	} {
		p := hello("x")
		p.Username, p.HasUsername = c.user, c.user != ""
		p.Password, p.HasPassword = []byte(c.password), c.password != ""
		k := w.any(c.listener, c.host).connect(p)
		if k.Reason != c.reason {
			t.Errorf("%+v: CONNACK %v %q", c, k.Reason, k.ReasonString)
		} else if got := w.broker.lastOpen().Tenant; c.tenant != "" && got != c.tenant {
			t.Errorf("%+v: the tenant is %q", c, got)
		} else if c.tenant == "" && k.ReasonString == "" {
			t.Errorf("%+v: no reason string", c)
		}
	}
}

func TestNoTenantIsRefusedInEveryVersion(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		p := hello("x")
		p.Version, p.Username = v, "dev"
		c := w.dial("mqtt")
		if k := c.connect(p); k.Reason != mqtt.NotAuthorized {
			t.Errorf("%v: %v", v, k.Reason)
		}
		c.wantEnd()
	}
}

// Without the password nobody learns which tenants there are, and how they are.
func TestStrangersDoNotLearnWhichTenantsExist(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.dir.edit("beta", func(t *tenancy.Tenant) { t.State = tenancy.StateSuspended })
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		var first *packet.Connack
		for _, c := range []struct{ user, password string }{
			{"acme:dev", "wrong"},
			{"acme:dev", ""},
			{"beta:dev", "wrong"},
			{"beta:dev", ""},
			{"nobody:dev", "wrong"},
			{"nobody:dev", ""},
			{"nobody:dev", "secret"},
			{"No Tenant:dev", "secret"},
		} {
			p := hello("x")
			p.Version, p.Username = v, c.user
			p.Password, p.HasPassword = []byte(c.password), c.password != ""
			k := w.dial("mqtt").connect(p)
			if first == nil {
				first = k
			}
			if k.Reason != mqtt.BadUserNameOrPassword || k.Reason != first.Reason || k.ReasonString != first.ReasonString {
				t.Errorf("%v: %+v: CONNACK %v %q, acme hears %v %q", v, c, k.Reason, k.ReasonString, first.Reason, first.ReasonString)
			}
		}
	}
	p := hello("x")
	p.Username = "beta:dev"
	if k := w.dial("mqtt").connect(p); k.Reason != mqtt.Banned {
		t.Errorf("a suspended tenant's own device: CONNACK %v", k.Reason)
	}
}

func TestUnknownSNIIsRefused(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for _, name := range []string{"mqtts", "wss"} {
		c := w.tls("nobody.localhost")
		c.InsecureSkipVerify = true
		_, err := tls.Dial("tcp", w.addr(name), c)
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s: %v, expected the alert unrecognized_name", name, err)
		}
	}
	w.eventually("the refusals counted", func() bool {
		return w.metric("mqtt_gateway_connections_refused_total", "unknown_sni") == 2
	})
}

func TestCertificateIsReloaded(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	serial := func() int64 {
		c, err := tls.Dial("tcp", w.addr("mqtts"), w.tls("acme.localhost"))
		if err != nil {
			return 0
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Fatalf("serial %d", got)
	}
	old := w.any("mqtts", "acme.localhost").mustConnect(hello("old"))
	if err := os.WriteFile(w.cert, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 1 {
		t.Errorf("with a broken file the old certificate is to stay: serial %d", got)
	}
	w.writeCert(2)
	w.eventually("the new certificate", func() bool { return serial() == 2 })
	old.roundTrip()
}

func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	w := start(t, func(w *world, c *gateway.Config) {
		c.Listeners = append(c.Listeners,
			listener.Config{Name: "proxy", Kind: listener.MQTT, Address: "127.0.0.1:0", ProxyProtocol: true, TrustedProxies: []string{"127.0.0.0/8"}},
			listener.Config{Name: "proxytls", Kind: listener.MQTTS, Address: "127.0.0.1:0", ProxyProtocol: true, CertFile: w.cert, KeyFile: w.key},
			listener.Config{Name: "proxyws", Kind: listener.WS, Address: "127.0.0.1:0", ProxyProtocol: true},
			listener.Config{Name: "untrusted", Kind: listener.MQTT, Address: "127.0.0.1:0", ProxyProtocol: true, TrustedProxies: []string{"10.0.0.0/8"}})
	})
	src := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}
	dst := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1883}
	for _, version := range []byte{1, 2} {
		h := proxyproto.HeaderProxyFromAddrs(version, src, dst)
		if version == 2 {
			if err := h.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte("beta.localhost")}}); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"proxy", "proxytls", "proxyws"} {
			raw := w.dial(name)
			if _, err := h.WriteTo(raw.c); err != nil {
				t.Fatal(err)
			}
			c := raw
			switch name {
			case "proxytls":
				c = w.client(tls.Client(raw.c, w.tls("")))
			case "proxyws":
				ws, _, err := websocket.Dial(context.Background(), "ws://127.0.0.1/mqtt", &websocket.DialOptions{
					Subprotocols: []string{"mqttv3.1"},
					HTTPClient: &http.Client{Transport: &http.Transport{
						DialContext: func(context.Context, string, string) (net.Conn, error) { return raw.c, nil },
					}},
				})
				if err != nil {
					t.Fatal(err)
				}
				c = w.client(websocket.NetConn(context.Background(), ws, websocket.MessageBinary))
			}
			c.mustConnect(hello("p"))
			o := w.broker.lastOpen()
			want := map[byte]string{1: "acme", 2: "beta"}[version]
			if o.Labels.Peer != "192.0.2.7:4711" || o.Tenant != want {
				t.Errorf("%s, version %d: peer %s, tenant %s", name, version, o.Labels.Peer, o.Tenant)
			}
			c.roundTrip()
		}
		c := w.dial("untrusted")
		_, _ = h.WriteTo(c.c)
		c.wantEnd()
	}
	c := w.dial("proxy")
	c.send(&packet.Packet{Type: packet.CONNECT, Connect: hello("p")})
	c.wantEnd() // without a header
}

func TestMaxConnections(t *testing.T) {
	t.Parallel()
	w := start(t, func(_ *world, c *gateway.Config) { c.Listeners[0].MaxConnections = 2 })
	a := w.dial("mqtt").mustConnect(hello("a"))
	w.dial("mqtt").mustConnect(hello("b"))
	w.dial("mqtt").wantEnd()
	if w.metric("mqtt_gateway_connections_refused_total", "max_connections") != 1 {
		t.Error("the refusal is not counted")
	}
	a.roundTrip()
	w.eventually("a free place", func() bool { return w.gw.Connections() == 1 })
	w.dial("mqtt").mustConnect(hello("c"))
}

func TestTenantQuotaOfConnections(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.Connections = 1 })
	w.dial("mqtt").mustConnect(hello("a"))
	if k := w.dial("mqtt").connect(hello("b")); k.Reason != mqtt.QuotaExceeded || k.ReasonString == "" {
		t.Errorf("CONNACK %v %q", k.Reason, k.ReasonString)
	}
}

func TestListenerVersions(t *testing.T) {
	t.Parallel()
	w := start(t, func(_ *world, c *gateway.Config) { c.Listeners[0].Versions = []string{"5"} })
	p := hello("a")
	p.Version = packet.V311
	if k := w.dial("mqtt").connect(p); k.Reason != mqtt.UnsupportedProtocolVersion {
		t.Errorf("CONNACK %v", k.Reason)
	}
	w.dial("mqtt").mustConnect(hello("a"))
}

func TestByteByByte(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	c := w.dial("mqtt")
	var b []byte
	b = packet.AppendConnect(b, hello("slow"))
	b = packet.Append(b, packet.V5, &packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a"}}}}, 0)
	b = packet.Append(b, packet.V5, publish("a", strings.Repeat("y", 700), 1), 0)
	for i := range b {
		c.write(b[i : i+1])
	}
	c.want(packet.CONNACK)
	c.want(packet.SUBACK)
	if p := c.want(packet.PUBLISH); len(p.Publish.Message.Payload) != 700 {
		t.Errorf("payload of %d bytes", len(p.Publish.Message.Payload))
	}
	c.want(packet.PUBACK)
}

func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	w := start(t, func(_ *world, c *gateway.Config) { c.ConnectTimeout = 300 * time.Millisecond })
	w.dial("mqtt").wantEnd()
	w.dial("mqtts").wantEnd()
	w.dial("ws").wantEnd()
	w.broker.mu.Lock()
	w.broker.quiet = true
	w.broker.mu.Unlock()
	if k := w.dial("mqtt").connect(hello("x")); k.Reason != mqtt.ServerUnavailable {
		t.Errorf("of a broker that does not answer: CONNACK %v", k.Reason)
	}
	w.eventually("no connection", func() bool { return w.gw.Connections() == 0 })
	if got := w.broker.closed(); len(got) != 1 {
		t.Errorf("the broker heard of %d closes", len(got))
	}
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	p := hello("quiet")
	p.KeepAlive = 1
	c := w.dial("mqtt").mustConnect(p)
	begin := time.Now()
	d := c.want(packet.DISCONNECT)
	if took := time.Since(begin); d.Disconnect.Reason != mqtt.KeepAliveTimeout || took < 1500*time.Millisecond || took > 3*time.Second {
		t.Errorf("DISCONNECT %v after %v", d.Disconnect.Reason, took)
	}
	c.wantEnd()
	w.eventually("the close", func() bool { return len(w.broker.closed()) == 1 && w.broker.closed()[0] == link.CloseLost })
}

// Who says something in time stays [MQTT-3.1.2-22].
func TestKeepAliveKept(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	p := hello("alive")
	p.KeepAlive = 1
	c := w.dial("mqtt").mustConnect(p)
	for range 8 {
		time.Sleep(500 * time.Millisecond) // the client's own pace
		c.send(&packet.Packet{Type: packet.PINGREQ})
		c.want(packet.PINGRESP)
	}
}

func TestChangesReachConnections(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	other := hello("other")
	other.Username = "acme:other"
	a, b := w.dial("mqtt").mustConnect(hello("a")), w.any("wss", "acme.localhost")
	p := hello("b")
	p.Username = "other"
	b.mustConnect(p)
	w.dir.changes <- tenancy.Change{Kind: tenancy.CredentialGone, Tenant: "acme", Username: "dev"}
	if d := a.want(packet.DISCONNECT); d.Disconnect.Reason != mqtt.NotAuthorized {
		t.Errorf("DISCONNECT %v", d.Disconnect.Reason)
	}
	a.wantEnd()
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.State, t.Reason = tenancy.StateSuspended, "unpaid" })
	w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"}
	// 0x8A exists in CONNACK only: DISCONNECT says 0x98.
	const why = "the tenant is suspended: unpaid"
	if d := b.want(packet.DISCONNECT).Disconnect; d.Reason != mqtt.AdministrativeAction || d.ReasonString != why {
		t.Errorf("DISCONNECT %v %q", d.Reason, d.ReasonString)
	}
	b.wantEnd()
	if k := w.dial("mqtt").connect(hello("a")); k.Reason != mqtt.Banned || k.ReasonString != why {
		t.Errorf("CONNACK %v %q", k.Reason, k.ReasonString)
	}
	old := hello("a")
	old.Version = packet.V311
	if k := w.dial("mqtt").connect(old); packet.ReturnCode(k.Reason) != 5 {
		t.Errorf("CONNACK of 3.1.1 %v", k.Reason)
	}
	w.eventually("both closes", func() bool {
		c := w.broker.closed()
		return len(c) == 2 && c[0] == link.CloseRevoked && c[1] == link.CloseRevoked
	})
}

func TestLinkLost(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	c := w.dial("mqtt").mustConnect(hello("a"))
	w.broker.mu.Lock()
	gw := w.broker.gw
	w.broker.mu.Unlock()
	gw.Lost(io.ErrUnexpectedEOF)
	if d := c.want(packet.DISCONNECT); d.Disconnect.Reason != mqtt.ServerShuttingDown {
		t.Errorf("DISCONNECT %v", d.Disconnect.Reason)
	}
	c.wantEnd()
	w.eventually("another link", func() bool { return w.gw.Healthy(context.Background()) == nil })
	w.dial("mqtt").mustConnect(hello("a")).roundTrip()
}

// The same over TCP, as between gatewayd and brokerd.
func TestOverTCPLink(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	b := &fakeBroker{}
	go func() {
		served <- link.Serve(ctx, ln, nil, func(gw link.Gateway, _ string) link.Broker {
			end, _ := b.Dial(ctx, gw)
			return end
		})
	}()
	w := start(t, func(w *world, c *gateway.Config) {
		w.broker = b
		c.Dialer = uplink.DialerFunc(func(ctx context.Context, gw link.Gateway) (link.Broker, error) {
			return link.Dial(ctx, ln.Addr().String(), nil, "gw", gw)
		})
	})
	for _, name := range []string{"mqtt", "mqtts", "ws", "wss"} {
		w.any(name, "acme.localhost").mustConnect(hello(name)).roundTrip()
	}
	c := w.dial("mqtt").mustConnect(hello("left"))
	cancel()
	if d := c.want(packet.DISCONNECT); d.Disconnect.Reason != mqtt.ServerShuttingDown {
		t.Errorf("DISCONNECT %v", d.Disconnect.Reason)
	}
	c.wantEnd()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if k := w.dial("mqtt").connect(hello("late")); k.Reason != mqtt.ServerUnavailable {
		t.Errorf("CONNACK %v", k.Reason)
	}
}

type noBroker struct{}

func (noBroker) Dial(context.Context, link.Gateway) (link.Broker, error) {
	return nil, errs.New(errs.Unavailable, "refused")
}

func TestNoBroker(t *testing.T) {
	t.Parallel()
	gw, err := gateway.New(testConfig(t, noBroker{}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- gw.Run(ctx) }()
	defer func() { cancel(); <-done }()
	w := &world{t: t, gw: gw}
	for v, want := range map[packet.Version]mqtt.ReasonCode{packet.V5: mqtt.ServerUnavailable, packet.V311: mqtt.ServerUnavailable} {
		p := hello("x")
		p.Version = v
		if k := w.dial("mqtt").connect(p); k.Reason != want {
			t.Errorf("%v: CONNACK %v", v, k.Reason)
		}
	}
}

func TestBrokerCloses(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	c := w.dial("mqtt").mustConnect(hello("a"))
	old := hello("b")
	old.Version = packet.V311
	d := w.dial("mqtt").mustConnect(old)
	w.broker.down(link.DownFrame{Kind: link.DownClose, Reason: mqtt.SessionTakenOver, Text: "taken over"})
	if p := c.want(packet.DISCONNECT).Disconnect; p.Reason != mqtt.SessionTakenOver || p.ReasonString != "taken over" {
		t.Errorf("DISCONNECT %+v", p)
	}
	c.wantEnd()
	d.wantEnd()
}

func TestDrain(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	c := w.dial("mqtt").mustConnect(hello("a"))
	s := w.any("wss", "acme.localhost").mustConnect(hello("b"))
	done := make(chan error, 1)
	go func() { done <- w.gw.Drain(context.Background()) }()
	for _, c := range []*client{c, s} {
		if p := c.want(packet.DISCONNECT).Disconnect; p.Reason != mqtt.ServerShuttingDown {
			t.Errorf("DISCONNECT %+v", p)
		}
		c.wantEnd()
		c.c.Close()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", w.addr("mqtt")); err == nil {
		t.Error("a drained gateway accepts")
	}
}

// A publisher that the broker grants nothing more is not read, and goes on when
// it is granted again.
func TestWindowStopsReading(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.broker.noWindow = true
	p := hello("a")
	p.KeepAlive = 1 // a client that is not read is not silent
	c := w.dial("mqtt").mustConnect(p)
	c.send(publish("a", "first", 1))
	c.want(packet.PUBACK)
	c.send(publish("a", "second", 1))
	w.eventually("a pause", func() bool { return w.metric("mqtt_gateway_pauses_total") == 1 })
	time.Sleep(2 * time.Second) // beyond one and a half keep alives, which nothing could be polled for
	w.broker.down(link.DownFrame{Kind: link.DownWindow, Bytes: 1 << 40})
	c.want(packet.PUBACK)
}

// A subscriber that does not read costs the gateway no more than its credit
// window, and nobody else waits for it.
func TestSlowReaderIsBounded(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mqtt", "mqtts", "ws", "wss"} {
		t.Run(name, func(t *testing.T) {
			w := start(t, nil)
			slow := w.any(name, "acme.localhost").mustConnect(hello("slow"))
			slow.subscribe("a")
			pub := w.dial("mqtt").mustConnect(hello("pub"))
			payload := strings.Repeat("z", 10_000)
			const n = 3000 // 30 MB
			for range n {
				pub.send(publish("a", payload, 1))
				pub.want(packet.PUBACK)
			}
			w.broker.mu.Lock()
			dropped := w.broker.dropped
			w.broker.mu.Unlock()
			if dropped == 0 {
				t.Fatal("nothing was withheld from a subscriber that does not read")
			}
			w.eventually("the slow connection counted", func() bool { return w.metric("mqtt_gateway_slow_connections") == 1 })
			// It reads again: all that was sent is there, and credit comes back.
			for range n - dropped {
				if p := slow.want(packet.PUBLISH); len(p.Publish.Message.Payload) != len(payload) {
					t.Fatalf("payload of %d bytes", len(p.Publish.Message.Payload))
				}
			}
			w.eventually("the backlog gone", func() bool { return w.metric("mqtt_gateway_slow_connections") == 0 })
			pub.send(publish("a", "more", 1))
			if p := slow.want(packet.PUBLISH); string(p.Publish.Message.Payload) != "more" {
				t.Errorf("payload %.10q", p.Publish.Message.Payload)
			}
		})
	}
}

// A client that asks and never reads is not read any more, and its keep alive
// ends it.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	p := hello("greedy")
	p.KeepAlive = 2
	c := w.dial("mqtt").mustConnect(p)
	pings := bytes.Repeat([]byte{0xC0, 0}, 1<<19)
	sent := 0
	for {
		_ = c.c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.c.Write(pings)
		sent += n
		if err != nil {
			break
		}
		if sent > 200<<20 {
			t.Fatal("200 MB of PINGREQ were taken from a client that does not read the answers")
		}
	}
	w.eventually("the end", func() bool { return w.gw.Connections() == 0 })
	if w.metric("mqtt_gateway_disconnects_total", "keep alive timeout") != 1 {
		t.Error("it was not the keep alive")
	}
}

// [MQTT-3.1.2-24, -25]: the broker completes what is too large for the client.
func TestTooLargeForClient(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	p := hello("small")
	p.MaximumPacketSize = 50
	sub := w.dial("mqtt").mustConnect(p)
	sub.subscribe("a")
	pub := w.dial("mqtt").mustConnect(hello("pub"))
	for _, payload := range []string{strings.Repeat("x", 60), "fits"} {
		pub.send(publish("a", payload, 1))
		pub.want(packet.PUBACK)
	}
	if got := sub.want(packet.PUBLISH); string(got.Publish.Message.Payload) != "fits" {
		t.Errorf("payload %q", got.Publish.Message.Payload)
	}
	w.eventually("the broker to hear of it", func() bool {
		w.broker.mu.Lock()
		defer w.broker.mu.Unlock()
		for _, c := range w.broker.channels {
			if c.tooLarge == 1 {
				return true
			}
		}
		return false
	})
	if w.metric("mqtt_gateway_dropped_total", "packet_too_large") != 1 {
		t.Error("it was not counted")
	}
}

// It goes on when the client reads.
func TestAnswersGoOn(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	c := w.dial("mqtt").mustConnect(hello("slow"))
	const n = 8 << 20
	go func() { _, _ = c.c.Write(bytes.Repeat([]byte{0xC0, 0}, n/2)) }()
	time.Sleep(300 * time.Millisecond) // gives the answers time to pile up; the test holds without, too
	_ = c.c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if got, err := io.CopyN(io.Discard, c.c, n); err != nil {
		t.Errorf("%d of %d bytes of PINGRESP: %v", got, n, err)
	}
}

func TestRandomBytesDoNoHarm(t *testing.T) {
	t.Parallel()
	w := start(t, func(_ *world, c *gateway.Config) { c.ConnectTimeout = time.Second })
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 200 {
		for _, name := range []string{"mqtt", "mqtts", "ws", "wss"} {
			c := w.dial(name)
			b := make([]byte, r.IntN(2000))
			for j := range b {
				b[j] = byte(r.Uint32())
			}
			switch i % 4 {
			case 1: // begins like MQTT
				b = append([]byte{0x10, byte(len(b)), 0, 4, 'M', 'Q', 'T', 'T', byte(i % 6)}, b...)
			case 2: // goes on after CONNECT
				b = append(packet.AppendConnect(nil, hello("r")), b...)
			case 3:
				b = append([]byte("GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"), b...)
			}
			_, _ = c.c.Write(b)
			_ = c.c.Close()
		}
	}
	w.eventually("no connection", func() bool { return w.gw.Connections() == 0 })
	w.dial("mqtt").mustConnect(hello("alive")).roundTrip()
}

func TestRefusedPacketsAreTold(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for _, c := range []struct {
		raw  []byte
		want mqtt.ReasonCode
	}{
		{[]byte{0x36, 0}, mqtt.MalformedPacket},
		{packet.AppendConnect(nil, hello("again")), mqtt.ProtocolError},
		{[]byte{0x30, 5, 0, 1, '#', 0, 'x'}, mqtt.TopicNameInvalid},
		{[]byte{0x30, 8, 0, 1, 'a', 3, 0x23, 0, 0, 'x'}, mqtt.TopicAliasInvalid},
		{[]byte{0x82, 0}, mqtt.MalformedPacket},
	} {
		cl := w.dial("mqtt").mustConnect(hello("a"))
		cl.write(c.raw)
		if d := cl.want(packet.DISCONNECT).Disconnect; d.Reason != c.want || d.ReasonString == "" {
			t.Errorf("% X: DISCONNECT %v %q", c.raw, d.Reason, d.ReasonString)
		}
		cl.wantEnd()
	}
}

// needsMosquittoClients skips a test on a machine without them, but fails in CI,
// which installs them.
func needsMosquittoClients(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath("mosquitto_pub")
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatal("mosquitto-clients are not installed: .ci/deps installs them")
	default:
		t.Skip("mosquitto-clients are not installed")
	}
}

func TestMosquittoClients(t *testing.T) {
	t.Parallel()
	needsMosquittoClients(t)
	w := start(t, nil)
	_, port, _ := net.SplitHostPort(w.addr("mqtt"))
	for _, v := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		args := []string{"-h", "127.0.0.1", "-p", port, "-u", "acme:dev", "-P", "secret", "-V", v, "-q", "1", "-t", "m/" + v}
		var out bytes.Buffer
		sub := exec.Command("mosquitto_sub", append(args, "-C", "1", "-W", "10")...)
		sub.Stdout = &out
		if err := sub.Start(); err != nil {
			t.Fatal(err)
		}
		w.eventually("a subscription", func() bool {
			w.broker.mu.Lock()
			defer w.broker.mu.Unlock()
			for _, c := range w.broker.channels {
				if len(c.filters) == 1 {
					return true
				}
			}
			return false
		})
		if text, err := exec.Command("mosquitto_pub", append(args, "-m", "hello "+v)...).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_pub: %v %s", err, text)
		}
		if err := sub.Wait(); err != nil || strings.TrimSpace(out.String()) != "hello "+v {
			t.Errorf("%s: mosquitto_sub got %q, %v", v, out.String(), err)
		}
		w.eventually("no connection", func() bool { return w.gw.Connections() == 0 })
	}
}
