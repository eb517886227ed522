// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// live is how soon a change must have reached live sessions.
const live = 2 * time.Second

// product is the whole product in this process.
type product struct {
	mqtt, mqtts, wss, api string
	// more, if not empty, are the addresses of several gateways that clients take in
	// turn instead of mqtt.
	more []string
}

func startProduct(t *testing.T, with ...func(*options, *process)) *product {
	t.Helper()
	o := &options{data: t.TempDir(), bind: "127.0.0.1"}
	all := o.layout()
	for name := range all[0].Ports {
		all[0].Ports[name] = freePort(t)
	}
	for _, f := range with {
		f(o, &all[0])
	}
	ca, err := openAuthority(o.data)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan error, 1), make(chan struct{})
	go func() {
		done <- runProduct(ctx, o, &all[0], ca, slog.New(slog.DiscardHandler), func(*prometheus.Registry) { close(ready) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return &product{mqtt: all[0].local("mqtt"), mqtts: all[0].local("mqtts"), wss: all[0].local("wss"), api: "http://" + all[0].local("api")}
}

// tenant is one tenant of a product, with its first credential.
type tenant struct {
	*testing.T
	p             *product
	id, key, word string
	n             int
}

func (p *product) signUp(t *testing.T, id string) *tenant {
	t.Helper()
	return p.signUpTo(t, id, tenancy.PlanDev)
}

// signUpTo is signUp to a plan.
func (p *product) signUpTo(t *testing.T, id, plan string) *tenant {
	t.Helper()
	x := &tenant{T: t, p: p, id: id}
	var a struct {
		APIKey     struct{ Secret string } `json:"api_key"`
		Credential struct{ Password string }
	}
	x.do("POST", "/v1/signup", fmt.Sprintf(`{"organization":%q,"email":"ops@acme.example","password":"correct horse","tenant":%q,"plan":%q}`, id, id, plan), &a)
	x.key, x.word = a.APIKey.Secret, a.Credential.Password
	return x
}

// do asks the API, which must say yes.
func (x *tenant) do(method, path, body string, out any) {
	x.Helper()
	req, err := http.NewRequestWithContext(x.Context(), method, x.p.api+path, bytes.NewReader([]byte(body)))
	if err != nil {
		x.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if x.key != "" {
		req.Header.Set("Authorization", "Bearer "+x.key)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		x.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode >= 300 {
		x.Fatalf("%s %s: %d %s %v", method, path, r.StatusCode, b, err)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			x.Fatal(err)
		}
	}
}

func (x *tenant) set(settings string) {
	x.Helper()
	x.do("PUT", "/v1/tenants/"+x.id+"/settings", settings, nil)
}

func (x *tenant) quota(overrides string) {
	x.Helper()
	x.do("PUT", "/v1/tenants/"+x.id+"/quotas/overrides", overrides, nil)
}

// within calls f until it returns "", which must be before a change has had the
// time that it may take.
func (x *tenant) within(f func() string) {
	x.Helper()
	x.withinTime(live, f)
}

func (x *tenant) withinTime(most time.Duration, f func() string) {
	x.Helper()
	end := time.Now().Add(most)
	for {
		why := f()
		if why == "" {
			return
		}
		if time.Now().After(end) {
			x.Fatalf("after %v: %s", most, why)
		}
	}
}

// device is a raw MQTT client.
type device struct {
	x   *tenant
	v   packet.Version
	c   net.Conn
	dec packet.Decoder
	buf []byte
	pid uint16
	// listens: it has subscribed to what gets has others send.
	listens bool
}

func (x *tenant) dial() *device {
	x.Helper()
	to := x.p.mqtt
	if len(x.p.more) > 0 {
		to = x.p.more[x.n%len(x.p.more)]
	}
	c, err := net.Dial("tcp", to)
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(func() { _ = c.Close() })
	return &device{x: x, c: c, v: packet.V5}
}

type change func(p *packet.Connect)

func clientID(id string) change       { return func(p *packet.Connect) { p.ClientID = id } }
func version(v packet.Version) change { return func(p *packet.Connect) { p.Version = v } }
func window(n uint16) change          { return func(p *packet.Connect) { p.ReceiveMaximum = n } }

func stored(p *packet.Connect) {
	p.CleanStart, p.SessionExpiry, p.HasSessionExpiry = false, 3600, true
}

func willOn(topic string) change {
	return func(p *packet.Connect) {
		p.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte(topic), Payload: []byte("gone")}}
	}
}

// connect sends CONNECT and returns what CONNACK says.
func (x *tenant) connect(changes ...change) (*device, *packet.Connack) {
	x.Helper()
	x.n++
	p := &packet.Connect{
		Version: packet.V5, CleanStart: true, ClientID: fmt.Sprint("c", x.n), KeepAlive: 60,
		Username: x.id + ":default", HasUsername: true, Password: []byte(x.word), HasPassword: true,
	}
	for _, f := range changes {
		f(p)
	}
	d := x.dial()
	d.v = p.Version
	d.send(&packet.Packet{Type: packet.CONNECT, Connect: p})
	return d, d.want(packet.CONNACK).Connack
}

// device is a client that was let in.
func (x *tenant) device(changes ...change) *device {
	x.Helper()
	d, k := x.connect(changes...)
	if k.Reason != mqtt.Success {
		x.Fatalf("CONNACK %v %s", k.Reason, k.ReasonString)
	}
	return d
}

func (d *device) send(p *packet.Packet) {
	d.x.Helper()
	if _, err := d.c.Write(packet.Append(nil, d.v, p, 0)); err != nil {
		d.x.Fatal(err)
	}
}

// next is the next packet; nil at the end of the connection, or if nothing comes
// for that long.
func (d *device) next(wait time.Duration) *packet.Packet {
	d.x.Helper()
	_ = d.c.SetReadDeadline(time.Now().Add(wait))
	for {
		p := &packet.Packet{}
		n, err := d.dec.Decode(d.buf, d.v, 0, p)
		if err != nil {
			d.x.Fatal(err)
		}
		if n > 0 {
			// What p has are views, which the next read must not move.
			d.buf = bytes.Clone(d.buf[n:])
			return p
		}
		b := make([]byte, 64<<10)
		n, err = d.c.Read(b)
		d.buf = append(bytes.Clone(d.buf), b[:n]...)
		if err != nil && n == 0 {
			return nil
		}
	}
}

const soon = 10 * time.Second

func (d *device) want(t packet.Type) *packet.Packet {
	d.x.Helper()
	p := d.next(soon)
	if p == nil || p.Type != t {
		d.x.Fatalf("got %+v, expected %s", p, t)
	}
	return p
}

// wantEnd reads to the end of the connection.
func (d *device) wantEnd() {
	d.x.Helper()
	_ = d.c.SetReadDeadline(time.Now().Add(soon))
	if _, err := io.Copy(io.Discard, d.c); err != nil {
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			d.x.Fatal("the connection does not end")
		}
	}
}

// wantDisconnect is what a client of MQTT 5 is told at the end.
func (d *device) wantDisconnect(reason mqtt.ReasonCode) *packet.Disconnect {
	d.x.Helper()
	p := d.want(packet.DISCONNECT).Disconnect
	if p.Reason != reason {
		d.x.Fatalf("DISCONNECT %v %s, expected %v", p.Reason, p.ReasonString, reason)
	}
	d.wantEnd()
	return p
}

func (d *device) id() uint16 {
	d.pid++
	return d.pid
}

// subscribe returns the reason code.
func (d *device) subscribe(filter string, qos mqtt.QoS, id uint32) mqtt.ReasonCode {
	d.x.Helper()
	d.send(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{
		PacketID: d.id(), Subscriptions: []mqtt.Subscription{{Filter: filter, QoS: qos, ID: id}},
	}})
	return d.want(packet.SUBACK).Suback.Reasons[0]
}

func (d *device) publish(topic, payload string, qos mqtt.QoS, retain bool) {
	d.x.Helper()
	p := &packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{Message: mqtt.Message{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, Retain: retain}}}
	if qos > 0 {
		p.Publish.PacketID = d.id()
	}
	d.send(p)
}

// publishAll publishes the payloads at QoS 1 and waits for the answers.
func (d *device) publishAll(topic string, payloads ...string) {
	d.x.Helper()
	for _, p := range payloads {
		d.publish(topic, p, 1, false)
		d.want(packet.PUBACK)
	}
}

func (d *device) ack(t packet.Type, id uint16) {
	d.x.Helper()
	d.send(&packet.Packet{Type: t, Ack: packet.Ack{PacketID: id}})
}

// drain acknowledges what comes at QoS 1 until nothing waits any more, and returns
// the payloads. What an acknowledgement lets go comes before the answer to a
// SUBSCRIBE that follows it.
func (d *device) drain() (out []string) {
	d.x.Helper()
	for more := true; more; {
		more = false
		d.send(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: d.id(), Subscriptions: []mqtt.Subscription{{Filter: "nothing"}}}})
		for {
			p := d.next(soon)
			if p == nil || p.Type != packet.PUBLISH && p.Type != packet.SUBACK {
				d.x.Fatalf("got %+v, expected PUBLISH or SUBACK", p)
			}
			if p.Type == packet.SUBACK {
				break
			}
			more = true
			out = append(out, string(p.Publish.Message.Payload))
			if p.Publish.PacketID != 0 {
				d.ack(packet.PUBACK, p.Publish.PacketID)
			}
		}
	}
	return out
}
