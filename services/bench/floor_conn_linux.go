// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/manormq/manor/infra/loop"
)

// floorConn is a connection of the floor. Its upper half belongs to its loop.
type floorConn struct {
	fd      int
	loop    *floorLoop
	version protocol
	partial []byte   // of a packet
	filters []string // of its subscriptions

	mu      sync.Mutex
	out     []byte // guarded by mu
	nextID  uint16 // guarded by mu
	dirty   bool   // guarded by mu; a loop will flush it
	blocked bool   // guarded by mu; the socket takes no more
	closed  bool   // guarded by mu
}

// packet serves a whole packet, and returns false if the connection ends.
func (l *floorLoop) packet(c *floorConn, whole, body []byte) bool {
	switch whole[0] & kindMask {
	case pktPublish:
		return l.publish(c, whole, body)
	case pktConnect:
		if len(body) < 10 {
			return false
		}
		c.version = protocol(body[6])
		b := c.version.appendNoProperties([]byte{pktConnack, 0, 0, 0})
		b[1] = byte(len(b) - 2)
		l.send(c, b)
	case pktSubscribe & kindMask:
		return l.subscribe(c, body)
	case pktPingreq:
		l.send(c, []byte{pktPingresp, 0})
	case pktPuback:
	default:
		return false
	}
	return true
}

func (l *floorLoop) publish(c *floorConn, whole, body []byte) bool {
	qos := whole[0] >> 1 & 3
	if len(body) < 2 || qos > 1 {
		return false
	}
	id := 2 + int(binary.BigEndian.Uint16(body))
	if len(body) < id+2*int(qos) {
		return false
	}
	for _, t := range l.f.topics.find(body[2:id]) {
		l.deliver(t, whole, len(whole)-len(body)+id, qos)
	}
	if qos == 1 {
		var ack [4]byte
		l.send(c, appendAck(ack[:0], pktPuback, binary.BigEndian.Uint16(body[id:])))
	}
	return true
}

// deliver appends a PUBLISH to what t is sent. At QoS 1 its Packet Identifier is
// at id.
func (l *floorLoop) deliver(t *floorConn, whole []byte, id int, qos byte) {
	t.mu.Lock()
	at := len(t.out)
	t.out = append(t.out, whole...)
	if qos == 1 {
		if t.nextID++; t.nextID == 0 {
			t.nextID = 1
		}
		binary.BigEndian.PutUint16(t.out[at+id:], t.nextID)
	}
	l.touch(t)
	t.mu.Unlock()
}

func (l *floorLoop) send(c *floorConn, b []byte) {
	c.mu.Lock()
	c.out = append(c.out, b...)
	l.touch(c)
	c.mu.Unlock()
}

// touch has l flush c, whose mu is held, unless a loop is about to.
func (l *floorLoop) touch(c *floorConn) {
	if !c.dirty {
		c.dirty = true
		l.dirty = append(l.dirty, c)
	}
}

func (l *floorLoop) subscribe(c *floorConn, body []byte) bool {
	if len(body) < 2 {
		return false
	}
	codes := []byte{}
	for rest := c.version.skipProperties(body[2:]); len(rest) >= 3; {
		n := 2 + int(binary.BigEndian.Uint16(rest))
		if len(rest) <= n {
			return false
		}
		filter := string(rest[2:n])
		code := rest[n] & 3
		if l.f.topics.add(filter, c) {
			c.filters = append(c.filters, filter)
		} else {
			code = 0x80
		}
		codes, rest = append(codes, code), rest[n+1:]
	}
	head := c.version.appendNoProperties([]byte{body[0], body[1]})
	b := appendLength([]byte{pktSuback}, len(head)+len(codes))
	l.send(c, append(append(b, head...), codes...))
	return true
}

// flush writes what is there for c.
func (c *floorConn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = false
	if c.blocked || c.closed || len(c.out) == 0 {
		return
	}
	n, err := loop.Write(c.fd, c.out)
	if err != nil {
		n = len(c.out) // the end will be read
	}
	c.out = c.out[:copy(c.out, c.out[n:])]
	if len(c.out) > 0 {
		c.blocked = true
		c.want(unix.EPOLLIN | unix.EPOLLOUT)
	}
}

// resume goes on when the socket takes more.
func (c *floorConn) resume() {
	c.mu.Lock()
	c.blocked = false
	c.want(unix.EPOLLIN)
	c.mu.Unlock()
	c.flush()
}

func (c *floorConn) want(events uint32) {
	_ = unix.EpollCtl(c.loop.epoll, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Events: events, Fd: int32(c.fd)})
}
