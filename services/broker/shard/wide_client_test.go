// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// wideGateway is the gateway of one broker.
type wideGateway struct {
	mu       sync.Mutex
	channels map[link.Channel]*wideConn
	last     link.Channel
	lost     bool
	levels   []link.Note // those with a Level
}

// wideConn is one connection.
type wideConn struct {
	node   *wideNode
	link   *Link
	gw     *wideGateway
	id     link.Channel
	frames *wideInbox
	// token is that of its pause, 0 without; kept is what the client has said since.
	token uint64
	kept  []link.UpFrame
}

type wideInbox struct {
	mu    sync.Mutex
	items []record
	lost  bool
}

func (b *wideInbox) put(r record) {
	b.mu.Lock()
	b.items = append(b.items, r)
	b.mu.Unlock()
}

func (b *wideInbox) take() (items []record, lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	items, b.items = b.items, nil
	return items, b.lost
}

// Receive implements link.Gateway.
func (g *wideGateway) Receive(b *link.Down) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lost {
		return
	}
	for i := range b.Frames {
		f := b.Frames[i]
		if f.Kind == link.DownNote && f.Note.Level != level.Below {
			g.levels = append(g.levels, *f.Note)
		}
		c := g.channels[f.Channel]
		if c == nil || f.Kind == link.DownTable || f.Kind == link.DownLoad || f.Kind == link.DownWindow || f.Kind == link.DownNote {
			continue
		}
		r := record{DownFrame: f}
		if f.Kind == link.DownDeliver {
			r.msg = b.Messages[f.Slot].Clone()
		}
		r.Reasons = slices.Clone(f.Reasons)
		c.frames.put(r)
	}
}

// Flush implements link.Gateway.
func (g *wideGateway) Flush() {}

// Features implements link.Featured.
func (g *wideGateway) Features() uint32 { return link.Features }

// Lost implements link.Gateway.
func (g *wideGateway) Lost(error) {}

// lose ends all connections: the broker has died.
func (g *wideGateway) lose() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lost = true
	for _, c := range g.channels {
		c.frames.mu.Lock()
		c.frames.lost = true
		c.frames.mu.Unlock()
	}
}

func (c *wideConn) send(f link.UpFrame) {
	f.Channel = c.id
	if c.token != 0 && f.Kind != link.UpClose && f.Kind != link.UpPaused {
		c.kept = append(c.kept, f)
		return
	}
	_ = c.link.Send(&link.Up{Frames: []link.UpFrame{f}}) // of a broker that has died
}

func (c *wideConn) close() {
	c.send(link.UpFrame{Kind: link.UpClose, Close: &link.Close{Cause: link.CloseLost}})
	c.gw.mu.Lock()
	delete(c.gw.channels, c.id)
	c.gw.mu.Unlock()
}

// wideClient is a client with a session that is stored, as MQTT wants it. It comes back
// whatever happens to its connection. All but the exported marks belongs to its goroutine.
type wideClient struct {
	w    *wide
	id   mqtt.ClientID
	part partition.ID
	// What it subscribes to, at QoS 2; and how many messages it publishes, to topics.
	filters []string
	total   int
	// limits are those of its session; the zero Limits stand for unlimited.
	limits link.Limits
	// clean: its session has no expiry. will is its will's topic, if any; testament is
	// another will.
	clean     bool
	will      string
	testament *mqtt.Will
	// moving is the connection that goes on elsewhere, until it does.
	moving *wideConn

	conn     *wideConn
	present  bool // something of its session was acknowledged
	suback   int
	next     int
	inflight []*widePublish // in their order
	held     map[uint16]bool

	mu sync.Mutex
	// All below is guarded by mu.
	ready bool
	done  int
	// got is what was delivered, by first packet, in order.
	got  []wideGot
	drop bool // lose the connection
	quit bool
	// opened counts the connections that were opened, moved how often one went on
	// elsewhere.
	opened, moved int
}

type widePublish struct {
	packet   uint16
	m        mqtt.Message
	received bool // PUBREC has come
}

type wideGot struct {
	payload string
	qos     mqtt.QoS
	retain  bool
}

const wideInflight = 6

func (w *wide) client(id string, filters []string, total int) *wideClient {
	return &wideClient{w: w, id: mqtt.ClientID(id), part: partition.Choose(wideCell("acme", w.spread), id), filters: filters, total: total, held: map[uint16]bool{}}
}

// live is the life of the client.
func (c *wideClient) live() {
	for {
		c.mu.Lock()
		quit, drop := c.quit, c.drop
		c.drop = false
		c.mu.Unlock()
		if quit || drop {
			c.moving = nil
			if c.conn != nil {
				c.conn.close()
				c.conn = nil
			}
			if quit {
				return
			}
		}
		if c.conn == nil && !c.connect() {
			time.Sleep(time.Millisecond)
			continue
		}
		items, lost := c.conn.frames.take()
		for i := range items {
			if c.conn != nil {
				c.frame(&items[i])
			}
		}
		if lost && c.conn != nil {
			c.moving = nil
			c.conn = nil
		}
		if c.conn == nil {
			continue
		}
		if c.isReady() {
			for c.next < c.total && len(c.inflight) < wideInflight {
				c.publish()
			}
		}
		if len(items) == 0 {
			time.Sleep(200 * time.Microsecond)
		}
	}
}

func (c *wideClient) isReady() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// connect opens a channel at the owner of the client's partition.
func (c *wideClient) connect() bool {
	w := c.w
	w.mu.Lock()
	name := w.parts[c.part].owner
	if name == "" || w.nodeLocked(name).deadLocked() {
		w.mu.Unlock()
		return false
	}
	n := w.nodeLocked(name)
	conn := &wideConn{node: n, link: n.link, gw: n.gw, frames: &wideInbox{}}
	w.mu.Unlock()
	g := conn.gw
	g.mu.Lock()
	if g.lost {
		g.mu.Unlock()
		return false
	}
	g.last++
	conn.id = g.last
	g.channels[conn.id] = conn
	g.mu.Unlock()
	c.conn = conn
	c.mu.Lock()
	c.ready = false
	c.mu.Unlock()
	open := &link.Open{
		Tenant: "acme", ClientID: c.id, Partitions: uint16(w.spread), SessionExpiry: 3600, ReceiveMaximum: 8, Credit: 1 << 40, Limits: cmp.Or(c.limits, unlimited), Will: c.testament,
	}
	if c.clean {
		open.SessionExpiry = 0
	}
	if c.will != "" {
		open.Will = &mqtt.Will{Message: message(c.will, string(c.id), 1, false)}
	}
	if m := c.moving; m != nil {
		open = &link.Open{Tenant: "acme", ClientID: c.id, Credit: 1 << 40, Partitions: uint16(w.spread), Resume: m.token}
	}
	conn.send(link.UpFrame{Kind: link.UpOpen, Open: open})
	return true
}

// message is the k-th message of a publisher: QoS 1 and 2 in turn, of which some at
// QoS 2 are retained.
func (c *wideClient) message(k int) mqtt.Message {
	return message("t/"+string(c.id), fmt.Sprintf("%s %d", c.id, k), mqtt.QoS(1+k%2), k%10 == 5)
}

func (c *wideClient) publish() {
	p := &widePublish{packet: uint16(c.next%60000 + 1), m: c.message(c.next)}
	c.next++
	c.inflight = append(c.inflight, p)
	c.conn.send(link.UpFrame{Kind: link.UpPublish, PacketID: p.packet, Message: p.m})
}

func (c *wideClient) ack(k mqtt.AckKind, packet uint16) {
	c.conn.send(link.UpFrame{Kind: link.UpAck, Ack: k, PacketID: packet})
}

func (c *wideClient) frame(r *record) {
	switch r.Kind {
	case link.DownPause:
		c.conn.send(link.UpFrame{Kind: link.UpPaused})
		c.conn.token = r.Bytes
	case link.DownOpened:
		c.mu.Lock()
		if c.moving == nil {
			c.opened++
		} else {
			c.moved++
		}
		c.mu.Unlock()
		if m := c.moving; m != nil { // the client knows nothing of it
			c.moving = nil
			if c.suback >= len(c.filters) {
				c.setReady()
			}
			for _, f := range m.kept {
				c.conn.send(f)
			}
			return
		}
		if c.clean {
			c.suback = 0
		}
		if c.present && !r.SessionPresent {
			c.w.t.Errorf("%s has lost its session", c.id)
		}
		for _, p := range c.inflight {
			if p.received {
				c.ack(mqtt.Pubrel, p.packet)
			} else {
				c.conn.send(link.UpFrame{Kind: link.UpPublish, PacketID: p.packet, Message: p.m, Dup: true})
			}
		}
		if c.suback < len(c.filters) {
			c.subscribe()
		} else {
			c.setReady()
		}
	case link.DownSuback:
		c.present = true
		if r.Reasons[0].Failed() {
			c.w.t.Errorf("%s cannot subscribe: %s", c.id, r.Reasons[0])
		}
		if c.suback++; c.suback < len(c.filters) {
			c.subscribe()
		} else {
			c.setReady()
		}
	case link.DownDeliver:
		if r.QoS == 2 && c.held[r.PacketID] {
			c.ack(mqtt.Pubrec, r.PacketID)
			return
		}
		c.mu.Lock()
		c.got = append(c.got, wideGot{string(r.msg.Payload), r.QoS, r.DownFrame.Retain})
		c.mu.Unlock()
		switch r.QoS {
		case mqtt.ExactlyOnce:
			c.held[r.PacketID] = true
			c.ack(mqtt.Pubrec, r.PacketID)
		case mqtt.AtLeastOnce:
			c.ack(mqtt.Puback, r.PacketID)
		case mqtt.AtMostOnce:
		}
	case link.DownAck:
		c.acked(r)
	case link.DownMoved, link.DownClose:
		if r.Kind == link.DownMoved && partition.ID(r.Moved.Partition) != c.part {
			c.part = partition.ID(r.Moved.Partition)
		}
		switch {
		case r.Kind == link.DownClose:
			c.moving = nil
		case c.conn.token != 0:
			c.moving = c.conn
		}
		c.conn.close()
		c.conn = nil
	case link.DownRefused:
		if c.moving != nil { // its partition was lost meanwhile
			c.moving = nil
			c.conn.close()
			c.conn = nil
			return
		}
		c.w.t.Errorf("%s is refused: %s", c.id, r.Text)
	default:
		c.w.t.Errorf("%s got %+v", c.id, r.DownFrame)
	}
}

func (c *wideClient) subscribe() {
	sub := mqtt.Subscription{Filter: c.filters[c.suback], QoS: 2, RetainHandling: mqtt.RetainDontSend}
	c.conn.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 60001, Subscribe: []mqtt.Subscription{sub}})
}

func (c *wideClient) setReady() {
	c.mu.Lock()
	c.ready = true
	c.mu.Unlock()
}

func (c *wideClient) acked(r *record) {
	if r.Ack == mqtt.Pubrel {
		delete(c.held, r.PacketID)
		c.ack(mqtt.Pubcomp, r.PacketID)
		return
	}
	at := slices.IndexFunc(c.inflight, func(p *widePublish) bool { return p.packet == r.PacketID })
	if at < 0 {
		if r.Ack == mqtt.Pubrec {
			c.ack(mqtt.Pubrel, r.PacketID)
		}
		return
	}
	if r.Reason.Failed() && (r.Ack != mqtt.Pubcomp || r.Reason != mqtt.PacketIdentifierNotFound) { // it had been there
		c.w.t.Errorf("%s: publish %d is answered %s", c.id, r.PacketID, r.Reason)
	}
	switch r.Ack {
	case mqtt.Pubrec:
		c.inflight[at].received = true
		c.ack(mqtt.Pubrel, r.PacketID)
		return
	case mqtt.Puback, mqtt.Pubcomp:
	default:
		c.w.t.Errorf("%s got %s", c.id, r.Ack)
	}
	c.inflight = slices.Delete(c.inflight, at, at+1)
	c.present = true
	c.mu.Lock()
	c.done++
	c.mu.Unlock()
}

// state is what the client does, for who reads why it does not go on.
func (c *wideClient) state() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := fmt.Sprintf("%s of partition %d: ready %t, %d done, connected %t", c.id, c.part, c.ready, c.done, c.conn != nil)
	for _, p := range c.inflight {
		s += fmt.Sprintf(", %d (received %t)", p.packet, p.received)
	}
	return s
}

// counts are how often each message has come.
func (c *wideClient) counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := map[string]int{}
	for _, g := range c.got {
		n[g.payload]++
	}
	return n
}

// disorder says which messages of a publisher came first before an earlier one of their QoS.
func (c *wideClient) disorder() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	type from struct {
		publisher string
		qos       mqtt.QoS
	}
	newest, seen := map[from]int{}, map[string]bool{}
	for _, g := range c.got {
		if seen[g.payload] {
			continue
		}
		seen[g.payload] = true
		name, number, _ := strings.Cut(g.payload, " ")
		k, _ := strconv.Atoi(number)
		f := from{name, g.qos}
		if k+1 < newest[f] {
			out = append(out, fmt.Sprintf("%s has %q after %d", c.id, g.payload, newest[f]-1))
		}
		newest[f] = max(newest[f], k+1)
	}
	return out
}
