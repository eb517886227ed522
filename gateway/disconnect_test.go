// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"errors"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// A client that has sent DISCONNECT is cut off when the broker has heard of it:
// who comes back then, through any gateway, finds the session as it left it.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mqtt", "mqtts", "ws", "wss"} {
		for _, c := range []struct {
			why    string
			reason mqtt.ReasonCode
			then   func(gw link.Gateway, ch link.Channel)
			least  time.Duration
		}{
			{"answered", mqtt.Success, func(gw link.Gateway, ch link.Channel) {
				gw.Receive(&link.Down{Frames: []link.DownFrame{{Kind: link.DownClose, Channel: ch}}})
				gw.Flush()
			}, 0},
			{"answered with will", mqtt.DisconnectWithWill, func(gw link.Gateway, ch link.Channel) {
				gw.Receive(&link.Down{Frames: []link.DownFrame{{Kind: link.DownClose, Channel: ch}}})
				gw.Flush()
			}, 0},
			{"link lost", mqtt.Success, func(gw link.Gateway, _ link.Channel) { gw.Lost(errors.New("test")) }, 0},
			{"not answered", mqtt.Success, func(link.Gateway, link.Channel) {}, 500 * time.Millisecond},
		} {
			t.Run(name+"/"+c.why, func(t *testing.T) {
				t.Parallel()
				w := start(t, nil)
				w.broker.mute = true
				cl := w.any(name, "acme.localhost").mustConnect(hello("a"))
				begin := time.Now()
				cl.send(&packet.Packet{Type: packet.DISCONNECT, Disconnect: &packet.Disconnect{Reason: c.reason}})
				w.eventually("the close", func() bool { return len(w.broker.closed()) == 1 })
				end := make(chan struct{})
				go func() {
					defer close(end)
					_, _ = cl.c.Read(make([]byte, 1))
				}()
				select {
				case <-end:
					if time.Since(begin) < 500*time.Millisecond {
						t.Fatal("cut off before the broker has answered")
					}
				case <-time.After(20 * time.Millisecond): // as long as nothing is to happen
				}
				w.broker.mu.Lock()
				gw, ch := w.broker.gw, w.broker.last
				w.broker.mu.Unlock()
				c.then(gw, ch)
				select {
				case <-end:
				case <-time.After(10 * time.Second):
					t.Fatal("not cut off")
				}
				if took := time.Since(begin); took < c.least || took > 3*time.Second {
					t.Errorf("cut off after %v", took)
				}
			})
		}
	}
}

// A client that hangs up by itself is not waited for.
func TestDisconnect_HangsUp(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.broker.mute = true
	c := w.dial("mqtt").mustConnect(hello("a"))
	begin := time.Now()
	c.send(&packet.Packet{Type: packet.DISCONNECT, Disconnect: &packet.Disconnect{}})
	_ = c.c.Close()
	w.eventually("no connection", func() bool { return w.gw.Connections() == 0 })
	if took := time.Since(begin); took > 500*time.Millisecond {
		t.Errorf("gone after %v", took)
	}
	if got := w.broker.closed(); len(got) != 1 || got[0] != link.CloseNormal {
		t.Errorf("closes %v", got)
	}
}
