// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

// publisher sends packets that were encoded before, with a stamp and a Packet
// Identifier written into each.
type publisher struct {
	c        *client
	g        *group
	qos      byte
	packets  []byte // one after another
	ends     []int  // where each ends
	ids      []int  // where its Packet Identifier is
	payloads []int  // where its payload begins
	nextID   uint16
	inflight atomic.Int64
	acked    atomic.Int64
	limit    int64 // of inflight
	wake     chan struct{}
}

func newPublisher(c *client, g *group, topics []string, qos byte, size, batch, limit int) *publisher {
	p := &publisher{c: c, g: g, qos: qos, limit: int64(limit), wake: make(chan struct{}, 1)}
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte('a' + i%26)
	}
	for i := range max(batch, len(topics)) {
		var id, body int
		p.packets, id, body = c.appendPublish(p.packets, topics[i%len(topics)], qos, false, payload)
		p.ids, p.payloads, p.ends = append(p.ids, id), append(p.payloads, body), append(p.ends, len(p.packets))
	}
	return p
}

// send writes packets from to to, stamped at, at+gap, ...: the moments at which
// they were due, so that a broker that pushes back cannot hide the waiting.
func (p *publisher) send(at, gap int64, from, to int) error {
	start := 0
	if from > 0 {
		start = p.ends[from-1]
	}
	for i := from; i < to; i++ {
		binary.LittleEndian.PutUint64(p.packets[p.payloads[i]:], uint64(at+int64(i-from)*gap))
		if p.qos > 0 {
			if p.nextID++; p.nextID == 0 {
				p.nextID = 1
			}
			binary.BigEndian.PutUint16(p.packets[p.ids[i]:], p.nextID)
		}
	}
	if p.qos > 0 {
		p.inflight.Add(int64(to - from))
	}
	p.g.sent.Add(int64(to - from))
	_, err := p.c.Write(p.packets[start:p.ends[to-1]])
	return err
}

// acks takes what the broker sends to a publisher.
func (p *publisher) acks() {
	var out []byte
	for {
		if err := p.c.fill(); err != nil {
			return
		}
		out = out[:0]
		done := int64(0)
		for {
			f, b, ok, err := p.c.packet()
			if err != nil {
				return
			}
			if !ok {
				break
			}
			switch f & kindMask {
			case pktPuback, pktPubcomp:
				done++
				p.refused(b)
			case pktPubrec:
				if p.refused(b) {
					done++
					continue
				}
				out = appendAck(out, pktPubrel, binary.BigEndian.Uint16(b))
			}
		}
		if len(out) > 0 {
			if _, err := p.c.Write(out); err != nil {
				return
			}
		}
		if done > 0 {
			p.acked.Add(done)
			p.inflight.Add(-done)
			select {
			case p.wake <- struct{}{}:
			default:
			}
		}
	}
}

// refused counts a publish as lost if what acknowledges it says that it failed.
func (p *publisher) refused(ack []byte) bool {
	if !failed(ack) {
		return false
	}
	p.g.lost.Add(1)
	return true
}

// stall is how long nothing has to move before what is under way is given up.
const stall = 2 * time.Second

// saturate keeps the group's window, and its own in flight, full.
func (p *publisher) saturate(stop *atomic.Bool) {
	pos := 0
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for !stop.Load() {
		room := p.g.window - p.g.underway()
		if p.qos > 0 {
			room = min(room, p.limit-p.inflight.Load())
		}
		if room <= 0 {
			timer.Reset(stall)
			before := p.g.received.Load() + p.acked.Load()
			select {
			case <-p.g.wake:
			case <-p.wake:
			case <-timer.C:
				if p.g.received.Load()+p.acked.Load() == before {
					p.g.lost.Add(p.g.underway())
					p.inflight.Store(0)
				}
			}
			continue
		}
		n := min(int(room), len(p.ends)-pos)
		if err := p.send(p.g.now(), 0, pos, pos+n); err != nil {
			return
		}
		if pos += n; pos == len(p.ends) {
			pos = 0
		}
		p.g.poke() // other publishers of the group may still have room
	}
}

// paced publishes at a fixed rate, whether or not anything arrives. offset is
// the part of a period by which this publisher is later than the first.
func (p *publisher) paced(rate, offset float64, stop *atomic.Bool) {
	gap := time.Duration(float64(time.Second) / rate)
	due := time.Now().Add(time.Duration(offset * float64(gap)))
	pos := 0
	for !stop.Load() {
		if d := time.Until(due); d > 0 {
			time.Sleep(d)
		}
		n, first := 1, int64(due.Sub(p.g.start))
		for due = due.Add(gap); time.Until(due) < 0 && n < len(p.ends)-pos; due = due.Add(gap) {
			n++
		}
		if err := p.send(first, int64(gap), pos, pos+n); err != nil {
			return
		}
		if pos += n; pos == len(p.ends) {
			pos = 0
		}
	}
}
