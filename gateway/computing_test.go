// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
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
