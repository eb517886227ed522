// SPDX-License-Identifier: Apache-2.0

package session

import (
	"testing"

	"github.com/manormq/manor/infra/mqtt"
)

// FuzzScript lets random events happen and checks what must always hold: no
// more deliveries under way than the window, no packet identifier twice, no
// delivery before credit, and nothing said to a session without a connection.
func FuzzScript(f *testing.F) {
	f.Add([]byte{0, 3, 1, 1, 9, 100, 4, 1, 4, 1, 5, 1, 2, 0, 0, 3, 9, 50})
	f.Add([]byte{0, 2, 9, 255, 4, 2, 4, 2, 6, 1, 8, 1, 3, 0, 7, 5, 10, 1})
	f.Add([]byte("0290X0X12001B\x0290")) // PUBREC before the message is sent again
	f.Fuzz(func(t *testing.T, script []byte) {
		s := New(1, "c")
		var (
			now      int64
			seq      uint64
			tokens   []Token
			inflight = map[uint16]bool{} // sent on this connection and not completed
			granted  uint64
			window   int
			sent     uint64
			retry    uint16
		)
		for ; len(script) >= 2; script = script[2:] {
			arg := script[1]
			e := Event{Packet: uint16(arg), QoS: mqtt.QoS(arg % 3), Reason: mqtt.ReasonCode(arg & 0x80), Size: 10}
			switch script[0] % 14 {
			case 0:
				if s.Attached() {
					continue
				}
				window = 1 + int(arg%7)
				e.Kind, granted, sent = Attach, 0, 0
				e.Open = &Opening{Expiry: uint32(arg % 3), ReceiveMaximum: uint16(window), InboundMaximum: 1 + uint16(arg%5), Present: true}
				if arg&128 != 0 {
					e.Open.Retry = 1 // second: then packets may be repeated on a connection
				}
				retry = e.Open.Retry
				if arg&64 != 0 {
					e.Open.Will = &mqtt.Will{Delay: uint32(arg % 4)}
				}
				clear(inflight)
			case 1:
				e.Kind, e.Packet = Publish, 1+uint16(arg%9)
			case 2:
				e.Kind, e.Cause = Detach, Cause(1+arg%2)
			case 3:
				if len(tokens) == 0 {
					continue
				}
				e.Kind, e.Token = Routed, tokens[int(arg)%len(tokens)]
			case 4:
				seq++
				e.Kind, e.Seq, e.QoS = Enqueued, seq, 1+mqtt.QoS(arg%2)
			case 5:
				e.Kind, e.Ack = Ack, mqtt.Puback
			case 6:
				e.Kind, e.Ack = Ack, mqtt.Pubrec
			case 7:
				e.Kind, e.Ack = Ack, mqtt.Pubcomp
			case 8:
				e.Kind, e.Ack = Ack, mqtt.Pubrel
			case 9:
				granted += uint64(arg)
				e.Kind, e.Bytes = Credit, granted
			case 10:
				now += int64(arg) * 100
				e.Kind = Tick
			case 11:
				e.Kind = TooLarge
			case 12:
				if !s.Attached() {
					continue
				}
				// A window that gets smaller is overrun until acknowledgements come.
				e.Kind, e.Window, e.Retry = Adjust, uint16(window)+uint16(arg%3), uint16(arg>>6)
				retry = e.Retry
			case 13:
				e.Kind, e.Quiet = TakeOver, arg&1 != 0
			}
			wasAttached := s.Attached()
			var fx Effects
			s.Step(now, &e, &fx)
			for _, o := range fx.Send {
				if !wasAttached && o.Kind != OutOpened {
					t.Fatalf("said %+v without a connection", o)
				}
				switch o.Kind {
				case OutDeliver:
					if o.Retry {
						if retry == 0 || !inflight[o.Packet] || !o.Dup || e.Kind != Tick {
							t.Fatalf("sent again: %+v", o)
						}
					} else if o.Packet == 0 || inflight[o.Packet] {
						t.Fatalf("packet identifier %d is in use", o.Packet)
					}
					if sent >= granted {
						t.Fatalf("delivery beyond credit: %d of %d", sent, granted)
					}
					sent += 10
					inflight[o.Packet] = true
				case OutAck:
					// A client may send PUBREC for what was not sent again yet. The
					// answer takes no place: only PUBLISH packets that were sent on
					// this connection are counted [MQTT-3.3.4-9].
					answer := e.Kind == Ack && e.Ack == mqtt.Pubrec && e.Packet == o.Packet
					if o.Ack == mqtt.Pubrel && o.Reason == 0 && !answer {
						inflight[o.Packet] = true
					}
				default:
				}
			}
			for id := range inflight {
				if s.out.flights.get(id) == nil {
					delete(inflight, id)
				}
			}
			if len(inflight) > window {
				t.Fatalf("%d under way in a window of %d", len(inflight), window)
			}
			for _, p := range fx.Route {
				if p.Token != 0 {
					tokens = append(tokens, p.Token)
				}
			}
			if fx.Ended {
				s = New(1, "c")
				clear(inflight)
			}
		}
	})
}
