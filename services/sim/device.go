// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"strings"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/sim/check"
)

// device is an MQTT client with a session that is stored. It does what MQTT wants of a
// client, and comes back whatever happens to its connection.
type device struct {
	w     *World
	house *house
	id    string
	// label is id, with the tenant where there are two.
	label string
	part  partition.ID
	// filters are what it subscribes to, at QoS 2, and total is how many messages it
	// publishes.
	filters []string
	total   int
	// will: each of its connections has one.
	will bool
	// life is nil if its session lasts for ever.
	life *lifetime

	// moving is the connection that is to go on elsewhere, or nil.
	moving  *moving
	at      *station // nil without a channel
	run     uint64   // of its node
	channel link.Channel
	// gen counts the connections: what was on its way on an earlier one is gone.
	gen uint64
	// older is the channel of a connection that the present one takes over at older's
	// broker, or 0.
	older   link.Channel
	olderAt *station
	// connection counts those that the client knows of.
	connection int
	arrives    int64 // when the last frame from the broker arrives
	opened     bool
	suback     int // how many of filters are acknowledged
	// parting says that its UNSUBSCRIBE of the last of them is not answered, fewer that it was.
	parting, fewer bool
	// asked counts what it wanted of its subscriptions.
	asked int
	// kept says that something of its session was acknowledged, so that it must be
	// there when the device comes back.
	kept bool
	// clean: its session is lost, and it begins anew.
	clean    bool
	next     int
	inflight []*published // in their order
	received map[uint16]bool
}

type published struct {
	*check.Publish
	packet   uint16
	released bool // PUBREC has come
}

// window is how many publishes a device has under way, and lag the longest that a
// frame takes between it and the broker, in microseconds.
const (
	window = 6
	lag    = 5 * ms
)

func (w *World) newDevice(h *house, id string, total int, filters ...string) *device {
	d := &device{w: w, house: h, id: id, label: id, part: partition.Choose(w.cell(h), id), total: total, filters: filters, received: map[uint16]bool{}}
	if h.Mark != "" && h.name != tenant {
		d.label += h.Mark
	}
	w.devices = append(w.devices, d)
	w.after(w.between(0, second), d.turn)
	return d
}

// turn is one thing that the device does by itself; it goes on until the world ends.
func (d *device) turn() {
	w := d.w
	switch {
	case d.isAway():
	case d.at == nil:
		d.impatient()
		d.connect()
	case !d.at.n.up || d.at.n.run != d.run:
		d.gone()
	case w.hushed():
	case w.faults && !w.calm() && w.chance(2):
		d.leave(link.CloseLost)
	case w.faults && w.chance(2) && d.opened && d.moving == nil:
		d.again()
	case d.fickle():
	case d.departs():
	case w.chance(1) && d.moving == nil: // nothing of the client is read while it moves
		d.leave(link.CloseNormal)
	case d.ready() && d.next < d.total && len(d.inflight) < window:
		d.publish()
	}
	next := w.between(20*ms, 400*ms)
	if w.now < w.busy {
		next = w.between(2*ms, 30*ms)
	}
	w.after(next, d.turn)
}

func (d *device) ready() bool { return d.opened && d.suback == len(d.filters) }

// idle reports whether the device has done all that it wanted to.
func (d *device) idle() bool {
	return d.at != nil && d.moving == nil && d.ready() && d.next == d.total && len(d.inflight) == 0 && len(d.received) == 0 &&
		(d.life == nil || len(d.life.stays) == 0)
}

// connect opens a channel at whoever serves the device's partition, or somewhere.
func (d *device) connect() {
	w := d.w
	var at *node
	for i, start := 0, w.rand.IntN(len(w.nodes)); i < len(w.nodes); i++ {
		n := w.nodes[(start+i)%len(w.nodes)]
		if n.up && (w.chance(10) || n.replicas[d.part].Role() == partition.Serving) {
			at = n
			break
		}
	}
	if at == nil {
		return
	}
	d.at, d.run = at.station, at.run
	d.gen++
	d.interrupted()
	d.arrives = 0
	d.at.last++
	d.channel = d.at.last
	d.at.devices[d.channel] = d
	w.note(d.label+" connects", at.name, uint64(d.channel))
	if d.moving != nil {
		d.reopen()
		return
	}
	d.opened = false
	d.connection++
	if d.life != nil {
		d.life.asks = w.now
	}
	var will *mqtt.Will
	if d.will {
		will = &mqtt.Will{Message: mqtt.Message{Topic: []byte(check.WillTopic + d.id), Payload: []byte(d.house.Will(d.id, d.connection)), QoS: mqtt.ExactlyOnce}}
	}
	d.send(link.UpFrame{Kind: link.UpOpen, Open: &link.Open{
		Tenant: d.house.name, ClientID: mqtt.ClientID(d.id), Partitions: uint16(w.spread), CleanStart: d.clean, SessionExpiry: d.expiry(), ReceiveMaximum: 8, Credit: 1 << 40, Will: will,
		Limits: link.Limits{QueueMessages: -1, QueueBytes: -1, Subscriptions: -1, ReceiveMaximum: window, Retained: -1, RetainedBytes: -1, Sessions: -1},
	}})
}

// leave ends the connection.
func (d *device) leave(why link.CloseCause) {
	d.w.happens(map[bool]string{true: "disconnect", false: "connection lost"}[why == link.CloseNormal])
	if why == link.CloseNormal {
		d.house.Wills.Unneeded(d.id, d.connection)
	}
	d.ends(true)
	d.send(link.UpFrame{Kind: link.UpClose, Close: &link.Close{Cause: why}})
	d.gone()
}

// gone is the end of the connection, as the device sees it.
func (d *device) gone() {
	d.moving = nil
	d.closed()
}

// closed is the end of the channel.
func (d *device) closed() {
	d.mayEnd()
	d.ends(false)
	d.interrupted()
	delete(d.at.devices, d.channel)
	d.at = nil
	d.gen++
}

// mayEnd notes that its connection may have ended for the broker that has it.
func (d *device) mayEnd() {
	if d.will && d.connection > 0 {
		d.house.Wills.Ended(d.id, d.connection)
	}
}

// send has a frame arrive at the broker. The order on a channel is kept, since the
// device's own turns are at their own times and no frame is late.
func (d *device) send(f link.UpFrame) {
	if d.holds(&f) {
		return
	}
	f.Channel = d.channel
	if err := d.at.link.Send(&link.Up{Frames: []link.UpFrame{f}}); err != nil {
		d.w.History.Break("%s: %v", d.label, err)
	}
	d.at.step()
}

func (d *device) publish() {
	d.next++
	p := &published{packet: uint16(d.next), Publish: d.house.Publish(d.id, d.next, mqtt.QoS(1+d.next%2), d.place())}
	d.inflight = append(d.inflight, p)
	d.w.note(d.label+" publishes", d.at.n.name, uint64(d.next))
	d.send(p.frame(false))
}

func (p *published) frame(dup bool) link.UpFrame {
	return link.UpFrame{Kind: link.UpPublish, PacketID: p.packet, Dup: dup, Message: mqtt.Message{
		Topic: []byte(p.Topic), QoS: p.QoS, Payload: p.bytes(), Retain: p.Retain,
	}}
}

// bytes is the payload on the wire: some are so large that a partition keeps them once
// for all of its sessions.
func (p *published) bytes() []byte {
	b := append([]byte(p.Payload), 0)
	if p.Seq%5 < 2 {
		b = append(b, make([]byte, 1500)...)
	}
	return b
}

func (d *device) receive(f *link.DownFrame, payload string) {
	h := d.w.History
	d.w.note("frame", d.at.n.name, uint64(d.channel), uint64(f.Kind), uint64(f.PacketID), uint64(f.Ack))
	switch f.Kind {
	case link.DownOpened:
		d.part = partition.Choose(d.w.cell(d.house), d.id) // only who is sent elsewhere is told
		if d.moving != nil {
			d.resumed()
			return
		}
		d.tookOver()
		d.open(f.SessionPresent)
	case link.DownSuback:
		if f.Reasons[0].Failed() {
			h.Break("%s cannot subscribe: %s", d.label, f.Reasons[0])
		}
		d.kept = true
		d.hasSubscribed(d.filters[d.suback])
		d.suback++
		d.subscribe()
	case link.DownUnsuback:
		d.unsubscribed()
	case link.DownDeliver:
		d.deliver(f, payload)
	case link.DownAck:
		d.acked(f)
	case link.DownPause:
		d.pause(f.Bytes)
	case link.DownMoved:
		d.part = partition.ID(f.Moved.Partition)
		d.moved()
	case link.DownClose:
		if f.Reason == mqtt.SessionTakenOver {
			h.Break("%s is taken over, and has the newest connection", d.label)
		}
		if f.Reason == mqtt.ServerMoved {
			d.w.happens("connection closed by a move")
		}
		d.leave(link.CloseLost)
	case link.DownRefused:
		if d.moving != nil {
			d.refused(f.Text)
			return
		}
		h.Break("%s is refused: %s", d.label, f.Text)
	default:
		h.Break("%s got frame %d", d.label, f.Kind)
	}
}

func (d *device) open(present bool) {
	d.present(present)
	d.opened = true
	d.lives()
	if d.will && present {
		d.house.Wills.Left(d.id, d.connection)
	}
	for _, p := range d.inflight {
		if p.released {
			d.ack(mqtt.Pubrel, p.packet)
		} else {
			p.Again = true
			d.w.happens("sent again by the publisher")
			d.send(p.frame(true))
		}
	}
	if d.parting {
		d.unsubscribe()
		return
	}
	d.subscribe()
}

// subscribe subscribes to the next filter that is not acknowledged.
func (d *device) subscribe() {
	if d.suback < len(d.filters) && !d.fewer {
		d.house.Subscribing(d.id, d.filters[d.suback])
		d.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 60001, Subscribe: []mqtt.Subscription{{
			Filter: d.filters[d.suback], QoS: mqtt.ExactlyOnce, RetainHandling: mqtt.RetainDontSend,
		}}})
	}
}

func (d *device) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s of partition %d: connected %t, opened %t, %d of %d filters, %d of %d published", d.label, d.part, d.at != nil, d.opened, d.suback, len(d.filters), d.next, d.total)
	for _, p := range d.inflight {
		fmt.Fprintf(&s, ", %d under way (released %t)", p.packet, p.released)
	}
	return s.String()
}
