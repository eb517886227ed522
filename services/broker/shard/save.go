// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/session"
)

// save writes the records of a step into the open batch.
func (s *Shard) save(se *sess, records []session.Record) {
	if len(records) == 0 {
		return
	}
	p, b := se.space.id, s.batch(se.space)
	var unwritten uint16 // the identifier of a delivery that the store does not have
	for i := range records {
		r := &records[i]
		k := s.keyBuf[:0]
		switch r.Kind {
		case session.PutSession:
			k = partition.KeyNamed(k, p, partition.KindSession, se.tenant.id, se.recordName())
			s.valueBuf = appendSession(s.valueBuf[:0], se)
			b.Put(k, s.valueBuf)
		case session.PutSubscription:
			k = append(partition.KeyU64(k, p, partition.KindSubscription, se.ID), r.Sub.Filter...)
			s.valueBuf = appendOptions(s.valueBuf[:0], r.Sub)
			b.Put(k, s.valueBuf)
		case session.DeleteSubscription:
			k = append(partition.KeyU64(k, p, partition.KindSubscription, se.ID), r.Filter...)
			b.Delete(k)
		case session.PutInbound:
			k = partition.KeyU64U16(k, p, partition.KindInbound, se.ID, r.Packet)
			b.Put(k, nil)
		case session.DeleteInbound:
			k = partition.KeyU64U16(k, p, partition.KindInbound, se.ID, r.Packet)
			b.Delete(k)
		case session.PutInflight:
			switch u := se.unwritten[r.Seq]; {
			case u != nil:
				u.inflight = *r
			case s.inside != nil && s.inside.Seq == r.Seq:
				s.putInside(se, r, s.inside)
			default:
				s.putInflight(se, r)
			}
		case session.DeleteInflight:
			if r.Packet != unwritten {
				k = queue.DeliveryKey(k, p, se.ID, r.Packet)
				b.Delete(k)
			}
		case session.DeleteQueued:
			if u := se.unwritten[r.Seq]; u != nil {
				unwritten = u.inflight.Packet
				if u.stored {
					se.queue.Release(r.Seq, b)
				}
				s.acknowledged(u)
			} else if se.queue != nil && r.Seq != 0 {
				se.queue.Release(r.Seq, b)
			}
		}
		s.keyBuf = k[:0]
	}
}

func (s *Shard) putInflight(se *sess, r *session.Record) {
	s.valueBuf = appendInflight(s.valueBuf[:0], r)
	s.batch(se.space).Put(queue.DeliveryKey(make([]byte, 0, 14), se.space.id, se.ID, r.Packet), s.valueBuf)
}

// putInside writes a delivery with its message in it.
func (s *Shard) putInside(se *sess, r *session.Record, e *queue.Entry) {
	s.valueBuf = se.queueOf().Keep(e, r.Packet, appendInflight(s.valueBuf[:0], r))
	s.batch(se.space).Put(queue.DeliveryKey(make([]byte, 0, 14), se.space.id, se.ID, r.Packet), s.valueBuf)
}

// wipe deletes every record of a session that has ended.
func (s *Shard) wipe(se *sess) {
	if !se.Recorded() && se.queue == nil {
		return
	}
	p, b := se.space.id, s.batch(se.space)
	if se.Recorded() {
		b.Delete(partition.KeyNamed(nil, p, partition.KindSession, se.tenant.id, se.recordName()))
	}
	if se.queue != nil {
		if err := se.queue.Wipe(b); err != nil {
			s.set.log.Error("queue of an ended session cannot be read for deleting it", "error", err)
		}
	}
	if !se.Durable() {
		return
	}
	for _, sub := range se.Subscriptions() {
		b.Delete(append(partition.KeyU64(nil, p, partition.KindSubscription, se.ID), sub.Filter...))
	}
	se.Inflights(func(id uint16, _ session.State, _ uint64) {
		b.Delete(queue.DeliveryKey(nil, p, se.ID, id))
	})
	se.Inbounds(func(id uint16) {
		b.Delete(partition.KeyU64U16(nil, p, partition.KindInbound, se.ID, id))
	})
}

const recordVersion = 1

var errRecord = errors.New("shard: stored record is not readable")

const (
	sessionAttached = 1 << 0
	sessionWill     = 1 << 1
	sessionDurable  = 1 << 2
	sessionLIFO     = 1 << 3
	sessionUpgrade  = 1 << 4
	sessionBalance  = 1 << 5
	sessionMember   = 1 << 6
)

// appendSession encodes the session record: version, flags, sid, expiry,
// deadlines, next packet identifier, limits of the queue, the timeout
// of a member if there is one, and the will.
func appendSession(dst []byte, se *sess) []byte {
	r := se.Stored()
	var flags byte
	if r.Attached {
		flags |= sessionAttached
	}
	if r.Will != nil {
		flags |= sessionWill
	}
	if r.Durable {
		flags |= sessionDurable
	}
	if se.limits.Settings.LIFO {
		flags |= sessionLIFO
	}
	if se.limits.Settings.UpgradeQoS {
		flags |= sessionUpgrade
	}
	if se.limits.Settings.Balance {
		flags |= sessionBalance
	}
	if se.limits.Settings.Member != 0 {
		flags |= sessionMember
	}
	dst = append(dst, recordVersion, flags)
	dst = binary.BigEndian.AppendUint64(dst, se.ID)
	dst = binary.BigEndian.AppendUint32(dst, r.Expiry)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.WillAt))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.ExpireAt))
	dst = binary.BigEndian.AppendUint16(dst, r.NextID)
	dst = binary.BigEndian.AppendUint64(dst, uint64(se.limits.QueueMessages))
	dst = binary.BigEndian.AppendUint64(dst, uint64(se.limits.QueueBytes))
	if se.limits.Settings.Member != 0 {
		dst = binary.BigEndian.AppendUint16(dst, se.limits.Settings.Member)
	}
	if r.Will != nil {
		dst = binary.BigEndian.AppendUint32(dst, r.Will.Delay)
		dst = appendFacts(dst, &r.Will.Message)
		dst = queue.AppendMessage(dst, &r.Will.Message)
	}
	return dst
}

// appendFacts encodes what a message has beside its bytes.
func appendFacts(dst []byte, m *mqtt.Message) []byte {
	var flags byte
	if m.Retain {
		flags |= 1
	}
	if m.HasExpiry {
		flags |= 2
	}
	return binary.BigEndian.AppendUint32(append(dst, byte(m.QoS), flags), m.Expiry)
}

func parseFacts(b []byte, m *mqtt.Message) {
	m.QoS, m.Retain, m.HasExpiry = mqtt.QoS(b[0]), b[1]&1 != 0, b[1]&2 != 0
	m.Expiry = binary.BigEndian.Uint32(b[2:])
}

type sessionRecord struct {
	session.Stored
	sid                       uint64
	queueMessages, queueBytes int64
	lifo, upgrade, balance    bool
	member                    uint16
}

func parseSession(b []byte) (sessionRecord, error) {
	var r sessionRecord
	if len(b) < 48 || b[0] != recordVersion {
		return r, errRecord
	}
	flags := b[1]
	r.Attached, r.Durable = flags&sessionAttached != 0, flags&sessionDurable != 0
	r.lifo, r.upgrade, r.balance = flags&sessionLIFO != 0, flags&sessionUpgrade != 0, flags&sessionBalance != 0
	r.sid = binary.BigEndian.Uint64(b[2:])
	r.Expiry = binary.BigEndian.Uint32(b[10:])
	r.WillAt = int64(binary.BigEndian.Uint64(b[14:]))
	r.ExpireAt = int64(binary.BigEndian.Uint64(b[22:]))
	r.NextID = binary.BigEndian.Uint16(b[30:])
	r.queueMessages = int64(binary.BigEndian.Uint64(b[32:]))
	r.queueBytes = int64(binary.BigEndian.Uint64(b[40:]))
	b = b[48:]
	if flags&sessionMember != 0 {
		if len(b) < 2 {
			return r, errRecord
		}
		r.member, b = binary.BigEndian.Uint16(b), b[2:]
	}
	if flags&sessionWill != 0 {
		if len(b) < 10 {
			return r, errRecord
		}
		m, err := queue.ParseMessage(b[10:])
		if err != nil {
			return r, err
		}
		parseFacts(b[4:], m)
		r.Will = &mqtt.Will{Message: *m, Delay: binary.BigEndian.Uint32(b)}
	}
	return r, nil
}

// appendOptions encodes the options of a subscription; its filter is the key.
func appendOptions(dst []byte, sub *mqtt.Subscription) []byte {
	o := byte(sub.QoS) | byte(sub.RetainHandling)<<4
	if sub.NoLocal {
		o |= 1 << 2
	}
	if sub.RetainAsPublished {
		o |= 1 << 3
	}
	return binary.BigEndian.AppendUint32(append(dst, recordVersion, o), sub.ID)
}

func parseOptions(b []byte, filter string) (mqtt.Subscription, error) {
	if len(b) != 6 || b[0] != recordVersion {
		return mqtt.Subscription{}, fmt.Errorf("subscription %q: %w", filter, errRecord)
	}
	return mqtt.Subscription{
		Filter: filter, QoS: mqtt.QoS(b[1] & 3), NoLocal: b[1]&(1<<2) != 0, RetainAsPublished: b[1]&(1<<3) != 0,
		RetainHandling: mqtt.RetainHandling(b[1] >> 4), ID: binary.BigEndian.Uint32(b[2:]),
	}, nil
}

func appendInflight(dst []byte, r *session.Record) []byte {
	dst = append(dst, recordVersion, byte(r.State))
	dst = binary.BigEndian.AppendUint32(dst, r.Size)
	dst = binary.BigEndian.AppendUint64(dst, r.Seq)
	return binary.BigEndian.AppendUint64(dst, r.Order)
}

// parseInflight decodes what appendInflight wrote; an entry may follow it.
func parseInflight(b []byte) (session.Record, error) {
	if len(b) < queue.DeliveryHead || b[0] != recordVersion {
		return session.Record{}, errRecord
	}
	return session.Record{
		State: session.State(b[1]), Size: binary.BigEndian.Uint32(b[2:]),
		Seq: binary.BigEndian.Uint64(b[6:]), Order: binary.BigEndian.Uint64(b[14:]),
	}, nil
}

func (s *Shard) putApplied(p *space, origin partition.ID, n uint64) {
	s.keyBuf = binary.BigEndian.AppendUint16(partition.Key(s.keyBuf[:0], p.id, partition.KindApplied), uint16(origin))
	s.batch(p).Put(s.keyBuf, binary.BigEndian.AppendUint64(nil, n))
}
