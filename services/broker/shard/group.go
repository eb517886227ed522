// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"cmp"
	"log/slog"
	"math"
	"slices"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/route/share"
	"github.com/manormq/manor/services/broker/session"
)

// toMember delivers v to the chosen member of a shared subscription, or to
// another one if that has gone meanwhile.
func (s *Shard) toMember(se *sess, sub *mqtt.Subscription, v *view) {
	if se.gone {
		s.toAnother(se, sub.Filter, v)
		return
	}
	var ids []uint32
	if sub.ID != 0 {
		ids = []uint32{sub.ID}
	}
	s.stats.Matches.Add(1)
	if se.kin != nil {
		s.enqueueKin(se, v, qosOf(se.granted(sub.QoS), v.msg.QoS), sub.RetainAsPublished && v.retain, ids, sub.Filter, false)
		return
	}
	s.enqueue(se, v, qosOf(se.granted(sub.QoS), v.msg.QoS), sub.RetainAsPublished && v.retain, ids, sub.Filter, false)
}

// toAnother gives v to another member of the group, if se was stored rather to
// one that is stored too.
func (s *Shard) toAnother(se *sess, filter string, v *view) {
	if m, ok := s.another(se, filter); ok {
		s.handOver(se, m, v, filter)
		return
	}
	s.drop(se, dropNoMember)
}

// another is who takes a message of a group over from se now.
func (s *Shard) another(se *sess, filter string) (m share.Member[*sess], ok bool) {
	g := s.groupOf(se, filter)
	if g == nil {
		return m, false
	}
	m, _, ok = s.successor(g, se)
	return m, ok
}

// successor is who takes the messages of a member over. While a stored member
// lives, only another stored one does: what was acknowledged stays stored.
func (s *Shard) successor(g *share.Group[*sess], se *sess) (m share.Member[*sess], online, ok bool) {
	if !se.Durable() {
		return g.Pick(se)
	}
	if m, online, ok = g.PickDurable(se); ok || !se.ending && !se.gone {
		return m, online, ok
	}
	return g.Pick(se)
}

// handOver gives v, which was for se, to member m. Between shards the message
// crosses under a number of se's partition if it must be exact.
func (s *Shard) handOver(se *sess, m share.Member[*sess], v *view, key string) {
	if s.set.cluster != nil && (m.Far || m.Session.space != se.space) {
		s.handOn(se, m, v, key)
		return
	}
	to := m.Session.shard()
	if to == s {
		s.toMember(m.Session, &m.Sub, v)
		return
	}
	msg := v.keep()
	pc := &parcel{
		tenant: se.tenant, msg: msg, expireAt: v.expireAt,
		direct: []direct{{m.Session, m.Sub}},
	}
	if se.Durable() && m.Durable && msg.QoS > mqtt.AtMostOnce {
		// The record stands in the batch that takes the message out of se's
		// queue, so a crash leaves it in exactly one place.
		pc.origin = se.space.id
		pc.n = s.writeOutbox(se.space, &outboxRecord{
			tenant: se.tenant.id, client: se.ClientID, expireAt: v.expireAt, msg: msg,
			direct: []directRecord{{m.Session.space.id, m.Session.ClientID, m.Sub.Filter}},
		})
		slot, gen := s.newPending()
		q := &s.pending[slot]
		q.waits, q.exact, q.part = 1, pc.n, se.space
		pc.home, pc.slot, pc.gen = s, slot, gen
		s.storedIn(se.space.ledger)
	}
	s.leave(to, item{kind: itemParcel, parcel: pc, size: msg.Size()})
}

func (s *Shard) groupOf(se *sess, filter string) (g *share.Group[*sess]) {
	return se.tenant.routes.Group(filter, shareRest(filter))
}

// regroupPage is how many waiting messages of a member are handed over in one
// turn; the rest follows in later ones.
const regroupPage = 256

// regroup gives what a member that has gone had not acknowledged to the other
// members of its groups: what waited, and what was in flight at QoS 1. QoS 2 in
// flight stays with its session. A session that
// lives on keeps its messages unless another member has a connection.
func (s *Shard) regroup(se *sess) {
	if se.groups == 0 || se.queue == nil {
		return
	}
	again := false
	// [MQTT-4.8.2-4] [MQTT-4.8.2-5]
	s.eachGroup(se, func(g *share.Group[*sess], key string) {
		for more := true; more; {
			if _, online, ok := s.successor(g, se); !ok || !se.ending && !online {
				return
			}
			more = s.regroupSome(se, key, math.MaxUint64, regroupPage)
			if more && !se.ending {
				again = true
				return
			}
		}
	})
	if again {
		s.call(func() {
			if se.ch == nil && !se.gone {
				s.regroup(se)
			}
		})
	}
}

// regroupSome hands over what is in flight, and up to limit of what waits with a
// seq below before. It reports whether there may be more.
func (s *Shard) regroupSome(se *sess, key string, before uint64, limit int) (more bool) {
	return s.pass(se, key, s.takeInflight(se, key), before, limit)
}

// pass gives entries to other members of the group, and then up to limit of what
// waits with a seq below before. It reports whether there may be more.
func (s *Shard) pass(se *sess, key string, entries []*queue.Entry, before uint64, limit int) (more bool) {
	waiting, more, err := se.queue.TakeGroup(key, before, limit, s.batch(se.space))
	if err != nil {
		s.set.log.Error("queue cannot be read to hand its shared messages over",
			slog.String("tenant", se.tenant.id), slog.String("client_id", string(se.ClientID)), slog.Any("error", err))
	}
	for _, e := range waiting {
		s.left(se, int64(e.Size()))
	}
	for _, e := range append(entries, waiting...) {
		s.stats.Redelivered.Add(1)
		s.serial++
		m := *e.Message
		m.QoS = e.QoS
		v := view{msg: &m, owned: true, serial: s.serial, expireAt: e.ExpireAt, retain: e.Retain}
		if to, ok := s.another(se, key); ok {
			s.handOver(se, to, &v, key)
		} else if !se.gone && !se.ending { // the others have gone since somebody was asked for
			s.enqueue(se, &v, e.QoS, e.Retain, e.IDs, key, false)
		} else {
			s.drop(se, dropNoMember)
		}
	}
	return more
}

// underWay is a delivery that is under way.
type underWay struct {
	id  uint16
	seq uint64
}

// flights are the deliveries of a session in those states, in their order.
func (se *sess) flights(in func(session.State) bool) (out []underWay) {
	se.Inflights(func(id uint16, st session.State, seq uint64) {
		if in(st) && seq != 0 {
			out = append(out, underWay{id, seq})
		}
	})
	slices.SortFunc(out, func(a, b underWay) int { return cmp.Compare(a.seq, b.seq) })
	return out
}

// takeInflight takes the QoS 1 deliveries of a group out of the session.
func (s *Shard) takeInflight(se *sess, key string) []*queue.Entry {
	var out []*queue.Entry
	for _, f := range se.flights(func(st session.State) bool { return st == session.SentQoS1 }) {
		if se.queue.GroupOf(f.seq) != key {
			continue
		}
		e, err := se.queue.Reload(f.seq)
		if err != nil {
			continue // not yet readable: it stays here
		}
		fx := session.Effects{}
		se.Forget(f.id, &fx)
		se.queue.Release(f.seq, s.batch(se.space))
		s.save(se, fx.Save)
		out = append(out, e)
	}
	return out
}
