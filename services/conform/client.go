// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// The kinds of packets of MQTT 3.1.1, as the upper half of their first byte.
const (
	connack = 0x20
	publish = 0x30
	puback  = 0x40
	pubrec  = 0x50
	pubrel  = 0x60
	pubcomp = 0x70
	suback  = 0x90
	pingrsp = 0xD0
)

// Client is one connection of MQTT 3.1.1 that shows its packets.
type Client struct {
	nc net.Conn
	r  *bufio.Reader
}

// Packet is a packet that a server sent.
type Packet struct {
	Kind             byte // one of the kinds above
	QoS              byte
	Dup, Retain      bool
	ID               uint16
	Topic, Payload   []byte
	Code             byte // of CONNACK and SUBACK
	SessionIsPresent bool
}

// Connect opens a connection and waits for its CONNACK.
func Connect(addr, id, user, pass string, clean bool) (c *Client, present bool, err error) {
	nc, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, false, err
	}
	c = &Client{nc: nc, r: bufio.NewReader(nc)}
	var flags byte
	if clean {
		flags |= 0x02
	}
	body := text(nil, "MQTT")
	var tail []byte
	if user != "" {
		flags |= 0x80
		tail = text(tail, user)
	}
	if pass != "" {
		flags |= 0x40
		tail = text(tail, pass)
	}
	body = append(body, 4, flags, 0, 60)
	body = append(text(body, id), tail...)
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	if err = c.write(0x10, body); err == nil {
		var p Packet
		if p, err = c.Read(); err == nil && (p.Kind != connack || p.Code != 0) {
			err = fmt.Errorf("connect of %s was refused: %+v", id, p)
		}
		present = p.SessionIsPresent
	}
	if err != nil {
		_ = nc.Close()
		return nil, false, err
	}
	return c, present, nc.SetDeadline(time.Time{})
}

// Close ends the connection without DISCONNECT.
func (c *Client) Close() { _ = c.nc.Close() }

// Disconnect ends the connection in order.
func (c *Client) Disconnect() {
	_ = c.write(0xE0, nil)
	_ = c.nc.Close()
}

// Deadline bounds the reads that follow.
func (c *Client) Deadline(t time.Time) { _ = c.nc.SetReadDeadline(t) }

// Subscribe sends a SUBSCRIBE.
func (c *Client) Subscribe(id uint16, filter string, qos byte) error {
	return c.write(0x82, append(text(binary.BigEndian.AppendUint16(nil, id), filter), qos))
}

// Publish sends a PUBLISH; id counts at QoS 1 and 2 only.
func (c *Client) Publish(topic string, payload []byte, qos byte, id uint16, dup, retain bool) error {
	first := byte(publish) | qos<<1
	if dup {
		first |= 0x08
	}
	if retain {
		first |= 0x01
	}
	body := text(nil, topic)
	if qos > 0 {
		body = binary.BigEndian.AppendUint16(body, id)
	}
	return c.write(first, append(body, payload...))
}

// Ack sends a PUBACK, PUBREC, PUBREL or PUBCOMP.
func (c *Client) Ack(kind byte, id uint16) error {
	if kind == pubrel {
		kind |= 0x02
	}
	return c.write(kind, binary.BigEndian.AppendUint16(nil, id))
}

// Ready waits for the beginning of a packet for at most d. It reports false
// without an error if none came.
func (c *Client) Ready(d time.Duration) (bool, error) {
	_ = c.nc.SetReadDeadline(time.Now().Add(d))
	_, err := c.r.Peek(1)
	_ = c.nc.SetReadDeadline(time.Time{})
	if os.IsTimeout(err) {
		return false, nil
	}
	return err == nil, err
}

// Read waits for a packet.
func (c *Client) Read() (p Packet, err error) {
	first, err := c.r.ReadByte()
	if err != nil {
		return p, err
	}
	length, err := binary.ReadUvarint(c.r)
	if err != nil || length > 1<<28 {
		return p, fmt.Errorf("remaining length %d: %w", length, err)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return p, err
	}
	p.Kind = first & 0xF0
	switch p.Kind {
	case connack:
		p.SessionIsPresent, p.Code = body[0]&1 != 0, body[1]
	case publish:
		p.QoS, p.Dup, p.Retain = first>>1&3, first&8 != 0, first&1 != 0
		n := 2 + int(binary.BigEndian.Uint16(body))
		p.Topic = body[2:n]
		if p.QoS > 0 {
			p.ID = binary.BigEndian.Uint16(body[n:])
			n += 2
		}
		p.Payload = body[n:]
	case puback, pubrec, pubrel, pubcomp:
		p.ID = binary.BigEndian.Uint16(body)
	case suback:
		p.ID, p.Code = binary.BigEndian.Uint16(body), body[2]
	}
	return p, nil
}

func (c *Client) write(first byte, body []byte) error {
	b := binary.AppendUvarint([]byte{first}, uint64(len(body)))
	_, err := c.nc.Write(append(b, body...))
	return err
}

func text(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}
