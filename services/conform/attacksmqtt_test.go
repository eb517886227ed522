// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pires/go-proxyproto"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// login is a user name and password to try.
type login struct{ user, password string }

// as is CONNECT with that login.
func (l login) as(o packet.Connect) packet.Connect {
	o.Username, o.Password = l.user, []byte(l.password)
	return o
}

// logins are what the attacker has, in every form, for a connection that the victim's
// name is on: none of them is a credential there.
func (s *siege) logins() []login {
	a := s.attacker
	return []login{
		{a.Username, a.Password},
		{a.UserPlain, a.Password},
		{s.victim.UserPlain, a.Password},
		{jewel + "-press", a.Password},
		{s.victim.ID + ":" + a.UserPlain, a.Password},
		{"", a.Password},
		{a.Username, a.Key},
	}
}

// byHostname: SNI names the victim, or tries to seem to.
func (s *siege) byHostname(t *testing.T) {
	at := func(name string, verified bool) net.Conn {
		c := s.victim.caAsConfig.Clone()
		c.ServerName, c.InsecureSkipVerify = name, !verified
		return s.dial(t, s.attacker.gateway.Addr("mqtts"), c)
	}
	for _, l := range s.logins() {
		got, err := greet(at(s.victim.Hostname, true), l.as(s.attacker.options("x")))
		denied(t, fmt.Sprintf("SNI of the victim, %q", l.user), got, err, mqtt.BadUserNameOrPassword)
	}
	for _, name := range []string{"VICTIM.localhost", "Victim.LocalHost"} {
		got, err := greet(at(name, false), login{s.attacker.Username, s.attacker.Password}.as(s.attacker.options("x")))
		denied(t, name, got, err, mqtt.BadUserNameOrPassword)
	}
	// Names that are nobody's do not lead to the victim.
	for _, name := range []string{"x.victim.localhost", "victim.localhost.attacker.localhost", "victim-localhost", "victim"} {
		got, err := greet(at(name, false), login{s.victim.Username, s.victim.Password}.as(s.attacker.options("x")))
		denied(t, name, got, err)
	}
	for _, user := range []string{s.victim.UserPlain, "victim:" + jewel + "-press"} {
		got, err := greet(at(s.attacker.Hostname, true), login{user, s.attacker.Password}.as(s.attacker.options("x")))
		denied(t, "SNI of the attacker, "+user, got, err, mqtt.BadUserNameOrPassword)
	}
	inside := &party{Device: &Device{Address: s.attacker.gateway.Addr("mqtts"), TLS: s.attacker.caAsConfig, Options: login{s.attacker.Username, s.attacker.Password}.as(s.attacker.options("inside"))}}
	inside.join(t, "#")
	s.exchange(t, inside)
}

// byCertificate: certificates of the attacker's CA that name the victim's clients.
func (s *siege) byCertificate(t *testing.T) {
	bare := packet.Connect{Version: packet.V5, ClientID: "certified", CleanStart: true, KeepAlive: 60}
	for _, name := range []string{s.victim.Username, jewel + "-press", s.victim.UserPlain} {
		pair := s.attacker.ca.Issue(7, name)
		// Shown whatever CAs the server says it takes: Go's client would show none of these.
		c := s.victim.caAsConfig.Clone()
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		for _, o := range []packet.Connect{bare, login{name, s.attacker.Password}.as(s.attacker.options("certified"))} {
			got, err := greet(s.dial(t, s.victim.gateway.Addr("mqtts"), c), o)
			denied(t, "a foreign certificate of "+name, got, err)
		}
		// At home it is somebody of that name, of the attacker.
		c = s.attacker.caAsConfig.Clone()
		c.Certificates = []tls.Certificate{pair}
		inside := &party{Device: &Device{Address: s.attacker.gateway.Addr("mqtts"), TLS: c, Options: bare}}
		inside.join(t, "#")
		s.exchange(t, inside)
		inside.Disconnect()
	}
	// The victim's own works there, so that what was refused was the CA.
	c := s.victim.caAsConfig.Clone()
	c.Certificates = []tls.Certificate{s.victim.ca.Issue(8, "certified")}
	if got, err := greet(s.dial(t, s.victim.gateway.Addr("mqtts"), c), bare); err != nil || got != mqtt.Success {
		t.Errorf("the victim's own certificate: %v %v", got, err)
	}
}

// byPrefix: user names that name the victim, where no hostname does.
func (s *siege) byPrefix(t *testing.T) {
	for _, user := range []string{
		s.victim.UserPlain, "victim:" + jewel + "-press", "VICTIM:default", "victim::default", "victim:attacker:default", "attacker:victim:default",
		":victim:default", " victim:default", "victim :default", "victim%3Adefault", "victim/default", "../victim:default", "attacker/../victim:default",
		"victim:", "victim", ":", "attacker:../victim/default", "victim:default:", "vıctim:default", "victim\u200b:default", "*:default", "victim.localhost:default",
	} {
		got, err := greet(s.dial(t, s.victim.gateway.Addr("mqtt"), nil), login{user, s.attacker.Password}.as(s.attacker.options("x")))
		denied(t, fmt.Sprintf("%q", user), got, err, mqtt.BadUserNameOrPassword, mqtt.NotAuthorized)
	}
	// Client ids are a tenant's own: the victim's watcher stays connected.
	twin := s.open(t, s.attacker, s.victim.ids["client_id"], "#")
	s.exchange(t, twin)
}

// byProxy: PROXY headers from who is no proxy, and what a proxy's client may say.
func (s *siege) byProxy(t *testing.T) {
	own := login{s.attacker.UserPlain, s.attacker.Password}.as(s.attacker.options("proxied"))
	header := func(version byte, authority string) string {
		h := proxyproto.HeaderProxyFromAddrs(version, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 1}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2})
		if authority != "" {
			if err := h.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(authority)}}); err != nil {
				t.Fatal(err)
			}
		}
		b, err := h.Format()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	try := func(addr, before string, o packet.Connect) (mqtt.ReasonCode, error) {
		conn := s.dial(t, addr, nil)
		if _, err := conn.Write([]byte(before)); err != nil {
			t.Fatal(err)
		}
		return greet(conn, o)
	}
	// The gateway listens before it has its link to the broker.
	waitFor(t, "a client is let in through a proxy", func() bool {
		got, err := try(s.proxied, header(2, ""), own)
		return err == nil && got == mqtt.Success
	})
	for _, version := range []byte{1, 2} {
		for how, addr := range map[string]string{"a listener for clients": s.victim.gateway.Addr("mqtt"), "a listener for others' proxies": s.distrustful} {
			got, err := try(addr, header(version, ""), own)
			if err == nil { // a client's listener may say that this is no CONNECT
				denied(t, how, got, err, mqtt.MalformedPacket, mqtt.ProtocolError)
			}
		}
	}
	for _, l := range s.logins() {
		got, err := try(s.proxied, header(2, s.victim.Hostname), l.as(own))
		denied(t, fmt.Sprintf("the victim as authority, %q", l.user), got, err, mqtt.BadUserNameOrPassword)
		got, err = try(s.fixed, header(1, ""), l.as(own))
		denied(t, fmt.Sprintf("the victim's listener, %q", l.user), got, err, mqtt.BadUserNameOrPassword)
	}
	// Behind the proxy's own header a client's is no header.
	got, err := try(s.proxied, header(2, "")+header(2, s.victim.Hostname), login{s.victim.Username, s.victim.Password}.as(own))
	if err == nil {
		denied(t, "a second header", got, err, mqtt.MalformedPacket, mqtt.ProtocolError)
	}
	got, err = try(s.fixed, header(2, s.attacker.Hostname), login{s.victim.Username, s.victim.Password}.as(own))
	denied(t, "the victim's login where the proxy names the attacker", got, err, mqtt.BadUserNameOrPassword)
}

// byWebSocketHost: the Host header of an upgrade names the victim.
func (s *siege) byWebSocketHost(t *testing.T) {
	dial := func(scheme, host string, more http.Header, sni string) net.Conn {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		o := &websocket.DialOptions{Subprotocols: []string{"mqtt"}, Host: host, HTTPHeader: more}
		if sni != "" {
			c := s.attacker.caAsConfig.Clone()
			c.ServerName = sni
			o.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: c}}
		}
		ws, _, err := websocket.Dial(ctx, scheme+"://"+s.attacker.gateway.Addr(scheme)+"/mqtt", o)
		if err != nil {
			t.Fatalf("%s with Host %s: %v", scheme, host, err)
		}
		return websocket.NetConn(t.Context(), ws, websocket.MessageBinary)
	}
	for _, l := range s.logins() {
		got, err := greet(dial("ws", s.victim.Hostname, nil, ""), l.as(s.attacker.options("x")))
		denied(t, fmt.Sprintf("Host of the victim, %q", l.user), got, err, mqtt.BadUserNameOrPassword)
	}
	for _, host := range []string{s.victim.Hostname + ":8083", "VICTIM.localhost"} {
		got, err := greet(dial("ws", host, nil, ""), login{s.attacker.Username, s.attacker.Password}.as(s.attacker.options("x")))
		denied(t, host, got, err, mqtt.BadUserNameOrPassword)
	}
	// Other headers name nobody: the victim's login is not one of the attacker's host.
	for _, name := range []string{"X-Forwarded-Host", "X-Original-Host", "Forwarded", "Origin"} {
		h := http.Header{name: {map[string]string{"Forwarded": "host=", "Origin": "http://"}[name] + s.victim.Hostname}}
		got, err := greet(dial("ws", s.attacker.Hostname, h, ""), login{s.victim.Username, s.victim.Password}.as(s.victim.options("x")))
		denied(t, name, got, err, mqtt.BadUserNameOrPassword)
	}
	// Where TLS has named the attacker, Host says nothing any more, and the reverse.
	got, err := greet(dial("wss", s.victim.Hostname, nil, s.attacker.Hostname), login{s.victim.Username, s.victim.Password}.as(s.victim.options("x")))
	denied(t, "SNI of the attacker, Host and login of the victim", got, err, mqtt.BadUserNameOrPassword)
	got, err = greet(dial("wss", s.attacker.Hostname, nil, s.victim.Hostname), login{s.attacker.Username, s.attacker.Password}.as(s.attacker.options("x")))
	denied(t, "SNI of the victim, Host and login of the attacker", got, err, mqtt.BadUserNameOrPassword)
}
