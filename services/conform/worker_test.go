// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// worker is a member of a group: one that works, or one of those that do not.
type worker struct {
	works   *works
	address string
	options packet.Connect
	// stuck: it acknowledges nothing. deaf: its socket is not read. once: it takes
	// no part in QoS 2. late: it acknowledges so long after. They change only
	// while there is no connection.
	stuck, deaf, once bool
	late              time.Duration

	conn net.Conn
	done chan struct{}
	// received are QoS 2 ids whose PUBREL has not come; the reader's.
	received map[uint16]bool

	jobs atomic.Int64 // messages of QoS 1 that came

	mu  sync.Mutex
	end mqtt.ReasonCode // of the DISCONNECT that came; guarded by mu
}

func hiredStuck(m *worker) { m.stuck = true }

func hiredStored(m *worker) {
	m.options.CleanStart, m.options.SessionExpiry, m.options.HasSessionExpiry = false, 3600, true
}

// hire connects a member and has it subscribe.
func (w *works) hire(name string, as ...func(*worker)) *worker {
	d := w.device(w.turns, name)
	w.turns++
	m := &worker{works: w, address: d.Address, options: d.Options, received: map[uint16]bool{}}
	for _, f := range as {
		f(m)
	}
	m.connect()
	w.t.Cleanup(m.close)
	return m
}

// connect opens the connection, subscribes if the session is new, and works.
func (m *worker) connect() (present bool) {
	t := m.works.t
	conn, err := net.DialTimeout("tcp", m.address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	m.conn, m.done = conn, make(chan struct{})
	m.send(packet.AppendConnect(nil, &m.options))
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	r := &stream{conn: conn, version: m.options.Version}
	p, err := r.next()
	if err != nil || p.Type != packet.CONNACK || p.Connack.Reason != mqtt.Success {
		t.Fatalf("%s: got %+v, %v in place of CONNACK", m.options.ClientID, p, err)
	}
	if present = p.Connack.SessionPresent; !present {
		subs := []mqtt.Subscription{{Filter: "$share/works/jobs/+", QoS: 1}}
		if m.options.Version == packet.V5 && !m.once {
			subs = append(subs, mqtt.Subscription{Filter: "$share/works/exact/+", QoS: 2})
		}
		m.send(packet.AppendSubscribe(nil, m.options.Version, &packet.Subscribe{PacketID: 1, Subscriptions: subs}))
		if p, err = r.next(); err != nil || p.Type != packet.SUBACK {
			t.Fatalf("%s: got %+v, %v in place of SUBACK", m.options.ClientID, p, err)
		}
	}
	_ = conn.SetReadDeadline(time.Time{})
	if m.deaf {
		close(m.done)
		return present
	}
	go m.read(r, m.done)
	return present
}

func (m *worker) read(r *stream, done chan struct{}) {
	defer close(done)
	for {
		p, err := r.next()
		if err != nil {
			return
		}
		switch p.Type {
		case packet.PUBLISH:
			m.take(&p.Publish)
		case packet.PUBREL:
			delete(m.received, p.Ack.PacketID)
			m.send(packet.AppendAck(nil, m.options.Version, packet.PUBCOMP, &packet.Ack{PacketID: p.Ack.PacketID}, 0))
		case packet.DISCONNECT:
			m.mu.Lock()
			m.end = p.Disconnect.Reason
			m.mu.Unlock()
			return
		}
	}
}

func (m *worker) take(p *packet.Publish) {
	answer := packet.PUBACK
	first := true
	if p.Message.QoS == mqtt.AtLeastOnce {
		m.jobs.Add(1)
	}
	if p.Message.QoS == mqtt.ExactlyOnce {
		answer = packet.PUBREC
		first = !m.received[p.PacketID] // [MQTT-4.3.3-10]
		m.received[p.PacketID] = true
	}
	if first {
		m.works.came(m, p)
	}
	if m.stuck {
		return
	}
	ack := packet.AppendAck(nil, m.options.Version, answer, &packet.Ack{PacketID: p.PacketID}, 0)
	if m.late == 0 {
		m.send(ack)
		return
	}
	conn := m.conn
	time.AfterFunc(m.late, func() { _, _ = conn.Write(ack) }) // the connection may have ended
}

// send is for what may fail because the connection has ended.
func (m *worker) send(b []byte) { _, _ = m.conn.Write(b) }

func (m *worker) close() {
	_ = m.conn.Close()
	<-m.done
}

// gone reports whether the connection has ended.
func (m *worker) gone() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// ended waits until the broker has disconnected the member, and returns why.
func (m *worker) ended(t *testing.T) mqtt.ReasonCode {
	t.Helper()
	waitFor(t, "the end of "+m.options.ClientID, m.gone)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.end
}
