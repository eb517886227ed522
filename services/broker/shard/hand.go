// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/retain"
	"github.com/manormq/manor/services/broker/session"
)

// What a tenant that is Leaving has in the wrong partition is handed to the right one in
// pieces. A partition forgets what it has handed when the other has committed all of it.
// Until then it has it, and hands it again after whatever happens: since nothing of the
// tenant changes meanwhile, that is the same again.

const (
	// handBytes is how much is handed, or taken up, at once, about, and pieceBytes how long a
	// piece of a session is.
	handBytes  = 512 << 10
	pieceBytes = 128 << 10
)

// The kinds of pieces.
const (
	pieceSession  = 's'
	pieceRetained = 'r'
)

// portion is a part of what is handed over: of of a session, counted from 0, or a retained
// message.
type portion struct {
	kind  byte
	name  string
	index uint16
	of    uint16
	data  []byte
}

// The parts of a session that is handed over.
const (
	handedRecord  = 1 << iota // its own record
	handedParts               // the records beside it: it outlives its connection
	handedCarried             // a connection that goes on
)

// leaves reports whether a partition has nothing of the tenant any more that belongs to
// another one; hand has it hand that over.
func (s *Shard) leaves(t *Tenant, c *cell, p *space, hand bool, r *Relocation) bool {
	sessions, topics := s.misplaced(t, c, p)
	r.Sessions += len(sessions)
	r.Retained += len(topics)
	switch {
	case len(sessions)+len(topics) == 0:
		return !p.handing[t] // else that is not committed yet
	case hand && !p.handing[t]:
		if p.handing == nil {
			p.handing = make(map[*Tenant]bool)
		}
		p.handing[t] = true
		s.handSome(t, c, p, sessions, topics)
	}
	return false
}

// misplaced are the sessions and the topics of retained messages that belong to another
// partition by the list where the tenant goes.
func (s *Shard) misplaced(t *Tenant, c *cell, p *space) (sessions []*sess, topics []string) {
	for id, head := range s.sessions[t] {
		if head.space == p && partition.Choose(c.to, string(id)) != p.id {
			sessions = append(sessions, head)
		}
	}
	p.retain.Each(t.id, func(r *retain.Retained) {
		if name := string(r.Message.Topic); partition.Choose(c.to, name) != p.id {
			topics = append(topics, name)
		}
	})
	slices.SortFunc(sessions, func(a, b *sess) int { return strings.Compare(string(a.ClientID), string(b.ClientID)) })
	slices.Sort(topics)
	return sessions, topics
}

// handSome hands over the first of what is misplaced, and of the rest what goes to the same
// partition, as much as one hand holds; and then the next.
func (s *Shard) handSome(t *Tenant, c *cell, p *space, sessions []*sess, topics []string) {
	var first string
	if len(sessions) > 0 {
		first = string(sessions[0].ClientID)
	} else {
		first = topics[0]
	}
	to := partition.Choose(c.to, first)
	var pieces []portion
	var gone []*sess
	var forgotten []string
	size := 0
	for _, head := range sessions {
		if size >= s.set.hands.most || partition.Choose(c.to, string(head.ClientID)) != to {
			continue
		}
		for _, se := range head.all() {
			data, err := s.wrapSession(se)
			if err != nil {
				p.handing[t] = false
				if !errors.Is(err, queue.ErrUncommitted) {
					s.set.log.Error("a session cannot be read for another partition, and its tenant does not go on",
						slog.String("tenant", t.id), slog.String("client_id", string(se.ClientID)), slog.Int("partition", int(p.id)), slog.Any("error", err))
				}
				return
			}
			pieces = appendPieces(pieces, se.recordName(), data, s.set.hands.piece)
			size += len(data)
		}
		gone = append(gone, head)
	}
	for _, name := range topics {
		if m := p.retain.Get(t.id, []byte(name)); m != nil && size < s.set.hands.most && partition.Choose(c.to, name) == to {
			data := wrapRetained(m)
			pieces = append(pieces, portion{kind: pieceRetained, name: name, of: 1, data: data})
			size += len(data)
			forgotten = append(forgotten, name)
		}
	}
	s.handPieces(t, c, p, to, pieces, func() {
		for _, head := range gone {
			for _, se := range head.all() {
				s.forgetHanded(se)
			}
		}
		for _, name := range forgotten {
			s.forgetRetained(t, p, name)
		}
		s.stats.Handed.Add(uint64(len(gone)))
		s.stats.HandedRetained.Add(uint64(len(forgotten)))
		s.wait(p.ledger, waiter{after: func() {
			sessions, topics := s.misplaced(t, c, p)
			// What is sealed has given what it has in memory alone to its next owner, who hands
			// it over: this one has none of it any more.
			if len(sessions)+len(topics) == 0 || t.cell.Load() != c || p.ceding != nil {
				p.handing[t] = false
				return
			}
			s.handSome(t, c, p, sessions, topics)
		}})
	})
}

// appendPieces cuts a session into pieces of size bytes.
func appendPieces(dst []portion, name string, data []byte, size int) []portion {
	of := max(1, (len(data)+size-1)/size)
	for i := range of {
		end := min(len(data), (i+1)*size)
		dst = append(dst, portion{kind: pieceSession, name: name, index: uint16(i), of: uint16(of), data: data[i*size : end]})
	}
	return dst
}

// handPieces hands over pieces, one hand after another, and calls done when all are committed
// in the partition to. If one is not, what comes next is asked for again (Relocate).
func (s *Shard) handPieces(t *Tenant, c *cell, p *space, to partition.ID, pieces []portion, done func()) {
	n, size := 0, 0
	for n < len(pieces) && (n == 0 || size+len(pieces[n].data) <= s.set.hands.most) {
		size += len(pieces[n].data)
		n++
	}
	b := appendHand(nil, t.id, c.revision, to, pieces[:n])
	left := pieces[n:]
	answer := func(ok bool) {
		s.call(func() {
			switch {
			case s.spaces[p.id] != p:
			case !ok || p.ceding != nil || t.cell.Load() != c:
				p.handing[t] = false
			case len(left) > 0:
				s.handPieces(t, c, p, to, left, done)
			default:
				done()
			}
		})
	}
	owner, _ := s.set.cluster.Owner(to)
	switch owner {
	case "":
		answer(false)
	case s.set.cluster.Self():
		s.set.TakeHanded(b, answer)
	default:
		if err := s.set.cluster.Hand(owner, b, answer); err != nil {
			answer(false)
		}
	}
}

// appendHand encodes a hand: version u8, tenant, revision u64 of the record by which it is
// handed, partition u16, and the pieces: kind u8, name, index u16, of u16, data.
func appendHand(dst []byte, tenant string, revision uint64, to partition.ID, pieces []portion) []byte {
	dst = wire.AppendBytes(append(dst, recordVersion), tenant)
	dst = binary.BigEndian.AppendUint64(dst, revision)
	dst = binary.BigEndian.AppendUint16(dst, uint16(to))
	dst = binary.AppendUvarint(dst, uint64(len(pieces)))
	for i := range pieces {
		x := &pieces[i]
		dst = wire.AppendBytes(append(dst, x.kind), x.name)
		dst = binary.BigEndian.AppendUint16(dst, x.index)
		dst = binary.BigEndian.AppendUint16(dst, x.of)
		dst = wire.AppendBytes(dst, x.data)
	}
	return dst
}

// wrapSession makes of a session what another partition can make it of again. Of one without
// records it takes what it has.
func (s *Shard) wrapSession(se *sess) (b []byte, err error) {
	var carried []byte
	var flags byte
	if a := se.awaited; a != nil {
		ok := false
		if carried, ok = s.wrap(se, a.token, a.carried, a.since); ok {
			flags |= handedCarried
			if !se.Durable() {
				se.packed = carried
			}
		} else {
			s.drop(se, dropUnreadable)
		}
	}
	if se.Recorded() {
		flags |= handedRecord
	}
	if se.Durable() {
		flags |= handedParts
	}
	b = append(b, recordVersion, flags)
	if se.Recorded() {
		b = wire.AppendBytes(b, appendSession(nil, se))
	}
	if se.Durable() {
		if b, err = s.wrapParts(b, se); err != nil {
			return nil, err
		}
	}
	if flags&handedCarried != 0 {
		b = binary.BigEndian.AppendUint64(b, se.awaited.token)
		b = wire.AppendBytes(b, carried)
	}
	return b, nil
}

// wrapParts appends the records of a session beside its own: subscriptions, identifiers of
// QoS 2, what is in flight, and what waits.
func (s *Shard) wrapParts(b []byte, se *sess) ([]byte, error) {
	b, err := appendParts(b, se, func(dst []byte, f *session.Record) ([]byte, error) {
		if f.State == session.Released {
			return dst, nil
		}
		e, err := se.queueOf().Reload(f.Seq)
		if err != nil {
			return nil, err
		}
		return queue.AppendWhole(dst, e), nil
	})
	if err != nil {
		return nil, err
	}
	n := int64(0)
	if se.queue != nil {
		n = se.queue.Len()
	}
	b = binary.AppendUvarint(b, uint64(n))
	if n == 0 {
		return b, nil
	}
	found := int64(0)
	var entry []byte
	err = se.queue.Each(func(e *queue.Entry) error {
		b = wire.AppendBytes(b, queue.AppendWhole(entry[:0], e))
		found++
		return nil
	})
	if err == nil && found != n {
		err = errRecord
	}
	return b, err
}

// inboundIDs are the identifiers of QoS 2 that the client has not released, in order, so that
// who hands a session over again hands over the same.
func inboundIDs(se *sess) (b []byte) {
	var ids []uint16
	se.Inbounds(func(id uint16) { ids = append(ids, id) })
	slices.Sort(ids)
	for _, id := range ids {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return b
}

// wrapRetained encodes a retained message: ExpireAt and StoredAt u64, what it has beside its
// bytes, and those.
func wrapRetained(r *retain.Retained) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(r.ExpireAt))
	b = binary.BigEndian.AppendUint64(b, uint64(r.StoredAt))
	return queue.AppendMessage(appendFacts(b, &r.Message), &r.Message)
}

// forgetHanded forgets a session that another partition has.
func (s *Shard) forgetHanded(se *sess) {
	if se.gone {
		return
	}
	if se.awaited != nil {
		s.dropLate(se, s.endWait(se))
	}
	for _, sub := range se.Subscriptions() {
		s.removeRoute(se, sub.Filter)
	}
	se.gone = true
	se.tenant.all.Add(-1)
	se.uncount()
	s.wipe(se)
	s.part(se)
	s.remove(se)
	s.due(se)
}

// forgetRetained forgets a retained message that another partition has.
func (s *Shard) forgetRetained(t *Tenant, p *space, name string) {
	if old := p.retain.Delete(t.id, []byte(name), s.batch(p)); old != nil {
		t.retained.Add(-1)
		t.retainedBytes.Add(-int64(old.Message.Size()))
		s.tellRetained(t, p)
	}
}
