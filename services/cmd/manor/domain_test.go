// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy/domains/domainstest"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// orderTime is how long a certificate may take here.
const orderTime = 20 * time.Second

// customDomain is a domain of a tenant as the API shows it.
type customDomain struct {
	FQDN, State, Issuer string
	LastError           string `json:"last_error"`
	Failures            int
	NotAfter            *time.Time `json:"not_after"`
	NextRenewal         *time.Time `json:"next_renewal"`
	SuggestedRenewal    *time.Time `json:"suggested_renewal"`
	Challenge           struct{ Name, Value string }
}

func (x *tenant) domain(method, rest, body string) (d customDomain) {
	x.Helper()
	x.do(method, "/v1/tenants/"+x.id+"/domains"+rest, body, &d)
	return d
}

// until asks until a domain is as it is to be.
func (x *tenant) until(name string, ok func(d customDomain) bool) (d customDomain) {
	x.Helper()
	for end := time.Now().Add(orderTime); ; time.Sleep(20 * time.Millisecond) {
		if d = x.domain("GET", "/"+name, ""); ok(d) {
			return d
		}
		if time.Now().After(end) {
			x.Fatalf("after %v: %+v", orderTime, d)
		}
	}
}

// refused asks for something that the API is to refuse, and returns what it says.
func (x *tenant) refused(method, path, body string) (status int, code string) {
	x.Helper()
	status, p := x.asks(method, path, body)
	return status, p.Code
}

// handshake is a TLS client's at that address.
func handshake(address string, config *tls.Config) (*tls.Conn, error) {
	return tls.Dial("tcp", address, config)
}

// unrecognized reports whether the handshake was refused as RFC 6066 §3 says.
func unrecognized(err error) bool {
	return err != nil && strings.Contains(err.Error(), "unrecognized name")
}

// over is a client that has shaken hands already, and says its user name without a
// tenant.
func (x *tenant) over(c *tls.Conn) *device {
	x.Helper()
	x.n++
	x.Cleanup(func() { _ = c.Close() })
	d := &device{x: x, c: c, v: packet.V5}
	d.send(&packet.Packet{Type: packet.CONNECT, Connect: &packet.Connect{
		Version: packet.V5, CleanStart: true, ClientID: fmt.Sprint("c", x.n), KeepAlive: 60,
		Username: "default", HasUsername: true, Password: []byte(x.word), HasPassword: true,
	}})
	if k := d.want(packet.CONNACK).Connack; k.Reason != mqtt.Success {
		x.Fatalf("CONNACK %v %s", k.Reason, k.ReasonString)
	}
	return d
}

// A certificate is issued, renewed, and not renewed, by an ACME server that others wrote;
// clients come by the custom name.
func TestDomain_ACME(t *testing.T) {
	names := domainstest.NewDNS(t)
	var ca *pebble
	p := startProduct(t, func(o *options, p *process) {
		ca = startPebble(t, names, p.Ports["mqtts"])
		o.acme, o.acmeCA, o.resolver, o.settle = ca.directory, ca.caFile, names.Address, 200*time.Millisecond
	})
	x, other := p.signUp(t, "acme"), p.signUp(t, "beta")
	const name = "mqtt.acme.example"
	config := &tls.Config{ServerName: name, RootCAs: ca.roots}
	names.Host(name, "127.0.0.1")
	theirs := other.domain("POST", "", `{"fqdn":"`+name+`"}`) // which keeps nobody from it
	d := x.domain("POST", "", `{"fqdn":"`+name+`"}`)
	if _, err := handshake(p.mqtts, config); !unrecognized(err) {
		t.Errorf("pending: %v", err)
	}
	names.Text(d.Challenge.Name, d.Challenge.Value)
	x.domain("POST", "/"+name+":verify", "")
	d = x.until(name, func(d customDomain) bool { return d.State == "active" })
	if !strings.Contains(d.Issuer, "Pebble") || d.NotAfter == nil || d.NextRenewal == nil || !d.NextRenewal.Before(*d.NotAfter) {
		t.Errorf("active: %+v", d)
	}
	if r := d.SuggestedRenewal; r == nil || !r.After(time.Now()) || !r.Before(*d.NotAfter) {
		t.Errorf("the authority's suggestion: %v of %+v", r, d)
	}
	var c *tls.Conn
	x.within(func() string {
		var err error
		if c, err = handshake(p.mqtts, config); err != nil {
			return err.Error()
		}
		return ""
	})
	first := c.ConnectionState().PeerCertificates[0].SerialNumber
	kept := x.over(c)
	kept.subscribe("hello/#", mqtt.AtLeastOnce, 0)
	plain := x.device() // by the tenant's own way in
	plain.publish("hello/world", "it works", mqtt.AtLeastOnce, false)
	if got := kept.want(packet.PUBLISH).Publish; string(got.Message.Payload) != "it works" {
		t.Errorf("got %q", got.Message.Payload)
	}
	ws := config.Clone()
	ws.NextProtos = []string{"http/1.1"}
	if c, err := handshake(p.wss, ws); err != nil {
		t.Errorf("WebSocket: %v", err)
	} else {
		_ = c.Close()
	}

	// What is one tenant's is no other's.
	names.Text(d.Challenge.Name, d.Challenge.Value, theirs.Challenge.Value)
	if status, code := other.refused("POST", "/v1/tenants/beta/domains/"+name+":verify", ""); status != 409 || code != "domain_taken" {
		t.Errorf("another tenant: %d %s", status, code)
	}

	// Renewed: another certificate, and the connection stays.
	x.domain("POST", "/"+name+":renew", "")
	x.withinTime(orderTime, func() string {
		c, err := handshake(p.mqtts, config)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = c.Close() }()
		if c.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(first) == 0 {
			return "it is still the first certificate"
		}
		return ""
	})
	plain.publish("hello/world", "still", mqtt.AtLeastOnce, false)
	if got := kept.want(packet.PUBLISH).Publish; string(got.Message.Payload) != "still" {
		t.Errorf("after the renewal: %q", got.Message.Payload)
	}

	// The CA does not find us: its words are told, and the certificate goes on.
	const lost = "lost.acme.example"
	names.Host(lost, "127.0.0.9")
	d = x.domain("POST", "", `{"fqdn":"`+lost+`"}`)
	names.Text(d.Challenge.Name, d.Challenge.Value)
	x.domain("POST", "/"+lost+":verify", "")
	d = x.until(lost, func(d customDomain) bool { return d.State == "failed" })
	if !strings.Contains(d.LastError, "the CA has refused") || !strings.Contains(d.LastError, "connect") || d.Failures != 1 || d.NextRenewal == nil || !d.NextRenewal.After(time.Now()) {
		t.Errorf("failed: %+v", d)
	}
	if _, err := handshake(p.mqtts, &tls.Config{ServerName: lost, RootCAs: ca.roots}); !unrecognized(err) {
		t.Errorf("failed, without a certificate: %v", err)
	}
	names.Host(lost, "127.0.0.1")
	x.domain("POST", "/"+lost+":renew", "")
	x.until(lost, func(d customDomain) bool { return d.State == "active" && d.LastError == "" && d.Failures == 0 })

	// A CA that has forgotten us is told of us anew; and one that refuses to renew leaves
	// what there is.
	const again = "again.acme.example"
	ca.stop()
	ca.start()
	names.Host(again, "127.0.0.1")
	d = x.domain("POST", "", `{"fqdn":"`+again+`"}`)
	names.Text(d.Challenge.Name, d.Challenge.Value)
	x.domain("POST", "/"+again+":verify", "")
	before := x.until(again, func(d customDomain) bool { return d.State == "active" || d.State == "failed" })
	names.Host(again, "127.0.0.9")
	x.domain("POST", "/"+again+":renew", "")
	d = x.until(again, func(d customDomain) bool {
		// Pebble takes one order of a hundred by what it saw before, also when told to take none.
		if d.State == "active" && !d.NotAfter.Equal(*before.NotAfter) {
			before = d
			x.domain("POST", "/"+again+":renew", "")
		}
		return d.State == "failed"
	})
	if before.State != "active" || !strings.Contains(d.LastError, "the CA has refused") || d.NotAfter == nil || !d.NotAfter.Equal(*before.NotAfter) {
		t.Errorf("not renewed: %+v, before %+v", d, before)
	}
	if c, err := handshake(p.mqtts, &tls.Config{ServerName: again, RootCAs: ca.roots}); err != nil {
		t.Errorf("not renewed: %v", err)
	} else {
		x.over(c)
	}

	// Gone: within 2 s no handshake is answered.
	x.do("DELETE", "/v1/tenants/acme/domains/"+name, "", nil)
	x.within(func() string {
		if _, err := handshake(p.mqtts, config); !unrecognized(err) {
			return fmt.Sprintf("deleted: %v", err)
		}
		return ""
	})
	plain.publish("hello/world", "goes on", mqtt.AtLeastOnce, false)
	if got := kept.want(packet.PUBLISH).Publish; string(got.Message.Payload) != "goes on" {
		t.Errorf("after the deletion: %q", got.Message.Payload)
	}
}

// Certificates that are uploaded are served, and replaced, live.
func TestDomain_Uploaded(t *testing.T) {
	names := domainstest.NewDNS(t)
	p := startProduct(t, func(o *options, _ *process) { o.resolver = names.Address })
	x := p.signUp(t, "acme")
	ca := tenancytest.NewCA(t, "own")
	for _, c := range []struct{ name, asked string }{
		{"mqtt.acme.example", "mqtt.acme.example"}, {"*.devices.acme.example", "press-7.devices.acme.example"},
	} {
		d := x.domain("POST", "", `{"fqdn":"`+c.name+`","certificate":"uploaded"}`)
		names.Text(d.Challenge.Name, d.Challenge.Value)
		x.domain("POST", "/"+c.name+":verify", "")
		config := &tls.Config{ServerName: c.asked, RootCAs: tenancytest.Pool(ca)}
		if _, err := handshake(p.mqtts, config); !unrecognized(err) {
			t.Errorf("verified, without a certificate: %v", err)
		}
		for serial := range int64(2) {
			chain, key := ca.Server(serial+7, time.Now().Add(time.Hour), c.name)
			body, err := json.Marshal(map[string]string{"chain": chain, "key": key})
			if err != nil {
				t.Fatal(err)
			}
			x.domain("PUT", "/"+c.name+"/certificate", string(body))
			x.within(func() string {
				conn, err := handshake(p.mqtts, config)
				if err != nil {
					return err.Error()
				}
				if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != serial+7 {
					_ = conn.Close()
					return fmt.Sprintf("serial %d, want %d", got, serial+7)
				}
				x.over(conn)
				return ""
			})
		}
	}
	for _, asked := range []string{"devices.acme.example", "a.b.devices.acme.example", "b.acme.example"} {
		if _, err := handshake(p.mqtts, &tls.Config{ServerName: asked, RootCAs: tenancytest.Pool(ca)}); !unrecognized(err) {
			t.Errorf("%s: %v", asked, err)
		}
	}
}
