// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// ban replaces the bans of a tenant, and tells it.
func (w *world) ban(tenant string, all ...tenancy.Ban) {
	w.t.Helper()
	var list []*tenancy.Ban
	for n := range all {
		if err := all[n].Normalize(); err != nil {
			w.t.Fatal(err)
		}
		list = append(list, &all[n])
	}
	w.dir.mu.Lock()
	if w.dir.bans == nil {
		w.dir.bans = map[string]*tenancy.Bans{}
	}
	w.dir.bans[tenant] = tenancy.NewBans(list)
	w.dir.mu.Unlock()
	w.dir.changes <- tenancy.Change{Kind: tenancy.BansChanged, Tenant: tenant}
}

// token has the directory take a password as a token.
func (w *world) token(password string, id tenancy.Identity) {
	w.dir.mu.Lock()
	defer w.dir.mu.Unlock()
	if w.dir.tokens == nil {
		w.dir.tokens = map[string]tenancy.Identity{}
	}
	w.dir.tokens[password] = id
}

func (w *world) change(tenant string, f func(*tenancy.Tenant)) {
	w.dir.edit(tenant, func(t *tenancy.Tenant) {
		t.Revision++
		f(t)
	})
	w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: tenant}
}

func (c *client) wantDisconnect(reason mqtt.ReasonCode, text string) {
	c.t.Helper()
	d := c.want(packet.DISCONNECT).Disconnect
	if d.Reason != reason || !strings.Contains(d.ReasonString, text) {
		c.t.Errorf("DISCONNECT %v %q, expected %v with %q", d.Reason, d.ReasonString, reason, text)
	}
	c.wantEnd()
}

// The methods of a tenant are tried in their order; the first that applies decides.
func TestMethods(t *testing.T) {
	t.Parallel()
	ca := tenancytest.NewCA(t, "ca")
	w := start(t, nil)
	cas := &tenancy.ClientCAs{Certificates: ca.PEM(), Identity: tenancy.IdentityCN, Authenticates: true}
	w.setCAs("acme", cas)
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Issuers = []tenancy.Issuer{{Issuer: "issuer"}} })
	w.token("token", tenancy.Identity{Username: "tom", Issuer: "issuer", Expires: time.Now().Add(time.Hour)})
	w.token("cert's", tenancy.Identity{Username: "cert", Issuer: "issuer", Expires: time.Now().Add(time.Hour)})
	cert := ca.Issue(2, "cert")
	const all = "certificate jwt password scram"
	for _, x := range []struct {
		methods  string
		cert     bool
		password string
		reason   mqtt.ReasonCode
		want     string // the user, or a part of the reason string
	}{
		{"", true, "token", mqtt.Success, "cert"},
		{"", true, "", mqtt.Success, "cert"},
		{"", false, "token", mqtt.Success, "tom"},
		{"", false, "secret", mqtt.Success, "dev"},
		{"", false, "wrong", mqtt.BadUserNameOrPassword, "bad user name or password"},
		{"", false, "bad", mqtt.BadUserNameOrPassword, "the token is refused: it is bad"},
		{"jwt certificate", true, "token", mqtt.NotAuthorized, "the certificate is another user's"},
		{"jwt certificate", true, "cert's", mqtt.Success, "cert"},
		{"jwt certificate", true, "secret", mqtt.Success, "cert"},
		{"jwt certificate", true, "bad", mqtt.BadUserNameOrPassword, "the token is refused"},
		{"jwt certificate", false, "secret", mqtt.NotAuthorized, "expected a token as the password, or a client certificate"},
		{"password certificate", true, "secret", mqtt.Success, "cert"}, // whose name the user is
		{"password certificate", true, "wrong", mqtt.BadUserNameOrPassword, ""},
		{"password jwt", false, "token", mqtt.BadUserNameOrPassword, ""}, // as a password it is wrong
		{"jwt", true, "", mqtt.NotAuthorized, "expected a token as the password"},
		{"certificate", false, "secret", mqtt.NotAuthorized, "expected a client certificate"},
		{"scram", true, "secret", mqtt.NotAuthorized, "expected SCRAM-SHA-256"},
		{all, false, "secret", mqtt.Success, "dev"},
	} {
		w.dir.edit("acme", func(t *tenancy.Tenant) { t.AuthMethods = strings.Fields(x.methods) })
		var c *client
		var err error
		if x.cert {
			c, err = w.secure("mqtts", "acme.localhost", cert)
		} else {
			c, err = w.secure("mqtts", "acme.localhost")
		}
		if err != nil {
			t.Fatal(err)
		}
		k := c.try(as("dev", x.password))
		switch {
		case k == nil || k.Reason != x.reason:
			t.Errorf("%s, certificate %v, password %q: %+v, expected %v", x.methods, x.cert, x.password, k, x.reason)
		case k.Reason == mqtt.Success:
			if got := w.broker.lastOpen().Labels.Username; got != x.want {
				t.Errorf("%s, certificate %v, password %q: the user is %q, expected %q", x.methods, x.cert, x.password, got, x.want)
			}
		case !strings.Contains(k.ReasonString, x.want):
			t.Errorf("%s, certificate %v, password %q: %q, expected %q", x.methods, x.cert, x.password, k.ReasonString, x.want)
		}
		_ = c.c.Close()
	}
	for _, x := range []struct{ method, result string }{
		{"jwt", "accepted"}, {"jwt", "refused"}, {"jwt", "passed"}, {"password", "accepted"}, {"password", "refused"}, {"certificate", "accepted"},
	} {
		if w.metric("mqtt_gateway_authentications_total", x.method, x.result) == 0 {
			t.Errorf("%s %s is not counted", x.method, x.result)
		}
	}
}

// A connection ends when its token does, and when its tenant takes the method or the
// issuer no more; others go on.
func TestTokens(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Issuers = []tenancy.Issuer{{Issuer: "a"}, {Issuer: "b"}} })
	ends := time.Now().Add(1500 * time.Millisecond)
	w.token("short", tenancy.Identity{Username: "s", Issuer: "a", Expires: ends})
	w.token("a", tenancy.Identity{Username: "dev", Issuer: "a", Expires: time.Now().Add(time.Hour)})
	w.token("b", tenancy.Identity{Username: "b", Issuer: "b", Expires: time.Now().Add(time.Hour)})
	with := func(id, password string) *client {
		t.Helper()
		p := hello(id)
		p.Password = []byte(password)
		return w.dial("mqtt").mustConnect(p)
	}
	short, a, b, other := with("c1", "short"), with("c2", "a"), with("c3", "b"), with("c4", "secret")
	short.wantDisconnect(mqtt.MaximumConnectTime, "the token has expired")
	if late := time.Since(ends); late < 0 || late > 2*time.Second {
		t.Errorf("a connection ended %v after its token", late)
	}
	// A credential of the same name is another matter.
	w.dir.changes <- tenancy.Change{Kind: tenancy.CredentialGone, Tenant: "acme", Username: "dev"}
	other.wantDisconnect(mqtt.NotAuthorized, "")
	a.subscribe("a")
	w.change("acme", func(t *tenancy.Tenant) { t.Issuers = t.Issuers[1:] })
	a.wantDisconnect(mqtt.NotAuthorized, "tokens of this issuer")
	b.subscribe("a")
	other = with("c4", "secret")
	w.change("acme", func(t *tenancy.Tenant) { t.AuthMethods = []string{"password"} })
	b.wantDisconnect(mqtt.NotAuthorized, "the method jwt")
	other.subscribe("a")
	if n := w.metric("mqtt_gateway_kept_out_total", "method"); n != 2 {
		t.Errorf("%v are counted", n)
	}
}

func TestBans(t *testing.T) {
	t.Parallel()
	ca := tenancytest.NewCA(t, "ca")
	w := start(t, nil)
	w.setCAs("acme", &tenancy.ClientCAs{Certificates: ca.PEM(), Identity: tenancy.IdentityCN, Authenticates: true})
	cert := ca.Issue(0xBAD, "press-7")
	sum := sha256.Sum256(cert.Certificate[0])
	plain := func(id string) *client { return w.dial("mqtt").mustConnect(hello(id)) }
	secure := func() *client {
		c, err := w.secure("mqtts", "acme.localhost", cert)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	beta := w.dial("mqtt")
	p := hello("c1")
	p.Username = "beta:dev"
	beta.mustConnect(p)
	for _, x := range []struct {
		ban tenancy.Ban
		hit func() *client // a live connection that it ends
	}{
		{tenancy.Ban{Kind: "client_id", Value: "c1"}, func() *client { return plain("c1") }},
		{tenancy.Ban{Kind: "username", Value: "dev"}, func() *client { return plain("c2") }},
		{tenancy.Ban{Kind: "address", Value: "127.0.0.1"}, func() *client { return plain("c3") }},
		{tenancy.Ban{Kind: "address", Value: "127.0.0.0/8"}, func() *client { return plain("c4") }},
		{tenancy.Ban{Kind: "certificate", Value: "serial:0BAD"}, func() *client { return secure().mustConnect(as("", "")) }},
		{tenancy.Ban{Kind: "certificate", Value: "sha256:" + hex.EncodeToString(sum[:])}, func() *client { return secure().mustConnect(as("", "")) }},
	} {
		c := x.hit()
		x.ban.Reason = "stolen"
		w.ban("acme", x.ban)
		c.wantDisconnect(mqtt.AdministrativeAction, "banned: stolen")
		if x.ban.Kind == "certificate" {
			c = secure()
			c.v = packet.V5
			c.send(&packet.Packet{Type: packet.CONNECT, Connect: as("", "")})
		} else {
			c = w.dial("mqtt")
			c.v = packet.V5
			c.send(&packet.Packet{Type: packet.CONNECT, Connect: hello("c1")})
		}
		if k := c.want(packet.CONNACK).Connack; k.Reason != mqtt.Banned || k.ReasonString != "banned: stolen" {
			t.Errorf("%s %s: CONNACK %v %q", x.ban.Kind, x.ban.Value, k.Reason, k.ReasonString)
		}
		w.ban("acme")
		plain("c1")
	}
	beta.subscribe("a") // another tenant's
	w.ban("acme", tenancy.Ban{Kind: "client_id", Value: "c1", ExpiresAt: time.Now().Add(-time.Second)})
	plain("c1")
	// Others than those that are banned stay, also those with another certificate.
	other := plain("c9")
	w.ban("acme", tenancy.Ban{Kind: "client_id", Value: "c8"}, tenancy.Ban{Kind: "username", Value: "u"}, tenancy.Ban{Kind: "address", Value: "192.0.2.0/24"},
		tenancy.Ban{Kind: "certificate", Value: "serial:1"})
	other.subscribe("a")
	if n := w.metric("mqtt_gateway_kept_out_total", "ban"); n < 12 {
		t.Errorf("%v are counted", n)
	}
}

// A ban that comes while a client is let in must not miss it.
func TestBans_Meanwhile(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for range 50 {
		w.ban("acme")
		c := w.dial("mqtt")
		c.v = packet.V5
		c.send(&packet.Packet{Type: packet.CONNECT, Connect: hello("c1")})
		w.ban("acme", tenancy.Ban{Kind: "client_id", Value: "c1"})
		p := c.next()
		if p != nil && p.Type == packet.CONNACK && p.Connack.Reason == mqtt.Success {
			p = c.next()
		}
		if p != nil && p.Type != packet.DISCONNECT && (p.Type != packet.CONNACK || p.Connack.Reason != mqtt.Banned) {
			t.Fatalf("%v came: %+v, %+v", p.Type, p.Connack, p.Disconnect)
		}
		c.wantEnd()
	}
}

func TestFlapping(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Flapping = &tenancy.Flapping{Connects: 3, Window: 3600, Ban: 3600} })
	try := func(id, password string) mqtt.ReasonCode {
		c := w.dial("mqtt")
		p := hello(id)
		p.Password = []byte(password)
		defer func() { _ = c.c.Close() }()
		return c.connect(p).Reason
	}
	for range 10 { // strangers do not have anybody banned
		if got := try("c1", "wrong"); got != mqtt.BadUserNameOrPassword {
			t.Fatal(got)
		}
	}
	banned := func() bool { return try("c1", "secret") == mqtt.Banned }
	n := 0
	for !banned() {
		if n++; n > 3 {
			t.Fatal("it flaps and is not banned")
		}
	}
	if n < 3 {
		t.Errorf("banned after %d connects, expected 3", n)
	}
	if got := try("c2", "secret"); got != mqtt.Success {
		t.Errorf("another client: %v", got)
	}
	w.dir.mu.Lock()
	told := w.dir.flaps
	w.dir.mu.Unlock()
	if len(told) != 1 || told[0].Tenant != "acme" || told[0].ClientID != "c1" {
		t.Errorf("told: %+v", told)
	}
	// The control plane has made a ban, and somebody ends it.
	// The gateway's own is left to that once it is applied, which c3 hears of.
	witness := w.dial("mqtt").mustConnect(hello("c3"))
	w.ban("acme", tenancy.Ban{Kind: "client_id", Value: "c1", Automatic: true}, tenancy.Ban{Kind: "client_id", Value: "c3", Reason: "applied"})
	witness.wantDisconnect(mqtt.AdministrativeAction, "banned: applied")
	if !banned() {
		t.Error("a ban does not hold")
	}
	w.ban("acme")
	w.eventually("the end of a ban", func() bool { return !banned() })
}

// What the registry says of a client is known before the client is let in; if it cannot
// be known, nobody is.
func TestRegistry(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Registry = true })
	w.dial("mqtt").mustConnect(hello("c1"))
	w.dir.mu.Lock()
	w.dir.unregistered = true
	w.dir.mu.Unlock()
	if k := w.dial("mqtt").connect(hello("c1")); k.Reason != mqtt.ServerUnavailable {
		t.Errorf("CONNACK %v", k.Reason)
	}
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Registry = false })
	w.dial("mqtt").mustConnect(hello("c1"))
}

func TestAllowList(t *testing.T) {
	t.Parallel()
	w := start(t, func(_ *world, c *gateway.Config) { c.Listeners[0].ProxyProtocol = true })
	from := func(address string) *client {
		c := w.dial("mqtt")
		c.v = packet.V5
		a := netip.MustParseAddr(address)
		c.write([]byte("PROXY TCP4 " + a.String() + " 127.0.0.1 1000 1883\r\n"))
		return c
	}
	in, out := from("10.1.1.1").mustConnect(hello("in")), from("192.0.2.1").mustConnect(hello("out"))
	w.change("acme", func(t *tenancy.Tenant) { t.Networks = tenancy.ParseNetworks([]string{"10.0.0.0/8"}) })
	out.wantDisconnect(mqtt.NotAuthorized, "does not allow connections from this address")
	in.subscribe("a")
	if k := from("192.0.2.1").connect(hello("out")); k.Reason != mqtt.NotAuthorized || !strings.Contains(k.ReasonString, "address") {
		t.Errorf("CONNACK %v %q", k.Reason, k.ReasonString)
	}
	from("10.2.2.2").mustConnect(hello("in2"))
	if n := w.metric("mqtt_gateway_kept_out_total", "address"); n != 2 {
		t.Errorf("%v are counted", n)
	}
}
