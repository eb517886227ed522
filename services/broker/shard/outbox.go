// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"fmt"
	"log/slog"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/route"
	"github.com/manormq/manor/services/broker/session"
)

// An outbox record is an exact publish that other shards have not all answered:
// it is in the same batch as the identifier that makes the publisher's
// duplicates be recognised. After a crash it is sent again under its number,
// and a partition that has applied that number skips it. So the message is in
// every queue once, whichever batches the crash took.
type outboxRecord struct {
	tenant   string
	client   mqtt.ClientID
	packet   uint16
	expireAt int64
	parts    []partition.ID
	direct   []directRecord
	keep     bool
	retain   partition.ID
	msg      *mqtt.Message
	// handed says that the publisher has its acknowledgement, plain that it is not
	// exact: it may have arrived, and what arrives of it has no number.
	handed, plain bool
}

// The flags of an outbox record.
const (
	outboxKeep = 1 << iota
	outboxHanded
	outboxPlain
)

// directRecord names the member of a shared subscription that was chosen.
type directRecord struct {
	part   partition.ID
	client mqtt.ClientID
	filter string
}

// putOutbox writes the record and returns its number.
func (s *Shard) putOutbox(se *sess, p *session.Publication, v *view, m *mqtt.Message, others uint64) uint64 {
	r := outboxRecord{tenant: se.tenant.id, client: se.ClientID, packet: p.Packet, expireAt: v.expireAt, msg: m}
	for i := range s.fans {
		if others&(1<<i) == 0 {
			continue
		}
		f := &s.fans[i]
		for k := range f.lists {
			r.parts = append(r.parts, f.lists[k].ID)
		}
		for _, d := range f.direct {
			r.direct = append(r.direct, directRecord{d.se.space.id, d.se.ClientID, d.sub.Filter})
		}
		if f.keep {
			r.keep, r.retain = true, f.retain
		}
	}
	return s.writeOutbox(se.space, &r)
}

func (s *Shard) writeOutbox(p *space, r *outboxRecord) uint64 {
	n := s.next(p)
	s.putOutboxRecord(p, n, r)
	return n
}

func (s *Shard) putOutboxRecord(p *space, n uint64, r *outboxRecord) {
	s.valueBuf = r.append(s.valueBuf[:0])
	s.batch(p).Put(partition.KeyU64(nil, p.id, partition.KindOutbox, n), s.valueBuf)
}

func (s *Shard) deleteOutbox(p *space, n uint64) {
	s.batch(p).Delete(partition.KeyU64(nil, p.id, partition.KindOutbox, n))
}

func appendString[T ~string](dst []byte, v T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(v))), v...)
}

func (r *outboxRecord) append(dst []byte) []byte {
	var flags byte
	if r.keep {
		flags = outboxKeep
	}
	if r.handed {
		flags |= outboxHanded
	}
	if r.plain {
		flags |= outboxPlain
	}
	dst = append(dst, recordVersion, flags)
	dst = binary.BigEndian.AppendUint16(dst, r.packet)
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.retain))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.expireAt))
	dst = appendFacts(dst, r.msg)
	dst = appendString(dst, r.tenant)
	dst = appendString(dst, r.client)
	dst = binary.AppendUvarint(dst, uint64(len(r.parts)))
	for _, p := range r.parts {
		dst = binary.BigEndian.AppendUint16(dst, uint16(p))
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.direct)))
	for _, d := range r.direct {
		dst = binary.BigEndian.AppendUint16(dst, uint16(d.part))
		dst = appendString(dst, d.client)
		dst = appendString(dst, d.filter)
	}
	return queue.AppendMessage(dst, r.msg)
}

// reader takes fields off a record; a short record leaves it bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return make([]byte, 8)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) count() int {
	v, w := binary.Uvarint(r.b)
	if w <= 0 || v > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	r.b = r.b[w:]
	return int(v)
}

func (r *reader) text() string {
	n := r.count()
	if r.bad {
		return ""
	}
	return string(r.take(n))
}

func parseOutbox(b []byte) (outboxRecord, error) {
	if len(b) < 20 || b[0] != recordVersion {
		return outboxRecord{}, errRecord
	}
	var o outboxRecord
	o.keep, o.handed, o.plain = b[1]&outboxKeep != 0, b[1]&outboxHanded != 0, b[1]&outboxPlain != 0
	o.packet = binary.BigEndian.Uint16(b[2:])
	o.retain = partition.ID(binary.BigEndian.Uint16(b[4:]))
	o.expireAt = int64(binary.BigEndian.Uint64(b[6:]))
	facts := b[14:20]
	r := reader{b: b[20:]}
	o.tenant, o.client = r.text(), mqtt.ClientID(r.text())
	for n := r.count(); n > 0 && !r.bad; n-- {
		o.parts = append(o.parts, partition.ID(binary.BigEndian.Uint16(r.take(2))))
	}
	for n := r.count(); n > 0 && !r.bad; n-- {
		d := directRecord{part: partition.ID(binary.BigEndian.Uint16(r.take(2)))}
		d.client, d.filter = mqtt.ClientID(r.text()), r.text()
		o.direct = append(o.direct, d)
	}
	if r.bad {
		return o, errRecord
	}
	m, err := queue.ParseMessage(r.b)
	if err != nil {
		return o, err
	}
	parseFacts(facts, m)
	o.msg = m
	return o, nil
}

// resendOutbox sends what the last owner of a partition, or the last run of the
// broker, left in its outbox. It runs in a turn, where the broker is alone after every
// partition was restored.
func (s *Shard) resendOutbox(p *space) error {
	start, end := partition.Range(p.id, partition.KindOutbox)
	it := s.set.store.Scan(start, end)
	defer it.Close()
	for it.Next() {
		n, _, err := partition.SplitU64(it.Key())
		if err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
		r, err := parseOutbox(it.Value())
		if err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
		if s.set.cluster != nil {
			s.restoreOutbox(p, n, &r)
		} else {
			s.sendAgain(p, n, &r)
		}
	}
	return it.Err()
}

func (s *Shard) sendAgain(p *space, n uint64, r *outboxRecord) {
	t := s.set.Tenant(r.tenant)
	fans := make([]fan, len(s.set.shards))
	wanted := make(map[partition.ID]bool, len(r.parts))
	for _, id := range r.parts {
		wanted[id] = true
	}
	for _, e := range t.routes.AppendMatches(nil, r.msg.Topic) {
		for _, part := range e.Parts() {
			if wanted[part.ID] {
				f := &fans[s.set.shardOf(part.ID).index]
				f.lists = append(f.lists, part)
			}
		}
	}
	for _, d := range r.direct {
		to := s.set.shardOf(d.part)
		member := to.session(t, d.client)
		if member == nil {
			s.set.log.Warn("member of a shared subscription that a message was for has gone",
				slog.String("tenant", t.id), slog.String("client_id", string(d.client)))
			s.dropped(t, dropNoMember)
			continue
		}
		sub := mqtt.Subscription{Filter: d.filter, QoS: mqtt.ExactlyOnce}
		for _, x := range member.Subscriptions() {
			if x.Filter == d.filter {
				sub = x
			}
		}
		f := &fans[to.index]
		f.direct = append(f.direct, direct{member, sub})
	}
	if r.keep {
		f := &fans[s.set.shardOf(r.retain).index]
		f.keep, f.retain = true, r.retain
		t.mayRetain.Store(true)
	}
	slot, gen := s.newPending()
	q := &s.pending[slot]
	q.exact, q.part, q.packet, q.hit = n, p, r.packet, true
	q.se = s.session(t, r.client)
	q.token = session.Restored
	for i := range fans {
		f := &fans[i]
		if len(f.lists)+len(f.direct) == 0 && !f.keep {
			continue
		}
		q.waits++
		pc := &parcel{
			tenant: t, msg: r.msg, expireAt: r.expireAt, origin: p.id, n: n,
			lists: append([]route.Part[*sess](nil), f.lists...), direct: append([]direct(nil), f.direct...),
			keep: f.keep, retain: f.retain, home: s, slot: slot, gen: gen,
		}
		s.leave(s.set.shards[i], item{kind: itemParcel, parcel: pc, size: r.msg.Size()})
	}
	if q.waits == 0 {
		s.finishPending(slot)
	}
}

// shareRest is the filter inside that of a shared subscription.
func shareRest(filter string) string {
	_, rest, _, _ := topic.ParseShare(filter)
	return rest
}
