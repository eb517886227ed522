// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"slices"

	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/session"
)

// takeUpSession makes a session of what wrapSession has made. It reports false if that
// cannot be read.
func (s *Shard) takeUpSession(t *Tenant, p *space, name string, b []byte) (se *sess, ok bool) {
	r := wire.Reader{Data: b}
	version, flags := r.U8(), r.U8()
	if r.Bad || version != recordVersion {
		return nil, false
	}
	if flags&handedRecord != 0 {
		rec, err := parseSession(r.Bytes())
		if err != nil || r.Bad {
			return nil, false
		}
		rec.sid = s.next(p)
		se = s.restoreSession(t, p, name, &rec)
		s.batch(p).Put(partition.KeyNamed(nil, p.id, partition.KindSession, t.id, se.recordName()), appendSession(nil, se))
		if flags&handedParts != 0 && !s.takeUpParts(se, &r) {
			return se, false
		}
		s.due(se)
	}
	if flags&handedCarried != 0 {
		token, value := r.U64(), slices.Clone(r.Bytes())
		if r.Bad || len(value) < 10 {
			return se, false
		}
		bySid := map[uint64]*sess{}
		if se != nil {
			bySid[binary.BigEndian.Uint64(value[2:])] = se
		}
		whole, ok := s.restoreConnection(p, token, value, bySid)
		if !ok {
			return se, false
		}
		if !whole {
			binary.BigEndian.PutUint64(value[2:], se.ID)
			s.batch(p).Put(partition.KeyU64(nil, p.id, partition.KindMoving, token), value)
		}
	}
	return se, !r.Bad
}

// takeUpParts gives a session that outlives its connection what wrapParts has made, and
// writes it.
func (s *Shard) takeUpParts(se *sess, r *wire.Reader) bool {
	p, b := se.space.id, s.batch(se.space)
	for range r.Length(3) {
		filter := r.String()
		sub, err := parseOptions(r.Bytes(), filter)
		if err != nil {
			return false
		}
		se.RestoreSubscription(sub)
		s.addRoute(se, &sub, true)
		b.Put(append(partition.KeyU64(nil, p, partition.KindSubscription, se.ID), filter...), appendOptions(nil, &sub))
	}
	ids := wire.Reader{Data: r.Bytes()}
	if len(ids.Data)%2 != 0 {
		return false
	}
	for len(ids.Data) > 0 {
		id := ids.U16()
		se.RestoreInbound(id, true)
		b.Put(partition.KeyU64U16(nil, p, partition.KindInbound, se.ID, id), nil)
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
		s.putInflight(se, &f)
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
