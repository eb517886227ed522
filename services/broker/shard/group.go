// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"cmp"
	"log/slog"
	"slices"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/route/share"
	"github.com/manormq/manor/services/broker/session"
)

// toMember delivers v to the chosen member of a shared subscription, or to
// another one if that has gone meanwhile.
func (s *Shard) toMember(se *sess, sub *mqtt.Subscription, v *view) bool {
	if se.gone {
		return s.toAnother(se, sub.Filter, v)
	}
	var ids []uint32
	if sub.ID != 0 {
		ids = []uint32{sub.ID}
	}
	s.stats.Matches.Add(1)
	return s.enqueue(se, v, min(sub.QoS, v.msg.QoS), sub.RetainAsPublished && v.retain, ids, sub.Filter, false)
}

// toAnother gives v to another member of the group. It reports whether
// something went into the open batch.
func (s *Shard) toAnother(se *sess, filter string, v *view) bool {
	g := s.groupOf(se, filter)
	if g != nil {
		if m, _, ok := g.Pick(se); ok {
			return s.handOver(se, m, v)
		}
	}
	s.stats.dropped(dropNoMember)
	s.set.log.Warn("message for a shared subscription without members dropped",
		slog.String("tenant", se.tenant.id), slog.String("filter", filter))
	return false
}

// handOver gives v, which was for se, to member m. Between shards the message
// crosses under a number of se's partition if it must be exact.
func (s *Shard) handOver(se *sess, m share.Member[*sess], v *view) bool {
	to := m.Session.shard()
	if to == s {
		return s.toMember(m.Session, &m.Sub, v)
	}
	msg := v.keep()
	pc := &parcel{
		tenant: se.tenant, msg: msg, expireAt: v.expireAt, limits: *se.limits,
		direct: []direct{{m.Session, m.Sub}},
	}
	stored := false
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
		stored = true
	}
	s.leave(to, item{kind: itemParcel, parcel: pc, size: msg.Size()})
	return stored
}

func (s *Shard) groupOf(se *sess, filter string) (g *share.Group[*sess]) {
	return se.tenant.routes.Group(filter, shareRest(filter))
}

// regroup gives what a member that has gone had not acknowledged to the other
// members of its groups: what waited, and what was in flight at QoS 1. QoS 2 in
// flight stays with its session [MQTT-4.8.2-4] [MQTT-4.8.2-5]. A session that
// lives on keeps its messages unless another member has a connection.
func (s *Shard) regroup(se *sess, ended bool) {
	if se.groups == 0 || se.queue == nil {
		return
	}
	s.eachGroup(se, func(g *share.Group[*sess], key string) {
		if _, online, ok := g.Pick(se); !ok || !ended && !online {
			return
		}
		entries := s.takeInflight(se, key)
		waiting, err := se.queue.TakeGroup(key, s.batch)
		for _, e := range waiting {
			s.left(se, int64(e.Size()))
		}
		if err != nil {
			s.set.log.Error("queue cannot be read to hand its shared messages over",
				slog.String("tenant", se.tenant.id), slog.String("client_id", string(se.ClientID)), slog.Any("error", err))
		}
		for _, e := range append(entries, waiting...) {
			s.stats.Redelivered.Add(1)
			s.serial++
			m := *e.Message
			m.QoS = e.QoS
			v := view{msg: &m, owned: true, serial: s.serial, expireAt: e.ExpireAt, retain: e.Retain}
			s.toAnother(se, key, &v)
		}
	})
}

// takeInflight takes the QoS 1 deliveries of a group out of the session.
func (s *Shard) takeInflight(se *sess, key string) []*queue.Entry {
	type flight struct {
		id  uint16
		seq uint64
	}
	var flights []flight
	se.Inflights(func(id uint16, st session.State, seq uint64) {
		if st == session.SentQoS1 && seq != 0 {
			flights = append(flights, flight{id, seq})
		}
	})
	slices.SortFunc(flights, func(a, b flight) int { return cmp.Compare(a.seq, b.seq) })
	var out []*queue.Entry
	for _, f := range flights {
		e, err := se.queue.Reload(f.seq)
		if err != nil || e.Group != key {
			continue // not yet readable, or not the group's: it stays here
		}
		fx := session.Effects{}
		se.Forget(f.id, &fx)
		se.queue.Release(f.seq, s.batch)
		s.save(se, fx.Save)
		out = append(out, e)
	}
	return out
}
