// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"context"
	"errors"
	"net"
	"time"
)

// keepAlive finds peers that are gone without a word, also those that chose no keep
// alive in MQTT (RFC 9293 §3.8.4): after 15 s of silence, and 9 probes in vain.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 9}

// listen binds an address.
func listen(address string) (net.Listener, error) {
	c := net.ListenConfig{KeepAliveConfig: keepAlive}
	inherit(&c)
	return c.Listen(context.Background(), "tcp", address)
}

// bare reports whether nothing lies between the socket and MQTT, nor is anything to
// be waited for when a connection comes.
func (c *Config) bare() bool { return c.Kind == MQTT && !c.ProxyProtocol && c.Tenant == "" }

// serveLoops accepts for event loops until Close.
func (l *Listener) serveLoops() error {
	for {
		s, peer, err := l.loops.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			l.unaccepted(err)
			continue
		}
		if !l.enter() {
			_ = s.Close()
			continue
		}
		s.OnClose(l.leave)
		l.opts.Handle(&Conn{Conn: s, Socket: s, Listener: l, Peer: peer})
		if !s.Moved() {
			_ = s.Close()
		}
	}
}
