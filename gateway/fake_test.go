// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/tenancy"
)

// fakeDirectory knows a few tenants; every password is "secret".
type fakeDirectory struct {
	mu      sync.Mutex
	tenants map[string]*tenancy.Tenant
	changes chan tenancy.Change
	down    bool
	// downAs is the code of the error while down.
	downAs string
	// unknown: nobody can be asked about a tenant, nor is anything known of it.
	unknown bool
	lookups int // that found nothing while unknown
	// hostsDown is how many of the next TenantByHost fail.
	hostsDown int
	// thinks has Authenticate wait until it is closed; nil does not.
	thinks chan struct{}
	// thinksOf is the tenant for which it does, empty for all.
	thinksOf string
	asked    int // of Authenticate
	// authorize is who decides; nil grants the default.
	authorize func(*tenancy.Tenant, *tenancy.Arrival) (*tenancy.Grant, error)
	bans      map[string]*tenancy.Bans // by tenant
	flaps     []tenancy.Flap
	tokens    map[string]tenancy.Identity // by the password that is the token
	// unregistered: the registry does not answer. groups are those of every device.
	unregistered bool
	groups       []string
}

func newDirectory() *fakeDirectory {
	d := &fakeDirectory{tenants: map[string]*tenancy.Tenant{}, changes: make(chan tenancy.Change), groups: []string{"presses"}}
	for _, id := range []string{"acme", "beta"} {
		d.tenants[id] = &tenancy.Tenant{ID: id, State: tenancy.StateActive, Limits: tenancy.NoLimits(), Hostname: id + ".localhost"}
	}
	return d
}

func (d *fakeDirectory) edit(id string, f func(t *tenancy.Tenant)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := *d.tenants[id]
	f(&t)
	d.tenants[id] = &t
}

func (d *fakeDirectory) Tenant(_ context.Context, id string) (*tenancy.Tenant, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return nil, errs.Coded(errs.Unavailable, d.downAs, "down")
	}
	return d.known(id)
}

func (d *fakeDirectory) Known(_ context.Context, id string) (*tenancy.Tenant, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known(id)
}

// known is Known. The caller holds mu.
func (d *fakeDirectory) known(id string) (*tenancy.Tenant, error) {
	if d.unknown {
		d.lookups++
		return nil, errs.New(errs.Unavailable, "unknown")
	}
	if t := d.tenants[id]; t != nil {
		return t, nil
	}
	return nil, errs.New(errs.NotFound, "no tenant %s", id)
}

func (d *fakeDirectory) TenantByHost(ctx context.Context, host string) (*tenancy.Tenant, error) {
	id, ok := strings.CutSuffix(strings.ToLower(host), ".localhost")
	if !ok {
		return nil, errs.New(errs.NotFound, "no host %s", host)
	}
	d.mu.Lock()
	fails := d.hostsDown > 0
	if fails {
		d.hostsDown--
	}
	d.mu.Unlock()
	if fails {
		return nil, errs.Coded(errs.Unavailable, tenancy.CodeControlPlaneAway, "down")
	}
	return d.Tenant(ctx, id)
}

func (d *fakeDirectory) Authenticate(ctx context.Context, a tenancy.Attempt) (*tenancy.Identity, error) {
	d.mu.Lock()
	d.asked++
	thinks := d.thinks
	if d.thinksOf != "" && d.thinksOf != a.Tenant.ID {
		thinks = nil
	}
	d.mu.Unlock()
	if thinks != nil {
		<-thinks
	}
	t, err := d.Tenant(ctx, a.Tenant.ID)
	if a.Method == tenancy.AuthJWT {
		return d.byToken(t, a)
	}
	switch {
	case err != nil:
		return nil, err
	case string(a.Password) != "secret":
		return nil, errs.New(errs.Denied, "wrong password")
	case !t.Active():
		return nil, t.Inactive()
	}
	return &tenancy.Identity{Method: tenancy.AuthPassword, Tenant: t, Username: a.Username, Grant: tenancy.DefaultGrant()}, nil
}

// byToken knows the passwords that are tokens; "bad" is one that is not good.
func (d *fakeDirectory) byToken(t *tenancy.Tenant, a tenancy.Attempt) (*tenancy.Identity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if string(a.Password) == "bad" {
		return nil, errs.Coded(errs.Denied, tenancy.CodeTokenRefused, "the token is refused: it is bad")
	}
	id, ok := d.tokens[string(a.Password)]
	if !ok || t == nil {
		return nil, errs.Coded(errs.Denied, tenancy.CodePassed, "the password is no token")
	}
	id.Method, id.Tenant, id.Grant = tenancy.AuthJWT, t, tenancy.DefaultGrant()
	return &id, nil
}

func (d *fakeDirectory) Device(_ context.Context, t *tenancy.Tenant, name string) (*tenancy.Device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unregistered {
		return nil, errs.New(errs.Unavailable, "down")
	}
	if !t.Registry {
		return nil, nil
	}
	return &tenancy.Device{Tenant: t.ID, Name: name, Groups: d.groups}, nil
}

func (d *fakeDirectory) Bans(tenant string) *tenancy.Bans {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bans[tenant]
}

func (d *fakeDirectory) Flapped(f tenancy.Flap) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flaps = append(d.flaps, f)
}

// think has Authenticate wait until thinks is closed.
func (d *fakeDirectory) think() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.thinks = make(chan struct{})
}

func (d *fakeDirectory) isAsked() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked > 0
}

func (d *fakeDirectory) Authorize(_ context.Context, t *tenancy.Tenant, a *tenancy.Arrival) (*tenancy.Grant, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.authorize != nil {
		return d.authorize(t, a)
	}
	return tenancy.DefaultGrant(), nil
}

// Begin knows the method FAKE: the client says its name, and then "secret". A
// name without a tenant needs one in front.
func (d *fakeDirectory) Begin(_ context.Context, method string, a tenancy.Attempt) (tenancy.Exchange, error) {
	if method != "FAKE" {
		return nil, errs.Coded(errs.NotFound, tenancy.CodeMethodUnknown, "no method")
	}
	if d.isDown() {
		return nil, errs.New(errs.Unavailable, "down")
	}
	return &fakeExchange{d: d, a: a}, nil
}

func (d *fakeDirectory) isDown() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.down
}

type fakeExchange struct {
	d    *fakeDirectory
	a    tenancy.Attempt
	name string
}

func (e *fakeExchange) Step(ctx context.Context, data []byte) ([]byte, *tenancy.Identity, error) {
	if e.name == "" {
		e.name = string(data)
		return []byte("prove it, " + e.name), nil, nil
	}
	id, name := "", e.name
	if e.a.Tenant != nil {
		id = e.a.Tenant.ID
	} else {
		id, name, _ = strings.Cut(e.name, ":")
	}
	t, err := e.d.Tenant(ctx, id)
	if err != nil || string(data) != "secret" {
		return nil, nil, errs.New(errs.Denied, "wrong")
	}
	if !t.Active() {
		return nil, nil, t.Inactive()
	}
	return []byte("welcome"), &tenancy.Identity{Method: tenancy.AuthSCRAM, Tenant: t, Username: name, Grant: tenancy.DefaultGrant()}, nil
}

func (d *fakeDirectory) Watch(ctx context.Context, f func(tenancy.Change)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-d.changes:
			f(c)
		}
	}
}

// fakeBroker routes between channels, at once and on the sender's goroutine. It
// keeps to the credit: what is beyond it is dropped.
type fakeBroker struct {
	mu       sync.Mutex
	gw       link.Gateway
	channels map[link.Channel]*fakeChannel
	closes   []link.CloseCause
	opens    []link.Open
	dropped  int
	// quiet brokers do not answer, mute ones no close; noWindow ones grant no
	// publishes.
	quiet, mute, noWindow bool
	last                  link.Channel // that was closed
	// away brokers cannot be dialled. moved, if set, says of a client why it is not
	// served; nil if it is.
	away  bool
	lives int // of its link: a former one takes nothing
	moved func(id mqtt.ClientID) *link.Moved
	// present: sessions are there when their clients come.
	present bool
	// older: it does not know how connections go on.
	older bool
	// tells: it answers what it is asked about clients.
	tells bool
	// paused counts the channels that are, late what came on them afterwards.
	paused, late int
}

type fakeChannel struct {
	open            link.Open
	credit, used    uint64
	filters         []string
	tooLarge, acked int
	topics          []string // published to
	paused          bool
}

func (b *fakeBroker) Dial(_ context.Context, gw link.Gateway) (link.Broker, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return nil, errors.New("away")
	}
	b.gw, b.channels = gw, map[link.Channel]*fakeChannel{}
	b.lives++
	return &fakeEnd{b, b.lives}, nil
}

// fakeEnd is a link to a fakeBroker.
type fakeEnd struct {
	*fakeBroker
	life int
}

func (e *fakeEnd) Send(up *link.Up) error {
	gw, down, err := e.turn(up, e.life)
	if err != nil {
		return err
	}
	if len(down.Frames) > 0 {
		gw.Receive(down)
	}
	gw.Flush()
	return nil
}

func (e *fakeEnd) Post(up *link.Up) error {
	gw, down, err := e.turn(up, e.life)
	if err != nil {
		return err
	}
	if len(down.Frames) > 0 {
		gw.Receive(down)
		go gw.Flush()
	}
	return nil
}

func (*fakeEnd) Close() error { return nil }

func (*fakeEnd) Flush() {}

func (e *fakeEnd) Features() uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.older {
		return link.FeatureOwners
	}
	return link.Features
}

func (b *fakeBroker) turn(up *link.Up, life int) (link.Gateway, *link.Down, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if life != b.lives {
		return nil, nil, link.ErrLost
	}
	down := &link.Down{}
	for i := range up.Frames {
		b.frame(&up.Frames[i], down)
	}
	return b.gw, down, nil
}

// channelOf is that of a client, or nil. The caller holds mu.
func (b *fakeBroker) channelOf(id mqtt.ClientID) *fakeChannel {
	for _, c := range b.channels {
		if c.open.ClientID == id {
			return c
		}
	}
	return nil
}

func (b *fakeBroker) frame(f *link.UpFrame, down *link.Down) {
	say := func(d link.DownFrame) {
		d.Channel, d.PacketID = f.Channel, f.PacketID
		down.Frames = append(down.Frames, d)
	}
	c := b.channels[f.Channel]
	if c != nil && c.paused && f.Kind != link.UpClose && f.Kind != link.UpOpen {
		b.late++
	}
	switch f.Kind {
	case link.UpPaused:
		b.paused++
		c.paused = true
	case link.UpOpen:
		b.opens = append(b.opens, *f.Open)
		if b.moved != nil {
			if m := b.moved(f.Open.ClientID); m != nil {
				say(link.DownFrame{Kind: link.DownMoved, Moved: m})
				return
			}
		}
		b.channels[f.Channel] = &fakeChannel{open: *f.Open, credit: f.Open.Credit}
		if b.quiet {
			return
		}
		d := link.DownFrame{Kind: link.DownOpened, Bytes: 1 << 40, SessionPresent: b.present}
		if b.noWindow {
			d.Bytes = 1
		}
		say(d)
	case link.UpClose:
		b.closes = append(b.closes, f.Close.Cause)
		delete(b.channels, f.Channel)
		b.last = f.Channel
		if f.Close.Answered() && !b.mute {
			say(link.DownFrame{Kind: link.DownClose})
		}
	case link.UpCredit:
		if c != nil {
			c.credit = f.Bytes
		}
	case link.UpTooLarge:
		c.tooLarge++
	case link.UpQuery:
		if c := b.channelOf(f.Query.ClientID); b.tells && c != nil {
			info := link.ClientInfo{}
			for _, filter := range c.filters {
				info.Subscriptions = append(info.Subscriptions, mqtt.Subscription{Filter: filter, QoS: 1})
			}
			say(link.DownFrame{Kind: link.DownAnswer, Answer: &link.Answer{ID: f.Query.ID, Found: true, Clients: []link.ClientInfo{info}}})
		}
	case link.UpAck:
		if f.Ack == mqtt.Pubrel {
			say(link.DownFrame{Kind: link.DownAck, Ack: mqtt.Pubcomp})
			return
		}
		c.acked++
	case link.UpSubscribe:
		var reasons []mqtt.ReasonCode
		for _, s := range f.Subscribe {
			c.filters = append(c.filters, s.Filter)
			reasons = append(reasons, mqtt.ReasonCode(s.QoS))
		}
		say(link.DownFrame{Kind: link.DownSuback, Reasons: reasons})
	case link.UpUnsubscribe:
		c.filters = slices.DeleteFunc(c.filters, func(filter string) bool { return slices.Contains(f.Unsubscribe, filter) })
		say(link.DownFrame{Kind: link.DownUnsuback, Reasons: make([]mqtt.ReasonCode, len(f.Unsubscribe))})
	case link.UpPublish:
		c.topics = append(c.topics, string(f.Message.Topic))
		slot := uint16(len(down.Messages))
		down.Messages = append(down.Messages, f.Message)
		for ch, t := range b.channels {
			if t.open.Tenant != c.open.Tenant {
				continue
			}
			for _, filter := range t.filters {
				if !topic.Match(filter, f.Message.Topic) {
					continue
				}
				if t.used >= t.credit {
					b.dropped++
					break
				}
				t.used += uint64(f.Message.Size()) + link.DeliverOverhead
				d := link.DownFrame{Kind: link.DownDeliver, Channel: ch, Slot: slot, QoS: min(f.Message.QoS, 1)}
				if d.QoS > 0 {
					d.PacketID = 7
				}
				down.Frames = append(down.Frames, d)
				break
			}
		}
		switch f.Message.QoS {
		case mqtt.AtLeastOnce:
			say(link.DownFrame{Kind: link.DownAck, Ack: mqtt.Puback})
		case mqtt.ExactlyOnce:
			say(link.DownFrame{Kind: link.DownAck, Ack: mqtt.Pubrec})
		case mqtt.AtMostOnce:
		}
	}
}

// link sends a frame that is of no channel.
func (b *fakeBroker) link(d link.DownFrame) {
	b.mu.Lock()
	gw := b.gw
	b.mu.Unlock()
	gw.Receive(&link.Down{Frames: []link.DownFrame{d}})
	gw.Flush()
}

// down sends frames to all channels.
func (b *fakeBroker) down(d link.DownFrame) {
	b.mu.Lock()
	down := &link.Down{}
	for ch := range b.channels {
		d.Channel = ch
		down.Frames = append(down.Frames, d)
	}
	gw := b.gw
	b.mu.Unlock()
	gw.Receive(down)
	gw.Flush()
}

func (b *fakeBroker) lastOpen() link.Open {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.opens) == 0 {
		return link.Open{}
	}
	return b.opens[len(b.opens)-1]
}

// acks counts the PUBACKs, PUBRECs and PUBCOMPs of the clients that are connected.
func (b *fakeBroker) acks() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.channels {
		n += c.acked
	}
	return n
}

func (b *fakeBroker) closed() []link.CloseCause {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]link.CloseCause(nil), b.closes...)
}

// world is a running gateway.
type world struct {
	t      testing.TB
	gw     *gateway.Gateway
	dir    *fakeDirectory
	broker *fakeBroker
	reg    *prometheus.Registry
	cert   string
	key    string
	pool   *x509.CertPool
	certs  []tls.Certificate // what clients show that are asked for one
}

// start runs a gateway with a listener of each kind, as edit changes it.
func start(t testing.TB, edit func(w *world, c *gateway.Config)) *world {
	t.Helper()
	w := &world{t: t, dir: newDirectory(), broker: &fakeBroker{}, reg: prometheus.NewRegistry()}
	folder := t.TempDir()
	w.cert, w.key = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	w.writeCert(1)
	cfg := gateway.Config{
		Name: "gw", Directory: w.dir, Domain: "localhost", Dialer: w.broker, Links: 1, Log: telemetry.Discard(), Registerer: w.reg,
		ConnectTimeout: 3 * time.Second,
		Listeners: []listener.Config{
			{Name: "mqtt", Kind: listener.MQTT, Address: "127.0.0.1:0"},
			{Name: "mqtts", Kind: listener.MQTTS, Address: "127.0.0.1:0", CertFile: w.cert, KeyFile: w.key},
			{Name: "ws", Kind: listener.WS, Address: "127.0.0.1:0"},
			{Name: "wss", Kind: listener.WSS, Address: "127.0.0.1:0", CertFile: w.cert, KeyFile: w.key},
		},
	}
	if edit != nil {
		edit(w, &cfg)
	}
	gw, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.gw = gw
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- gw.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(15 * time.Second):
			t.Errorf("Run does not end")
		}
	})
	w.eventually("a link", func() bool { return gw.Healthy(ctx) == nil })
	return w
}

func (w *world) addr(name string) string { return w.gw.Addrs()[name].String() }

// eventually waits for a condition.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("there is still not: %s", what)
		}
	}
}

// metric is the sum of a counter or gauge over labels that contain all of want.
func (w *world) metric(name string, want ...string) float64 {
	families, err := w.reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			text := m.String()
			ok := true
			for _, s := range want {
				ok = ok && strings.Contains(text, `"`+s+`"`)
			}
			if ok {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// writeCert makes a certificate with that serial number.
func (w *world) writeCert(serial int64) {
	c := w.certPair(w.cert, w.key, serial, "*.localhost", "default.test")
	w.pool = x509.NewCertPool()
	w.pool.AddCert(c)
}

// certPair writes a certificate for those names, and its key.
func (w *world) certPair(certFile, keyFile string, serial int64, names ...string) *x509.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	c, _ := x509.ParseCertificate(der)
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return c
}

func (w *world) tls(host string) *tls.Config {
	c := &tls.Config{RootCAs: w.pool, ServerName: host, Certificates: w.certs}
	if host == "" {
		c.InsecureSkipVerify = true
	}
	return c
}

// client is a raw MQTT client.
type client struct {
	t   testing.TB
	c   net.Conn
	v   packet.Version
	dec packet.Decoder
	buf []byte
	cut func() error // closes without a word
}

func (w *world) dial(name string) *client {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.client(c)
}

func (w *world) client(c net.Conn) *client {
	w.t.Cleanup(func() { c.Close() })
	return &client{t: w.t, c: c, v: packet.V5, cut: c.Close}
}

func (c *client) send(p *packet.Packet) {
	c.t.Helper()
	c.write(packet.Append(nil, c.v, p, 0))
}

func (c *client) write(b []byte) {
	c.t.Helper()
	_ = c.c.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.c.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// next reads a packet; nil at the end of the connection.
func (c *client) next() *packet.Packet {
	c.t.Helper()
	p := &packet.Packet{}
	for {
		if n, err := c.dec.Decode(c.buf, c.v, 0, p); err != nil {
			c.t.Fatalf("the gateway sent % X: %v", c.buf, err)
		} else if n > 0 {
			c.buf = append([]byte(nil), c.buf[n:]...)
			return p
		}
		b := make([]byte, 64<<10)
		_ = c.c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.c.Read(b)
		c.buf = append(c.buf, b[:n]...)
		if err != nil && n == 0 {
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				c.t.Fatal("nothing came")
			}
			return nil
		}
	}
}

func (c *client) want(t packet.Type) *packet.Packet {
	c.t.Helper()
	p := c.next()
	if p == nil {
		c.t.Fatalf("the connection ended, expected %s", t)
	}
	if p.Type != t {
		c.t.Fatalf("%s came, expected %s: %+v", p.Type, t, p)
	}
	return p
}

func (c *client) wantEnd() {
	c.t.Helper()
	if p := c.next(); p != nil {
		c.t.Fatalf("%s came, expected the end", p.Type)
	}
	_, _ = io.Copy(io.Discard, c.c)
}

func hello(id string) *packet.Connect {
	return &packet.Connect{
		Version: packet.V5, CleanStart: true, ClientID: id, KeepAlive: 60,
		Username: "acme:dev", HasUsername: true, Password: []byte("secret"), HasPassword: true,
	}
}

func (c *client) connect(p *packet.Connect) *packet.Connack {
	c.t.Helper()
	c.v = p.Version
	c.send(&packet.Packet{Type: packet.CONNECT, Connect: p})
	return c.want(packet.CONNACK).Connack
}

func (c *client) mustConnect(p *packet.Connect) *client {
	c.t.Helper()
	if k := c.connect(p); k.Reason != mqtt.Success {
		c.t.Fatalf("CONNACK %v %s", k.Reason, k.ReasonString)
	}
	return c
}

func (c *client) subscribe(filter string) {
	c.t.Helper()
	c.send(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: filter, QoS: 1}}}})
	c.want(packet.SUBACK)
}

func publish(name, payload string, qos mqtt.QoS) *packet.Packet {
	p := &packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{Message: mqtt.Message{Topic: []byte(name), Payload: []byte(payload), QoS: qos}}}
	if qos > 0 {
		p.Publish.PacketID = 5
	}
	return p
}

var (
	_ uplink.Dialer     = (*fakeBroker)(nil)
	_ link.Broker       = (*fakeEnd)(nil)
	_ tenancy.Directory = (*fakeDirectory)(nil)
)
