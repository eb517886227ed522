// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/apitest"
	"github.com/manormq/manor/services/broker"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/authn/jwt"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/jwks"
	"github.com/manormq/manor/tenancy/quota/usage"
	"github.com/manormq/manor/tenancy/remote"
	"github.com/manormq/manor/tenancy/store"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// gateways are two gateways and one tenancyd that have nothing in common but a broker
// and the bus, each with a connection of its own.
type gateways struct {
	t     *testing.T
	edges [2]*product
	mqtts [2]string
	// records is where the control plane has tenants.
	records *store.Store
	// stop ends the control plane: API, store and bus.
	stop func()
}

func startGateways(t *testing.T) *gateways {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	parts := func(ctx context.Context, f func(context.Context) error) (ended chan struct{}) {
		ended = make(chan struct{})
		go func() {
			defer close(ended)
			if err := f(ctx); err != nil {
				t.Error(err)
			}
		}()
		return ended
	}
	running := func(f func(context.Context) error) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := parts(ctx, f)
		t.Cleanup(func() { cancel(); <-ended })
	}
	ca, err := openAuthority(t.TempDir())
	must(err)
	certFile, keyFile, err := ca.listeners()
	must(err)
	server, err := embed.Start(t.Context(), embed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Log: log})
	must(err)
	t.Cleanup(server.Shutdown)
	connect := func(name string) *nats.Bus {
		b, err := nats.Connect(nats.Config{URLs: []string{server.URL()}, Name: name, Log: log})
		must(err)
		t.Cleanup(func() { _ = b.Close() })
		return b
	}

	config := broker.DefaultConfig()
	config.Data = t.TempDir()
	sessions, err := broker.New(config, "broker-1", log, prometheus.NewRegistry())
	must(err)
	running(sessions.Run)
	dial := func(_ context.Context, gw link.Gateway) (link.Broker, error) { return sessions.Attach(gw), nil }

	control := connect("tenancy-1")
	records, err := store.New(t.Context(), store.Config{Bus: control, Log: log, Region: regionName})
	must(err)
	changes, err := audit.Open(t.Context(), audit.Config{Bus: control, Log: log, Days: records.AuditDays})
	must(err)
	used := usage.New(control)
	openEvents := func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, control) }
	policies, err := decide.New(decide.Config{Store: records, Log: log})
	must(err)
	public, _ := apitest.New(t, func(c *api.Config) {
		c.Store, c.Audit, c.Log, c.Domain, c.Used, c.Events, c.Policies = records, changes, log, devDomain, used, events.NewLog(openEvents), policies
	})
	fetcher, err := jwks.New(jwks.Config{Store: records, Networks: loopback(), Log: log})
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := []chan struct{}{parts(ctx, records.RunBans), parts(ctx, fetcher.Run), parts(ctx, used.Run), parts(ctx, policies.Run)}
	web := httptest.NewServer(public.Handler())
	g := &gateways{t: t, records: records, stop: func() {
		cancel()
		for _, e := range ended {
			<-e
		}
		web.Close()
		server.Shutdown()
	}}
	t.Cleanup(func() {
		cancel()
		web.Close()
	})

	for n := range g.edges {
		tokens, err := jwt.New()
		must(err)
		verifier, err := password.NewVerifier(0)
		must(err)
		own := connect(fmt.Sprint("gateway-", n))
		names, err := remote.New(remote.Config{
			Bus: own, Name: fmt.Sprint("gateway-", n), Verifier: verifier, Tokens: tokens, Domain: devDomain, Log: log,
			Snapshot: filepath.Join(t.TempDir(), "directory.snapshot"), Key: make([]byte, 32),
		})
		must(err)
		running(names.Run)
		history := events.NewWriter(openEvents, log)
		running(history.Run)
		edge, err := gateway.New(gateway.Config{
			Bus: own, Events: history,
			Name: fmt.Sprint("gateway-", n), Directory: names, Domain: devDomain, Links: 1, Dialer: uplink.DialerFunc(dial), Log: log, Registerer: prometheus.NewRegistry(),
			Listeners: []listener.Config{
				{Name: "mqtt", Kind: listener.MQTT, Address: "127.0.0.1:0"},
				{Name: "mqtts", Kind: listener.MQTTS, Address: "127.0.0.1:0", CertFile: certFile, KeyFile: keyFile},
			},
		})
		must(err)
		running(edge.Run)
		g.edges[n], g.mqtts[n] = &product{mqtt: edge.Addrs()["mqtt"].String(), api: web.URL}, edge.Addrs()["mqtts"].String()
		must(names.Ready(t.Context()))
		for end := time.Now().Add(soon); edge.Healthy(t.Context()) != nil; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("a gateway has no link")
			}
		}
	}
	return g
}

// on is the tenant at one of the gateways.
func (g *gateways) on(x *tenant, n int) *tenant {
	y := *x
	y.p = g.edges[n]
	return &y
}

// secure is a client with a certificate at one of the gateways, that was let in.
func (g *gateways) secure(x *tenant, n int, cert tls.Certificate) *device {
	g.t.Helper()
	c, err := tls.Dial("tcp", g.mqtts[n], &tls.Config{ServerName: x.id + ".localhost", InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = c.Close() })
	d := &device{x: x, c: c, v: packet.V5}
	d.send(&packet.Packet{Type: packet.CONNECT, Connect: &packet.Connect{Version: packet.V5, CleanStart: true, KeepAlive: 60}})
	if k := d.want(packet.CONNACK).Connack; k.Reason != mqtt.Success {
		g.t.Fatalf("CONNACK %v %s", k.Reason, k.ReasonString)
	}
	return d
}

// mayKnow says why one of the gateways does not take a certificate yet; empty if it
// does.
func (g *gateways) mayKnow(x *tenant, n int, cert tls.Certificate) string {
	c, err := tls.Dial("tcp", g.mqtts[n], &tls.Config{ServerName: x.id + ".localhost", InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}})
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	d := &device{x: x, c: c, v: packet.V5}
	d.send(&packet.Packet{Type: packet.CONNECT, Connect: &packet.Connect{Version: packet.V5, CleanStart: true, KeepAlive: 60}})
	if p := d.next(soon); p == nil || p.Type != packet.CONNACK || p.Connack.Reason != mqtt.Success {
		return fmt.Sprintf("%+v came", p)
	}
	return ""
}

// revocation measures from a call of the API to the DISCONNECT that it leads to, at
// both gateways.
type revocation struct{ took []time.Duration }

func (r *revocation) measure(call func(), reason mqtt.ReasonCode, ends ...*device) {
	begin := time.Now()
	call()
	for _, d := range ends {
		p := d.want(packet.DISCONNECT).Disconnect
		r.took = append(r.took, time.Since(begin))
		if p.Reason != reason {
			d.x.Errorf("DISCONNECT %v %q, expected %v", p.Reason, p.ReasonString, reason)
		}
		_ = d.c.Close()
	}
}

func (r *revocation) report(t *testing.T, what string) {
	t.Helper()
	slices.Sort(r.took)
	at := func(q float64) time.Duration {
		return r.took[int(q*float64(len(r.took)-1))].Round(100 * time.Microsecond)
	}
	t.Logf("%s: %d connections ended, p50 %v, p99 %v, at most %v after the request began", what, len(r.took), at(0.5), at(0.99), at(1))
	if at(0.99) > live {
		t.Errorf("%s: p99 is %v, expected at most %v", what, at(0.99), live)
	}
}

// Live connections that a ban, a revocation or another change concerns end within 2 s,
// at every gateway.
func TestRevocation(t *testing.T) {
	g := startGateways(t)
	x := g.edges[0].signUp(t, "acme")
	tries := 100
	if testing.Short() {
		tries = 10
	}
	path := "/v1/tenants/acme"
	stays := [2]*device{g.on(x, 0).device(clientID("stays-0")), g.on(x, 1).device(clientID("stays-1"))}
	id := func(v any) string { return fmt.Sprint("c-", v) }

	t.Run("client id", func(t *testing.T) {
		var r revocation
		for n := range tries {
			// One of them takes the session over from the other: at one gateway each time.
			d := g.on(x, n%2).device(clientID(id(n)))
			r.measure(func() { x.do("POST", path+"/bans", fmt.Sprintf(`{"kind":"client_id","value":%q}`, id(n)), nil) }, mqtt.AdministrativeAction, d)
			x.within(func() string { // which hears of it by itself
				if _, k := g.on(x, (n+1)%2).connect(clientID(id(n))); k.Reason != mqtt.Banned {
					return fmt.Sprintf("CONNACK %v at the other gateway", k.Reason)
				}
				return ""
			})
		}
		r.report(t, "ban of a client id")
	})
	t.Run("user name", func(t *testing.T) {
		var r revocation
		for n := range tries {
			var c struct{ Password string }
			x.do("POST", path+"/credentials", fmt.Sprintf(`{"username":"u-%d"}`, n), &c)
			as := func(p *packet.Connect) { p.Username, p.Password = fmt.Sprint("acme:u-", n), []byte(c.Password) }
			a, b := g.on(x, 0).device(as, clientID("a")), g.on(x, 1).device(as, clientID("b"))
			r.measure(func() { x.do("POST", path+"/bans", fmt.Sprintf(`{"kind":"username","value":"u-%d"}`, n), nil) }, mqtt.AdministrativeAction, a, b)
		}
		r.report(t, "ban of a user name")
	})
	ours := tenancytest.NewCA(t, "ca")
	cas := func(crl string) {
		x.do("PUT", path+"/client-cas", fmt.Sprintf(`{"certificates":%q,"crl":%q,"use_identity_as_username":"cn","certificate_authenticates":true}`, ours.PEM(), crl), nil)
	}
	cas("")
	settled := func() { // both gateways know the CAs
		for n := range g.mqtts {
			cert := ours.Issue(int64(900_000+n), "settled")
			x.within(func() string { return g.mayKnow(x, n, cert) })
		}
	}
	settled()
	t.Run("certificate", func(t *testing.T) {
		var r revocation
		for n := range tries / 2 {
			cert := ours.Issue(int64(1000+n), fmt.Sprint("press-", n))
			a, b := g.secure(x, 0, cert), g.secure(x, 1, cert)
			r.measure(func() {
				x.do("POST", path+"/bans", fmt.Sprintf(`{"kind":"certificate","value":"serial:%x"}`, 1000+n), nil)
			}, mqtt.AdministrativeAction, a, b)
		}
		r.report(t, "ban of a certificate")
	})
	t.Run("revocation list", func(t *testing.T) {
		var r revocation
		var gone []int64
		for n := range tries / 4 {
			gone = append(gone, int64(2000+n))
			cert := ours.Issue(int64(2000+n), fmt.Sprint("press-", n))
			a, b := g.secure(x, 0, cert), g.secure(x, 1, cert)
			r.measure(func() { cas(ours.CRL(gone...)) }, mqtt.NotAuthorized, a, b)
		}
		r.report(t, "certificate in a revocation list")
	})
	for n, d := range stays { // whom all this does not concern
		if got := d.subscribe("a", 0, 0); got != 0 {
			t.Errorf("gateway %d: SUBACK %v", n, got)
		}
	}
}

// Tokens are checked at both gateways, and go on to be with the control plane and the
// issuer away. A rotation of keys ends no connection; the end of a token does.
func TestTokens_Gateways(t *testing.T) {
	g := startGateways(t)
	x := g.edges[0].signUp(t, "acme")
	from := tenancytest.NewIssuer(t, "https://issuer.example/")
	x.do("PUT", "/v1/tenants/acme/jwt-issuers", fmt.Sprintf(`{"items":[{"issuer":%q,"audience":["manor"],"jwks_url":%q,"publish_claim":"pub","subscribe_claim":"filters"}]}`, from.Name, from.URL), nil)
	with := func(token string) change {
		return func(p *packet.Connect) { p.Username, p.Password = "acme:", []byte(token) }
	}
	claims := func(more map[string]any) map[string]any {
		all := map[string]any{"pub": "up/press-7", "filters": []string{"down/press-7/#"}}
		maps.Copy(all, more)
		return all
	}
	try := func(n int, token string) mqtt.ReasonCode {
		t.Helper()
		d, k := g.on(x, n).connect(with(token))
		defer func() { _ = d.c.Close() }()
		return k.Reason
	}
	token := from.Token("press-7", claims(nil))
	for n := range g.edges {
		g.on(x, n).within(func() string {
			if got := try(n, token); got != mqtt.Success {
				return got.String()
			}
			return ""
		})
	}
	// What the claims do not name is not allowed.
	d := g.on(x, 1).device(with(token), clientID("live"))
	if got := d.subscribe("down/press-7/x", 1, 0); got != 1 {
		t.Errorf("SUBACK %v for what the token allows", got)
	}
	for _, f := range []string{"#", "down/#", "down/press-8/x", "up/press-7"} {
		if got := d.subscribe(f, 1, 0); got != mqtt.NotAuthorized {
			t.Errorf("SUBACK %v for %s", got, f)
		}
	}
	d.publish("up/press-7", "x", 1, false)
	if a := d.want(packet.PUBACK).Ack; a.Reason.Failed() {
		t.Errorf("PUBACK %v for what the token allows", a.Reason)
	}
	d.publish("up/press-8", "x", 1, false)
	if a := d.want(packet.PUBACK).Ack; a.Reason != mqtt.NotAuthorized {
		t.Errorf("PUBACK %v for what it does not", a.Reason)
	}
	// The token ends, and so does its connection.
	ends := time.Now().Add(2 * time.Second)
	short := g.on(x, 0).device(with(from.Token("press-7", claims(map[string]any{"exp": float64(ends.UnixMilli()) / 1000}))), clientID("short"))
	short.wantDisconnect(mqtt.MaximumConnectTime)
	late := time.Since(ends)
	t.Logf("a connection ended %v after its token", late.Round(time.Millisecond))
	if late < 0 || late > 2*time.Second {
		t.Errorf("a connection ended %v after its token", late)
	}
	// Who authenticates again with a newer token stays.
	ends = time.Now().Add(2 * time.Second)
	renewed := g.on(x, 0).dial()
	auth := func(reason mqtt.ReasonCode, token string) {
		renewed.send(&packet.Packet{Type: packet.AUTH, Auth: &packet.Auth{Reason: reason, Method: tenancy.MethodJWT, HasMethod: true, Data: []byte(token)}})
	}
	renewed.send(&packet.Packet{Type: packet.CONNECT, Connect: &packet.Connect{
		Version: packet.V5, CleanStart: true, ClientID: "renewed", KeepAlive: 60, Username: "acme:", HasUsername: true, HasAuthMethod: true, AuthMethod: tenancy.MethodJWT,
		AuthData: []byte(from.Token("press-7", claims(map[string]any{"exp": float64(ends.UnixMilli()) / 1000}))),
	}})
	if k := renewed.want(packet.CONNACK).Connack; k.Reason != mqtt.Success || k.AuthMethod != tenancy.MethodJWT {
		t.Fatalf("CONNACK %v %q by %s", k.Reason, k.ReasonString, tenancy.MethodJWT)
	}
	auth(mqtt.ReAuthenticate, token)
	if a := renewed.want(packet.AUTH).Auth; a.Reason != mqtt.Success {
		t.Fatalf("AUTH %v", a.Reason)
	}
	time.Sleep(time.Until(ends.Add(1500 * time.Millisecond))) // beyond what it would have had
	renewed.publish("up/press-7", "x", 1, false)
	if a := renewed.want(packet.PUBACK).Ack; a.Reason.Failed() {
		t.Errorf("PUBACK %v after a new token", a.Reason)
	}
	auth(mqtt.ReAuthenticate, from.Token("press-7", claims(map[string]any{"pub": "#"})))
	renewed.wantDisconnect(mqtt.NotAuthorized)
	// A new key: the gateways ask for it by themselves. It is as old as 10 s before
	// the issuer is asked again.
	from.Rotate("2")
	token = from.Token("press-7", claims(nil))
	begin := time.Now()
	for n := range g.edges {
		for try(n, token) != mqtt.Success {
			if time.Since(begin) > 20*time.Second {
				t.Fatal("a token of the new key is not taken")
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	t.Logf("a token of a new key is taken at both gateways after %v", time.Since(begin).Round(time.Millisecond))
	d.publish("up/press-7", "x", 1, false)
	if a := d.want(packet.PUBACK).Ack; a.Reason.Failed() {
		t.Errorf("PUBACK %v after a rotation", a.Reason)
	}
	// Nobody is there any more but gateways and broker.
	from.Break(true)
	g.stop()
	for n := range g.edges {
		if got := try(n, token); got != mqtt.Success {
			t.Errorf("gateway %d, without the control plane: CONNACK %v", n, got)
		}
		if got := try(n, tenancytest.NewIssuer(t, from.Name).Token("press-7", claims(nil))); got == mqtt.Success {
			t.Errorf("gateway %d takes a token of another key", n)
		}
	}
}

// A client that connects again and again is banned at every gateway.
func TestFlapping_Gateways(t *testing.T) {
	g := startGateways(t)
	x := g.edges[0].signUp(t, "acme")
	x.do("PUT", "/v1/tenants/acme/flapping", `{"rule":{"connects":5,"window":60,"ban":600}}`, nil)
	flaps := func(n int) bool {
		d, k := g.on(x, n).connect(clientID("flaps"))
		defer func() { _ = d.c.Close() }()
		return k.Reason == mqtt.Banned
	}
	end := time.Now().Add(soon)
	for !flaps(0) {
		if time.Now().After(end) {
			t.Fatal("it is not banned")
		}
	}
	var list struct {
		Items []struct {
			ID, Kind, Value, Reason string
			Automatic               bool
		}
	}
	// The gateway tells of it without waiting; the other one must not have to count.
	for len(list.Items) == 0 {
		x.do("GET", "/v1/tenants/acme/bans", "", &list)
		if time.Now().After(end) {
			t.Fatal("the ban is not told of")
		}
	}
	g.on(x, 1).within(func() string {
		if !flaps(1) {
			return "it is not banned at the other gateway"
		}
		return ""
	})
	if len(list.Items) != 1 || !list.Items[0].Automatic || list.Items[0].Value != "flaps" || list.Items[0].Reason != "more than 5 connects in 60 s" {
		t.Fatalf("got %+v", list)
	}
	// Who ends the ban, ends it everywhere.
	x.do("PUT", "/v1/tenants/acme/flapping", `{}`, nil)
	x.do("DELETE", "/v1/tenants/acme/bans/"+list.Items[0].ID, "", nil)
	for n := range g.edges {
		g.on(x, n).within(func() string {
			if flaps(n) {
				return "it is still banned"
			}
			return ""
		})
	}
}

// A device gets its certificate for a claim, connects with it at any gateway, and is
// ended when that is revoked.
func TestManagedCA_Gateways(t *testing.T) {
	g := startGateways(t)
	x := g.edges[0].signUp(t, "acme")
	x.do("POST", "/v1/tenants/acme/managed-ca", "", nil)
	var claim struct{ Secret string }
	x.do("POST", "/v1/tenants/acme/claims", `{"username":"press-7","days":1}`, &claim)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Certificate, Serial string }
	stranger := *x
	stranger.key = ""
	stranger.do("POST", "/v1/claims:redeem", fmt.Sprintf(`{"claim":%q,"csr":%q}`, claim.Secret, tenancytest.PEM("CERTIFICATE REQUEST", der)), &got)
	block, _ := pem.Decode([]byte(got.Certificate))
	cert := tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
	var devices []*device
	for n := range g.edges {
		g.on(x, n).within(func() string { return g.mayKnow(x, n, cert) })
		devices = append(devices, g.secure(x, n, cert))
	}
	var r revocation
	r.measure(func() {
		x.do("POST", "/v1/tenants/acme/bans", fmt.Sprintf(`{"kind":"certificate","value":"serial:%s"}`, got.Serial), nil)
	}, mqtt.AdministrativeAction, devices...)
	r.report(t, "ban of a certificate that was claimed")
}
