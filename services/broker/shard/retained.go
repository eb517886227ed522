// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"
	"strings"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/retain"
	"github.com/manormq/manor/services/broker/session"
)

// mayRetain reports whether the retained message of m's topic, in a partition
// of this shard, fits the tenant's limits. It is asked before the message is
// routed, and only when the tenant is near them. One of a partition that another
// broker serves counts as new: a tenant that has as much as it may here has none
// there.
func (s *Shard) mayRetain(t *Tenant, part partition.ID, m *mqtt.Message, limits *link.Limits) bool {
	s.sweep(t)
	count, grow := int64(1), int64(m.Size())
	if p := s.spaces[part]; p != nil {
		if old := p.retain.Get(t.id, m.Topic); old != nil && !old.Expired(s.now) {
			count, grow = 0, grow-int64(old.Message.Size())
		}
	}
	return (limits.Retained < 0 || count == 0 || s.everywhere(t, ofRetained, limits.Retained) < limits.Retained) &&
		(limits.RetainedBytes < 0 || grow <= 0 || s.everywhere(t, ofRetainedBytes, limits.RetainedBytes)+grow <= limits.RetainedBytes)
}

// nearRetainLimit reports whether mayRetain has to be asked about m.
func (s *Shard) nearRetainLimit(t *Tenant, m *mqtt.Message, limits *link.Limits) bool {
	if len(m.Payload) == 0 || limits.Retained < 0 && limits.RetainedBytes < 0 {
		return false
	}
	return limits.Retained >= 0 && s.everywhere(t, ofRetained, limits.Retained) >= limits.Retained ||
		limits.RetainedBytes >= 0 && s.everywhere(t, ofRetainedBytes, limits.RetainedBytes)+int64(m.Size()) > limits.RetainedBytes
}

// sweepEvery is how often, in milliseconds, a tenant at its limits has its
// expired retained messages looked for.
const sweepEvery = 1000

// sweep deletes the tenant's expired retained messages in every shard: here at
// once, elsewhere soon.
func (s *Shard) sweep(t *Tenant) {
	last := t.swept.Load()
	if s.now-last < sweepEvery || !t.swept.CompareAndSwap(last, s.now) {
		return
	}
	for _, to := range s.set.shards {
		if to != s {
			s.leave(to, item{kind: itemCall, call: func() { to.sweepOwn(t) }})
		}
	}
	s.sweepOwn(t)
}

func (s *Shard) sweepOwn(t *Tenant) {
	var names [][]byte
	for _, id := range t.parts() {
		p := s.spaces[id]
		if p == nil {
			continue
		}
		names = names[:0]
		p.retain.Each(t.id, func(r *retain.Retained) {
			if r.Expired(s.now) {
				names = append(names, r.Message.Topic)
			}
		})
		for _, name := range names {
			s.forgetExpired(p, t, name)
		}
	}
}

// retain sets or deletes the retained message of m's topic in a partition of
// this shard [MQTT-3.3.1-5, -6].
// mark is from before the message was matched.
func (s *Shard) retain(t *Tenant, part partition.ID, m *mqtt.Message, expireAt int64, mark uint64) {
	p := s.spaces[part]
	s.storedIn(p.ledger)
	if len(m.Payload) == 0 {
		if old := p.retain.Delete(t.id, m.Topic, s.batch(p)); old != nil {
			t.retained.Add(-1)
			t.retainedBytes.Add(-int64(old.Message.Size()))
			s.tellRetained(t, p)
		}
		return
	}
	s.keepCell(t, p)
	r := &retain.Retained{Message: m.Clone(), ExpireAt: expireAt, StoredAt: s.now, Mark: mark}
	r.Message.HasExpiry = false
	old := p.retain.Put(t.id, r, s.batch(p))
	t.retainedBytes.Add(int64(m.Size()))
	if old != nil {
		t.retainedBytes.Add(-int64(old.Message.Size()))
		return
	}
	t.retained.Add(1)
	s.tellRetained(t, p)
}

// forgetExpired deletes an expired retained message.
func (s *Shard) forgetExpired(p *space, tenant *Tenant, name []byte) {
	if old := p.retain.Delete(tenant.id, name, s.batch(p)); old != nil {
		tenant.retained.Add(-1)
		tenant.retainedBytes.Add(-int64(old.Message.Size()))
		s.dropped(tenant, dropRetainedExpired)
		s.tellRetained(tenant, p)
	}
}

const (
	// replayPage is how many retained messages a subscriber's shard asks for at
	// a time, replayRoom how many may wait in the queue before it asks for more:
	// a replay is as fast as its reader and never overflows a queue.
	replayPage = 128
	replayRoom = 256
)

// replay is the sending of the retained messages that match one new
// subscription.
type replay struct {
	sub   mqtt.Subscription
	epoch uint32
	// mark is from when the route was there: what is retained with a later one
	// has found it, and comes live.
	mark uint64
	// shards are those still to be asked; cursor says where the first goes on.
	shards []*Shard
	cursor cursor
	// brokers are those to be asked after that; topic says where the first goes on.
	brokers []string
	topic   string
	// lone is a replay of one topic, of partition of; tries counts failures to ask,
	// rounds how often it began anew.
	// wide: it is not known yet who has to be asked.
	lone, wide    bool
	of            partition.ID
	tries, rounds int
	page          []*retain.Retained
	busy          bool
	// behind is how many shards have not yet said that whatever they matched
	// before this subscription's route was there has left them.
	behind int
}

// cursor is a place in the retained messages of a shard.
type cursor struct {
	part  int // index into the tenant's cell
	topic []byte
}

// startReplays begins the replays that a SUBSCRIBE asked for.
func (s *Shard) startReplays(se *sess, o *session.Out) {
	if !se.tenant.mayRetain.Load() && s.set.cluster == nil {
		return
	}
	for i := range o.Subs {
		sub := &o.Subs[i]
		switch {
		case o.Reasons[i].Failed(), strings.HasPrefix(sub.Filter, topic.SharePrefix):
			continue
		case sub.RetainHandling == mqtt.RetainDontSend,
			sub.RetainHandling == mqtt.RetainSendIfNew && !o.New[i]:
			continue
		}
		r := &replay{sub: *sub, epoch: se.Epoch(), mark: o.Mark}
		switch {
		case s.set.cluster != nil: // narrow says whom to ask, later
		case topic.HasWildcard(sub.Filter):
			r.shards = append(r.shards, s.set.shards...)
		default:
			r.shards = []*Shard{s.set.shardOf(partition.Choose(se.tenant.parts(), sub.Filter))}
		}
		s.begin(se, r)
	}
}

// begin puts a replay in its place: a new one of a filter takes the place of
// the unfinished one, so there are never more than subscriptions.
//
// A publisher either sees the new route or has matched before it was there. In
// the second case its message is on its way to the retained messages at the
// latest when its turn ends, and every shard is asked to answer behind that:
// the message comes live or retained, never neither; and not both, but if the
// publisher matches in the very moment in which the route is made.
func (s *Shard) begin(se *sess, r *replay) {
	at := slices.IndexFunc(se.replays, func(x *replay) bool { return x.sub.Filter == r.sub.Filter })
	if at < 0 {
		se.replays = append(se.replays, r)
	} else {
		se.replays[at] = r
	}
	if s.set.cluster != nil {
		r.behind, r.wide = 1, true
		s.set.settle(func() {
			s.call(func() {
				r.behind = 0
				s.replay(se)
			})
		})
		return
	}
	r.behind = len(s.set.shards)
	for _, from := range s.set.shards {
		s.leave(from, item{kind: itemCall, call: func() {
			from.leave(s, item{kind: itemCall, call: func() {
				if r.behind--; r.behind == 0 {
					s.replay(se)
				}
			}})
		}})
	}
}

// stopReplay ends the replay of a filter that is unsubscribed.
func (s *Shard) stopReplay(se *sess, filter string) {
	se.replays = slices.DeleteFunc(se.replays, func(r *replay) bool { return r.sub.Filter == filter })
}

// replay goes on with the session's first replay as far as its windows and its
// queue allow.
func (s *Shard) replay(se *sess) {
	for len(se.replays) > 0 {
		r := se.replays[0]
		if r.busy || r.behind > 0 || se.ch == nil || r.epoch != se.Epoch() {
			return
		}
		if r.wide {
			r.wide = false
			s.narrow(r, se.tenant)
		}
		for len(r.page) > 0 {
			if !s.replayOne(se, r, r.page[0]) {
				return
			}
			r.page[0] = nil
			r.page = r.page[1:]
		}
		if len(r.shards) == 0 {
			if len(r.brokers) > 0 {
				s.askPage(se, r)
				return
			}
			se.replays = se.replays[1:]
			continue
		}
		r.busy = true
		from := r.shards[0]
		s.leave(from, item{kind: itemCall, call: func() { from.page(se, r) }})
		return
	}
}

// replayOne sends one retained message. It reports false if it must wait.
func (s *Shard) replayOne(se *sess, r *replay, m *retain.Retained) bool {
	if m.Expired(s.now) {
		return true
	}
	if !s.pace(se) {
		return false
	}
	qos := qosOf(se.granted(r.sub.QoS), m.Message.QoS)
	var ids []uint32
	if r.sub.ID != 0 {
		ids = []uint32{r.sub.ID}
	}
	if qos == mqtt.AtMostOnce {
		if !se.TakeCredit(link.DeliverCost(m.Message.Size(), len(ids))) {
			return false
		}
		se.paced(1)
		s.deliverTo(se.ch, link.DownFrame{Retain: true, SubscriptionIDs: ids}, &m.Message, m.ExpireAt, 0)
		return true
	}
	if se.waiting() >= replayRoom {
		return false
	}
	se.paced(1)
	e := &queue.Entry{Message: &m.Message, QoS: qos, Retain: true, ExpireAt: m.ExpireAt, IDs: ids}
	q := se.queueOf()
	q.Append(e, 0, s.batch(se.space))
	se.tenant.queueMessages.Add(1)
	se.tenant.queueBytes.Add(int64(e.Size()))
	s.touch(se)
	// The pump would come back here: it is called once the page is done.
	r.busy = true
	s.pump(se)
	r.busy = false
	return true
}

// page collects the next page of a replay in the shard that has the messages,
// and sends it back.
func (s *Shard) page(se *sess, r *replay) {
	t := se.tenant
	found := make([]*retain.Retained, 0, replayPage)
	at, parts := r.cursor, t.parts()
	for ; at.part < len(parts) && len(found) < replayPage; at = (cursor{part: at.part + 1}) {
		p := s.spaces[parts[at.part]]
		if p == nil {
			continue
		}
		first := len(found)
		p.retain.Match(t.id, r.sub.Filter, at.topic, func(name []byte, m *retain.Retained) bool {
			found = append(found, m)
			at.topic = name
			return len(found) < replayPage
		})
		full := len(found) == replayPage
		found = append(found[:first], s.current(p, t, found[first:], r.mark)...)
		if full {
			break
		}
	}
	done := at.part >= len(parts)
	home := se.shard()
	s.leave(home, item{kind: itemCall, call: func() {
		r.busy, r.page, r.cursor = false, found, at
		if done {
			r.shards, r.cursor = r.shards[1:], cursor{}
		}
		home.replay(se)
	}})
}

// current takes out of found what has expired, which is deleted, and what came after mark.
// The messages lie scattered in memory, and are looked at in a loop of their own so that
// the processor fetches many at a time: in the walk that found them each would be waited
// for.
func (s *Shard) current(p *space, t *Tenant, found []*retain.Retained, mark uint64) []*retain.Retained {
	now, expired := s.now, 0
	for _, m := range found {
		if m.Expired(now) {
			expired++
		}
	}
	left := found[:0]
	for _, m := range found {
		switch {
		case expired > 0 && m.Expired(now):
			s.forgetExpired(p, t, m.Message.Topic)
		case m.Mark <= mark:
			left = append(left, m)
		}
	}
	return left
}
