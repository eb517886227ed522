// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/infra/mqtt"
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
