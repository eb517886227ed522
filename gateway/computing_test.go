// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"crypto/tls"
	"net"
	"runtime"
	"testing"
)

// deaf is a connection on which nothing is ever heard.
type deaf struct {
	net.Conn
	closed chan struct{}
}

func (d *deaf) Read([]byte) (int, error) {
	<-d.closed
	return 0, net.ErrClosed
}

// Clients that begin a TLS handshake and do not go on, or hang up, keep no turn
// from the others, however many they are.
func TestComputing_StalledHandshakes(t *testing.T) {
	for _, listener := range []string{"mqtts", "wss"} {
		t.Run(listener, func(t *testing.T) {
			w := start(t, nil)
			for i := range 10 * runtime.GOMAXPROCS(0) {
				nc, err := net.Dial("tcp", w.addr(listener))
				if err != nil {
					t.Fatal(err)
				}
				d := &deaf{Conn: nc, closed: make(chan struct{})}
				begun := make(chan struct{})
				go func() {
					close(begun)
					_ = tls.Client(d, w.tls("acme.localhost")).Handshake()
				}()
				<-begun
				if i%2 == 0 {
					_ = nc.Close()
				}
				t.Cleanup(func() { close(d.closed); _ = nc.Close() })
			}
			for range 20 {
				w.any(listener, "acme.localhost").mustConnect(hello(""))
			}
		})
	}
}

// noEMS hides the extension extended_master_secret of the client's hello.
type noEMS struct {
	net.Conn
	written bool
}

func (n *noEMS) Write(p []byte) (int, error) {
	if !n.written {
		n.written = true
		p = bytes.Replace(p, []byte{0, 0x17, 0, 0}, []byte{0xfa, 0xfa, 0, 0}, 1)
	}
	return n.Conn.Write(p)
}

// A handshake that fails without an answer keeps no turn: TLS 1.2 that is resumed
// without the extended master secret that it began with is one (RFC 7627, section
// 5.3).
func TestComputing_FailedHandshakes(t *testing.T) {
	for _, listener := range []string{"mqtts", "wss"} {
		t.Run(listener, func(t *testing.T) {
			w := start(t, nil)
			config := w.tls("beta.localhost")
			config.MaxVersion = tls.VersionTLS12
			config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			for range 4 * runtime.GOMAXPROCS(0) {
				c, err := tls.Dial("tcp", w.addr(listener), config)
				if err != nil {
					t.Fatal(err)
				}
				_ = c.Close()
				nc, err := net.Dial("tcp", w.addr(listener))
				if err != nil {
					t.Fatal(err)
				}
				if err := tls.Client(&noEMS{Conn: nc}, config).Handshake(); err == nil {
					t.Error("resumed without the extension")
				}
				_ = nc.Close()
			}
			w.any("mqtts", "acme.localhost").mustConnect(hello(""))
		})
	}
}
