// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/route"
)

// view is a message on its way through one turn.
type view struct {
	msg *mqtt.Message
	// owned says that msg may be kept; else a copy is made when the first session
	// has to. kept is what sessions keep, if any does.
	owned    bool
	kept     *mqtt.Message
	serial   uint64
	expireAt int64
	// from, or fromID of another broker's, is the session that has published.
	from   *sess
	fromID mqtt.ClientID
	retain bool
	// awaited says that a publisher waits for PUBACK, and would send the message
	// again if it did not come.
	awaited bool
	// most bounds the receivers, with those in other shards; nil does not.
	most *receivers
}

// storedBody is the body of the message that is being fanned out.
type storedBody struct {
	in *space
	id uint64
}

// isFrom reports whether se, or another session of its client id, has published it.
func (v *view) isFrom(se *sess) bool {
	return se == v.from || se.kin != nil && slices.Contains(se.kin.members, v.from) || v.fromID != "" && se.ClientID == v.fromID
}

// keep returns the message in memory of its own.
func (v *view) keep() *mqtt.Message {
	switch {
	case v.kept != nil:
	case v.owned:
		v.kept = v.msg
	default:
		c := v.msg.Clone()
		v.kept = &c
	}
	return v.kept
}

// hit is one session that a publish is for, with the options of all its
// matching subscriptions taken together.
type hit struct {
	se     *sess
	qos    mqtt.QoS
	retain bool
	id     uint32
	ids    []uint32
}

// fanOut delivers v to the sessions behind lists and to the members in direct.
// A session with several matching filters gets one copy, at the highest QoS
// and with every Subscription Identifier [MQTT-3.3.4-2 to -5]. What is
// written is noted by storedIn.
func (s *Shard) fanOut(v *view, lists []route.Part[*sess], to []direct, origin partition.ID, n uint64) {
	s.hits = s.hits[:0]
	for i := range lists {
		if n != 0 && !s.firstTime(lists[i].ID, origin, n) {
			continue
		}
		subs := lists[i].List.Subs
		for k := range subs {
			sub := &subs[k]
			if sub.NoLocal && v.isFrom(sub.Session) {
				continue // [MQTT-3.8.3-3]
			}
			s.addHit(sub, v)
		}
	}
	s.hits = s.clip(v)
	s.stats.Matches.Add(uint64(len(s.hits)))
	durable := 0
	if v.msg.Size() > queue.BodyThreshold && v.msg.QoS > 0 {
		for i := range s.hits {
			if h := &s.hits[i]; h.se.Durable() && h.qos > 0 {
				durable++
			}
		}
	}
	for i := range s.hits {
		h := &s.hits[i]
		ids := h.ids
		if ids == nil && h.id != 0 {
			ids = []uint32{h.id}
		}
		if h.se.kin != nil {
			s.enqueueKin(h.se, v, h.qos, h.retain, ids, "", durable > 1)
		} else {
			s.enqueue(h.se, v, h.qos, h.retain, ids, "", durable > 1)
		}
		h.se, h.ids = nil, nil
	}
	for _, b := range s.bodies {
		b.in.queues.Settle(s.batch(b.in), b.id)
	}
	s.bodies = s.bodies[:0]
	for i := range to {
		if n != 0 && !s.firstTime(to[i].se.space.id, origin, n) {
			continue
		}
		if v.most != nil && v.most.take(1) == 0 {
			s.clipped(to[i].se.tenant, v, 1)
			continue
		}
		s.toMember(to[i].se, &to[i].sub, v)
	}
}

func (s *Shard) addHit(o *route.Sub[*sess], v *view) {
	se := o.Session
	if se.mark == v.serial && se.hit < len(s.hits) && s.hits[se.hit].se == se {
		h := &s.hits[se.hit]
		h.qos = max(h.qos, qosOf(o.QoS, v.msg.QoS))
		h.retain = h.retain || o.Retained && v.retain
		if o.ID != 0 {
			if h.ids == nil && h.id != 0 {
				h.ids = []uint32{h.id}
			}
			h.ids = append(h.ids, o.ID)
		}
		return
	}
	se.mark, se.hit = v.serial, len(s.hits)
	s.hits = append(s.hits, hit{
		se: se, qos: qosOf(o.QoS, v.msg.QoS), retain: o.Retained && v.retain, id: o.ID,
	})
}

// judgement is whether the exact publish of a fanOut is new to a partition.
type judgement struct {
	part  partition.ID
	isNew bool
}

// gap reports whether the partition lacks an exact publish that comes before the
// one that is being judged: that was refused, and comes again, and then this one.
func (s *Shard) gap(p *space, origin partition.ID) bool {
	for _, a := range s.judging.after {
		if a.Partition == p.id && p.applied[origin] < a.N {
			s.refuse(s.judging)
			return true
		}
	}
	return false
}

// firstTime reports whether the exact publish (origin, n) is new to a
// partition, and notes it. The numbers of one origin come in rising order. All
// filters and members of a partition share one judgement.
func (s *Shard) firstTime(part, origin partition.ID, n uint64) bool {
	for _, j := range s.judged {
		if j.part == part {
			return j.isNew
		}
	}
	p := s.spaces[part]
	s.storedIn(p.ledger)
	if s.set.cluster != nil && s.gap(p, origin) {
		s.judged = append(s.judged, judgement{part, false})
		return false
	}
	isNew := p.applied[origin] < n
	if isNew {
		p.applied[origin] = n
		s.putApplied(p, origin, n)
	}
	s.judged = append(s.judged, judgement{part, isNew})
	return isNew
}
