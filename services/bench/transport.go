// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coder/websocket"
)

// The transports of MQTT.
const (
	overTCP = "tcp"
	overTLS = "tls"
	overWS  = "ws"
	overWSS = "wss"
)

// dial connects client i.
func (o *Options) dial(i int) (net.Conn, error) {
	nc, err := dialTCP(o.Addr, i)
	if err != nil || o.Transport == overTCP || o.Transport == "" {
		return nc, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if o.Transport != overWS {
		conn := tls.Client(nc, o.tls)
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = nc.Close()
			return nil, err
		}
		nc = conn
	}
	if o.Transport == overTLS {
		return nc, nil
	}
	ws, _, err := websocket.Dial(ctx, "ws://"+o.Addr+"/mqtt", &websocket.DialOptions{
		Subprotocols: []string{"mqtt"}, Host: o.Host, HTTPClient: &http.Client{Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return nc, nil },
		}},
	})
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	ws.SetReadLimit(-1)
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary), nil
}

// prepare reads what connecting needs.
func (o *Options) prepare() (err error) {
	if o.logins, err = readLogins(o.Logins); err != nil {
		return fmt.Errorf("-logins: %w", err)
	}
	if o.Transport != overTLS && o.Transport != overWSS {
		return nil
	}
	host := o.Host
	if host == "" {
		host, _, _ = net.SplitHostPort(o.Addr)
	}
	// The curve that devices offer; Go's first choice is one that costs more and
	// that not every broker has.
	o.tls = &tls.Config{ServerName: host, CurvePreferences: []tls.CurveID{tls.X25519}}
	if o.Resume {
		o.tls.ClientSessionCache = tls.NewLRUClientSessionCache(64)
	}
	if o.CA == "" {
		o.tls.InsecureSkipVerify = true // a load generator tells nobody's secrets
		return nil
	}
	pem, err := os.ReadFile(o.CA)
	if err != nil {
		return fmt.Errorf("-ca: %w", err)
	}
	o.tls.RootCAs = x509.NewCertPool()
	if !o.tls.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("-ca: no certificate in %s", o.CA)
	}
	return nil
}

// clientsPerAddress is how many clients share a source address on loopback. A
// client may have two connections, and an address has some 28,000 ports.
const clientsPerAddress = 4_000

// dialTCP connects to addr.
func dialTCP(addr string, i int) (net.Conn, error) {
	d := net.Dialer{Timeout: 20 * time.Second}
	host, _, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); ip.IsLoopback() && ip.To4() != nil {
		// Closed connections keep their ports for a minute; an address of this
		// process alone does not run out of them for others.
		pid := os.Getpid()
		d.Control = bindLate
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, byte(1+pid/250%250), byte(1+pid%250), byte(1+i/clientsPerAddress))}
	}
	return d.Dial("tcp", addr)
}
