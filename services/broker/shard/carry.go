// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"log/slog"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/session"
)

// The record of a connection that goes on at the next owner of its partition: an Open as
// it would be sent now, what an Open does not say, and of a session whose records are
// not in the store all that these would have.

// The flags of a record: carryWhole says that the session is in it, carrySince that it
// ends with when the connection was let go of first, in Unix milliseconds.
const (
	carryWhole = 1 << iota
	carrySince
)

// carry writes the record of a connection, which was let go of at since first, into the
// open batch. It reports false if the
// connection has more than a record may hold, or something that cannot be read.
func (s *Shard) carry(se *sess, token uint64, c session.Carried, since int64) bool {
	b, ok := s.wrap(se, token, c, since)
	if !ok {
		return false
	}
	s.keepCell(se.tenant, se.space)
	s.batch(se.space).Put(partition.KeyU64(nil, se.space.id, partition.KindMoving, token), b)
	return true
}

// wrap makes the record of a connection, which takes what a session without records has.
func (s *Shard) wrap(se *sess, token uint64, c session.Carried, since int64) (b []byte, ok bool) {
	if se.packed != nil {
		return se.packed, true
	}
	labels := *se.origin
	labels.Username, labels.Peer = se.user, se.peer
	open, _, _ := link.AppendUp(nil, &link.Up{Frames: []link.UpFrame{{Kind: link.UpOpen, Open: &link.Open{
		Tenant: se.tenant.id, ClientID: se.ClientID, SessionExpiry: se.Expiry(), ReceiveMaximum: c.ReceiveMaximum,
		Limits: *se.limits, Labels: labels, Resume: token,
	}}}}, 0)
	flags := byte(carrySince)
	if !se.Durable() {
		flags |= carryWhole
	}
	b = append(b, recordVersion, flags)
	b = binary.BigEndian.AppendUint64(b, se.ID)
	b = binary.BigEndian.AppendUint16(b, se.Stored().NextID)
	b = binary.BigEndian.AppendUint64(b, uint64(se.connectedAt))
	b = binary.BigEndian.AppendUint64(b, se.dropped)
	b = binary.AppendUvarint(b, uint64(len(c.Resend)))
	for _, id := range c.Resend {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	b = wire.AppendBytes(b, open)
	if !se.Durable() {
		if b, ok = s.carryWhole(b, se); !ok {
			return nil, false
		}
	}
	return binary.BigEndian.AppendUint64(b, uint64(since)), true
}

// carryOn has connections go on to the next owner that have not come here from the last
// one. Of those of stored sessions there is a record still.
func (s *Shard) carryOn(p *space) {
	for _, se := range p.heads {
		if a := se.awaited; a != nil && !se.Durable() {
			s.carry(se, a.token, a.carried, a.since)
		}
	}
}

// carryWhole appends the parts of a session that is in memory alone. Its queue is empty
// afterwards.
func (s *Shard) carryWhole(b []byte, se *sess) (out []byte, ok bool) {
	if se.queue != nil && se.queue.Bytes() > queue.MemoryLimit {
		return nil, false
	}
	b, _ = appendParts(b, se, func(dst []byte, f *session.Record) ([]byte, error) {
		if se.queue != nil {
			if e := se.queue.Held(f.Seq); e != nil {
				dst = queue.AppendEntry(dst, e)
			}
		}
		return dst, nil
	})
	var entry []byte
	n := int64(0)
	if se.queue != nil {
		n = se.queue.Len()
	}
	b = binary.AppendUvarint(b, uint64(n))
	for ; n > 0; n-- {
		e := s.head(se)
		if e == nil || se.queue.Len() != n {
			return nil, false
		}
		b = wire.AppendBytes(b, queue.AppendEntry(entry[:0], e))
		size := int64(e.Size())
		se.queue.Take(false, s.batch(se.space))
		s.left(se, size)
	}
	return b, true
}

// restoreMoving has the sessions of a partition that was gained wait for the connections
// that were open at its former owner. bySid are those that the store has.
func (s *Shard) restoreMoving(p *space, bySid map[uint64]*sess) error {
	return s.scan(p, partition.KindMoving, func(key, value []byte) error {
		token, _, err := partition.SplitU64(key)
		if err != nil {
			return err
		}
		whole, ok := s.restoreConnection(p, token, value, bySid)
		if !ok {
			s.set.log.Warn("a connection that moved cannot go on: its record is not readable, or is of a session that has ended", slog.Int("partition", int(p.id)))
		}
		if !ok || whole { // what the session gets from now on is not in the record
			s.batch(p).Delete(key)
		}
		return nil
	})
}

func (s *Shard) restoreConnection(p *space, token uint64, value []byte, bySid map[uint64]*sess) (whole, ok bool) {
	r := wire.Reader{Data: value}
	version, flags, sid, nextID := r.U8(), r.U8(), r.U64(), r.U16()
	connectedAt, dropped := r.I64(), r.U64()
	resend := make([]uint16, r.Length(2))
	for i := range resend {
		resend[i] = r.U16()
	}
	var up link.Up
	if err := link.DecodeUp(r.Bytes(), 1, &up); err != nil || r.Bad || version != recordVersion || len(up.Frames) != 1 || up.Frames[0].Open == nil {
		return false, false
	}
	whole = flags&carryWhole != 0
	o := up.Frames[0].Open
	t := s.set.Tenant(o.Tenant)
	se := bySid[sid]
	switch {
	case se != nil && (se.ClientID != o.ClientID || se.Durable() == whole || !se.Attached()), se == nil && !whole:
		return whole, false
	case se == nil:
		if s.session(t, o.ClientID) != nil {
			return whole, false
		}
		s.passing++
		se = &sess{tenant: t, space: p}
		se.Session = *session.New(passing|s.passing, o.ClientID)
		s.put(se)
		t.all.Add(1)
	}
	inMax := o.Limits.ReceiveMaximum
	if inMax == 0 {
		inMax = 65535
	}
	since := s.now // of an older broker
	if flags&carrySince != 0 && len(r.Data) >= 8 {
		since = int64(binary.BigEndian.Uint64(r.Data[len(r.Data)-8:]))
	}
	se.awaited = &awaited{token: token, since: since, until: resumeUntil(since, s.now), carried: session.Carried{
		ReceiveMaximum: o.ReceiveMaximum, InboundMaximum: inMax, Window: o.Limits.Settings.Inflight, Retry: o.Limits.Settings.Retry, Resend: resend,
	}}
	se.Connect(nextID)
	s.introduce(se, o)
	se.connectedAt, se.dropped = connectedAt, dropped
	if whole && !s.readParts(se, &r) {
		s.drop(se, dropUnreadable)
	}
	s.setOnline(se, true) // groups choose it as one that has its connection
	s.due(se)
	return whole, true
}
