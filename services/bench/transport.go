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

// dial connects client i. TLS sessions are resumed where the broker lets them.
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

// prepare reads what the transport needs.
func (o *Options) prepare() error {
	if o.Transport != overTLS && o.Transport != overWSS {
		return nil
	}
	host := o.Host
	if host == "" {
		host, _, _ = net.SplitHostPort(o.Addr)
	}
	o.tls = &tls.Config{ServerName: host, ClientSessionCache: tls.NewLRUClientSessionCache(64)}
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

// dialTCP connects to addr. On loopback connections beyond 20,000 have further
// source addresses, since an address has only so many ports.
func dialTCP(addr string, i int) (net.Conn, error) {
	d := net.Dialer{Timeout: 20 * time.Second}
	host, _, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); i >= 20000 && ip.IsLoopback() && ip.To4() != nil {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i/20000))}
	}
	return d.Dial("tcp", addr)
}
