// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"crypto/tls"
	"net"

	"github.com/manormq/manor/infra/loop"
)

// Movable reports whether an event loop may have the connection: nothing or TLS
// alone lies above its socket.
func (c *Conn) Movable() bool {
	if !c.Socket.Kernel() {
		return false
	}
	top := c.Conn
	if t, ok := top.(*tls.Conn); ok {
		top = t.NetConn()
	}
	return top == net.Conn(c.Socket)
}

// Layered reports whether bytes may wait above the socket, of which a loop does
// not hear: they must be read until there are none.
func (c *Conn) Layered() bool { return c.Conn != net.Conn(c.Socket) }

// ReadNow reads what is there, after Move: 0 and no error if nothing is, io.EOF
// at the end.
func (c *Conn) ReadNow(p []byte) (int, error) {
	if !c.Layered() {
		return c.Socket.ReadNow(p)
	}
	n, err := c.Conn.Read(p)
	if loop.IsDry(err) {
		err = nil
	}
	return n, err
}
