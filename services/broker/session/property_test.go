// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/session"
)

var sequences = flag.Int("sequences", 100_000, "random sequences of TestProperties; -short tries a twentieth")

// TestProperties steps the machine through random sequences of what a client, a
// network, a store and crashes do, and holds what MQTT promises: no more is in
// flight than the window [MQTT-3.3.4-9], an identifier names one message at a time
// [MQTT-2.2.1-4], what is said after a commit is said after it, QoS 1 arrives
// [MQTT-4.3.2-2] and QoS 2 arrives once [MQTT-4.3.3-2], both ways.
func TestProperties(t *testing.T) {
	n := *sequences
	if testing.Short() {
		n /= 20
	}
	for seed := range n {
		w := newWorld(uint64(seed))
		w.run(20 + w.r.IntN(60))
		if w.fault != "" {
			t.Fatalf("seed %d: %s\n%s", seed, w.fault, strings.Join(w.log, "\n"))
		}
	}
}

// packet is one on the wire, either way.
type packet struct {
	kind   mqtt.AckKind // 0 is PUBLISH
	id     uint16
	qos    mqtt.QoS
	dup    bool
	number uint64 // of the message
	reason mqtt.ReasonCode
}

// batch is what one step has for the store, and what waits for that.
type batch struct {
	records []session.Record
	stored  session.Stored
	queued  []uint64
	routed  []routed
	outs    []session.Out
	conn    int
}

type routed struct {
	number uint64
	event  session.Event
}

// published is a message of the client that is not completed.
type published struct {
	number   uint64
	qos      mqtt.QoS
	released bool
}

type world struct {
	r     *rand.Rand
	fault string
	log   []string
	now   int64

	// The broker's memory, gone with a crash.
	s       *session.Session
	waiting []uint64 // of the queue, not sent
	batches []batch
	events  []session.Event
	granted uint64

	// The store.
	record   session.Stored
	inflight map[uint16]session.Record
	inbound  map[uint16]bool
	queue    []uint64

	// The network.
	opened              bool
	conn                int // 0 is none; numbers are not used again
	conns               int
	toClient, toServer  []packet
	window, outstanding int

	// The client, which forgets nothing.
	received map[uint16]uint64
	sent     map[uint16]*published
	order    []uint16
	nextID   uint16

	qos       map[uint64]mqtt.QoS // of messages to the client
	delivered map[uint64]int
	refused   map[uint64]bool
	kept      map[uint64]bool // committed once
	numbers   uint64
	counts    map[uint64]int // how often a message of the client was routed
	mine      map[uint64]mqtt.QoS
	failed    map[uint64]bool
}

const (
	inboundMaximum = 8
	// clientIDs is how many identifiers the client uses: few, so that it uses each
	// again soon.
	clientIDs = 4
	// crashEvery is after how many steps there is a crash, on average: in a
	// hundred thousand sequences after each kind of step many times.
	crashEvery = 8
)

func newWorld(seed uint64) *world {
	w := &world{
		r: rand.New(rand.NewPCG(seed, 7)), now: 1000, s: session.New(1, "c"),
		inflight: map[uint16]session.Record{}, inbound: map[uint16]bool{},
		received: map[uint16]uint64{}, sent: map[uint16]*published{},
		qos: map[uint64]mqtt.QoS{}, delivered: map[uint64]int{}, refused: map[uint64]bool{}, kept: map[uint64]bool{},
		counts: map[uint64]int{}, mine: map[uint64]mqtt.QoS{}, failed: map[uint64]bool{},
	}
	w.connect()
	w.commitAll()
	return w
}

func (w *world) say(format string, args ...any) {
	if len(w.log) < 400 {
		w.log = append(w.log, fmt.Sprintf(format, args...))
	}
}

func (w *world) fail(format string, args ...any) {
	if w.fault == "" {
		w.fault = fmt.Sprintf(format, args...)
	}
}

func (w *world) run(steps int) {
	for range steps {
		w.now += w.r.Int64N(1000)
		switch w.r.IntN(20) {
		case 0:
			w.disconnect()
		case 1:
			if w.r.IntN(2) == 0 {
				w.adjust()
			} else {
				w.crash()
			}
		case 2, 3:
			if w.conn == 0 {
				w.connect()
			}
		case 4, 5, 6:
			w.arrive(mqtt.QoS(1 + w.r.IntN(2)))
		case 7, 8, 9:
			w.publish(mqtt.QoS(1 + w.r.IntN(2)))
		case 10, 11, 12:
			w.commit()
		case 13:
			w.grant()
		case 14:
			w.routed()
		case 15, 16, 17:
			w.server()
		default:
			w.client()
		}
		if w.r.IntN(crashEvery) == 0 {
			w.crash()
		}
		if w.fault != "" {
			return
		}
	}
	w.settle()
}

// settle lets everything come to rest, and looks at what has become of it.
func (w *world) settle() {
	for range 4000 {
		switch {
		case w.conn == 0:
			w.connect()
		case len(w.batches) > 0:
			w.commit()
		case len(w.events) > 0:
			w.routed()
		case len(w.toServer) > 0:
			w.server()
		case len(w.toClient) > 0:
			w.client()
		case w.granted < 1<<40:
			w.granted = 1 << 40
			w.step(&session.Event{Kind: session.Credit, Bytes: w.granted}, 0)
		default:
			w.rested()
			return
		}
		if w.fault != "" {
			return
		}
	}
	w.fail("it does not come to rest")
}

func (w *world) rested() {
	for number, qos := range w.qos {
		switch n := w.delivered[number]; {
		case w.refused[number]:
		case n == 0:
			w.fail("message %d to the client was lost", number)
		case n > 1 && qos == mqtt.ExactlyOnce:
			w.fail("message %d to the client arrived %d times at QoS 2", number, n)
		}
	}
	for number, qos := range w.mine {
		switch n := w.counts[number]; {
		case w.failed[number]:
		case n == 0:
			w.fail("message %d of the client was lost", number)
		case n > 1 && qos == mqtt.ExactlyOnce:
			w.fail("message %d of the client was routed %d times at QoS 2", number, n)
		}
	}
	if len(w.sent) > 0 || len(w.received) > 0 || len(w.inflight) > 0 || len(w.inbound) > 0 || len(w.queue) > 0 {
		w.fail("at rest: client %v %v, store %v %v %v", slices.Collect(maps.Keys(w.sent)), w.received, w.inflight, w.inbound, w.queue)
	}
}

// step lets e happen. number is of the client's message, if e is its PUBLISH.
func (w *world) step(e *session.Event, number uint64) {
	b := batch{conn: w.conn}
	w.do(e, number, &b)
	for w.s.Ready() && len(w.waiting) > 0 {
		head := w.waiting[0]
		sent := w.do(&session.Event{Kind: session.Enqueued, Seq: head, QoS: w.qos[head], Size: 10}, 0, &b)
		if !sent {
			break
		}
		w.waiting = w.waiting[1:]
	}
	b.stored = w.s.Stored()
	w.batches = append(w.batches, b)
}

func (w *world) do(e *session.Event, number uint64, b *batch) (sent bool) {
	var fx session.Effects
	w.s.Step(w.now, e, &fx)
	b.records = append(b.records, fx.Save...)
	for _, p := range fx.Route {
		r := routed{number, session.Event{Kind: session.Routed, Token: p.Token, Packet: p.Packet}}
		if w.r.IntN(10) == 0 { // refused at once, for a quota
			w.failed[number] = true
			r.event.Reason = mqtt.QuotaExceeded
			w.do(&r.event, 0, b)
			continue
		}
		b.routed = append(b.routed, r)
	}
	for _, o := range fx.Send {
		switch {
		case o.Kind == session.OutClose:
			w.fail("the connection is closed: %s", o.Reason)
		case o.AfterCommit:
			b.outs = append(b.outs, o)
		default:
			w.out(o)
		}
		sent = sent || o.Kind == session.OutDeliver
	}
	return sent
}

// out sends one Out to the client.
func (w *world) out(o session.Out) {
	switch o.Kind {
	case session.OutOpened:
		w.opened = true
		// The client sends again what is not completed, in its order [MQTT-4.4.0-1].
		for _, id := range w.order {
			p := w.sent[id]
			if p.released {
				w.toServer = append(w.toServer, packet{kind: mqtt.Pubrel, id: id})
			} else {
				w.toServer = append(w.toServer, packet{id: id, qos: p.qos, dup: true, number: p.number})
			}
		}
		w.granted = o.Credit
		w.step(&session.Event{Kind: session.Credit, Bytes: w.granted}, 0)
	case session.OutDeliver:
		if w.outstanding++; w.outstanding > w.window {
			w.fail("%d deliveries are in flight, the window is %d", w.outstanding, w.window)
		}
		if o.Dup && !slices.Contains(w.queue, o.Seq) && !slices.ContainsFunc(w.batches, func(b batch) bool { return slices.Contains(b.queued, o.Seq) }) {
			w.fail("message %d is to be sent again, and the store does not have it", o.Seq)
		}
		w.toClient = append(w.toClient, packet{id: o.Packet, qos: o.QoS, dup: o.Dup, number: o.Seq})
	case session.OutAck:
		w.toClient = append(w.toClient, packet{kind: o.Ack, id: o.Packet, reason: o.Reason})
	}
}

// commit writes the oldest batch, and does what waited for it.
func (w *world) commit() {
	if len(w.batches) == 0 {
		return
	}
	b := w.batches[0]
	w.batches = w.batches[1:]
	for _, r := range b.records {
		switch r.Kind {
		case session.PutSession:
			w.record = b.stored
		case session.PutInbound:
			w.inbound[r.Packet] = true
		case session.DeleteInbound:
			delete(w.inbound, r.Packet)
		case session.PutInflight:
			w.inflight[r.Packet] = r
		case session.DeleteInflight:
			delete(w.inflight, r.Packet)
		case session.DeleteQueued:
			w.queue = slices.DeleteFunc(w.queue, func(n uint64) bool { return n == r.Seq })
		}
	}
	w.queue = append(w.queue, b.queued...)
	for _, number := range b.queued {
		w.kept[number] = true
	}
	for _, r := range b.routed {
		w.counts[r.number]++
		if w.counts[r.number] > 1 && w.mine[r.number] == mqtt.ExactlyOnce {
			w.fail("message %d of the client is routed again", r.number)
		}
		w.events = append(w.events, r.event)
	}
	if b.conn == w.conn {
		for _, o := range b.outs {
			w.out(o)
		}
	}
}

func (w *world) commitAll() {
	for len(w.batches) > 0 {
		w.commit()
	}
}

// crash loses what is not committed, and starts again from the store.
func (w *world) crash() {
	w.say("crash with %d batches", len(w.batches))
	w.batches, w.events, w.waiting = nil, nil, nil
	w.drop()
	w.s = session.Restore(1, "c", w.record)
	have := map[uint64]bool{}
	for id, r := range w.inflight {
		w.s.RestoreInflight(id, r)
		have[r.Seq] = true
	}
	for id := range w.inbound {
		w.s.RestoreInbound(id, true)
	}
	for number := range w.qos { // what was never committed was promised to nobody
		if !w.kept[number] && !w.knows(number) {
			delete(w.qos, number)
		}
	}
	for _, number := range w.queue {
		if !have[number] {
			w.waiting = append(w.waiting, number)
		}
	}
	w.step(&session.Event{Kind: session.Detach, Cause: session.Lost}, 0)
}

// knows reports whether the client has seen a message.
func (w *world) knows(number uint64) bool { return w.delivered[number] > 0 || w.refused[number] }

// drop loses the connection, and what is on its way.
func (w *world) drop() {
	w.opened = false
	w.conn, w.toClient, w.toServer, w.outstanding = 0, nil, nil, 0
}

func (w *world) disconnect() {
	if w.conn == 0 {
		return
	}
	w.say("disconnect")
	w.drop()
	w.step(&session.Event{Kind: session.Detach, Cause: session.Lost}, 0)
}

func (w *world) connect() {
	w.conns++
	w.conn, w.window, w.granted = w.conns, 1+w.r.IntN(5), 0
	w.say("connect, window %d", w.window)
	w.step(&session.Event{Kind: session.Attach, Open: &session.Opening{
		Present: w.conns > 1, Expiry: mqtt.SessionNeverExpires, ReceiveMaximum: uint16(w.window), InboundMaximum: inboundMaximum, Credit: uint64(1 + w.r.IntN(60)),
	}}, 0)
}

func (w *world) grant() {
	if !w.opened {
		return
	}
	w.granted += uint64(10 + w.r.IntN(60))
	w.step(&session.Event{Kind: session.Credit, Bytes: w.granted}, 0)
}

// adjust narrows the window of a connection, or takes that back.
func (w *world) adjust() {
	if !w.opened {
		return
	}
	w.step(&session.Event{Kind: session.Adjust, Window: uint16(w.r.IntN(w.window + 1))}, 0)
}

// arrive is a message for the client, which its queue has when that is committed.
func (w *world) arrive(qos mqtt.QoS) {
	w.numbers++
	w.qos[w.numbers] = qos
	w.say("message %d to the client, QoS %d", w.numbers, qos)
	w.waiting = append(w.waiting, w.numbers)
	w.batches = append(w.batches, batch{queued: []uint64{w.numbers}, stored: w.s.Stored()})
	w.step(&session.Event{Kind: session.Tick}, 0)
}

// publish has the client publish, within what it was allowed.
func (w *world) publish(qos mqtt.QoS) {
	if !w.opened || len(w.sent) >= clientIDs-1 {
		return
	}
	for w.nextID++; w.nextID == 0 || w.sent[w.nextID] != nil || w.nextID > clientIDs; w.nextID++ {
		if w.nextID > clientIDs {
			w.nextID = 0
		}
	}
	w.numbers++
	w.mine[w.numbers] = qos
	w.sent[w.nextID] = &published{number: w.numbers, qos: qos}
	w.order = append(w.order, w.nextID)
	w.say("client publishes %d as %d, QoS %d", w.numbers, w.nextID, qos)
	w.toServer = append(w.toServer, packet{id: w.nextID, qos: qos, number: w.numbers})
}

// routed tells the session that something is committed, in any order.
func (w *world) routed() {
	if len(w.events) == 0 {
		return
	}
	i := w.r.IntN(len(w.events))
	e := w.events[i]
	w.events = slices.Delete(w.events, i, i+1)
	w.step(&e, 0)
}

// server takes the next packet of the client.
func (w *world) server() {
	if len(w.toServer) == 0 {
		return
	}
	p := w.toServer[0]
	w.toServer = w.toServer[1:]
	if p.kind == 0 {
		w.step(&session.Event{Kind: session.Publish, QoS: p.qos, Packet: p.id}, p.number)
		return
	}
	switch p.kind {
	case mqtt.Puback, mqtt.Pubcomp:
		w.outstanding--
	case mqtt.Pubrec:
		if p.reason.Failed() {
			w.outstanding--
		}
	}
	w.outstanding = max(w.outstanding, 0)
	w.step(&session.Event{Kind: session.Ack, Ack: p.kind, Packet: p.id, Reason: p.reason}, 0)
}

// client takes the next packet of the server, as the standard has it.
func (w *world) client() {
	if len(w.toClient) == 0 {
		return
	}
	p := w.toClient[0]
	w.toClient = w.toClient[1:]
	w.say("client takes %+v", p)
	answer := func(kind mqtt.AckKind, reason mqtt.ReasonCode) {
		w.toServer = append(w.toServer, packet{kind: kind, id: p.id, reason: reason})
	}
	switch p.kind {
	case 0:
		w.message(p, answer)
	case mqtt.Pubrel:
		delete(w.received, p.id)
		answer(mqtt.Pubcomp, mqtt.Success)
	case mqtt.Puback, mqtt.Pubcomp:
		if s := w.sent[p.id]; s != nil && (s.qos == mqtt.AtLeastOnce) == (p.kind == mqtt.Puback) {
			w.completed(p.id)
		}
	case mqtt.Pubrec:
		switch s := w.sent[p.id]; {
		case s == nil:
		case p.reason.Failed():
			if s.released {
				w.fail("PUBREC fails for %d, which was released", p.id)
			}
			w.completed(p.id)
		default:
			s.released = true
			answer(mqtt.Pubrel, mqtt.Success)
		}
	}
}

func (w *world) completed(id uint16) {
	delete(w.sent, id)
	w.order = slices.DeleteFunc(w.order, func(o uint16) bool { return o == id })
}

func (w *world) message(p packet, answer func(mqtt.AckKind, mqtt.ReasonCode)) {
	if p.qos == mqtt.AtLeastOnce {
		w.delivered[p.number]++
		answer(mqtt.Puback, mqtt.Success)
		return
	}
	if known, ok := w.received[p.id]; ok {
		if known != p.number {
			w.fail("identifier %d names message %d, and %d is not completed", p.id, p.number, known)
		}
		if !p.dup {
			w.fail("message %d comes again without DUP", p.number)
		}
		answer(mqtt.Pubrec, mqtt.Success)
		return
	}
	if w.r.IntN(12) == 0 && w.delivered[p.number] == 0 {
		w.refused[p.number] = true
		answer(mqtt.Pubrec, mqtt.NotAuthorized)
		return
	}
	w.received[p.id] = p.number
	w.delivered[p.number]++
	if w.delivered[p.number] > 1 {
		w.fail("message %d arrives again at QoS 2", p.number)
	}
	answer(mqtt.Pubrec, mqtt.Success)
}
