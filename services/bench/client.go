// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// client is one connection with a reader that takes what a read brings.
type client struct {
	net.Conn
	protocol
	buf  []byte
	r, w int
}

// open connects client i of that name, and waits for its CONNACK.
func (o *Options) open(i int, id string, clean bool, buffer int) (*client, error) {
	nc, err := o.dial(i)
	if err != nil {
		return nil, err
	}
	c, who := &client{Conn: nc, protocol: protocol(o.MQTT), buf: make([]byte, buffer)}, o.login(i)
	if _, err = nc.Write(c.connect(id, clean, uint16(o.KeepAlive), who.user, who.pass)); err != nil {
		_ = nc.Close()
		return nil, err
	}
	_ = nc.SetReadDeadline(time.Now().Add(30 * time.Second))
	f, b, err := c.next()
	_ = nc.SetReadDeadline(time.Time{})
	if err != nil {
		err = fmt.Errorf("wait for CONNACK: %w", err)
	} else {
		err = c.refused(f, b)
	}
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return c, nil
}

// refusals are the return codes of an MQTT 3.1.1 CONNACK (§3.2.2.3).
var refusals = []string{
	1: "unacceptable protocol version",
	2: "client identifier rejected",
	3: "server unavailable, or a quota is reached",
	4: "bad user name or password",
	5: "not authorized",
}

// refused is the error of what came instead of a CONNACK that accepts.
func (v protocol) refused(first byte, body []byte) error {
	switch {
	case first != pktConnack || len(body) < 2 || v == mqtt3 && len(body) > 2:
		return fmt.Errorf("expected CONNACK, got a packet that begins with %#02x and has %d bytes", first, len(body))
	case body[1] == 0:
		return nil
	case v == mqtt5:
		return refusal(body[1])
	case int(body[1]) < len(refusals):
		return fmt.Errorf("connection refused: %s (return code %d)", refusals[body[1]], body[1])
	}
	return fmt.Errorf("connection refused with the unknown return code %d", body[1])
}

// packet returns the next whole packet that has been read: first byte and
// body, valid until the next fill. ok is false when more has to be read.
func (c *client) packet() (first byte, body []byte, ok bool, err error) {
	b := c.buf[c.r:c.w]
	start, end, err := extent(b)
	switch {
	case err != nil:
		return 0, nil, false, err
	case end > 0 && end <= len(b):
		c.r += end
		return b[0], b[start:end], true, nil
	case end > len(c.buf):
		grown := make([]byte, 2*end)
		c.r, c.w = 0, copy(grown, b)
		c.buf = grown
	}
	return 0, nil, false, nil
}

// fill reads once, keeping an incomplete packet at the front.
func (c *client) fill() error {
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	n, err := c.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// next waits for one packet.
func (c *client) next() (first byte, body []byte, err error) {
	for {
		first, body, ok, err := c.packet()
		if err != nil || ok {
			return first, body, err
		}
		if err := c.fill(); err != nil {
			return 0, nil, err
		}
	}
}

// subscribe waits for the SUBACK of one SUBSCRIBE; publishes before it are
// skipped.
func (c *client) subscribe(id uint16, qos byte, filters ...string) error {
	if _, err := c.Write(c.protocol.subscribe(id, qos, filters...)); err != nil {
		return err
	}
	for {
		f, b, err := c.next()
		if err != nil {
			return fmt.Errorf("wait for SUBACK: %w", err)
		}
		if f != pktSuback {
			continue
		}
		codes := c.skipProperties(b[min(2, len(b)):])
		if len(codes) != len(filters) || slices.Max(codes) >= 0x80 {
			return fmt.Errorf("subscription refused: % x", b)
		}
		return nil
	}
}

// leave disconnects as a client should.
func (c *client) leave() {
	_, _ = c.Write([]byte{pktDisconnect, 0})
	_ = c.Close()
}
