// SPDX-License-Identifier: Apache-2.0

package link

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
)

// DownEncoder encodes Down batches. It keeps memory between calls; the zero
// value is ready. It is owned by one goroutine at a time.
type DownEncoder struct {
	slots []uint16 // by slot of the batch: 1 + slot on the wire, 0 if not written yet
}

// Append appends frames of b, from the first-th on, to dst, until it has
// appended all or about softBatch bytes. It returns how many frames of the wire
// it wrote, and the index of the first frame of b that is not in them.
//
// A message is written when the first Deliver needs it, and numbered in that
// order: what no frame refers to does not cross, and each piece of a batch that
// is cut holds all that its frames refer to.
func (e *DownEncoder) Append(dst []byte, b *Down, first int) (out []byte, count, next int) {
	e.slots = append(e.slots[:0], make([]uint16, len(b.Messages))...)
	start, written := len(dst), uint16(0)
	full := func() bool { return count >= maxFrames || len(dst)-start >= softBatch }
	for next = first; next < len(b.Frames) && !full(); {
		switch b.Frames[next].Kind {
		case DownDeliver:
			// First the messages of a run of deliveries, then their vector.
			end := next
			for ; end < len(b.Frames) && b.Frames[end].Kind == DownDeliver && (end == next || !full()); end++ {
				slot := b.Frames[end].Slot
				if e.slots[slot] != 0 {
					continue
				}
				written++
				e.slots[slot] = written
				m := &b.Messages[slot]
				var body int
				dst, body = open(dst, wireMessage, MessageFlags(m), 0)
				dst = wire.ShutFrame(AppendMessage(dst, m), body)
				count++
			}
			var body int
			dst, body = open(dst, wireDeliver, 0, 0)
			// Subscription Identifiers can make entries as large as messages.
			for run := next; next < end && (next == run || len(dst)-body < softBatch); next++ {
				f := &b.Frames[next]
				dst = appendDeliver(dst, f, e.slots[f.Slot]-1)
			}
			dst = wire.ShutFrame(dst, body)
		case DownAck:
			var body int
			dst, body = open(dst, wireDownAcks, 0, 0)
			for ; next < len(b.Frames) && b.Frames[next].Kind == DownAck && len(dst)-start < softBatch; next++ {
				f := &b.Frames[next]
				dst = appendAck(dst, f.Channel, f.Ack, f.Reason, f.PacketID)
			}
			dst = wire.ShutFrame(dst, body)
		case DownWindow:
			var body int
			dst, body = open(dst, wireWindow, 0, 0)
			for ; next < len(b.Frames) && b.Frames[next].Kind == DownWindow && len(dst)-start < softBatch; next++ {
				dst = appendWindow(dst, b.Frames[next].Channel, b.Frames[next].Bytes)
			}
			dst = wire.ShutFrame(dst, body)
		default:
			dst = appendDownFrame(dst, &b.Frames[next])
			next++
		}
		count++
	}
	return dst, count, next
}

// appendDeliver appends one entry of a Deliver vector:
//
//	channel u32 | slot u16 | Packet Identifier u16 | flags u8 | [count uvarint | Subscription Identifier uvarint ...]
func appendDeliver(dst []byte, f *DownFrame, slot uint16) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(f.Channel))
	dst = binary.BigEndian.AppendUint16(dst, slot)
	dst = binary.BigEndian.AppendUint16(dst, f.PacketID)
	flags := byte(f.QoS) & flagQoS
	if f.Retain {
		flags |= flagRetain
	}
	if f.Dup {
		flags |= flagDup
	}
	if len(f.SubscriptionIDs) == 0 {
		return append(dst, flags)
	}
	dst = append(dst, flags|flagIDs)
	dst = binary.AppendUvarint(dst, uint64(len(f.SubscriptionIDs)))
	for _, id := range f.SubscriptionIDs {
		dst = binary.AppendUvarint(dst, uint64(id))
	}
	return dst
}

// appendDownFrame appends one frame that is no vector.
func appendDownFrame(dst []byte, f *DownFrame) []byte {
	var body int
	switch f.Kind {
	case DownOpened:
		var flags byte
		if f.SessionPresent {
			flags = flagYes
		}
		dst, body = open(dst, wireOpened, flags, f.Channel)
		dst = binary.BigEndian.AppendUint64(dst, f.Bytes)
	case DownRefused:
		dst, body = open(dst, wireRefused, 0, f.Channel)
		dst = append(append(dst, byte(f.Reason)), f.Text...)
	case DownSuback:
		dst, body = open(dst, wireSuback, 0, f.Channel)
		dst = appendReasons(dst, f)
	case DownUnsuback:
		dst, body = open(dst, wireUnsuback, 0, f.Channel)
		dst = appendReasons(dst, f)
	case DownClose:
		dst, body = open(dst, wireEnd, 0, f.Channel)
		dst = append(append(dst, byte(f.Reason)), f.Text...)
	case DownAnswer:
		if f.Answer.size() > maxAnswer {
			return appendAnswer(dst, &Answer{ID: f.Answer.ID, Error: "the answer is too large; ask for less at a time"})
		}
		return appendAnswer(dst, f.Answer)
	case DownGoaway:
		dst, body = open(dst, wireGoaway, 0, 0)
	case DownLoad:
		dst, body = open(dst, wireLoad, 0, 0)
		dst = append(dst, byte(f.Load))
	case DownTable:
		return appendTable(dst, f.Table)
	case DownMoved:
		dst, body = open(dst, wireMoved, 0, f.Channel)
		dst = binary.BigEndian.AppendUint16(dst, f.Moved.Partition)
		dst = binary.BigEndian.AppendUint64(dst, f.Moved.Epoch)
		dst = append(dst, f.Moved.Broker...)
	case DownPause:
		dst, body = open(dst, wirePause, 0, f.Channel)
		dst = binary.BigEndian.AppendUint64(dst, f.Bytes)
	case DownNote:
		var flags byte
		if f.Note.Dropped {
			flags = flagYes
		}
		if f.Note.Loose {
			flags |= flagLoose
		}
		flags |= byte(f.Note.Level) & flagLevel
		dst, body = open(dst, wireNote, flags, f.Channel)
		dst = binary.BigEndian.AppendUint32(dst, f.Note.Count)
		dst = wire.AppendBytes(dst, f.Note.Tenant)
		dst = wire.AppendBytes(dst, string(f.Note.ClientID))
		dst = append(wire.AppendBytes(dst, f.Note.Reason), f.Note.Text...)
	case DownDeliver, DownAck, DownWindow: // vectors: Append's
		return dst
	}
	return wire.ShutFrame(dst, body)
}

func appendReasons(dst []byte, f *DownFrame) []byte {
	dst = binary.BigEndian.AppendUint16(dst, f.PacketID)
	for _, c := range f.Reasons {
		dst = append(dst, byte(c))
	}
	return dst
}

// DecodeDown appends the count frames of data to b, which is empty before.
// Byte slices in b are views of data. On an error, which wraps ErrMalformed, b
// holds what was decoded before it.
func DecodeDown(data []byte, count int, b *Down) error {
	return wire.EachFrame(data, count, func(f wire.Frame) error { return b.decode(f) })
}

func (b *Down) decode(f wire.Frame) error {
	r := read(f.Body)
	out := DownFrame{Channel: Channel(f.ID)}
	allowed, channelless := byte(0), false
	switch f.Kind {
	case wireMessage:
		m := ReadMessage(&r.Reader, f.Flags)
		if err := check(f, &r, flagQoS|flagRetain|flagExpiry, true); err != nil {
			return err
		}
		b.Messages = append(b.Messages, m)
		return nil
	case wireDeliver:
		for len(r.Data) > 0 && !r.Bad {
			if d := r.deliver(len(b.Messages)); !r.Bad {
				b.Frames = append(b.Frames, d)
			}
		}
		return check(f, &r, 0, true)
	case wireDownAcks:
		for len(r.Data) > 0 && !r.Bad {
			a := DownFrame{Kind: DownAck}
			a.Channel, a.Ack, a.Reason, a.PacketID = r.ack()
			if !r.Bad {
				b.Frames = append(b.Frames, a)
			}
		}
		return check(f, &r, 0, true)
	case wireWindow:
		for len(r.Data) > 0 && !r.Bad {
			w := DownFrame{Kind: DownWindow, Channel: Channel(r.U32()), Bytes: r.U64()}
			if !r.Bad {
				b.Frames = append(b.Frames, w)
			}
		}
		return check(f, &r, 0, true)
	case wireOpened:
		out.Kind, out.SessionPresent, out.Bytes = DownOpened, f.Flags&flagYes != 0, r.U64()
		allowed = flagYes
	case wireRefused:
		out.Kind, out.Reason, out.Text = DownRefused, mqtt.ReasonCode(r.U8()), string(r.Rest())
	case wireSuback:
		out.Kind, out.PacketID, out.Reasons = DownSuback, r.U16(), r.reasons()
	case wireUnsuback:
		out.Kind, out.PacketID, out.Reasons = DownUnsuback, r.U16(), r.reasons()
	case wireEnd:
		out.Kind, out.Reason, out.Text = DownClose, mqtt.ReasonCode(r.U8()), string(r.Rest())
	case wireAnswer:
		out.Kind, out.Answer = DownAnswer, r.answer(f.Flags)
		allowed, channelless = flagYes|flagSet, true
	case wireGoaway:
		out.Kind, channelless = DownGoaway, true
	case wireLoad:
		out.Kind, out.Load, channelless = DownLoad, load.Level(r.U8()), true
		r.Bad = r.Bad || out.Load > load.Shed
	case wireTable:
		out.Kind, out.Table, channelless = DownTable, r.table(f.Flags), true
		allowed = flagYes
	case wireMoved:
		out.Kind, out.Moved = DownMoved, &Moved{Partition: r.U16(), Epoch: r.U64(), Broker: string(r.Rest())}
	case wirePause:
		out.Kind, out.Bytes = DownPause, r.U64()
		r.Bad = r.Bad || out.Bytes == 0
	case wireNote:
		n := &Note{Dropped: f.Flags&flagYes != 0, Loose: f.Flags&flagLoose != 0, Count: r.U32(), Tenant: r.String(), ClientID: mqtt.ClientID(r.String()), Reason: r.String()}
		n.Text, n.Level = string(r.Rest()), level.Level(f.Flags&flagLevel)
		out.Kind, out.Note, allowed = DownNote, n, flagYes|flagLoose|flagLevel
		r.Bad = r.Bad || n.Loose && n.Count == 0 || n.Level > level.Reached
	default:
		return f.Malformed("a broker sends no such frame")
	}
	if err := check(f, &r, allowed, channelless); err != nil {
		return err
	}
	b.Frames = append(b.Frames, out)
	return nil
}

// deliver reads one entry of a Deliver vector, behind messages messages.
func (r *reader) deliver(messages int) DownFrame {
	d := DownFrame{Kind: DownDeliver, Channel: Channel(r.U32()), Slot: r.U16(), PacketID: r.U16()}
	flags := r.U8()
	d.QoS, d.Retain, d.Dup = mqtt.QoS(flags&flagQoS), flags&flagRetain != 0, flags&flagDup != 0
	if flags&flagIDs != 0 {
		n := r.Length(1)
		if n == 0 {
			r.Bad = true
			return d
		}
		d.SubscriptionIDs = make([]uint32, n)
		for i := range d.SubscriptionIDs {
			d.SubscriptionIDs[i] = r.Uvarint()
		}
	}
	if !d.QoS.Valid() || int(d.Slot) >= messages || flags&^(flagQoS|flagRetain|flagDup|flagIDs) != 0 {
		r.Bad = true
	}
	return d
}

func (r *reader) reasons() []mqtt.ReasonCode {
	raw := r.Rest()
	if len(raw) == 0 {
		return nil
	}
	out := make([]mqtt.ReasonCode, len(raw))
	for i, c := range raw {
		out[i] = mqtt.ReasonCode(c)
	}
	return out
}
