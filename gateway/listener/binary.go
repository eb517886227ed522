// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/coder/websocket"
)

// binary is what a WebSocket's binary messages carry, as a connection: packets need
// not begin where messages do [MQTT-6.0.0-2]. Unlike websocket.NetConn it has no
// contexts and timers of its own, which cost an idle connection memory and each
// message time; deadlines are the socket's. One goroutine reads at a time.
type binary struct {
	net.Conn // the layer below
	ws       *websocket.Conn
	message  io.Reader // the rest of the message that is being read; nil between two
}

// Read implements net.Conn.
func (b *binary) Read(p []byte) (int, error) {
	for {
		if b.message == nil {
			kind, message, err := b.ws.Reader(context.Background())
			if status := websocket.CloseStatus(err); status == websocket.StatusNormalClosure || status == websocket.StatusGoingAway {
				return 0, io.EOF
			}
			if err != nil {
				return 0, err
			}
			if kind != websocket.MessageBinary { // [MQTT-6.0.0-1]
				_ = b.ws.Close(websocket.StatusUnsupportedData, "MQTT is in binary messages")
				return 0, errors.New("a WebSocket message is not binary [MQTT-6.0.0-1]")
			}
			b.message = message
		}
		n, err := b.message.Read(p)
		if errors.Is(err, io.EOF) {
			b.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write sends p as one message.
func (b *binary) Write(p []byte) (int, error) {
	if err := b.ws.Write(context.Background(), websocket.MessageBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements net.Conn, with the closing handshake.
func (b *binary) Close() error { return b.ws.Close(websocket.StatusNormalClosure, "") }
