// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

// group is a set of publishers and subscribers that share one end-to-end
// window: at most window publishes are under way, so that no broker is driven
// into dropping and each is measured at what it can sustain.
type group struct {
	start     time.Time // the zero of the stamps in payloads
	fan       int64     // deliveries that one publish makes
	window    int64     // publishes under way, for the whole group
	sent      atomic.Int64
	received  atomic.Int64 // deliveries
	lost      atomic.Int64 // publishes given up after a stall
	wake      chan struct{}
	recording *atomic.Bool
}

func newGroup(fan, window int, recording *atomic.Bool) *group {
	return &group{start: time.Now(), fan: int64(fan), window: int64(window), wake: make(chan struct{}, 1), recording: recording}
}

// now is nanoseconds since the group's start.
func (g *group) now() int64 { return int64(time.Since(g.start)) }

// underway is how many publishes have not arrived.
func (g *group) underway() int64 { return g.sent.Load() - g.lost.Load() - g.received.Load()/g.fan }

func (g *group) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// subscriber counts what comes, and acknowledges each read's packets in one
// write.
type subscriber struct {
	c       *client
	g       *group
	latency histogram
	n       atomic.Int64
}

func (s *subscriber) loop() {
	var out []byte
	for {
		if err := s.c.fill(); err != nil {
			return
		}
		now, recording := s.g.now(), s.g.recording.Load()
		got := int64(0)
		out = out[:0]
		for {
			f, b, ok, err := s.c.packet()
			if err != nil {
				return
			}
			if !ok {
				break
			}
			switch f & kindMask {
			case pktPublish:
				qos, id, payload := s.c.publish(f, b)
				got++
				if recording && len(payload) >= 8 {
					s.latency.add(now - int64(binary.LittleEndian.Uint64(payload)))
				}
				switch qos {
				case 1:
					out = appendAck(out, pktPuback, id)
				case 2:
					out = appendAck(out, pktPubrec, id)
				}
			case pktPubrel & kindMask:
				out = appendAck(out, pktPubcomp, binary.BigEndian.Uint16(b))
			}
		}
		if len(out) > 0 {
			if _, err := s.c.Write(out); err != nil {
				return
			}
		}
		if got > 0 {
			s.n.Add(got)
			s.g.received.Add(got)
			if s.g.underway() < s.g.window {
				s.g.poke()
			}
		}
	}
}
