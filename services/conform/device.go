// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// Device is an MQTT client with its session: what it has not completed survives
// its connection, and goes on at the next Connect. Its methods may be called
// concurrently, except Connect.
type Device struct {
	// Address is host:port. TLS may be nil. The rest goes into CONNECT; its
	// Version must be set.
	Address string
	TLS     *tls.Config
	Options packet.Connect
	// Auth, if not nil, begins an exchange by Options.AuthMethod, once for each connection. Its step
	// takes what the server has sent, nil at first and what CONNACK has at last, and
	// returns what the client sends.
	Auth func() (step func(data []byte) ([]byte, error), err error)
	// OnMessage hears every message once it is the application's: at QoS 2
	// once for each packet identifier. It is called from the reader and must
	// not call the client.
	OnMessage func(Delivered)
	// Timeout bounds the dial and every wait; 0 means 10 s.
	Timeout time.Duration

	mu       sync.Mutex
	conn     net.Conn
	done     chan struct{}
	err      error
	end      *packet.Disconnect
	nextID   uint16
	unacked  []*Publication
	received map[uint16]bool
	replies  map[uint16]chan packet.Suback
	paused   chan struct{}
	pings    chan struct{}
}

// Delivered is a message that came.
type Delivered struct {
	mqtt.Message
	Dup             bool
	PacketID        uint16
	SubscriptionIDs []uint32
}

// Publication is a publish of QoS 1 or 2 that is under way.
type Publication struct {
	Message mqtt.Message
	id      uint16
	rec     bool
	// Acked is closed when PUBACK or PUBREC has come: the broker has the
	// message. Reason is set before.
	Acked  chan struct{}
	Reason mqtt.ReasonCode
}

// ErrTimeout is returned when nothing came in time.
var ErrTimeout = errors.New("conform: no answer in time")

// Refused is a CONNACK that says no.
type Refused struct{ Reason mqtt.ReasonCode }

func (r *Refused) Error() string { return "connection refused: " + r.Reason.Error() }

func (c *Device) timeout() time.Duration {
	if c.Timeout == 0 {
		return 10 * time.Second
	}
	return c.Timeout
}

// Connect opens the connection and sends again what was not acknowledged.
func (c *Device) Connect() (*packet.Connack, error) {
	d := net.Dialer{Timeout: c.timeout()}
	conn, err := d.Dial("tcp", c.Address)
	if err != nil {
		return nil, err
	}
	if c.TLS != nil {
		conn = tls.Client(conn, c.TLS)
	}
	_ = conn.SetDeadline(time.Now().Add(c.timeout()))
	r := &stream{conn: conn, version: c.Options.Version}
	answer, err := c.introduce(r)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	ack := *answer
	if ack.Reason != mqtt.Success {
		_ = conn.Close()
		return &ack, &Refused{ack.Reason}
	}
	_ = conn.SetDeadline(time.Time{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.done, c.err, c.end = conn, make(chan struct{}), nil, nil
	c.replies = make(map[uint16]chan packet.Suback)
	c.pings = make(chan struct{}, 16)
	if !ack.SessionPresent || c.received == nil {
		c.received = make(map[uint16]bool)
	}
	var out []byte
	for _, p := range c.unacked {
		if p.rec {
			out = packet.AppendAck(out, c.Options.Version, packet.PUBREL, &packet.Ack{PacketID: p.id}, 0)
		} else {
			out = c.appendPublication(out, p, true)
		}
	}
	if len(out) > 0 {
		if _, err := conn.Write(out); err != nil {
			return &ack, err
		}
	}
	go c.read(r, c.done)
	return &ack, nil
}

// introduce sends CONNECT and returns CONNACK, with what the method of authentication has to say
// in between.
func (c *Device) introduce(r *stream) (*packet.Connack, error) {
	options := c.Options
	step := func(data []byte) ([]byte, error) { return nil, nil }
	var err error
	if c.Auth != nil {
		if step, err = c.Auth(); err == nil {
			options.AuthData, err = step(nil)
		}
		if err != nil {
			return nil, err
		}
	}
	for out := packet.AppendConnect(nil, &options); ; {
		if _, err := r.conn.Write(out); err != nil {
			return nil, err
		}
		p, err := r.next()
		switch {
		case err != nil:
			return nil, err
		case p.Type == packet.CONNACK:
			if c.Auth != nil && p.Connack.Reason == mqtt.Success {
				_, err = step(p.Connack.AuthData) // does the server know the secret, too?
			}
			return p.Connack, err
		case p.Type != packet.AUTH || c.Auth == nil:
			return nil, fmt.Errorf("conform: %s in place of CONNACK", p.Type)
		}
		data, err := step(p.Auth.Data)
		if err != nil {
			return nil, err
		}
		out = packet.Append(nil, c.Options.Version, &packet.Packet{Type: packet.AUTH, Auth: &packet.Auth{
			Reason: mqtt.ContinueAuthentication, Method: options.AuthMethod, HasMethod: true, Data: data,
		}}, 0)
	}
}

func (c *Device) appendPublication(dst []byte, p *Publication, dup bool) []byte {
	return packet.AppendPublish(dst, c.Options.Version, &p.Message, packet.Delivery{
		QoS: p.Message.QoS, Retain: p.Message.Retain, Dup: dup, PacketID: p.id,
	})
}

// stream takes packets off a connection.
type stream struct {
	conn    net.Conn
	version packet.Version
	dec     packet.Decoder
	buf     []byte
	n       int
}

// next blocks for one packet, which is valid until the next call.
func (s *stream) next() (*packet.Packet, error) {
	s.dec.Reset()
	var p packet.Packet
	for {
		n, err := s.dec.Decode(s.buf[s.n:], s.version, 0, &p)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			s.n += n
			return &p, nil
		}
		s.buf = append(s.buf[:0], s.buf[s.n:]...)
		s.n = 0
		have := len(s.buf)
		s.buf = append(s.buf, make([]byte, 32<<10)...)
		k, err := s.conn.Read(s.buf[have:])
		s.buf = s.buf[:have+k]
		if err != nil && k == 0 {
			return nil, err
		}
	}
}

// read answers the broker until the connection ends.
func (c *Device) read(r *stream, done chan struct{}) {
	defer close(done)
	for {
		c.mu.Lock()
		paused := c.paused
		c.mu.Unlock()
		if paused != nil {
			<-paused
		}
		p, err := r.next()
		if err == nil {
			err = c.take(p)
		}
		if err != nil {
			_ = r.conn.Close()
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			return
		}
	}
}

func (c *Device) take(p *packet.Packet) error {
	switch p.Type {
	case packet.PUBLISH:
		return c.message(&p.Publish)
	case packet.PUBACK, packet.PUBREC, packet.PUBCOMP:
		return c.acknowledged(p.Type, p.Ack)
	case packet.PUBREL:
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.received, p.Ack.PacketID)
		return c.sendLocked(packet.AppendAck(nil, c.Options.Version, packet.PUBCOMP, &packet.Ack{PacketID: p.Ack.PacketID}, 0))
	case packet.SUBACK, packet.UNSUBACK:
		c.mu.Lock()
		ch := c.replies[p.Suback.PacketID]
		delete(c.replies, p.Suback.PacketID)
		c.mu.Unlock()
		if ch != nil {
			ch <- *p.Suback
		}
	case packet.PINGRESP:
		select {
		case c.pings <- struct{}{}:
		default:
		}
	case packet.DISCONNECT:
		d := *p.Disconnect
		c.mu.Lock()
		c.end = &d
		c.mu.Unlock()
		return fmt.Errorf("disconnected: %w", d.Reason)
	default:
		return fmt.Errorf("conform: a server must not send %s", p.Type)
	}
	return nil
}

func (c *Device) message(p *packet.Publish) error {
	m := p.Message.Clone()
	first := true
	if m.QoS == mqtt.ExactlyOnce {
		c.mu.Lock()
		first = !c.received[p.PacketID]
		c.received[p.PacketID] = true
		c.mu.Unlock()
	}
	if first && c.OnMessage != nil {
		c.OnMessage(Delivered{Message: m, Dup: p.Dup, PacketID: p.PacketID, SubscriptionIDs: append([]uint32(nil), p.SubscriptionIDs...)})
	}
	t := packet.PUBACK
	switch m.QoS {
	case mqtt.AtMostOnce:
		return nil
	case mqtt.ExactlyOnce:
		t = packet.PUBREC
	case mqtt.AtLeastOnce:
	}
	return c.send(packet.AppendAck(nil, c.Options.Version, t, &packet.Ack{PacketID: p.PacketID}, 0))
}

func (c *Device) acknowledged(t packet.Type, a packet.Ack) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, p := range c.unacked {
		if p.id != a.PacketID {
			continue
		}
		if t == packet.PUBREC && !a.Reason.Failed() {
			if !p.rec {
				p.rec, p.Reason = true, a.Reason
				close(p.Acked)
			}
			return c.sendLocked(packet.AppendAck(nil, c.Options.Version, packet.PUBREL, &packet.Ack{PacketID: p.id}, 0))
		}
		if !p.rec {
			p.Reason = a.Reason
			close(p.Acked)
		}
		c.unacked = append(c.unacked[:i], c.unacked[i+1:]...)
		return nil
	}
	if t == packet.PUBREC {
		return c.sendLocked(packet.AppendAck(nil, c.Options.Version, packet.PUBREL, &packet.Ack{PacketID: a.PacketID}, 0))
	}
	return nil
}

func (c *Device) send(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sendLocked(b)
}

func (c *Device) sendLocked(b []byte) error {
	if c.conn == nil {
		return net.ErrClosed
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.timeout()))
	_, err := c.conn.Write(b)
	return err
}

// Publish sends m. At QoS 1 and 2 the Publication says when the broker has it;
// an error then means that it goes out at the next Connect.
func (c *Device) Publish(m mqtt.Message) (*Publication, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &Publication{Message: m, Acked: make(chan struct{})}
	if m.QoS > 0 {
		p.id = c.allocate()
		c.unacked = append(c.unacked, p)
	}
	return p, c.sendLocked(c.appendPublication(nil, p, false))
}

func (c *Device) allocate() uint16 {
	for {
		c.nextID++
		taken := c.nextID == 0
		for _, p := range c.unacked {
			taken = taken || p.id == c.nextID
		}
		if _, waits := c.replies[c.nextID]; !taken && !waits {
			return c.nextID
		}
	}
}

// Unacked is how many publishes are not completed.
func (c *Device) Unacked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.unacked)
}

// Subscribe subscribes and waits for SUBACK.
func (c *Device) Subscribe(subs ...mqtt.Subscription) ([]mqtt.ReasonCode, error) {
	return c.ask(func(id uint16) []byte {
		return packet.AppendSubscribe(nil, c.Options.Version, &packet.Subscribe{PacketID: id, Subscriptions: subs})
	})
}

// Unsubscribe unsubscribes and waits for UNSUBACK.
func (c *Device) Unsubscribe(filters ...string) ([]mqtt.ReasonCode, error) {
	return c.ask(func(id uint16) []byte {
		return packet.AppendUnsubscribe(nil, c.Options.Version, &packet.Unsubscribe{PacketID: id, Filters: filters})
	})
}

func (c *Device) ask(encode func(id uint16) []byte) ([]mqtt.ReasonCode, error) {
	ch := make(chan packet.Suback, 1)
	c.mu.Lock()
	id := c.allocate()
	if c.replies != nil {
		c.replies[id] = ch
	}
	done := c.done
	err := c.sendLocked(encode(id))
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case a := <-ch:
		return a.Reasons, nil
	case <-done:
		return nil, c.Err()
	case <-time.After(c.timeout()):
		return nil, ErrTimeout
	}
}

// Ping sends PINGREQ and waits for PINGRESP.
func (c *Device) Ping() error {
	if err := c.send(packet.AppendPingreq(nil)); err != nil {
		return err
	}
	select {
	case <-c.pings:
		return nil
	case <-c.Done():
		return c.Err()
	case <-time.After(c.timeout()):
		return ErrTimeout
	}
}

// Pause stops reading from the socket until Resume.
func (c *Device) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused == nil {
		c.paused = make(chan struct{})
	}
}

// Resume reads again.
func (c *Device) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused != nil {
		close(c.paused)
		c.paused = nil
	}
}

// Done is closed when the connection has ended.
func (c *Device) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

// Err is why the connection has ended.
func (c *Device) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Disconnected is the DISCONNECT that the broker sent, or nil.
func (c *Device) Disconnected() *packet.Disconnect {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end
}

// Disconnect ends the connection in order.
func (c *Device) Disconnect() {
	_ = c.send(packet.AppendDisconnect(nil, c.Options.Version, &packet.Disconnect{}, 0))
	c.Kill()
}

// Kill ends the connection without a word, and waits for the reader.
func (c *Device) Kill() {
	c.Resume()
	c.mu.Lock()
	conn, done := c.conn, c.done
	c.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
		<-done
	}
}
