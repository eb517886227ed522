// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/packet"
)

// A connection with nothing or TLS on its socket has no goroutine: an event loop
// has it.
func TestLoopsHaveTheConnections(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("event loops need epoll")
	}
	w := start(t, nil)
	for _, listener := range []string{"mqtt", "mqtts"} {
		before := runtime.NumGoroutine()
		const n = 200
		var clients []*client
		for range n {
			c := w.any(listener, "acme.localhost")
			c.mustConnect(hello(""))
			clients = append(clients, c)
		}
		w.eventually("connections keep their goroutines", func() bool { return runtime.NumGoroutine() < before+n/4 })
		for _, c := range clients[:10] {
			c.send(&packet.Packet{Type: packet.PINGREQ})
			c.want(packet.PINGRESP)
		}
	}
}

// Packets come in pieces of every size, larger than a loop's buffer too.
func TestLoopsPutPiecesTogether(t *testing.T) {
	w := start(t, nil)
	c := w.dial("mqtt")
	c.connect(hello("pieces"))
	c.subscribe("a/#")
	for _, size := range []int{10, 5_000, 60_000, 70_000, 900_000} {
		payload := string(bytes.Repeat([]byte("x"), size))
		b := packet.Append(nil, c.v, publish("a/b", payload, 1), 0)
		for _, piece := range []int{1, 3, 1_000, 33_000} {
			if size/piece > 2_000 {
				continue
			}
			for at := 0; at < len(b); at += piece {
				c.write(b[at:min(len(b), at+piece)])
			}
			deliver, ack := false, false
			for !deliver || !ack {
				switch p := c.next(); {
				case p == nil:
					t.Fatalf("%d bytes in pieces of %d: the connection ended", size, piece)
				case p.Type == packet.PUBLISH:
					deliver = string(p.Publish.Message.Payload) == payload
				case p.Type == packet.PUBACK:
					ack = true
				}
			}
		}
	}
}

// Where tenants share a gateway their messages are written in pieces, and all of
// them are written.
func TestFlushInPieces(t *testing.T) {
	w := start(t, nil)
	const n, rounds = 150, 40
	var loud []*client
	for i := range n {
		c := w.any("mqtt", "acme.localhost").mustConnect(hello(fmt.Sprint("loud", i)))
		c.subscribe("a")
		loud = append(loud, c)
	}
	quiet := w.any("mqtts", "beta.localhost").mustConnect(hello("quiet"))
	quiet.subscribe("b")
	pub := w.any("mqtt", "acme.localhost").mustConnect(hello("pub"))
	payload := strings.Repeat("z", 2_000)
	for range rounds {
		pub.send(publish("a", payload, 0))
		quiet.send(publish("b", payload, 0))
	}
	for _, c := range append(loud, quiet) {
		for range rounds {
			c.want(packet.PUBLISH)
		}
	}
}
