// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/session"
)

// The parts of a session are what it has beside its own record: subscriptions, identifiers of
// QoS 2, what is in flight, and what waits. They cross to another partition with a session that
// is handed over (hand.go), and to another broker with one that is in memory alone (carry.go),
// in one form:
//
//	subscriptions uvarint, (filter | options) each | identifiers, u16 each, behind their length
//	| in flight uvarint, (state u8 | identifier u16 | size u32 | entry, or none) each
//	| waiting uvarint, entry each

// appendParts appends all parts but those that wait. entryOf appends the message of a delivery
// in flight, nothing if it is not needed any more.
func appendParts(b []byte, se *sess, entryOf func(dst []byte, f *session.Record) ([]byte, error)) ([]byte, error) {
	subs := se.Subscriptions()
	b = binary.AppendUvarint(b, uint64(len(subs)))
	for i := range subs {
		b = wire.AppendBytes(b, subs[i].Filter)
		b = wire.AppendBytes(b, appendOptions(nil, &subs[i]))
	}
	b = wire.AppendBytes(b, inboundIDs(se))
	flying := se.Flying()
	b = binary.AppendUvarint(b, uint64(len(flying)))
	var entry []byte
	for i := range flying {
		f := &flying[i]
		b = append(b, byte(f.State))
		b = binary.BigEndian.AppendUint16(b, f.Packet)
		b = binary.BigEndian.AppendUint32(b, f.Size)
		var err error
		if entry, err = entryOf(entry[:0], f); err != nil {
			return nil, err
		}
		b = wire.AppendBytes(b, entry)
	}
	return b, nil
}

// readParts gives a session its parts, and writes them if it outlives its connection. It
// reports false if they cannot be read; the session has some of them then.
func (s *Shard) readParts(se *sess, r *wire.Reader) bool {
	p, b, stored := se.space.id, s.batch(se.space), se.Durable()
	for range r.Length(3) {
		filter := r.String()
		sub, err := parseOptions(r.Bytes(), filter)
		if err != nil {
			return false
		}
		se.RestoreSubscription(sub)
		s.addRoute(se, &sub, true)
		if stored {
			b.Put(append(partition.KeyU64(nil, p, partition.KindSubscription, se.ID), filter...), appendOptions(nil, &sub))
		}
	}
	ids := wire.Reader{Data: r.Bytes()}
	if len(ids.Data)%2 != 0 {
		return false
	}
	for len(ids.Data) > 0 {
		id := ids.U16()
		se.RestoreInbound(id, true)
		if stored {
			b.Put(partition.KeyU64U16(nil, p, partition.KindInbound, se.ID, id), nil)
		}
	}
	for i := range r.Length(8) {
		f := session.Record{State: session.State(r.U8()), Packet: r.U16(), Size: r.U32(), Order: uint64(i)}
		if entry := r.Bytes(); len(entry) > 0 {
			e, err := queue.ParseEntry(entry)
			if err != nil {
				return false
			}
			se.queueOf().Append(e, 0, b)
			se.queueOf().Take(true, b)
			f.Seq = e.Seq
			s.touch(se)
		}
		se.RestoreInflight(f.Packet, f)
		if stored {
			s.putInflight(se, &f)
		}
	}
	for range r.Length(12) {
		e, err := queue.ParseEntry(r.Bytes())
		if err != nil {
			return false
		}
		se.queueOf().Append(e, 0, b)
		se.tenant.queueMessages.Add(1)
		se.tenant.queueBytes.Add(int64(e.Size()))
		s.touch(se)
	}
	return !r.Bad
}
