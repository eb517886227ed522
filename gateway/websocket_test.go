// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

func TestForwardedForIsBelievedOfTrustedProxies(t *testing.T) {
	t.Parallel()
	w := start(t, func(w *world, c *gateway.Config) {
		c.Listeners = append(c.Listeners,
			listener.Config{Name: "behind", Kind: listener.WS, Address: "127.0.0.1:0", TrustedProxies: []string{"127.0.0.1", "10.0.0.0/8"}})
	})
	h := http.Header{"X-Forwarded-For": {"1.2.3.4, 192.0.2.9", "10.1.1.1"}}
	for name, want := range map[string]string{"ws": "127.0.0.1", "behind": "192.0.2.9"} {
		url := strings.Replace("ws://"+w.addr(name)+"/mqtt", name+":", "ws:", 1)
		ws, _, err := websocket.Dial(context.Background(), url, &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPHeader: h})
		if err != nil {
			t.Fatal(err)
		}
		w.client(websocket.NetConn(context.Background(), ws, websocket.MessageBinary)).mustConnect(hello("p"))
		if got := netip.MustParseAddrPort(w.broker.lastOpen().Labels.Peer).Addr().String(); got != want {
			t.Errorf("%s: peer %s, want %s", name, got, want)
		}
	}
}

func TestWebSocketNeedsSubprotocolAndBinary(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ctx := context.Background()
	_, resp, err := websocket.Dial(ctx, "ws://"+w.addr("ws")+"/mqtt", nil)
	if err == nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("without a subprotocol: %v", err)
	}
	ws, _, err := websocket.Dial(ctx, "ws://"+w.addr("ws")+"/mqtt", &websocket.DialOptions{Subprotocols: []string{"other", "mqttv3.1"}})
	if err != nil || ws.Subprotocol() != "mqttv3.1" {
		t.Fatalf("subprotocol %q, %v", ws.Subprotocol(), err)
	}
	_ = ws.Write(ctx, websocket.MessageText, []byte("text")) // [MQTT-6.0.0-1]
	if _, _, err := ws.Read(ctx); websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
		t.Errorf("after a text frame: %v", err)
	}
}

// A browser connects to this machine for whatever page asks it to.
func TestAnonymousNeedsCredentialsFromForeignPages(t *testing.T) {
	t.Parallel()
	w := start(t, func(_ *world, c *gateway.Config) { c.Anonymous = "acme" })
	for _, c := range []struct {
		origin, user string
		want         mqtt.ReasonCode
	}{
		{"", "", mqtt.Success},
		{"http://" + w.addr("ws"), "", mqtt.Success},
		{"https://evil.example", "", mqtt.NotAuthorized},
		{"null", "", mqtt.NotAuthorized},
		{"https://evil.example", "acme:dev", mqtt.Success},
	} {
		header := http.Header{}
		if c.origin != "" {
			header.Set("Origin", c.origin)
		}
		p := hello("x")
		if c.user == "" {
			p.HasUsername, p.HasPassword, p.Password = false, false, nil
		} else {
			p.Username = c.user
		}
		if k := w.ws("ws", "", header).connect(p); k.Reason != c.want {
			t.Errorf("origin %q, user %q: CONNACK %v %q", c.origin, c.user, k.Reason, k.ReasonString)
		}
	}
}

// Bytes that come together with the request for the upgrade are the connection's, and
// so are many frames at once, whatever is read at a time.
func TestWebSocketFramesThatComeTogether(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	frame := func(dst []byte, p *packet.Packet) []byte {
		b := packet.Append(nil, packet.V5, p, 0)
		if len(b) < 126 {
			dst = append(dst, 0x82, 0x80|byte(len(b)))
		} else {
			dst = append(dst, 0x82, 0x80|126, byte(len(b)>>8), byte(len(b)))
		}
		return append(append(dst, 0, 0, 0, 0), b...) // a mask of zeros
	}
	const pings, size = 5_000, 3_000
	request := []byte("GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")
	all := frame(request, &packet.Packet{Type: packet.CONNECT, Connect: hello("together")})
	all = frame(all, &packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "t"}}}})
	for i := range pings {
		if i%100 == 0 {
			all = frame(all, publish("t", strings.Repeat("x", size), 0))
		}
		all = frame(all, &packet.Packet{Type: packet.PINGREQ})
	}
	nc, err := net.Dial("tcp", w.addr("ws"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = nc.Write(all) }()
	r := bufio.NewReader(nc)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	got := map[packet.Type]int{}
	var dec packet.Decoder
	for rest := []byte(nil); got[packet.PINGRESP] < pings; {
		head := make([]byte, 4)
		if _, err := io.ReadFull(r, head[:2]); err != nil {
			t.Fatal(err, got)
		}
		n := int(head[1])
		if n == 126 {
			if _, err := io.ReadFull(r, head[2:]); err != nil {
				t.Fatal(err)
			}
			n = int(head[2])<<8 | int(head[3])
		}
		rest = append(rest, make([]byte, n)...)
		if _, err := io.ReadFull(r, rest[len(rest)-n:]); err != nil {
			t.Fatal(err)
		}
		for len(rest) > 0 {
			var p packet.Packet
			used, err := dec.Decode(rest, packet.V5, 0, &p)
			if err != nil {
				t.Fatal(err)
			}
			if used == 0 {
				break
			}
			if got[p.Type]++; p.Type == packet.PUBLISH && len(p.Publish.Message.Payload) != size {
				t.Fatalf("a payload has %d bytes, expected %d", len(p.Publish.Message.Payload), size)
			}
			rest = rest[used:]
		}
	}
	if got[packet.CONNACK] != 1 || got[packet.SUBACK] != 1 || got[packet.PUBLISH] != pings/100 {
		t.Errorf("%v came, expected a CONNACK, a SUBACK and %d PUBLISH", got, pings/100)
	}
}
