// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/manormq/manor/gateway"
)

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Who speaks something else on a port of MQTT, or no TLS on one of TLS, leaves one
// line in the log that says so, however often it comes.
func TestStrangers_AreNamed(t *testing.T) {
	for _, c := range []struct{ listener, says, want string }{
		{"mqtt", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "speaks=\"HTTP: WebSocket wants a listener of kind ws or wss\""},
		{"mqtt", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "speaks=\"TLS: it wants a listener of kind mqtts"},
		{"mqtts", "\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", "a client does not speak TLS"},
	} {
		var log lines
		w := start(t, func(_ *world, g *gateway.Config) { g.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		for range 3 {
			s := w.dial(c.listener)
			s.write([]byte(c.says))
			s.wantEnd()
		}
		w.eventually("a line that says "+c.want, func() bool { return strings.Contains(log.String(), c.want) })
		if n := strings.Count(log.String(), "a client does not speak"); n != 1 {
			t.Errorf("%q: %d lines, expected 1:\n%s", c.says, n, log.String())
		}
	}
}
