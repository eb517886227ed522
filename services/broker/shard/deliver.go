// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"log/slog"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/session"
)

// enqueue brings a message to one session. What is written is noted by storedIn.
func (s *Shard) enqueue(se *sess, v *view, qos mqtt.QoS, retain bool, ids []uint32, group string, share bool) {
	if se.gone {
		count(&se.tenant.flows[s.index].unhandled)
		return
	}
	if qos == mqtt.AtMostOnce {
		s.deliverNow(se, v, retain, ids)
		return
	}
	if se.ch == nil && !se.Durable() && se.awaited == nil {
		count(&se.tenant.flows[s.index].unhandled)
		return
	}
	// A session that ends with its connection, has nothing waiting and room in
	// its windows needs no copy of the message.
	if !se.Durable() && group == "" && se.limits.Settings.Retry == 0 && se.kin == nil && se.waiting() == 0 && se.Ready() {
		ev := session.Event{Kind: session.Enqueued, QoS: qos, Size: link.DeliverCost(v.msg.Size(), len(ids))}
		s.through = queue.Entry{Message: v.msg, QoS: qos, Retain: retain, ExpireAt: v.expireAt, IDs: ids, Serial: v.serial}
		s.stepEntry(se, &ev, nil, &s.through)
		s.through = queue.Entry{}
		return
	}
	if v.expireAt != 0 && s.now >= v.expireAt {
		s.drop(se, dropExpired)
		return
	}
	q := se.queueOf()
	deferred := qos == mqtt.AtLeastOnce && group == "" && !share && s.mayDefer(se, v)
	e := &queue.Entry{
		Message: v.keep(), QoS: qos, Retain: retain, ExpireAt: v.expireAt, IDs: ids, Group: group, Serial: v.serial,
	}
	if messages, bytes := se.room(); !q.Fits(e.Size(), messages, bytes) && !s.makeRoom(se, e, messages, bytes) {
		s.drop(se, dropQueueFull)
		return
	}
	if deferred {
		s.sendUnwritten(e, se)
		return
	}
	if group == "" && !share && s.maySendWritten(se) {
		s.sendWritten(e, se)
		return
	}
	if s.storageFull(se.tenant, e.Size()) {
		s.drop(se, dropStorage)
		return
	}
	var body uint64
	if share && se.Durable() {
		body = s.bodyFor(se.space, e.Message)
	}
	s.writeAll(se) // the store holds what came first, or nothing of it
	b := s.batch(se.space)
	before := b.Len()
	if se.limits.Settings.LIFO {
		q.Push(e, body, b, se.flying)
	} else {
		q.Append(e, body, b)
	}
	count(&se.tenant.flows[s.index].queued)
	se.tenant.queueMessages.Add(1)
	se.tenant.queueBytes.Add(int64(e.Size()))
	s.touch(se)
	s.pump(se)
	if group != "" {
		s.watch(se)
	}
	if se.Durable() && b.Len() > before {
		s.storedIn(se.space.ledger)
	}
}

// maySendWritten reports whether the next message of a session can be sent at once, with
// its delivery's record to hold it.
func (s *Shard) maySendWritten(se *sess) bool {
	return s.set.inside.Load() && se.Durable() && se.kin == nil && !se.limits.Settings.LIFO && !se.space.sealed() &&
		se.waiting() == 0 && se.Ready() && se.queueOf().MayKeep()
}

// sendWritten sends a message that nothing waits before: the record of its delivery
// holds it.
func (s *Shard) sendWritten(e *queue.Entry, se *sess) {
	s.writeAll(se) // what was sent before is in the store first
	se.queueOf().Pass(e)
	ev := session.Event{Kind: session.Enqueued, QoS: e.QoS, Seq: e.Seq, Size: link.DeliverCost(e.Message.Size(), len(e.IDs))}
	s.inside = e
	s.stepEntry(se, &ev, nil, e)
	s.inside = nil
	s.storedIn(se.space.ledger)
}

// deliverNow sends at QoS 0, or drops and counts: nothing waits at QoS 0.
func (s *Shard) deliverNow(se *sess, v *view, retain bool, ids []uint32) {
	if se.awaited != nil {
		s.keepLate(se, v, retain, ids)
		return
	}
	if se.ch == nil {
		s.stats.Unhandled.Add(1)
		count(&se.tenant.flows[s.index].unhandled)
		return
	}
	if !se.TakeCredit(link.DeliverCost(v.msg.Size(), len(ids))) {
		s.drop(se, dropSlow)
		return
	}
	s.deliverTo(se.ch, link.DownFrame{Retain: retain, SubscriptionIDs: ids}, v.msg, v.expireAt, v.serial)
}

// pump sends what waits for a session as far as its windows allow: its queue,
// then the retained messages that it asked for.
func (s *Shard) pump(se *sess) {
	if se.gone || se.space.sealed() {
		return
	}
	if se.queue != nil {
		s.pumpQueue(se)
	}
	if len(se.replays) > 0 && se.waiting() < replayRoom {
		s.replay(se)
	}
	if m := se.member; m != nil && se.ch != nil {
		if busy := se.waiting() > 0 || !se.Ready(); busy != m.busy.Load() {
			m.busy.Store(busy)
		}
	}
}

func (s *Shard) pumpQueue(se *sess) {
	for se.queue.Len() > 0 && se.Ready() {
		e := s.head(se)
		if e == nil {
			return // the batch that holds it is on its way to the store
		}
		size := int64(e.Size())
		if e.ExpireAt != 0 && s.now >= e.ExpireAt {
			s.expire(se, e)
			continue
		}
		ev := session.Event{Kind: session.Enqueued, QoS: e.QoS, Seq: e.Seq, Size: link.DeliverCost(e.Message.Size(), len(e.IDs))}
		s.unwrittenFor(se, e)
		se.queue.Take(e.Group != "" || (se.limits.Settings.Retry != 0 || se.kin != nil) && !se.Durable(), s.batch(se.space))
		s.left(se, size)
		s.stepEntry(se, &ev, nil, e)
	}
}

// head is the entry at the head of a queue; nil if there is none, or if it
// cannot be read yet. What the store cannot give back is counted and passed
// over, so that it does not hold up what comes behind it.
func (s *Shard) head(se *sess) *queue.Entry {
	before, size := se.queue.Len(), se.queue.Bytes()
	e, err := se.queue.Head()
	if err != nil {
		s.set.log.Error("queue cannot be read from the store",
			slog.String("tenant", se.tenant.id), slog.String("client_id", string(se.ClientID)), slog.Any("error", err))
		return nil
	}
	se.tenant.queueMessages.Add(se.queue.Len() - before)
	se.tenant.queueBytes.Add(se.queue.Bytes() - size)
	for range se.queue.TakeBad(s.batch(se.space)) {
		s.drop(se, dropUnreadable)
	}
	return e
}

func (s *Shard) expire(se *sess, e *queue.Entry) {
	se.queue.Drop(s.batch(se.space))
	s.left(se, int64(e.Size()))
	s.drop(se, dropExpired)
}

// dropExpired makes room in a full queue.
func (s *Shard) dropExpired(se *sess) {
	for e := s.head(se); e != nil && e.ExpireAt != 0 && s.now >= e.ExpireAt; e = s.head(se) {
		s.expire(se, e)
	}
}

// bodyFor returns the stored body of the message that is being fanned out, in
// the partition p.
func (s *Shard) bodyFor(p *space, m *mqtt.Message) uint64 {
	for _, b := range s.bodies {
		if b.in == p {
			return b.id
		}
	}
	id := s.next(p)
	p.queues.PutBody(s.batch(p), id, m)
	s.bodies = append(s.bodies, storedBody{p, id})
	return id
}

func (s *Shard) left(se *sess, size int64) {
	se.tenant.queueMessages.Add(-1)
	se.tenant.queueBytes.Add(-size)
}

// drop counts a message that a session will not get, and says so once for each
// session and second: an operator acts on the client, not on the message.
func (s *Shard) drop(se *sess, why dropReason) {
	s.dropped(se.tenant, why)
	se.dropped++
	if r := why.noted(); r != notNoted {
		s.note(se.tenant, se.ClientID, r, 1)
	}
	if s.now-se.droppedSaid >= 1000 {
		se.droppedSaid = s.now
		s.set.log.Warn("messages dropped",
			slog.String("tenant", se.tenant.id), slog.String("client_id", string(se.ClientID)),
			slog.String("reason", why.String()), slog.Uint64("total", se.dropped))
	}
}

// dropped counts a message that a tenant has lost.
func (s *Shard) dropped(t *Tenant, why dropReason) {
	s.stats.dropped(why)
	count(&t.flows[s.index].drops[why])
}
